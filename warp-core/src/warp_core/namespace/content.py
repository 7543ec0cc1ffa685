"""Content of objects: read by extents, written whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from warp_core.containers import Chunk, ChunkWriter, Containers, DataPolicy, Owner
from warp_core.containers.keyring import Hold
from warp_core.containers.reclaim import Pin
from warp_core.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    ReadOnly,
    Retained,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.pools import Claim
from warp_core.namespace.rows import (
    EXTENTS_MAX,
    FORMAT,
    Extent,
    Manifest,
    Part,
    PartSummary,
    Revision,
    checked,
    decode_manifest,
    encode,
)
from warp_core.views.objects import Digests, ObjectInfo, Reader, Writer

READ_MAX: Final = 1024 * 1024
MANIFEST_SMALL: Final = 512 * 1024  # manifests up to here are appended, larger ones streamed
ROW_PARTS: Final = 64  # part summaries that a revision row keeps itself

_ZEROS: Final = bytes(READ_MAX)


async def load_manifest(containers: Containers, chunk: Chunk) -> Manifest:
    """Read a manifest chunk.

    Raises:
        Corrupt: It is damaged.
    """
    pieces = [
        bytes(
            await containers.read(chunk, offset=offset, length=min(READ_MAX, chunk.length - offset))
        )
        for offset in range(0, chunk.length, READ_MAX)
    ]
    where = f"{chunk.container}:{chunk.offset}".encode()
    manifest: Manifest = checked(decode_manifest, where, b"".join(pieces))
    if manifest.format > FORMAT:
        raise Corrupt(f"manifest {where.decode()} is of format {manifest.format}")
    return manifest


async def store_manifest(
    containers: Containers, policy: DataPolicy, owner: Owner, manifest: Manifest
) -> Chunk:
    """Write a manifest; it is durable on return.

    Raises:
        NoSpace, StoreFailed, Unavailable
        InvalidArgument: It is too long for one chunk.
    """
    payload = encode(manifest)
    if len(payload) <= MANIFEST_SMALL:
        chunk = containers.append(payload, owner=owner, policy=policy)
        await containers.sync()
        return chunk
    writer = containers.writer(policy, owner, size_hint=len(payload))
    try:
        await writer.write(payload)
        written = await writer.finish()
    except BaseException:
        await writer.abort()
        raise
    if len(written) != 1:
        containers.discard([chunk for _, chunk in written])
        raise InvalidArgument(f"a manifest of {len(payload)} bytes takes {len(written)} chunks")
    return written[0][1]


async def placed(
    containers: Containers,
    policy: DataPolicy,
    owner: Owner,
    extents: Sequence[Extent],
    parts: tuple[PartSummary, ...] = (),
) -> tuple[tuple[Extent, ...], Chunk | None, tuple[PartSummary, ...]]:
    """Return (extents, manifest, parts) for a revision's row: what is too much for the row goes into a manifest."""
    if len(extents) <= EXTENTS_MAX and len(parts) <= ROW_PARTS:
        return tuple(extents), None, parts
    manifest = Manifest(FORMAT, tuple(extents), parts)
    # What says where contents lie stays near: an archive's are described without asking it.
    policy = msgspec.structs.replace(policy, place="") if policy.place else policy
    return (), await store_manifest(containers, policy, owner, manifest), ()


def listed_of(manifest: Chunk | None, extents: Sequence[Extent]) -> tuple[int, int]:
    """Return bytes and stored bytes of a revision's own chunks that a manifest lists, zeros without one."""
    if manifest is None:
        return 0, 0
    own = {each.chunk for each in extents if not each.revision}
    return sum(each.length for each in own), sum(each.stored for each in own)


async def extents_of(containers: Containers, content: Revision | Part) -> Sequence[Extent]:
    """Return the extents of content, from its manifest if it has one."""
    if content.manifest is None:
        return content.extents
    return (await load_manifest(containers, content.manifest)).extents


