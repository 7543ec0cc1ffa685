"""The index: every row up to some version in an LMDB file, one whole copy on each of several
stores.

A copy is only changed by `apply`, in one synced LMDB transaction that also says up to which commit
it goes. So at every moment, after any crash, a copy is the exact state of one version.
`docs/formats/local-index.md` describes the file.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec
from warp_core.containers.segments import START, Position
from warp_core.errors import Corrupt, NewerFormat, NoSpace, StoreFailed, WarpError
from warp_core.interfaces.consistency import Row
from warp_core.metadata.rows import REQUESTS_REMEMBERED

from warp_local.space import reserve_behind

if TYPE_CHECKING:
    import lmdb

INDEX_VERSION = 1
FOLDER = "meta"
FIRST_STEP = 32  # rows of a range read before it is known whether more belong to it
CACHE_ROWS = 16_384  # rows of the index kept decoded
CACHED_VALUE_MAX = 1024  # bytes: larger values are not kept, so the cache stays below some 20 MiB
PUT_STEP = 256  # rows handed to LMDB at once: between steps the loop's thread may run
REBUILD_STEP = 20_000  # rows of one LMDB transaction
RESERVE = 16 * 1024 * 1024  # bytes allocated behind the file's end, for checkpoints on a full disk

_VERSION = Struct(">Q")
_REQUEST = Struct(">16sQ")
_new = tuple.__new__

Changed = Sequence[tuple[bytes, int, bytes | None]]  # (key, version, value or None), sorted


class IndexState(msgspec.Struct, array_like=True, frozen=True):
    """What a copy says of itself. `lineage` is random and the same on all copies of one index."""

    format: int
    lineage: bytes
    version: int
    container: int
    offset: int

    @property
    def position(self) -> Position:
        """Where in the journal the next commit begins, or later."""
        return Position(self.container, self.offset)


class Index:
    """One copy.

    `refresh`, `get` and `scan` belong to the loop's thread, `apply` to one other at a time.
    """

    def __init__(self, folder: Path, size_max: int) -> None:
        self.folder = folder
        self.failed = ""  # why it is not used any more
        self.state = IndexState(INDEX_VERSION, b"", 0, *START)
        self._size_max = size_max
        self._env: lmdb.Environment | None = None
        self._rows: Any = None
        self._meta: Any = None
        self._requests: Any = None
        self._reading: lmdb.Transaction | None = None
        self._cursor: Any = None
        self._cache: dict[bytes, tuple[bytes, int] | None] = {}

    @property
    def empty(self) -> bool:
        """Whether it was never written to."""
        return not self.state.lineage

    def open(self) -> None:
        """Open or make the copy.

        Raises:
            StoreFailed: It cannot be read.
            NewerFormat: Written by a later release.
        """
        import lmdb  # not needed by whoever only asks for the plugin's name

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(self.folder), map_size=self._size_max, max_dbs=3, metasync=True, sync=True
            )
            self._rows = self._env.open_db(b"rows")
            self._meta = self._env.open_db(b"meta")
            self._requests = self._env.open_db(b"requests")
            with self._env.begin(db=self._meta) as txn:
                packed = txn.get(b"state")
            _sync_folder(self.folder)
            _sync_folder(self.folder.parent)
        except (lmdb.Error, OSError) as error:
            self.close()
            raise StoreFailed(f"the index in {self.folder} cannot be opened: {error}") from error
        if packed is not None:
            try:
                head = msgspec.msgpack.decode(packed, type=list)
                if head[0] > INDEX_VERSION:
                    raise NewerFormat(
                        f"the index in {self.folder} has format version {head[0]} > {INDEX_VERSION}"
                    )
                self.state = msgspec.msgpack.decode(packed, type=IndexState)
            except msgspec.DecodeError as error:
                raise Corrupt(f"the index in {self.folder} has no valid state: {error}") from error
        self.refresh()

    def close(self) -> None:
        """Close the file."""
        if self._reading is not None:
            self._reading.abort()
            self._reading = self._cursor = None
        if self._env is not None:
            self._env.close()
            self._env = None

    def refresh(self) -> None:
        """Let reads see what was applied."""
        assert self._env is not None
        if self._reading is not None:
            self._reading.abort()
        self._reading = self._env.begin(db=self._rows)
        self._cursor = self._reading.cursor(self._rows)
        self._cache = {}

    # Reading --------------------------------------------------------------------------------------

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version of a row."""
        try:
            return self._cache[key]
        except KeyError:
            pass
        packed: bytes | None = self._reading.get(key) if key else None  # type: ignore
        row = None if packed is None else (packed[8:], _VERSION.unpack_from(packed)[0])
        if packed is None or len(packed) <= CACHED_VALUE_MAX:
            if len(self._cache) >= CACHE_ROWS:
                self._cache.clear()
            self._cache[key] = row
        return row

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows of [start, end)."""
        cursor = self._cursor
        version = _VERSION.unpack_from
        if reverse:
            found = cursor.set_range(end) if len(end) <= 511 else False
            if not (cursor.prev() if found else cursor.last()):
                return []
            pairs = cursor.iterprev()
            rows = [
                _new(Row, (key, packed[8:], version(packed)[0]))
                for key, packed in islice(pairs, limit)
            ]
            while rows and rows[-1][0] < start:
                rows.pop()
            return rows
        return [
            _new(Row, (key, packed[8:], version(packed)[0]))
            for key, packed in self._ascending(start, end, limit)
        ]

    def columns(self, start: bytes, end: bytes, limit: int) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of up to `limit` rows of [start, end)."""
        pairs = self._ascending(start, end, limit)
        return [pair[0] for pair in pairs], [pair[1][8:] for pair in pairs]

    def _ascending(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return rows as they are stored; few ranges have many, so a first step looks how this one is."""
        cursor = self._cursor
        if not (cursor.set_range(start) if start else cursor.first()):
            return []
        rows = cursor.iternext()
        pairs = list(islice(rows, min(limit, FIRST_STEP)))
        if len(pairs) == FIRST_STEP < limit and pairs[-1][0] < end:
            pairs += islice(rows, limit - FIRST_STEP)
        if pairs and pairs[-1][0] >= end:
            del pairs[bisect_left(pairs, (end,)) :]
        return pairs

    def requests(self) -> Iterator[tuple[bytes, int]]:
        """Yield the remembered request ids and their versions, oldest first."""
        assert self._env is not None
        with self._env.begin(db=self._requests) as txn:
            for _, packed in txn.cursor():
                yield from _REQUEST.iter_unpack(packed)

    def all_rows(self) -> Iterator[Row]:
        """Yield every row, for verification."""
        assert self._env is not None
        with self._env.begin(db=self._rows) as txn:
            for key, packed in txn.cursor():
                yield Row(key, packed[8:], _VERSION.unpack_from(packed)[0])

    # Writing, in a thread -------------------------------------------------------------------------

    def apply(
        self,
        changed: Changed,
        requests: Sequence[tuple[bytes, int]],
        version: int,
        position: Position,
    ) -> None:
        """Bring the copy to `version`, durably, in one LMDB transaction.

        Args:
            changed: Each row changed since this copy's version, as it is at `version`.
            requests: Request ids of those commits.
            position: Where the journal goes on.

        Raises:
            NoSpace: The disk is full; the copy is as before.
            StoreFailed: The copy must not be used any more in this run.
        """
        import lmdb

        assert self._env is not None
        state = msgspec.structs.replace(
            self.state, version=version, container=position.container, offset=position.offset
        )
        pack = _VERSION.pack
        try:
            with self._env.begin(write=True) as txn:
                cursor = txn.cursor(self._rows)
                for at in range(0, len(changed), PUT_STEP):
                    step = changed[at : at + PUT_STEP]
                    puts = [
                        (key, pack(new) + value) for key, new, value in step if value is not None
                    ]
                    if puts:
                        cursor.putmulti(puts, overwrite=True)
                    if len(puts) < len(step):
                        for key, _, value in step:
                            if value is None:
                                txn.delete(key, db=self._rows)
                cursor.close()
                self._note_requests(txn, requests, version)
                txn.put(b"state", msgspec.msgpack.encode(state), db=self._meta)
        except (lmdb.Error, OSError) as error:
            raise _explained(error, self.folder) from error
        self.state = state
        reserve_behind(self.folder / "data.mdb", RESERVE)

    def begin(self, lineage: bytes) -> None:
        """Make an empty copy one of an index."""
        self.state = msgspec.structs.replace(self.state, lineage=lineage)

    def _note_requests(
        self, txn: lmdb.Transaction, requests: Sequence[tuple[bytes, int]], version: int
    ) -> None:
        if requests:
            packed = b"".join(_REQUEST.pack(*request) for request in requests)
            # A value's size is no limit in LMDB; a checkpoint has some thousand of 24 bytes.
            txn.put(_VERSION.pack(version), packed, db=self._requests)
        cursor = txn.cursor(self._requests)
        while cursor.first():
            last = _VERSION.unpack(cursor.key())[0]
            if last > version - REQUESTS_REMEMBERED:
                break
            cursor.delete()
        cursor.close()

    def copy_to(self, folder: Path) -> None:
        """Make a whole copy in another folder, replacing what is there; durable on return.

        Raises:
            StoreFailed: It could not be made.
        """
        import lmdb

        assert self._env is not None
        making = folder.with_name(folder.name + ".new")
        try:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            self._env.copy(str(making), compact=True)
            with open(making / "data.mdb", "rb") as file:
                os.fsync(file.fileno())
            _sync_folder(making)
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
            _sync_folder(folder.parent)
        except (lmdb.Error, OSError) as error:
            raise _explained(error, folder) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: Exception, folder: Path) -> WarpError:
    import lmdb

    if isinstance(error, lmdb.MapFullError):
        return NoSpace(f"the index in {folder} is full: raise metadata.index_max")
    if isinstance(error, lmdb.DiskError) or getattr(error, "errno", None) == 28:
        return NoSpace(f"no space for the index in {folder}")
    return StoreFailed(f"the index in {folder} failed: {error}")


def write_rows(
    folder: Path,
    size_max: int,
    rows: Iterable[Row],
    lineage: bytes,
    position: Position,
    version: int,
) -> int:
    """Make a new index of given rows, for a rebuild; return its version: at least `version`, and that of every row.

    Raises:
        NoSpace, StoreFailed: It could not be written.
    """
    index = Index(folder, size_max)
    index.open()
    index.begin(lineage)
    changed: list[tuple[bytes, int, bytes | None]] = []
    for row in rows:
        changed.append((row.key, row.version, row.value))
        version = max(version, row.version)
        if len(changed) >= REBUILD_STEP:
            index.apply(sorted(changed), (), version, position)
            changed = []
    index.apply(sorted(changed), (), version, position)
    index.close()
    return version
