"""The namespace of a node: what the three views share, and how each of their verbs becomes one transaction."""

from __future__ import annotations

import time
from asyncio import CancelledError, Semaphore
from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, suppress
from copy import copy
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from warp_core.containers import Containers, DataPolicy
from warp_core.errors import Ambiguous, Conflict, VolumeNotFound
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.quotas import Quota
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.changes import Apart, Change, Held, TooDeep
from warp_core.namespace.ids import Ids
from warp_core.namespace.leases import FOR_WRITE, Kind
from warp_core.namespace.opens import Access, Opens
from warp_core.namespace.pools import Admission, Amount, Pool
from warp_core.namespace.quotas import Quotas
from warp_core.namespace.retention import LockClock
from warp_core.namespace.rows import Event, decode_volume
from warp_core.namespace.sealing import Sealer
from warp_core.namespace.tree import Rows, ViewSource, Volume, VolumeTransaction
from warp_core.namespace.usage import Usage, usage_at
from warp_core.namespace.volumes import Volumes, demand_thawed, demand_writable
from warp_core.namespace.witnesses import Witnesses

T = TypeVar("T")

MOVES_MAX: Final = 2  # contents moved to another class side by side: background work
NOBODY: Final[frozenset[int]] = frozenset()


class Namespace:
    """Volumes, numbers, opens and the two engines below: one instance a node."""

    def __init__(
        self,
        store: MetaStore,
        containers: Containers,
        *,
        opens: Opens | None = None,
        policy: DataPolicy | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        sealer: Sealer | None = None,
        quotas: Mapping[str, Quota] | None = None,
        classes: Mapping[str, DataPolicy] | None = None,
        placed: Collection[str] = (),
        archives: Collection[str] = (),
    ) -> None:
        """Take what it is built on; nothing is read before the first call.

        Args:
            store: Where rows are, entered.
            containers: Where content is, entered.
            opens: The table of opens, locks and leases; without one nobody holds anything.
            policy: How content is kept in volumes that do not say otherwise.
            clock_ns: Nanoseconds since 1970.
            sealer: Who seals contents; by default one without a key service.
            quotas: Those of accounts that the configuration declares.
            classes: Policies of storage classes, which go before those of volumes.
            placed: Storage classes that have stores for themselves.
            archives: Storage classes whose contents are read only after they were restored.
        """
        self.store = store
        self.containers = containers
        self.opens = opens
        self.classes = classes or {}
        self.placed = frozenset(placed)
        self.archives = frozenset(archives)
        self.restores_day_ns = (
            0  # what restoring means by a day; 0: no service restores anything here
        )
        self.moving = Semaphore(MOVES_MAX)  # contents that change their class
        self.policy = policy or DataPolicy()
        self.clock_ns = clock_ns
        self.sealer = sealer or Sealer(containers.keyring)
        self.ids = Ids(store)
        self.volumes = Volumes(store, clock_ns)
        self.lock_clock = LockClock(store, clock_ns)
        self.quotas = Quotas(store, clock_ns, self.volumes.all, quotas or {}, [self._crossed])
        self.apart: Apart | None = None
        self.witnesses = Witnesses()
        self.journaled = store.capabilities.journaled
        self.relaxed = False  # whether changes may be acknowledged before they are durable
        self._policies: dict[int, tuple[dict[str, str], DataPolicy]] = {}

    def ordered(self) -> Namespace:
        """Return the same namespace whose changes are acknowledged before they are durable, in order, where the engine can do that."""
        other = copy(self)
        other.relaxed = self.store.capabilities.relaxed
        return other

    def policy_of(self, volume: Volume, storage_class: str = "") -> DataPolicy:
        """Return how a volume's content is kept; of a class that has a policy, as that says."""
        if storage_class and (found := self.classes.get(storage_class)) is not None:
            return found
        if storage_class and storage_class in self.placed:
            return msgspec.structs.replace(self.policy_of(volume), place=storage_class)
        own = volume.row.policy
        if not own:
            return self.policy
        known = self._policies.get(volume.number)
        if known is None or known[0] is not own:
            known = self._policies[volume.number] = (own, with_overrides(self.policy, own))
        return known[1]

    def keeps_apart(self, storage_class: str) -> bool:
        """Say whether contents of a class are kept otherwise than their volume says."""
        return storage_class in self.classes or storage_class in self.placed

    async def change(self, name: str, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run a body that changes a volume, in one transaction; leases on what it changes are recalled first.

        It may run several times. What it reads is checked at the commit.

        Raises:
            VolumeNotFound, ReadOnly
            Conflict: Others were faster until the budget ran out.
        """
        try:
            return await self._attempt(name, body, NOBODY)
        except Held as held:
            first = held
        except TooDeep as deep:
            return await self._scaffolded(name, body, deep)
        return await self._recalling(name, body, first)

    async def _scaffolded(
        self, name: str, body: Callable[[Change], Awaitable[T]], deep: TooDeep
    ) -> T:
        """Run a body whose keys lack many directories: make them first, and remove what it did not use."""
        scaffolds: list[tuple[bytes, int]] = []
        try:
            while True:
                number = await self.ids.take()
                scaffolds.append((deep.key, number))
                await self._scaffold(name, deep, number)
                try:
                    return await self._recalling(name, body)
                except TooDeep as again:
                    deep = again
        finally:
            for key, number in scaffolds:
                await self.tidy(name, key, number)

    async def _recalling(
        self, name: str, body: Callable[[Change], Awaitable[T]], held: Held | None = None
    ) -> T:
        """Run a body; where somebody holds what it changes, take that back and keep it while the body runs again."""
        allowed: set[int] = set()
        async with AsyncExitStack() as recalled:
            while True:
                if held is not None:
                    assert self.opens is not None
                    # A disk in use, or a file whose opener denies it, does not lose its name.
                    if held.kinds & Kind.HANDLE:
                        self.opens.check_share(held.volume, held.inode, Access.DELETE)
                    await recalled.enter_async_context(
                        self.opens.changing(held.volume, held.inode, held.kinds)
                    )
                    if self.apart is not None:
                        await self.apart.settle(held.volume, held.inode)
                    allowed.add(held.inode)
                try:
                    return await self._attempt(name, body, allowed)
                except Held as another:
                    held = another

    async def _scaffold(self, name: str, deep: TooDeep, number: int) -> None:
        """Make the directories of a deep key in several transactions; what a crash leaves of them is found by its Y row."""

        async def body(change: Change) -> bool:
            change.rows.put_present(keys.untidy_key(number), deep.key)
            return await change.scaffold(deep.key, versions=deep.versions)

        while not await self._attempt(name, body, NOBODY):
            pass

    async def tidy(self, name: str, key: bytes, number: int) -> None:
        """Remove directories on the way to a key that have nothing below them, and the Y row that says so."""

        async def body(change: Change) -> bool:
            done = await change.tidy(key)
            if done:
                change.rows.delete_present(keys.untidy_key(number))
            return done

        while not await self._attempt(name, body, NOBODY):
            pass

    async def _attempt(
        self, name: str, body: Callable[[Change], Awaitable[T]], allowed: AbstractSet[int]
    ) -> T:
        untidy: list[tuple[bytes, int]] = []
        result = await self._transact(name, body, allowed, untidy)
        for key, number in untidy:
            await self.tidy(name, key, number)
        return result

    async def _transact(
        self,
        name: str,
        body: Callable[[Change], Awaitable[T]],
        allowed: AbstractSet[int],
        untidy: list[tuple[bytes, int]],
    ) -> T:
        first = True
        admission = Admission()
        attempt: Transaction | None = None

        async def run(tx: Transaction) -> T:
            nonlocal first, attempt
            attempt = tx
            admission.undo()
            volumes = self.volumes
            if first:
                volume = volumes.known(name) or await volumes.any(name)
            else:
                volume = await volumes.reload(name)
            first = False
            demand_writable(volume, name)
            change = Change(
                VolumeTransaction(tx, volume),
                self.clock_ns(),
                self.ids.take,
                self.volume_in,
                self.lock_clock,
                self.apart,
                self.witnesses,
            )
            result = await body(change)
            if self.opens is not None:
                for inode in change.disturbed:
                    if inode not in allowed and self.opens.holders(volume.number, inode):
                        raise Held(volume.number, inode)
                for inode in change.listed - change.disturbed:
                    if inode not in allowed and self.opens.listed_by_any(
                        volume.number, inode, by=change.by
                    ):
                        raise Held(volume.number, inode, FOR_WRITE)
            untidy.clear()
            if change.untidy:
                number = await self.ids.take()
                change.rows.put_present(keys.untidy_key(number), change.untidy)
                untidy.append((change.untidy, number))
            change.finish()
            for grown, amount, judged in change.growth():
                tracked = self.quotas.known(grown) or await self.quotas.watch(grown)
                self.quotas.admit(admission, tracked, amount, judged=judged, credit=change.credit)
            for volume, owners in change.owners():
                await self._admit_owners(admission, volume, owners, change)
            return result

        try:
            result = await transact(self.store, run, relaxed=self.relaxed)
        except (Ambiguous, CancelledError):
            admission.unknown()
            raise
        except BaseException:
            admission.undo()
            raise
        assert attempt is not None
        admission.done(attempt.version)
        self.quotas.settled(admission)
        return result

    async def _admit_owners(
        self, admission: Admission, volume: Volume, owners: dict[str, Amount], change: Change
    ) -> None:
        """Ask the limits of users and groups about a commit."""
        known = self.quotas.known(volume)
        # What was reserved for it is given back once: to all pools that it was taken from.
        credit = change.credit if known is not None and not known.pools else None
        for owner, amount in owners.items():
            if owner not in volume.row.limits:
                continue
            pools = self.quotas.owners
            tracked = pools.known(volume, owner) or await pools.watch(volume, owner)
            self.quotas.admit(admission, tracked, amount, judged=change.judged, credit=credit)
            credit = None

    async def _crossed(self, pool: Pool, above: bool) -> None:
        """Tell in a volume's change feed that its soft limit was passed, or is not any more."""
        if not pool.volume:
            return
        verb = "quota-soft" if above else "quota-below"

        async def body(change: Change) -> None:
            change.tell(Event(verb, change.now_ns, size=pool.bytes))

        with suppress(VolumeNotFound):
            await self.change(pool.volume, body)

    async def volume_in(self, tx: Transaction, number: int) -> Volume:
        """Return a volume by its number as a transaction sees it, also a deleted one of which rows remain."""
        name = await tx.get(keys.volume_number_key(number))
        if name is None:
            raise VolumeNotFound(f"no volume has number {number}")
        volume = await self.volumes.any(name.decode())
        value = await tx.get(keys.volume_name_key(volume.row.name))
        if value is None or decode_volume(value) != volume.row:
            with suppress(VolumeNotFound):
                await self.volumes.reload(volume.row.name)
            raise Conflict(f"volume {volume.row.name!r} changed")
        demand_thawed(volume.row)
        return volume

    async def usage(self, name: str) -> Usage:
        """Return what a volume, or a snapshot of it, holds; of a clone with what it began with."""
        volume = await self.volumes.get(name)
        view = self.store.view()
        try:
            return await usage_at(view, volume)
        finally:
            view.close()

    async def home_of(self, stored: Rows, volume: Volume, key: bytes) -> int:
        """Return the number of the volume under whose prefix a row lies that `volume` shows: its own, or that of a base."""
        if not volume.bases:
            return volume.number
        view = self.store.view()
        try:
            source = ViewSource(view)
            own = replace(volume, bases=())
            if await own.rows(source).get(key) is not None:
                return volume.number
            for number, snapshot in volume.bases:
                base = Volume(volume.row, 0, keys.prefix(number), (), snapshot)
                if await base.rows(source).get(key) is not None:
                    return number
        finally:
            view.close()
        return volume.number


def with_overrides(policy: DataPolicy, own: dict[str, str]) -> DataPolicy:
    """Return a policy with a volume's own settings; filters are separated by commas."""
    return DataPolicy(
        redundancy=own.get("redundancy", policy.redundancy),
        chunker=own.get("chunker", policy.chunker),
        filters=tuple(filter(None, own["filters"].split(",")))
        if "filters" in own
        else policy.filters,
        verify="scrub" if own.get("verify", policy.verify) == "scrub" else "always",
    )
