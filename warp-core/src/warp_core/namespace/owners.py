"""Whose the files of a volume are: users and groups, by the numbers in inodes' rows, and how much each has.

Counted are files that have a row of their own: one object each, for all their names, with the size that the row says; also while a
file without a name is still open. Objects that were only ever put over S3 are an account's, not a user's.

A volume counts once somebody in it has a limit (`VolumeRow.owned`): each change of an inode's row adds its difference to the
counters of whom the file belongs to, by merges in the same commit, so that they are exact across a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from warp_core.errors import Busy, InvalidArgument
from warp_core.interfaces.quotas import Quota, check_quota
from warp_core.metadata import counters
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.inodes import decode_inode
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.owned import differences, owners_of
from warp_core.namespace.pools import Amount
from warp_core.namespace.recount import every
from warp_core.namespace.rows import FILE, VolumeRow
from warp_core.namespace.tree import Volume

LIMITED_MAX: Final = (
    400  # users and groups of one volume with limits: they lie in its row, which each change reads
)
ATTEMPTS: Final = 10  # counts of a volume that changes meanwhile


async def set_owner_quota(
    namespace: Namespace, name: str, owner: str, quota: Quota | None
) -> Volume:
    """Give a user ("uid:1000") or a group ("gid:100") of a volume limits, or none.

    Raises:
        VolumeNotFound, InvalidArgument
        Busy: It is the first limit of its kind, and the volume changes too much to be counted.
    """
    if quota is not None:
        check_quota(quota)
    volume = await namespace.volumes.get(name)
    if quota is not None and not volume.row.owned:
        await _set(namespace, name, owned=True)  # from here on changes count what they change
        if not await correct_owners(namespace, name):
            raise Busy(
                f"volume {name!r} changes too much to be counted: try again when it does less"
            )

    def limits(row: VolumeRow) -> dict[str, Quota]:
        found = {each: limit for each, limit in row.limits.items() if each != owner}
        if quota is not None:
            found[owner] = quota
        if len(found) > LIMITED_MAX:
            raise InvalidArgument(f"{len(found)} users and groups with limits > {LIMITED_MAX}")
        return found

    return await _set(namespace, name, limits=limits)


async def _set(namespace: Namespace, name: str, **fields: object) -> Volume:
    from msgspec.structs import replace

    async def change(row: VolumeRow, _: object) -> VolumeRow:
        return replace(
            row, **{key: value(row) if callable(value) else value for key, value in fields.items()}
        )

    return await namespace.volumes.update(name, change)


async def held_by_owners(namespace: Namespace, volume: Volume) -> dict[str, Amount]:
    """Return what a volume's counters say that each user and group has."""
    found: dict[str, Amount] = {}
    view = namespace.store.view()
    try:
        start, end = (volume.prefix + key for key in keys.OWNERS)
        while page := await view.scan(start, end):
            for row in page:
                owner = row.key[len(volume.prefix) + 1 :].decode()
                found[owner] = Amount(*counters(row.value, 2))
            start = page[-1].key + b"\0"
    finally:
        view.close()
    return {owner: amount for owner, amount in found.items() if amount != Amount()}


async def recount_owners(namespace: Namespace, volume: Volume) -> dict[str, Amount]:
    """Return what the rows of a volume say that each user and group has."""
    found: dict[str, Amount] = {}
    async for _, value in every(namespace, volume, b"I", keys.after(b"I")):
        inode = decode_inode(value)
        if inode.kind == FILE:
            for owner in owners_of(inode):
                before = found.get(owner, Amount())
                found[owner] = Amount(before.objects + 1, before.bytes + inode.size)
    return found


async def miscounted_owners(namespace: Namespace, name: str) -> Mapping[str, Amount] | None:
    """Return by how much the counters of users and groups are off; None where the volume changes all the time.

    As with a volume's own counters, two counts have to agree, and the counters to stand still meanwhile.
    """
    volume = await namespace.volumes.get(name)
    if not volume.row.owned:
        return {}
    seen: Mapping[str, Amount] | None = None
    for _ in range(ATTEMPTS):
        before = await held_by_owners(namespace, volume)
        counted = await recount_owners(namespace, volume)
        if await held_by_owners(namespace, volume) != before:
            seen = None
            continue
        off = differences(counted, before)
        if not off or off == seen:
            return off
        seen = off
    return None


async def correct_owners(namespace: Namespace, name: str) -> bool:
    """Take what is miscounted out of the counters; False where that could not be found out."""
    off = await miscounted_owners(namespace, name)
    if off is None:
        return False
    if off:
        wrong = list(off.items())
        for start in range(0, len(wrong), 50):  # rows of one commit

            async def body(
                change: Change, part: list[tuple[str, Amount]] = wrong[start : start + 50]
            ) -> None:
                for owner, (objects, bytes) in part:
                    change.rows.merge(keys.owner_key(owner), add=(-objects, -bytes))

            await namespace.change(name, body)
        namespace.quotas.owners.doubt((await namespace.volumes.get(name)).number)
    return True
