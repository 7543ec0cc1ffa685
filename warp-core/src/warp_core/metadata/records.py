"""Records in rows of the metadata engine.

copy at 7 ── decide ── commit(if generation is 7) ── copy at 8
                          └─ another was faster: read again, decide again
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Final, TypeVar

from warp_core.errors import InvalidArgument, TooLarge, Unavailable, WarpError
from warp_core.interfaces.consistency import SCAN_MAX, MetaStore
from warp_core.interfaces.records import Decide, Records
from warp_core.metadata.keys import prefix_end
from warp_core.metadata.transaction import Transaction, transact

T = TypeVar("T")

PREFIX: Final = b"r"  # + shelf + "/" + name; the name "" is the generation
NAME_MAX: Final = 400  # bytes, so that the key stays within what any engine takes
VALUE_MAX: Final = 60 * 1024  # bytes; the engines' limit is 64 KiB
CHANGES_MAX: Final = 64  # records changed at once: they and the generation fit one commit
ATTEMPTS_MAX: Final = 16  # of a change that others keep overtaking

_GENERATION: Final = struct.Struct(">Q")


class _Overtaken(Exception):
    """Another changed the shelf after it was read."""


class MetaRecords(Records):
    """One shelf and the copy of it in memory; see `Records`."""

    def __init__(self, store: MetaStore, shelf: str) -> None:
        """Take a shelf of an engine; nothing is read yet."""
        self._store = store
        self._start = PREFIX + shelf.encode() + b"/"
        self._changing = asyncio.Lock()
        self.known: dict[str, bytes] = {}
        self.generation = -1
        self.shared = store.capabilities.shared

    async def refresh(self) -> bool:
        """Read what changed since; see `Records`."""
        view = self._store.view()
        try:
            row = await view.get(self._start)
            generation = _GENERATION.unpack(row[0])[0] if row is not None else 0
            if generation == self.generation:
                return False
        finally:
            view.close()
        # A scan is consistent within a page only: the generation before and after says whether nothing came between.
        for _ in range(ATTEMPTS_MAX):
            before, found = await self._read()
            if await self._now() == before:
                self.known, self.generation = found, before
                return True
        raise Unavailable("records change faster than they can be read")

    async def change(self, decide: Decide[T]) -> T:
        """Change records by what all of them say; see `Records`."""
        async with self._changing:
            await self.refresh()
            for _ in range(ATTEMPTS_MAX):
                result, changes = decide(self.known)
                if not changes:
                    return result
                self._check(changes)
                try:
                    await transact(self._store, lambda tx, made=changes: self._commit(tx, made))  # type: ignore[misc]
                except _Overtaken:
                    await self.refresh()
                    continue
                except WarpError:
                    self.generation = -1  # it may have been applied: the next one reads
                    raise
                known = dict(self.known)
                for name, value in changes.items():
                    if value is None:
                        known.pop(name, None)
                    else:
                        known[name] = value
                self.known = known
                self.generation += 1
                return result
        raise Unavailable("others change the records all the time")

    def _check(self, changes: Mapping[str, bytes | None]) -> None:
        if len(changes) > CHANGES_MAX:
            raise TooLarge(f"{len(changes)} records at once > {CHANGES_MAX}")
        for name, value in changes.items():
            if not 0 < len(name.encode()) <= NAME_MAX:
                raise InvalidArgument(f'record "{name[:64]}": 1 to {NAME_MAX} bytes are allowed')
            if value is not None and len(value) > VALUE_MAX:
                raise TooLarge(f"record {name}: {len(value)} bytes > {VALUE_MAX}")

    async def _commit(self, transaction: Transaction, changes: Mapping[str, bytes | None]) -> None:
        value = await transaction.get(self._start)
        generation = _GENERATION.unpack(value)[0] if value is not None else 0
        if generation != self.generation:
            raise _Overtaken
        for name, content in changes.items():
            key = self._start + name.encode()
            if content is None:
                transaction.delete(key)
            else:
                transaction.put(key, content)
        transaction.put(self._start, _GENERATION.pack(generation + 1))

    async def _now(self) -> int:
        view = self._store.view()
        try:
            row = await view.get(self._start)
        finally:
            view.close()
        return int(_GENERATION.unpack(row[0])[0]) if row is not None else 0

    async def _read(self) -> tuple[int, dict[str, bytes]]:
        """Return the generation before the first page, and every record."""
        generation = await self._now()
        found: dict[str, bytes] = {}
        start, end = self._start + b"\0", prefix_end(self._start)
        while True:
            view = self._store.view()
            try:
                rows = await view.scan(start, end, limit=SCAN_MAX)
            finally:
                view.close()
            for row in rows:
                found[row.key[len(self._start) :].decode()] = row.value
            if len(rows) < SCAN_MAX:
                return generation, found
            start = rows[-1].key + b"\0"
