"""The service: which volumes have a policy, which snapshot is due, which have had their time, and what deleted ones held.

It runs at the volume's home. What it writes is fenced as everything that the home writes: once another node may have taken over, it
fails. A pass makes or retires snapshots and frees some of what retired ones held; a snapshot's own row says for which kinds it was
made, and the volume's progress row when each kind had its last one, so a restart, or the next home, goes on there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
from warp_core import snapshot_policy
from warp_core.errors import AlreadyExists, Busy, NotFound, ReadOnly, TooLarge, VolumeNotFound
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.logs import get
from warp_core.namespace import keys
from warp_core.namespace.apart import Inodes
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.snapshots import SnapshotInfo, Snapshots
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.snapshot_policy import HOUR_NS, Policy

from warp_snapshots.config import Config

LOOK_S = 10.0  # how often it is seen whether a snapshot is due
LOOKS = 5  # in an hour that is shorter than an hour: a test waits for hours, not for looks
# Of one pass over a volume, so that others get their turn: snapshots retired, and transactions of 24 rows that free what they held.
RETIRES = 16
CLEANS = 8

log = get("warp_snapshots")

_decode_last = msgspec.msgpack.Decoder(dict[str, int]).decode


class SnapshotPolicies(Service):
    """Carries out the policies of all volumes."""

    def __init__(self, config: Config) -> None:
        self._hour_ns = int(float(config.hour) * 1e9)
        self.interval_s = min(LOOK_S, self._hour_ns / HOUR_NS * 3600 / LOOKS)
        self._declared = {each.name: each.policy() for each in config.volume}
        self._last: dict[int, dict[str, int]] = {}  # volume → kind → when it had its last one
        self._told: set[tuple[str, str]] = set()  # what was logged, so that it is once

    async def work(self, context: ServiceContext) -> Report:
        """Look at every volume once."""
        namespace = context.namespace
        assert isinstance(namespace.apart, Inodes), "a node's namespace has files"
        snapshots = Snapshots(namespace, namespace.apart)
        counts: dict[str, int] = {}
        idle = True
        for volume in await namespace.volumes.all():
            try:
                policy = await self._policy_of(namespace, volume)
                if policy is not None:
                    done = await self._carry_out(namespace, snapshots, volume, policy, counts)
                    idle = idle and done
            except (VolumeNotFound, ReadOnly, Busy):  # deleted meanwhile, or rolled back just now
                continue
        return Report(counts, idle)

    async def _policy_of(self, namespace: Namespace, volume: Volume) -> Policy | None:
        """Return a volume's policy; what the configuration declares is written where it is not yet."""
        if volume.row.frozen or volume.row.read_only:
            return None
        name = volume.row.name
        content = (await namespace.volumes.documents(volume)).get(snapshot_policy.DOCUMENT)
        found: Policy | None = None
        if content is not None:
            try:
                found = snapshot_policy.unpack(content)
            except msgspec.DecodeError as error:
                self._tell(name, "policy cannot be read", str(error))
        declared = self._declared.get(name)
        if declared is not None and declared != found:
            content = snapshot_policy.pack(declared)
            await namespace.volumes.set_document(name, snapshot_policy.DOCUMENT, content)
            return declared
        if declared is None and found is not None and found.declared:
            await namespace.volumes.set_document(name, snapshot_policy.DOCUMENT, None)
            return None
        return found

    async def _carry_out(
        self,
        namespace: Namespace,
        snapshots: Snapshots,
        volume: Volume,
        policy: Policy,
        counts: dict[str, int],
    ) -> bool:
        """Make what is due, retire what has had its time, and free some of it; True if there is nothing more to do now."""
        name = volume.row.name
        found = await snapshots.all(name)
        if await self._make(namespace, snapshots, volume, policy, found, counts):
            found = await snapshots.all(name)
        staying = {each.name for each in found if each.holds or each.clones}
        gone = [each for each in snapshot_policy.surplus(policy, found) if each not in staying]
        for each in gone[:RETIRES]:
            with suppress(NotFound, Busy):  # removed, held or cloned meanwhile
                await snapshots.retire(name, each)
                _count(counts, "pruned")
        for _ in range(CLEANS):
            if await snapshots.clean(name):
                return len(gone) <= RETIRES
        return False

    async def _make(
        self,
        namespace: Namespace,
        snapshots: Snapshots,
        volume: Volume,
        policy: Policy,
        found: Sequence[SnapshotInfo],
        counts: dict[str, int],
    ) -> bool:
        last = self._last.get(volume.number)
        if last is None:
            last = self._last[volume.number] = await _load(namespace, volume)
        now_ns = namespace.clock_ns()
        # A crash right behind a snapshot leaves its row without the note of it.
        known = {**last, **snapshot_policy.newest(found)}
        for kind, then in last.items():
            known[kind] = max(known[kind], then) if then <= now_ns else known[kind]
        kinds = snapshot_policy.due(policy, known, now_ns, self._hour_ns)
        if not kinds:
            return False
        name = snapshot_policy.name_at(now_ns)
        try:
            made = await snapshots.create(volume.row.name, name, kinds=tuple(kinds))
        except AlreadyExists:  # of this second
            return False
        except TooLarge as error:  # as many as a volume may have: what has had its time goes first
            self._tell(volume.row.name, "no snapshot is made", str(error))
            return False
        last.update(dict.fromkeys(kinds, made.created_ns))
        await _save(namespace, volume, last)
        _count(counts, "made")
        return True

    def _tell(self, volume: str, what: str, error: str) -> None:
        if (volume, what) not in self._told:
            self._told.add((volume, what))
            log.warning(what, volume=volume, error=error)


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


async def _load(namespace: Namespace, volume: Volume) -> dict[str, int]:
    view = namespace.store.view()
    try:
        value = await volume.rows(ViewSource(view)).get(keys.progress_key("snapshots"))
    finally:
        view.close()
    return _decode_last(value) if value is not None else {}


async def _save(namespace: Namespace, volume: Volume, last: dict[str, int]) -> None:
    async def body(change: Change) -> None:
        row = msgspec.msgpack.encode(last)
        change.rows.put_present(keys.progress_key("snapshots"), row)

    await namespace.change(volume.row.name, body)
