"""Verification and rebuild of the index: what `warp fsck` does about it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import zip_longest

from warp_core.containers import format as fmt
from warp_core.containers.journal import Journal
from warp_core.containers.segments import START, Gap, Position
from warp_core.errors import ConfigError, Corrupt
from warp_core.interfaces.consistency import KEY_MAX, Row
from warp_core.interfaces.stores import BlobStore
from xxhash import xxh3_64_intdigest as checksum

from warp_local import records
from warp_local.config import Config
from warp_local.index import FOLDER, Index, write_rows
from warp_local.records import CommitRecord

PROBLEMS_MAX = 1000  # reported of one index: the first ones tell


async def logged_commits(journal: Journal) -> AsyncIterator[CommitRecord]:
    """Yield every commit that the journal still has, oldest first, whatever is missing between them."""
    async for entry in journal.replay(strict=False):
        if isinstance(entry, Gap) or entry.kind != fmt.Kind.COMMIT:
            continue
        try:
            yield records.unpack(entry.payload)
        except Corrupt:
            continue


async def verify(indexes: Sequence[Index], journal: Journal) -> list[str]:
    """Say, in a sentence each, where copies of the index are not sound, differ, or disagree with the log.

    `indexes` are open and no checkpoint runs; `journal` was opened after the last commit.
    """
    problems: list[str] = []
    for index in indexes:
        problems += _first(_unsound(index))
    for other in indexes[1:]:
        problems += _first(_differences(indexes[0], other))
    last: dict[bytes, tuple[int, int | None]] = {}
    previous = 0
    async for record in logged_commits(journal):
        if previous and record.version != previous + 1:
            last.clear()  # what was logged before a hole may have been changed in it
        previous = record.version
        for key, value in record.changes:
            last[key] = (record.version, None if value is None else checksum(value))
    for index in indexes:
        if previous < index.state.version:
            continue  # the log ends before it: nothing can be said
        problems += _first(_disagreements(index, last))
    return problems


def _first(problems: Iterator[str]) -> list[str]:
    found = []
    for problem in problems:
        found.append(problem)
        if len(found) == PROBLEMS_MAX:
            found.append("there are more problems of this kind")
            break
    return found


def _unsound(index: Index) -> Iterator[str]:
    previous = b""
    for row in index.all_rows():
        if not 0 < len(row.key) <= KEY_MAX or row.key <= previous:
            yield f"{index.folder}: key {row.key[:40]!r} is out of order or too long"
        if not 0 < row.version <= index.state.version:
            yield f"{index.folder}: row {row.key!r} has version {row.version}, the index {index.state.version}"
        previous = row.key


def _differences(one: Index, other: Index) -> Iterator[str]:
    if one.state.version != other.state.version:
        yield (
            f"{one.folder} is at version {one.state.version}, {other.folder} at {other.state.version}"
        )
        return
    for ours, theirs in zip_longest(one.all_rows(), other.all_rows()):
        if ours != theirs:
            keys = [row.key for row in (ours, theirs) if row is not None]
            yield f"{one.folder} and {other.folder} differ from row {min(keys)!r} on"
            return


def _disagreements(index: Index, last: dict[bytes, tuple[int, int | None]]) -> Iterator[str]:
    for key, (version, digest) in last.items():
        if version > index.state.version:
            continue
        row = index.get(key)
        if digest is None:
            if row is not None:
                yield f"{index.folder}: row {key!r} was deleted in version {version} and is there"
        elif row is None:
            yield f"{index.folder}: row {key!r} of version {version} is missing"
        elif row[1] != version or checksum(row[0]) != digest:
            yield f"{index.folder}: row {key!r} is not what version {version} made it"


async def rows_from_log(journal: Journal) -> dict[bytes, Row]:
    """Return the rows as the commits that are left in the journal make them."""
    rows: dict[bytes, Row] = {}
    async for record in logged_commits(journal):
        for key, value in record.changes:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = Row(key, value, record.version)
    return rows


def rebuild(
    config: Config,
    stores: Sequence[BlobStore],
    rows: Iterable[Row],
    *,
    position: Position = START,
    version: int = 0,
) -> int:
    """Write new copies of the index from rows that somebody has put together; return the greatest version.

    Args:
        stores: All stores of the copies; none may have an index any more.
        rows: Read once for each copy.
        position: Where the journal goes on: what lies before it is in the rows. `journal.end` if nothing of it is to be replayed.
        version: The index has at least this one, so that versions which were given out are not given out again.

    Raises:
        ConfigError: An index is there; move it away first.
    """
    folders = [store.path / FOLDER for store in stores if store.path is not None]
    for folder in folders:
        if (folder / "data.mdb").exists():
            raise ConfigError(f"{folder} has an index: move it away before it is made anew")
    lineage = os.urandom(16)
    for folder in folders:
        version = write_rows(folder, config.index_max, rows, lineage, position, version)
    return version