class ExtentReader(Reader):
    """Reads a revision whose extents are known. Holds a pin until `close`."""

    __slots__ = ("_containers", "_extents", "_hold", "_only", "_pin", "_starts", "info")

    def __init__(
        self,
        info: ObjectInfo,
        containers: Containers,
        extents: Sequence[Extent],
        pin: Pin,
        hold: Hold | None = None,
    ) -> None:
        self.info = info
        self._hold = hold  # on the key of sealed content
        self._containers = containers
        self._extents = extents
        only = extents[0] if len(extents) == 1 else None
        self._only = only if only and only.offset == 0 and only.length == info.size else None
        self._starts: list[int] | None = None
        self._pin: Pin | None = pin

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Reader.read_now`."""
        length = min(length, self.info.size - offset, READ_MAX)
        if length <= 0:
            return b""
        only = self._only
        if only is not None:
            return self._containers.read_now(only.chunk, offset=only.skip + offset, length=length)
        found: list[Buffer] = []
        for chunk, start, size in self._pieces(offset, length):
            piece = (
                self._containers.read_now(chunk, offset=start, length=size)
                if chunk is not None
                else memoryview(_ZEROS)[:size]
            )
            if piece is None:
                return None
            found.append(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Reader.read`."""
        length = min(length, self.info.size - offset, READ_MAX)
        if length <= 0:
            return b""
        found: list[Buffer] = []
        for chunk, start, size in self._pieces(offset, length):
            if chunk is None:
                found.append(memoryview(_ZEROS)[:size])
            else:
                found.append(await self._containers.read(chunk, offset=start, length=size))
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        """See `Reader.close`."""
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.release()
        if self._hold is not None:
            self._hold.release()

    def _pieces(self, offset: int, length: int) -> list[tuple[Chunk | None, int, int]]:
        """Return (chunk, offset in it, length) of what covers a range, None for holes."""
        if self._starts is None:
            self._starts = [extent.offset for extent in self._extents]
        pieces: list[tuple[Chunk | None, int, int]] = []
        end = offset + length
        index = max(0, bisect_right(self._starts, offset) - 1)
        while offset < end and index < len(self._extents):
            extent = self._extents[index]
            index += 1
            if extent.offset >= end:
                break
            if extent.offset > offset:
                pieces.append((None, 0, extent.offset - offset))
                offset = extent.offset
            inside = offset - extent.offset
            size = min(extent.length - inside, end - offset)
            if size > 0:
                pieces.append((extent.chunk, extent.skip + inside, size))
                offset += size
        if offset < end:
            pieces.append((None, 0, end - offset))
        return pieces


class InlineReader(Reader):
    """Reads content that lay in its row."""

    __slots__ = ("_content", "info")

    def __init__(self, info: ObjectInfo, content: bytes) -> None:
        self.info = info
        self._content = content

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Reader.read_now`."""
        return self._content[offset : offset + min(length, READ_MAX)]

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Reader.read`."""
        return self._content[offset : offset + min(length, READ_MAX)]

    def close(self) -> None:
        """Nothing is pinned."""


Link = Callable[[Sequence[Extent], int, Digests], Awaitable[ObjectInfo]]

# After these nothing was committed; after any other error of a commit it may have been, and what it links must stay.
REFUSALS: Final = (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    ReadOnly,
    Retained,
)


class ExtentWriter(Writer):
    """Streams into containers; at the end `link` makes what was written visible.

    `link` gets extents, size and digests, and raises one of REFUSALS where the content must not become visible; then it is dropped.
    """

    def __init__(
        self,
        stream: ChunkWriter,
        containers: Containers,
        link: Link,
        *,
        journaled: bool,
        hold: Hold | None = None,
        claim: Claim | None = None,
    ) -> None:
        self._stream = stream
        self._claim = claim  # what was reserved of the quotas
        self._hold = hold  # on the key of content that is to be sealed
        self._containers = containers
        self._link = link
        self._journaled = journaled
        self._finished = False

    def buffer(self) -> memoryview:
        """See `Writer.buffer`."""
        return self._stream.buffer()

    def wrote(self, length: int) -> bool:
        """See `Writer.wrote`."""
        return self._stream.wrote(length)

    async def drain(self) -> None:
        """See `Writer.drain`."""
        await self._stream.drain()

    async def write(self, data: Buffer) -> None:
        """See `Writer.write`."""
        await self._stream.write(data)

    async def commit(self, digests: Digests) -> ObjectInfo:
        """See `Writer.commit`."""
        try:
            written = await self._stream.finish(journaled=self._journaled)
        except BaseException:
            if self._claim is not None:
                self._claim.release()
            raise
        self._finished = True
        self._let_go()
        extents = [Extent(offset, chunk.length, chunk) for offset, chunk in written]
        try:
            return await self._link(extents, self._stream.size, digests)
        except REFUSALS:
            self._containers.discard([chunk for _, chunk in written])
            raise
        finally:
            if self._claim is not None:
                self._claim.release()

    async def abort(self) -> None:
        """See `Writer.abort`."""
        self._let_go()
        if self._claim is not None:
            self._claim.release()
        if not self._finished:
            self._finished = True
            await self._stream.abort()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
