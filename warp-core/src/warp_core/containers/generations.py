"""Which stores hold a whole copy of the journal: a small state blob on each, told apart by
generation.

A copy that failed misses what was acknowledged afterwards. So before anything more is acknowledged,
the others note, durably, a new *generation* that leaves it out. At the next start the newest
generation that is found says which copies are whole; the others are stale. See
`docs/formats/journal.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from warp_core.errors import Corrupt, NewerFormat, NotFound, WarpError
from warp_core.interfaces.stores import BlobStore

STATE_BLOB = "journal/state"
STATE_VERSION = 1
STATE_SIZE_MAX = 4096  # a few ids: one that is longer is not ours


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


async def write_generation(
    copies: Sequence[Copy], generation: int, *, sealed_below: int
) -> list[Copy]:
    """Write a generation that names the living copies, to each of them; return those that now hold
    it.

    A copy that fails is marked dead and the rest is written again, until all that are named hold
    it.
    """
    while True:
        living = [copy for copy in copies if copy.alive]
        names = [copy.id for copy in living]
        states = [State(STATE_VERSION, generation, names, sealed_below) for copy in living]
        results = await asyncio.gather(
            *(
                copy.store.put(STATE_BLOB, [msgspec.msgpack.encode(state)], vital=True)
                for copy, state in zip(living, states, strict=True)
            ),
            return_exceptions=True,
        )
        failed = False
        for copy, state, result in zip(living, states, results, strict=True):
            if isinstance(result, WarpError):
                copy.alive, copy.reason, failed = False, str(result), True
            elif isinstance(result, BaseException):
                raise result
            else:
                copy.state = state
        if not failed:
            return living
        generation += 1
