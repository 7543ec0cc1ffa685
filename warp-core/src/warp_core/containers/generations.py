"""Which stores hold a whole copy of the journal: a small state blob on each, told apart by
generation.

A copy that failed misses what was acknowledged afterwards. So before anything more is acknowledged,
the others note, durably, a new *generation* that leaves it out. At the next start the newest
generation that is found says which copies are whole; the others are stale. See
`docs/formats/journal.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from warp_core.errors import (
    Corrupt,
    NewerFormat,
    NoSpace,
    NotFound,
    StoreFailed,
    WarpError,
    WritesStopped,
)
from warp_core.interfaces.stores import BlobStore

STATE_BLOB = "journal/state"
STATE_VERSION = 1
STATE_SIZE_MAX = 4096  # a few ids: one that is longer is not ours


Leaving = Callable[[Sequence[str]], Awaitable[None]]
"""Asked, with the ids of the copies that go on, before any is left behind; raises if they may not."""


class State(msgspec.Struct, array_like=True, frozen=True):
    """What one copy knows. `copies` are the ids of the stores that hold whole copies."""

    version: int
    generation: int
    copies: list[str]
    sealed_below: int  # segments with smaller ids are sealed


@dataclass(slots=True)
class Copy:
    """One store of the journal. A copy that is not `alive` gets nothing more in this run."""

    store: BlobStore
    state: State | None = None
    alive: bool = True
    whole: bool = False  # of the newest generation when the journal was opened
    reason: str = ""  # why it is not alive

    @property
    def id(self) -> str:
        """The store's id."""
        return self.store.id

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.store.path or self.store.id)


async def read_state(store: BlobStore) -> State | None:
    """Return a store's state blob, None if it has none.

    Raises:
        NewerFormat: Written by a later release.
        Corrupt: It is not a state.
    """
    try:
        data = await store.read(STATE_BLOB, offset=0, length=STATE_SIZE_MAX)
    except NotFound:
        return None
    try:
        version = msgspec.msgpack.decode(data, type=list)[0]
        if version > STATE_VERSION:
            raise NewerFormat(f"the journal's state has format version {version} > {STATE_VERSION}")
        return msgspec.msgpack.decode(data, type=State)
    except (msgspec.DecodeError, IndexError, TypeError) as error:
        raise Corrupt(f"{STATE_BLOB} on {store.path} cannot be read: {error}") from error


async def find_copies(stores: Sequence[BlobStore]) -> list[Copy]:
    """Read every store's state and tell which copies are whole; one that cannot be read is dead.

    Raises:
        NewerFormat: Written by a later release.
    """
    copies = []
    for store in stores:
        copy = Copy(store)
        copies.append(copy)
        try:
            copy.state = await read_state(store)
        except NewerFormat:
            raise
        except WarpError as error:
            copy.alive, copy.reason = False, str(error)
    newest = max((copy.state.generation for copy in copies if copy.state), default=0)
    members: set[str] = set()
    for copy in copies:
        if copy.state and copy.state.generation == newest:
            members.update(copy.state.copies)
    for copy in copies:
        copy.whole = copy.state is not None and copy.id in members
    return copies


class Copies:
    """The copies of a journal: does things to all that live, and leaves behind those that fail."""

    def __init__(
        self,
        stores: Sequence[BlobStore],
        leaving: Leaving | None = None,
        whole: Collection[str] = (),
    ) -> None:
        self.all = [Copy(store) for store in stores]
        self._leaving = leaving
        self._whole = whole  # ids, as noted elsewhere; empty: nobody noted them
        self.generation = 0
        self.sealed_below = 0  # what the next generation says
        self._changing = asyncio.Lock()

    async def find(self) -> None:
        """Read what the stores know of one another.

        Raises:
            NewerFormat: Written by a later release.
            StoreFailed: No store can be read.
        """
        self.all = await find_copies([copy.store for copy in self.all])
        for copy in self.all:
            # Whoever went on without this one may be the store that cannot be read now.
            copy.whole = copy.whole and (not self._whole or copy.id in self._whole)
        if not self.living:
            raise StoreFailed(f"no copy of the journal can be read: {self.reasons}")
        self.generation = max((copy.state.generation for copy in self.all if copy.state), default=0)

    def require_whole(self) -> None:
        """Refuse to go on with stale copies alone: a new generation of them would give up what the others acknowledged.

        Raises:
            StoreFailed: No whole copy is alive.
        """
        if any(copy.state for copy in self.all) and not any(
            copy.whole and copy.alive for copy in self.all
        ):
            stale = ", ".join(copy.name for copy in self.living)
            raise StoreFailed(
                f"no whole copy of the journal could be recovered ({self.reasons}), and what is left misses what was"
                f" acknowledged without it ({stale}): mend the store, then start again"
            )

    @property
    def living(self) -> list[Copy]:
        """The copies that are written to."""
        return [copy for copy in self.all if copy.alive]

    @property
    def stores(self) -> list[BlobStore]:
        """The stores of the living copies."""
        return [copy.store for copy in self.all if copy.alive]

    @property
    def reasons(self) -> str:
        """Why copies are not alive."""
        return "; ".join(f"{copy.name}: {copy.reason}" for copy in self.all if copy.reason)

    async def each(
        self, call: Callable[[BlobStore], Awaitable[None]], *, room: bool = False
    ) -> None:
        """Do the same to every living copy, at once. When it returns, those that failed are left behind durably.

        Args:
            room: The call asks for space: then `NoSpace` is no failure of a copy, but raised.

        Raises:
            WritesStopped: No copy is left.
            NoSpace: With `room`, a store is full; others may have done it.
        """
        living = self.living
        if len(living) == 1:
            results: list[BaseException | None] = [None]
            try:
                await call(living[0].store)
            except WarpError as error:
                results = [error]
        else:
            results = await asyncio.gather(
                *(call(copy.store) for copy in living), return_exceptions=True
            )
        full: NoSpace | None = None
        failed = not living
        for copy, result in zip(living, results, strict=True):
            if room and isinstance(result, NoSpace):
                full = result
            elif isinstance(result, WarpError):
                copy.alive, copy.reason, failed = False, str(result), True
            elif result is not None:
                raise result
        if failed:
            await self.change()
        elif self._changing.locked():
            # Another call has left a copy behind: nothing may be acknowledged before that is durable.
            async with self._changing:
                pass
        if full is not None:
            raise full

    async def change(self) -> None:
        """Begin a generation of the living copies, durably on each of them.

        Raises:
            WritesStopped: No copy is left.
            WarpError: Some are, and may not go on without the others.
        """
        async with self._changing:
            self.generation += 1
            while living := self.living:
                names = [copy.id for copy in living]
                if self._leaving is not None:
                    await self._leaving(names)
                state = State(STATE_VERSION, self.generation, names, self.sealed_below)
                packed = msgspec.msgpack.encode(state)
                results = await asyncio.gather(
                    *(copy.store.put(STATE_BLOB, [packed], vital=True) for copy in living),
                    return_exceptions=True,
                )
                failed = False
                for copy, result in zip(living, results, strict=True):
                    if isinstance(result, WarpError):
                        copy.alive, copy.reason, failed = False, str(result), True
                    elif result is not None:
                        raise result
                    else:
                        copy.state = state
                if not failed:
                    return
                self.generation += 1  # the last one named a copy that does not hold it
        raise WritesStopped(
            f"no copy of the journal can be written: {self.reasons}; free some space there or mend the"
            " store, then start the node again"
        )
