"""Garbage: from the rows that say what nothing refers to any more, to containers that may free it; and who refers to what.

A garbage row is dropped after the containers have noted its chunks durably. Both may be repeated: a crash between them is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from warp_core.containers import Chunk, Owner
from warp_core.errors import Corrupt, NotFound, VolumeNotFound
from warp_core.interfaces.consistency import SCAN_MAX, Row
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.changes import own_chunks
from warp_core.namespace.content import load_manifest
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import (
    Part,
    Revision,
    checked,
    decode_garbage,
    decode_part,
    decode_revision,
)

ROWS_MAX = 100  # garbage rows dropped by one transaction: engines take as many writes
CHUNKS_MAX = 20_000  # reclaimed at once: half a megabyte of facts


class Garbage:
    """What the collector asks of a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        # Where the next row is looked for: rows that were dropped lately cost a reader as much as live ones.
        self._next = keys.GARBAGE
        self.unreadable = 0  # manifests that could not be read: the chunks that they list stay

    async def reclaim(self, *, limit: int = ROWS_MAX) -> int:
        """Hand the oldest garbage rows to the containers and drop them; returns how many there were."""
        view = self._namespace.store.view()
        try:
            rows = await view.scan(self._next, keys.GARBAGE_END, limit=min(limit, ROWS_MAX))
        finally:
            view.close()
        taken: list[Row] = []
        chunks: list[Chunk] = []
        manifests: list[Chunk] = []
        for row in rows:
            garbage = checked(decode_garbage, row.key, row.value)
            chunks += garbage.chunks
            if garbage.manifest is not None:
                chunks += await self._listed(garbage.manifest)
                manifests.append(garbage.manifest)
            taken.append(row)
            if len(chunks) > CHUNKS_MAX:
                break
        if not taken:
            self._next = keys.GARBAGE
            return 0
        containers = self._namespace.containers
        await containers.reclaim(chunks)
        # Manifests go last: one that cannot be read any more has had its chunks reclaimed.
        await containers.reclaim(manifests)

        async def drop(tx: Transaction) -> None:
            for row in taken:
                tx.delete(row.key)

        await transact(self._namespace.store, drop)
        self._next = taken[-1].key + b"\0"
        return len(taken)

    async def _listed(self, manifest: Chunk) -> set[Chunk]:
        try:
            return own_chunks((await load_manifest(self._namespace.containers, manifest)).extents)
        except (Corrupt, NotFound):
            self.unreadable += 1
            return set()

    async def refers(self, owner: Owner, chunk: Chunk) -> bool:
        """Say whether some row leads to a record; where rows cannot tell for sure, they are taken to."""
        prefix = keys.prefix(owner.volume)
        view = self._namespace.store.view()
        try:
            holders = [
                keys.revision_key(owner.revision),
                keys.inode_key(owner.inode),
                keys.left_key(owner.revision),
            ]
            live = [await view.get(prefix + key) for key in holders]
            archived_key = prefix + b"A" + holders[0]
            archived = await view.scan(archived_key, archived_key + b"\xff" * 9)
            parts = await view.scan(*(prefix + key for key in keys.parts_of(owner.revision)))
            windows = [prefix + key for key in keys.windows_of(owner.revision)]
            windowed = await view.scan(windows[0], windows[1], limit=1)
            held = [prefix + key for key in keys.holds_of(owner.revision)]
            holds = await view.scan(held[0], held[1], limit=1)
        finally:
            view.close()
        if owner.inode != owner.revision or windowed or live[1] or live[2]:
            # Written in place: whose window shows it is the file's business, and it frees what it drops.
            return bool(windowed or holds or archived or any(live))
        if max(len(archived), len(parts)) >= SCAN_MAX:
            return True
        contents: list[Revision | Part] = [
            checked(decode_part, row.key, row.value) for row in parts
        ]
        values = [value[0] for value in live[:1] if value is not None] + [
            row.value for row in archived
        ]
        contents += [
            checked(decode_revision, archived_key, value) for value in values if not _hides(value)
        ]
        return await self._among(contents, chunk)

    async def _among(self, contents: Iterable[Revision | Part], chunk: Chunk) -> bool:
        for content in contents:
            if content.manifest == chunk or chunk in own_chunks(content.extents):
                return True
            if content.manifest is not None and chunk in await self._listed(content.manifest):
                return True
        return False

    # Journal and windows --------------------------------------------------------------------------

    async def advance(self) -> None:
        """Let go of the journal's segments that no restart would replay for files."""
        namespace = self._namespace
        containers = namespace.containers
        if namespace.apart is not None:
            await namespace.apart.rest()
            if await self._files_done() < containers.journal_end():
                await namespace.apart.checkpoint()
        containers.release_journal(await self._files_done())

    async def _files_done(self) -> int:
        view = self._namespace.store.view()
        try:
            row = await view.get(keys.FILES_DONE)
        finally:
            view.close()
        if row is None:
            return 0
        container, _ = msgspec.msgpack.decode(row[0], type=tuple[int, int])
        return container

    async def drain(self) -> int:
        """Remove some windows of dropped revisions in every volume; returns how many volumes have more."""
        apart = self._namespace.apart
        if apart is None:
            return 0
        left = 0
        for volume in await self._namespace.volumes.all(deleted=True):
            if volume.row.frozen:
                continue
            try:
                left += not await apart.drain(volume.row.name)
            except VolumeNotFound:
                continue
        return left


def _hides(value: bytes) -> bool:
    """Say whether a row of a clone is nothing but a lid over its base's."""
    fields: Sequence[object] = msgspec.msgpack.decode(value, type=list[msgspec.Raw])
    return len(fields) == 1
