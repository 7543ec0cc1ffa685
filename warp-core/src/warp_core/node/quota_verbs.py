"""What the control socket does with quotas."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from warp_core.errors import InvalidArgument, NotFound
from warp_core.interfaces.quotas import NO_QUOTA, Quota
from warp_core.namespace.owners import set_owner_quota
from warp_core.namespace.pools import Pool
from warp_core.namespace.quotas import set_volume_quota
from warp_core.node.account_verbs import account_name
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Role, Verb


class VolumeQuota(msgspec.Struct, frozen=True):
    """Limits of a volume, or of an `owner` ("uid:1000", "gid:100") in it. None leaves one as it is, one below zero takes it away."""

    name: str
    owner: str = ""
    bytes: int | None = None
    objects: int | None = None
    soft_bytes: int | None = None
    soft_objects: int | None = None
    grace_s: float | None = None


class AccountQuota(msgspec.Struct, frozen=True):
    """Limits of all volumes of an account together; as those of a volume."""

    account: str
    bytes: int | None = None
    objects: int | None = None
    soft_bytes: int | None = None
    soft_objects: int | None = None
    grace_s: float | None = None


class OneVolume(msgspec.Struct, frozen=True):
    """A volume, or a user or group in it."""

    name: str
    owner: str = ""


class OneAccount(msgspec.Struct, frozen=True):
    """An account."""

    account: str


LIMITS = ("bytes", "objects", "soft_bytes", "soft_objects", "grace_s")


async def quota_set(node: Node, arguments: VolumeQuota, progress: Progress) -> object:
    """Give a volume limits."""
    volumes = node.namespace.volumes
    row = (await volumes.get(arguments.name)).row
    if arguments.owner:
        owner = _owner(arguments.owner)
        quota = _changed(row.limits.get(owner), arguments)
        await set_owner_quota(node.namespace, arguments.name, owner, quota)
        if quota is None:
            return {"name": f"{arguments.name} {owner}", "cleared": True}
        return await quota_show(node, OneVolume(arguments.name, owner), progress)
    await set_volume_quota(volumes, arguments.name, _changed(row.quota, arguments))
    return await quota_show(node, OneVolume(arguments.name), progress)


async def quota_show(node: Node, arguments: OneVolume, progress: Progress) -> object:
    """Tell the limits of a volume, and what it holds of them."""
    volume = await node.namespace.volumes.get(arguments.name)
    if arguments.owner:
        owner = _owner(arguments.owner)
        if owner not in volume.row.limits:
            raise NotFound(f"{owner} has no quota in volume {arguments.name!r}")
        owned = await node.namespace.quotas.owners.of(volume)
        return _pool(node, dict(owned)[owner])
    pool = await node.namespace.quotas.pool(volume=arguments.name)
    if pool is None:
        raise NotFound(
            f"volume {arguments.name!r} has no quota: `warp quota set {arguments.name}` gives it one"
        )
    return _pool(node, pool)


async def quota_clear(node: Node, arguments: OneVolume, progress: Progress) -> object:
    """Take the limits of a volume away, or of a user or group in it."""
    if arguments.owner:
        owner = _owner(arguments.owner)
        await set_owner_quota(node.namespace, arguments.name, owner, None)
        return {"cleared": f"{arguments.name} {owner}"}
    await set_volume_quota(node.namespace.volumes, arguments.name, None)
    return {"cleared": arguments.name}


async def quota_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell every quota."""
    return [
        _pool(node, pool, declared=declared)
        for pool, declared in await node.namespace.quotas.pools()
    ]


async def account_set(node: Node, arguments: AccountQuota, progress: Progress) -> object:
    """Give an account limits."""
    name = account_name(arguments.account)
    quotas = node.namespace.quotas
    pool = await quotas.pool(account=name)
    await quotas.set_account(name, _changed(pool.quota if pool is not None else None, arguments))
    return [each for each in await _accounts(node) if each["name"] == name]


async def account_clear(node: Node, arguments: OneAccount, progress: Progress) -> object:
    """Take the limits of an account away."""
    name = account_name(arguments.account)
    await node.namespace.quotas.set_account(name, None)
    return [{"name": name, "cleared": name}]


async def _accounts(node: Node) -> list[dict[str, object]]:
    return [
        _pool(node, pool, declared=declared)
        for pool, declared in await node.namespace.quotas.pools()
        if not (pool.volume or pool.owner)
    ]


def _owner(text: str) -> str:
    """Return a user or group as limits name them.

    Raises:
        InvalidArgument
    """
    kind, _, number = text.partition(":")
    plain = number.isascii() and number.isdecimal() and int(number) < (1 << 32) - 1
    if kind not in ("uid", "gid") or not plain:
        raise InvalidArgument(f"{text!r} is no user or group: uid:1000 or gid:100")
    return f"{kind}:{int(number)}"


def _changed(old: Quota | None, asked: VolumeQuota | AccountQuota) -> Quota | None:
    """Return limits with those changed that were asked for; None where none is left."""
    limits: dict[str, Any] = {}
    for name in LIMITS:
        value = getattr(asked, name)
        kept = getattr(old, name) if old is not None else None
        limits[name] = kept if value is None else None if value < 0 else value
    quota = Quota(**limits)
    return None if quota == NO_QUOTA else quota


def _pool(node: Node, pool: Pool, *, declared: bool = False) -> dict[str, object]:
    quota, since = pool.quota, pool.over_since_ns
    return {
        "name": pool.volume or pool.owner or pool.name,
        "kind": "volume" if pool.volume else "owner" if pool.owner else "account",
        "held_bytes": pool.bytes,
        "held_objects": pool.objects,
        **{name: getattr(quota, name) for name in LIMITS},
        "soft_passed_since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since / 1e9))
        if since
        else None,
        "grace_over": pool.graceless(node.namespace.clock_ns()),
        "refused": pool.refused,
        "declared": declared,
    }


QUOTA_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("quota.set", Verb(VolumeQuota, quota_set, role=Role.OPERATOR)),
    ("quota.show", Verb(OneVolume, quota_show)),
    ("quota.clear", Verb(OneVolume, quota_clear, role=Role.OPERATOR)),
    ("quota.list", Verb(Nothing, quota_list)),
    ("quota.account.set", Verb(AccountQuota, account_set, role=Role.OPERATOR)),
    ("quota.account.clear", Verb(OneAccount, account_clear, role=Role.OPERATOR)),
)
