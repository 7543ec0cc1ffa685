"""Checking the namespace: every row reads, every name leads to content, every chunk that content lies in is there.

It runs beside a working node: each page is read from a view of its own, so what looks wrong is looked at once more, and only what
stays wrong is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import WarpError
from warp_core.interfaces.consistency import SCAN_MAX, Row
from warp_core.namespace import keys, rows
from warp_core.namespace.audit import audit
from warp_core.namespace.content import load_manifest
from warp_core.namespace.inodes import decode_inode
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import FILE, Extent, Name, Part, PendingRow, Revision
from warp_core.namespace.tables import chunks_of_window

READ_MAX = 1024 * 1024
PROBLEMS_MAX = 1000  # told one by one; all are counted

# Families whose values this release decodes, and with what; E is packed, the others are counters, marks or names.
_DECODE: Mapping[bytes, Callable[[bytes], object]] = {
    b"D": rows.decode_name,
    b"R": rows.decode_revision,
    b"I": decode_inode,
    b"S": rows.decode_snapshot,
    b"P": rows.decode_part,
    b"U": rows.decode_upload,
    b"N": rows.decode_pending,
}


@dataclass(slots=True)
class CheckReport:
    """What a check found."""

    volumes: int = 0
    rows: int = 0
    names: int = 0
    chunks: int = 0
    bytes: int = 0  # read of chunks
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)

    def tell(self, problem: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


class Check:
    """One check of all volumes; `run` may be called once."""

    def __init__(
        self, namespace: Namespace, *, deep: bool, progress: Callable[[CheckReport], None]
    ) -> None:
        """Take what to check.

        Args:
            deep: Read every byte of content instead of the first frame of each chunk.
            progress: Told after each page of rows.
        """
        self._namespace = namespace
        self._deep = deep
        self._progress = progress
        self._seen: set[tuple[int, int]] = set()  # chunks of this volume that were read already
        self.report = CheckReport()

    async def run(self) -> CheckReport:
        """Check every volume, and return what was found."""
        for volume in await self._namespace.volumes.all():
            self.report.volumes += 1
            self._seen.clear()
            name, prefix = volume.row.name, volume.prefix
            known = self.report.problem_count
            found: list[
                tuple[int, str]
            ] = []  # revision, 0 where the row is not of one; what is wrong
            async for row in self._rows(prefix):
                self.report.rows += 1
                problem = await self._look(prefix, row, own=volume.row.base is None)
                # What was changed or dropped meanwhile is not wrong.
                if problem and await self._still(row):
                    self.report.problem_count += 1
                    if len(self.report.problems) + len(found) < PROBLEMS_MAX:
                        found.append((_revision_of(row.key[len(prefix) :]), problem))
            paths = await self._paths(prefix, {revision for revision, _ in found if revision})
            for revision, problem in found:
                path = f"{paths[revision]}: " if revision in paths else ""
                self.report.problems.append(f"volume {name}: {path}{problem}")
            if self.report.problem_count == known:  # else it would tell much of the same again
                for problem in await audit(self._namespace, name) or []:
                    self.report.tell(f"volume {name}: {problem}")
        return self.report

    async def _paths(self, prefix: bytes, revisions: set[int]) -> dict[int, str]:
        """Return the key of a name that leads to each revision, where one does: a walk over all names, made for damage only."""
        above: dict[int, tuple[int, bytes]] = {}  # directory or continuation → where it is named
        named: dict[int, tuple[int, bytes]] = {}
        if not revisions:
            return {}
        async for row in self._rows(prefix + b"D"):
            key = row.key[len(prefix) :]
            place = int.from_bytes(key[1:9], "big"), keys.raw_of(key[9:])
            try:
                name = rows.decode_name(row.value)
                if name.kind != FILE:
                    above[name.inode] = place
                elif (
                    revision := name.revision or await self._current(prefix, name.inode)
                ) in revisions:
                    named[revision] = place
            except (msgspec.MsgspecError, WarpError):
                continue  # told as a row that cannot be read
        paths = {}
        for revision, (directory, path) in named.items():
            seen = set()
            while directory in above and directory not in seen:
                seen.add(directory)
                directory, component = above[directory]
                path = component + path
            paths[revision] = path.decode(errors="backslashreplace")
        return paths

    async def _current(self, prefix: bytes, inode: int) -> int:
        """Return the revision of an inode that has a row of its own, 0 without one."""
        value = await self._get(prefix + keys.inode_key(inode))
        return decode_inode(value).revision if value else 0

    async def _rows(self, prefix: bytes) -> AsyncIterator[Row]:
        start, end = prefix, keys.after(prefix)
        while True:
            view = self._namespace.store.view()
            try:
                page = await view.scan(start, end, limit=SCAN_MAX)
            finally:
                view.close()
            for row in page:
                yield row
            self._progress(self.report)
            if len(page) < SCAN_MAX:
                return
            start = page[-1].key + b"\0"

    async def _still(self, row: Row) -> bool:
        found = await self._get(row.key)
        return found == row.value

    async def _get(self, key: bytes) -> bytes | None:
        view = self._namespace.store.view()
        try:
            found = await view.get(key)
        finally:
            view.close()
        return None if found is None else found[0]

    async def _look(self, prefix: bytes, row: Row, *, own: bool) -> str:
        """Return what is wrong with a row, "" if nothing is."""
        key = row.key[len(prefix) :]
        if key[:1] == b"A":
            key = keys.archive_parts(key)[0]
        family = key[:1]
        if not row.value or family not in b"DRIESPUN" or rows.is_whiteout(row.value):
            return ""
        try:
            if family == b"E":
                chunks = sorted(chunks_of_window(row.value), key=_place)
                return await self._chunks(chunks)
            value = _DECODE[family](row.value)
        except (msgspec.MsgspecError, WarpError) as error:
            return f"row {row.key!r} cannot be read: {error}"
        if isinstance(value, Name):
            self.report.names += 1
            return await self._name(prefix, value) if own and row.key[len(prefix)] != 0x41 else ""
        if isinstance(value, Revision | Part):
            return await self._content(value)
        if isinstance(value, PendingRow):
            revision = key[1:9]
            if await self._get(prefix + b"R" + revision) is None:
                number = int.from_bytes(revision, "big")
                return (
                    f"changes of inode {value.inode} wait for revision {number}, which is missing"
                )
        return ""

    async def _name(self, prefix: bytes, name: Name) -> str:
        if name.kind != FILE:
            return ""
        if name.revision:
            leads, what = keys.revision_key(name.revision), f"revision {name.revision}"
        else:
            leads, what = keys.inode_key(name.inode), f"inode {name.inode}"
        if await self._get(prefix + leads) is None:
            return f"a name leads to {what}, which is missing (etag {name.etag}, {name.size} bytes)"
        return ""

    async def _content(self, content: Revision | Part) -> str:
        extents: Iterable[Extent] = content.extents
        if content.manifest is not None:
            problem = await self._chunks([content.manifest])
            if problem:
                return problem
            try:
                listed = await load_manifest(self._namespace.containers, content.manifest)
            except WarpError as error:
                return f"the manifest of an object of {content.size} bytes cannot be read: {error}"
            extents = listed.extents
        return await self._chunks(extent.chunk for extent in extents)

    async def _chunks(self, chunks: Iterable[Chunk | bytes | None]) -> str:
        for chunk in chunks:
            if not isinstance(chunk, Chunk) or (chunk.container, chunk.offset) in self._seen:
                continue
            self._seen.add((chunk.container, chunk.offset))
            self.report.chunks += 1
            problem = await self._read(chunk)
            if problem:
                return problem
        return ""

    async def _read(self, chunk: Chunk) -> str:
        end = chunk.length if self._deep else min(1, chunk.length)
        try:
            for offset in range(0, end, READ_MAX):
                length = min(READ_MAX, end - offset)
                await self._namespace.containers.verify(chunk, offset=offset, length=length)
                self.report.bytes += length
        except WarpError as error:
            where = f"container {chunk.container:016x} at {chunk.offset}"
            return f"content of {chunk.length} bytes in {where} cannot be read: {error}"
        return ""


def _revision_of(key: bytes) -> int:
    """Return the revision that a row of a volume belongs to, 0 where it is none's."""
    return int.from_bytes(key[1:9], "big") if key[:1] in b"RE" else 0


def _place(chunk: Chunk) -> tuple[int, int]:
    return chunk.container, chunk.offset
