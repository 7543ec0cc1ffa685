"""An image: every row of the index at one version, as checksummed parts in a store's blobs.

The parts are written first, each whole and durable, the *end* last: an image without a valid end does not exist. So a power cut leaves
the image before. `docs/formats/local-index.md` describes the blobs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from struct import Struct

import msgspec
from warp_core.containers.segments import Position
from warp_core.errors import Corrupt, NewerFormat, NotFound, WarpError
from warp_core.interfaces.stores import BlobStore, Buffer
from xxhash import xxh3_64_intdigest as checksum

IMAGE_VERSION = 1
PREFIX = "index/"
PART = (
    4 * 1024 * 1024
)  # bytes of rows in a part: what is in memory while an image is written or read
PART_MAX = 16 * 1024 * 1024  # bytes read at most: a part and its last step
END_MAX = 4 * 1024 * 1024  # bytes of an end: the remembered request ids are 400 KB

_MAGIC = b"WARPIMG\0"
_HEAD = Struct("<8sIIQ16sQQ")  # magic, format, number, version, lineage, length, checksum
_SUM = Struct("<Q")  # of the head
HEAD = _HEAD.size + _SUM.size
_END_NUMBER = 0xFFFF_FFFF
_STEP = Struct("<I")

Pairs = list[tuple[bytes, bytes]]  # (key, version · value), ascending


class End(msgspec.Struct, array_like=True, frozen=True):
    """The last blob of an image: what it stands for, and how much there is of it."""

    format: int
    lineage: bytes
    version: int
    container: int
    offset: int
    parts: int
    rows: int
    size: int  # bytes of all parts
    requests: bytes = b""  # as in the index: id (16) · version (8, big endian), repeated

    @property
    def position(self) -> Position:
        """Where the journal goes on behind this version."""
        return Position(self.container, self.offset)


_encode = msgspec.msgpack.Encoder().encode
_decode_end = msgspec.msgpack.Decoder(End).decode
_decode_pairs = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


def part_name(version: int, number: int) -> str:
    """Name the blob of a part."""
    return f"{PREFIX}{version:016x}/{number:06x}"


def end_name(version: int) -> str:
    """Name the blob that makes an image complete."""
    return f"{PREFIX}{version:016x}/end"


def version_of(name: str) -> int | None:
    """Return the version that a blob belongs to, None if it belongs to no image."""
    try:
        return int(name[len(PREFIX) : len(PREFIX) + 16], 16)
    except ValueError:
        return None


def pack_step(pairs: Pairs) -> bytes:
    """Return some rows as they lie in a part: parts are made in steps, so that other threads may run between them."""
    packed = _encode(pairs)
    return _STEP.pack(len(packed)) + packed


def pack_part(version: int, lineage: bytes, number: int, steps: Sequence[bytes]) -> bytes:
    """Return the blob of a part."""
    return _framed(number, version, lineage, b"".join(steps))


def pack_end(end: End) -> bytes:
    """Return the blob of an end."""
    return _framed(_END_NUMBER, end.version, end.lineage, _encode(end))


def unpack_part(data: Buffer, end: End, number: int) -> Iterator[Pairs]:
    """Yield the rows of a part, some at a time; nothing is yielded of a part that is damaged.

    Raises:
        Corrupt: It is not that part.
    """
    payload = _unframed(data, number, end.version, end.lineage)
    at = 0
    while at < len(payload):
        (length,) = _STEP.unpack_from(payload, at)
        at += _STEP.size + length
        yield _decode_pairs(payload[at - length : at])


def unpack_end(data: Buffer, version: int) -> End:
    """Read an end.

    Raises:
        Corrupt: It is none. NewerFormat: A later release wrote it.
    """
    payload = _unframed(data, _END_NUMBER, version, None)
    try:
        return _decode_end(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the end of image {version} cannot be read: {error}") from error


def _framed(number: int, version: int, lineage: bytes, payload: bytes) -> bytes:
    head = _HEAD.pack(
        _MAGIC, IMAGE_VERSION, number, version, lineage, len(payload), checksum(payload)
    )
    return head + _SUM.pack(checksum(head)) + payload


def _unframed(data: Buffer, number: int, version: int, lineage: bytes | None) -> memoryview:
    view = memoryview(data)
    what = f"part {number:06x} of image {version}" if number != _END_NUMBER else f"end of {version}"
    if len(view) < HEAD or checksum(view[: _HEAD.size]) != _SUM.unpack_from(view, _HEAD.size)[0]:
        raise Corrupt(f"the head of {what} is damaged")
    magic, form, named, of, line, length, digest = _HEAD.unpack_from(view)
    if magic == _MAGIC and form > IMAGE_VERSION:
        raise NewerFormat(f"image {version} has format version {form} > {IMAGE_VERSION}")
    if (magic, named, of) != (_MAGIC, number, version) or (lineage is not None and line != lineage):
        raise Corrupt(f"another blob is in place of {what}")
    payload = view[HEAD:]
    if len(payload) != length or checksum(payload) != digest:
        raise Corrupt(f"{what} is damaged")
    return payload


# In stores ----------------------------------------------------------------------------------------


async def blobs(store: BlobStore) -> list[str]:
    """Return the names of all blobs of images in a store."""
    names: list[str] = []
    while page := await store.list(PREFIX, after=names[-1] if names else ""):
        names += [blob.name for blob in page]
    return names


async def ends(store: BlobStore) -> list[End]:
    """Return what the complete images in a store stand for, the newest first; damaged ends are passed over."""
    found = []
    for name in await blobs(store):
        version = version_of(name)
        if version is None or name != end_name(version):
            continue
        try:
            data = await store.read(name, offset=0, length=END_MAX)
            found.append(unpack_end(data, version))
        except NewerFormat:
            raise
        except WarpError:
            continue
    return sorted(found, key=lambda end: end.version, reverse=True)


async def read(end: End, stores: Sequence[BlobStore]) -> AsyncIterator[Pairs]:
    """Yield the rows of an image in order, each part from the first store where it is whole.

    Raises:
        Corrupt: A part is damaged or missing in every store.
    """
    for number in range(end.parts):
        reasons = []
        for store in stores:
            try:
                data = await store.read(part_name(end.version, number), offset=0, length=PART_MAX)
                steps = list(unpack_part(data, end, number))
            except NotFound:
                continue
            except NewerFormat:
                raise
            except WarpError as error:
                reasons.append(f"{error} in {store.path or store.id}")
                continue
            for step in steps:
                yield step
            break
        else:
            raise Corrupt(
                "; ".join(reasons) or f"part {number:06x} of image {end.version} is missing"
            )


async def damage(end: End, store: BlobStore) -> list[str]:
    """Say, in a sentence each, which parts of an image are not whole in a store."""
    problems = []
    for number in range(end.parts):
        try:
            data = await store.read(part_name(end.version, number), offset=0, length=PART_MAX)
            for _ in unpack_part(data, end, number):
                pass
        except WarpError as error:
            problems.append(f"the image of the index in {store.path or store.id}: {error}")
    return problems
