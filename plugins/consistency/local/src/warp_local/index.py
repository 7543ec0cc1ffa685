"""The index: every row up to some version in an LMDB file, one whole copy on each of several
stores.

A copy is only changed by `apply`, in one synced LMDB transaction that also says up to which commit
it goes. So at every moment, after any crash, a copy is the exact state of one version.
`docs/formats/local-index.md` describes the file.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from warp_core.containers.segments import START, Position
from warp_core.errors import Corrupt, NewerFormat, NoSpace, StoreFailed, WarpError
from warp_core.interfaces.consistency import Row
from warp_core.kept import Kept
from warp_core.metadata.rows import REQUESTS_REMEMBERED
from warp_core.space import reserve_behind

from warp_local import image

if TYPE_CHECKING:
    import lmdb

INDEX_VERSION = 1
FOLDER = "meta"
FIRST_STEP = 32  # rows of a range read before it is known whether more belong to it
CACHE_ROWS = 16_384  # rows of the index kept decoded
CACHED_VALUE_MAX = 1024  # bytes: larger values are not kept, so the cache stays below some 20 MiB
PUT_STEP = 256  # rows handed to LMDB at once: between steps the loop's thread may run
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

    `refresh`, `get` and `scan` belong to the loop's thread, `apply` to one other at a time. `close` waits for a write that
    runs: LMDB would wait too, but for a thread that then never may end its transaction.
    """

    def __init__(self, folder: Path, size_max: int) -> None:
        self.folder = folder
        self.failed = ""  # why it is not used any more
        self.state = IndexState(INDEX_VERSION, b"", 0, *START)
        self._size_max = size_max
        self._writing = threading.Lock()
        self._env: lmdb.Environment | None = None
        self._rows: Any = None
        self._meta: Any = None
        self._requests: Any = None
        self._reading: lmdb.Transaction | None = None
        self._cursor: Any = None
        self._cache: Kept[bytes, tuple[bytes, int] | Literal[False] | None] = Kept(CACHE_ROWS)

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
            self._check_length()
            self._rows = self._env.open_db(b"rows")
            self._meta = self._env.open_db(b"meta")
            self._requests = self._env.open_db(b"requests")
            with self._env.begin(db=self._meta) as txn:
                packed = txn.get(b"state")
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
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

    def _check_length(self) -> None:
        """Refuse a file that was cut: reading behind its end would end the process.

        Raises:
            StoreFailed: It is shorter than it says.
        """
        assert self._env is not None
        size = (self.folder / "data.mdb").stat().st_size
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if size < needed:
            self.close()
            raise StoreFailed(
                f"the index in {self.folder} cannot be opened: it has {size} of {needed} bytes"
            )

    def close(self) -> None:
        """Close the file, after a write that another thread may be in."""
        with self._writing:
            self._close()

    def _close(self) -> None:
        if self._reading is not None:
            self._reading.abort()
            self._reading = self._cursor = None
        if self._env is not None:
            self._env.close()
            self._env = None

    def refresh(self, changed: KeysView[bytes] | None = None) -> None:
        """Let reads see what was applied; `changed` are the keys of all rows that may differ, if that is known."""
        assert self._env is not None
        if self._reading is not None:
            self._reading.abort()
        self._reading = self._env.begin(db=self._rows)
        self._cursor = self._reading.cursor(self._rows)
        if changed is None:
            self._cache.clear()
            return
        for key in changed & self._cache.keys():
            del self._cache[key]

    # Reading --------------------------------------------------------------------------------------

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version of a row."""
        row = self._cache.get(key, False)
        if row is not False:
            return row
        packed: bytes | None = self._reading.get(key) if key else None  # type: ignore
        row = None if packed is None else (packed[8:], _VERSION.unpack_from(packed)[0])
        if packed is None or len(packed) <= CACHED_VALUE_MAX:
            self._cache.offer(key, row)
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

    def dump(self) -> Dump:
        """Return a reader of the copy as it is now, that checkpoints do not disturb. Close it before the copy.

        Raises:
            StoreFailed: It cannot be read.
        """
        import lmdb

        assert self._env is not None
        try:
            return Dump(self._env, self._rows, self._meta, self._requests)
        except (lmdb.Error, msgspec.DecodeError) as error:
            raise StoreFailed(f"the index in {self.folder} cannot be read: {error}") from error

    # Writing, in a thread -------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        """Write in one LMDB transaction, synced at the end.

        Raises:
            NoSpace: The disk is full; the copy is as before.
            StoreFailed: The copy must not be used any more in this run, or it is closed.
        """
        import lmdb

        with self._writing:
            if self._env is None:
                raise StoreFailed(f"the index in {self.folder} is closed")
            try:
                with self._env.begin(write=True) as txn:
                    yield txn
            except (lmdb.Error, OSError) as error:
                raise _explained(error, self.folder) from error

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
        state = msgspec.structs.replace(
            self.state, version=version, container=position.container, offset=position.offset
        )
        pack = _VERSION.pack
        with self._transaction() as txn:
            cursor = txn.cursor(self._rows)
            for at in range(0, len(changed), PUT_STEP):
                step = changed[at : at + PUT_STEP]
                puts = [(key, pack(new) + value) for key, new, value in step if value is not None]
                if puts:
                    cursor.putmulti(puts, overwrite=True)
                if len(puts) < len(step):
                    for key, _, value in step:
                        if value is None:
                            txn.delete(key, db=self._rows)
            cursor.close()
            self._note_requests(txn, requests, version)
            txn.put(b"state", msgspec.msgpack.encode(state), db=self._meta)
        self.state = state
        reserve_behind(self.folder / "data.mdb", RESERVE)

    def load(self, pairs: image.Pairs) -> None:
        """Append rows of an image, which follow all that are there; `finish_load` makes the copy valid.

        Raises:
            NoSpace, StoreFailed: It could not be written.
        """
        with self._transaction() as txn, txn.cursor(self._rows) as cursor:
            cursor.putmulti(pairs, append=True)

    def finish_load(self, end: image.End) -> None:
        """Say what the loaded rows are: the copy is that image from now on.

        Raises:
            NoSpace, StoreFailed: It could not be written.
        """
        self.begin(end.lineage)
        self.apply((), tuple(_REQUEST.iter_unpack(end.requests)), end.version, end.position)

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
            sync_folder(making)
            shutil.rmtree(folder, ignore_errors=True)
            making.rename(folder)
            sync_folder(folder.parent)
        except (lmdb.Error, OSError) as error:
            raise _explained(error, folder) from error


class Dump:
    """Reads every row of one version in order; `part` may run in another thread."""

    def __init__(self, env: lmdb.Environment, rows: Any, meta: Any, requests: Any) -> None:
        self._txn = env.begin()
        try:
            packed = self._txn.get(b"state", db=meta)
            empty = IndexState(INDEX_VERSION, b"", 0, *START)
            self.state = msgspec.msgpack.decode(packed, type=IndexState) if packed else empty
            self.requests = b"".join(value for _, value in self._txn.cursor(requests))
            self._cursor = self._txn.cursor(rows)
            self._rows = iter(self._cursor)
        except BaseException:
            self._txn.abort()
            raise

    def part(self) -> tuple[list[bytes], int]:
        """Return the next rows as steps of an image's part, and how many they are; none at the end.

        Raises:
            StoreFailed: They cannot be read.
        """
        import lmdb

        steps: list[bytes] = []
        count = size = 0
        try:
            while size < image.PART:
                pairs = list(islice(self._rows, PUT_STEP))
                if not pairs:
                    break
                steps.append(image.pack_step(pairs))
                size += len(steps[-1])
                count += len(pairs)
                time.sleep(0)  # the loop's thread may run
        except lmdb.Error as error:
            raise StoreFailed(f"the index cannot be read: {error}") from error
        return steps, count

    def close(self) -> None:
        """End the reading; harmless when repeated."""
        self._txn.abort()


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
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
