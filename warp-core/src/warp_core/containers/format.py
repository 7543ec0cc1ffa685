"""Records: how containers look on a store (`docs/formats/container.md`); pages and maps are in `pages`.

Pure functions on buffers. Nothing here reads or writes a store.

```
record = head 64 │ filter names 8·f │ frame table 12·n │ frame │ frame │ … │ padding to 8
```
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from warp_core.errors import Corrupt, InvalidArgument, NewerFormat, TooLarge
from warp_core.interfaces.stores import Buffer

VERSION = 1
ALIGN = 8  # records start at multiples of it; 32-bit places then reach 32 GiB
FRAME = 64 * 1024  # payload bytes of every frame but the last: the unit of filters and verification
PAYLOAD_MAX = 64 * 1024 * 1024  # of one record: a container's worth
FRAME_STORED_MAX = 128 * 1024  # a filter may grow a frame by a header and a tag, not without limit
PAGE = 4096  # a blob's first bytes; one device block, so that it is written whole or not at all
CONTAINER_SIZE = 64 * 1024 * 1024  # sealed when this full
EPOCH_ZERO_S = 1_767_225_600  # 2026-01-01T00:00Z

checksum = xxh3_64_intdigest
MAGIC = b"WRr" + bytes([VERSION])

_CHECKSUM = struct.Struct("<Q")
_REST = struct.Struct("<4sBBHQIIQQQII")  # a head without its checksum
_HEAD = struct.Struct("<Q4sBBHQIIQQQII")
_ENTRY = struct.Struct("<IQ")
_REST_ONE = struct.Struct(
    "<4sBBHQIIQQQIIIQ"
)  # …with a table of one frame: the case of every small payload
_HEAD_ONE = struct.Struct("<Q4sBBHQIIQQQIIIQ")

HEAD = _HEAD.size
ENTRY = _ENTRY.size
HEAD_ONE = HEAD + ENTRY
_LENGTH_BITS = 0xFFFFFF
_PADDING = [bytes(n) for n in range(ALIGN)]

assert HEAD == 64


class Owner(NamedTuple):
    """Whose content a record is, so that the index can be rebuilt and what was never linked can be recognised."""

    volume: int
    inode: int
    revision: int


NOBODY = Owner(0, 0, 0)


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record's payload by its place. `stored` is the record's bytes, `length` the payload's."""

    container: int
    offset: int
    stored: int
    length: int


class Kind(IntEnum):
    """What a record holds. From ENGINE on, consistency engines define their own."""

    PAYLOAD = 1
    COMMIT = 2
    BATCH = 3
    LEDGER = 4
    ENGINE = 16


class Lane(IntEnum):
    """Who makes container ids."""

    CONTAINERS = 0
    JOURNAL = 1
    LEDGER = 2


PLACED: Final = 64  # lanes beyond it are containers of places, by their number
PLACES_MAX: Final = 128  # that a node ever had: a lane is a byte


class Form(IntEnum):
    """How a blob holds its container."""

    PLAIN = 0
    COMPACTED = 1
    SHARD = 2


class State(IntEnum):
    """Whether a container may still grow."""

    OPEN = 0
    SEALED = 1


class Head(NamedTuple):
    """A record without its frames. `ends[i]` is where frame i ends, counted from the record's first byte."""

    kind: int
    container: int
    offset: int
    owner: Owner
    sequence: int
    length: int
    stored: int
    filters: str
    size: int  # bytes of head, filter names and table: where the first frame begins
    ends: Sequence[int]
    skipped: Sequence[int]  # for each frame, a bit mask of the filters that left it as it was
    checksums: Sequence[int]

    @property
    def chunk(self) -> Chunk:
        """The chunk that names this record."""
        return Chunk(self.container, self.offset, self.stored, self.length)

    @property
    def next(self) -> int:
        """Offset in the container at which the next record begins."""
        return align(self.offset + self.stored)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return where the stored bytes of frames `first` to `last` (inclusive) begin and end in the record."""
        return (self.ends[first - 1] if first else self.size), self.ends[last]


# Places and ids -----------------------------------------------------------------------------------


def align(offset: int) -> int:
    """Round up to where a record may begin."""
    return (offset + ALIGN - 1) & -ALIGN


def frame_count(length: int) -> int:
    """Return how many frames a payload has."""
    return (length + FRAME - 1) // FRAME


def head_size(frames: int, filters: str = "") -> int:
    """Return the bytes of head, filter names and a table of `frames` entries."""
    return HEAD + align(len(filters.encode())) + ENTRY * frames


def stored_size(length: int) -> int:
    """Return `stored` of an unfiltered record that holds `length` bytes in a table without spare room."""
    return HEAD + ENTRY * frame_count(length) + length


def container_id(lane: int, epoch: int, counter: int) -> int:
    """Make an id that was never used: see `docs/formats/container.md`.

    Raises:
        TooLarge: More containers than an epoch has ids.
    """
    if counter >> 24 or epoch >> 32:
        raise TooLarge(f"container counter {counter} of epoch {epoch} is out of range")
    return lane << 56 | epoch << 24 | counter


def lane_of(container: int) -> int:
    """Return the lane of an id."""
    return container >> 56


def place_of(container: int) -> int:
    """Return the number of the place that a container belongs to; 0: it lies on the stores that all classes share."""
    return max(0, (container >> 56) - PLACED)


def lane_at(place: int) -> int:
    """Return the lane of containers of a place, by its number."""
    return PLACED + place if place else Lane.CONTAINERS


def is_container(container: int) -> bool:
    """Say whether an id is of a container of contents, no segment of the journal or the ledger."""
    return lane_of(container) == Lane.CONTAINERS or place_of(container) > 0


def epoch_of(container: int) -> int:
    """Return the epoch of an id."""
    return container >> 24 & 0xFFFFFFFF


def next_epoch(last: int, now_s: float) -> int:
    """Return an epoch greater than `last` and than any that was given out some seconds ago."""
    return max(last + 1, int(now_s) - EPOCH_ZERO_S)


def blob_name(container: int, rewrite: int = 0) -> str:
    """Name the blob of a copy; `rewrite` counts how often that copy was rewritten."""
    return f"c/{container:016x}.{rewrite:08x}" if rewrite else f"c/{container:016x}"


def parse_blob_name(name: str) -> tuple[int, int] | None:
    """Return (container, rewrite) of a copy's name, None for other blobs."""
    folder, _, rest = name.partition("/")
    head, dot, tail = rest.partition(".")
    if folder != "c" or len(head) != 16 or (dot and len(tail) != 8):
        return None
    try:
        return int(head, 16), int(tail, 16) if dot else 0
    except ValueError:
        return None


def frame_context(container: int, offset: int, frame: int) -> bytes:
    """Name the place of a frame: unique for all time, so that a nonce may be derived from it."""
    return struct.pack("<QQI", container, offset, frame)


# Records ------------------------------------------------------------------------------------------


def pack_small(
    kind: int, container: int, offset: int, owner: Owner, sequence: int, payload: Buffer
) -> list[Buffer]:
    """Return the buffers of a record with one frame, padding included; `payload` is kept, not copied.

    The caller promises 0 < len(payload) <= FRAME.
    """
    length = len(payload)
    stored = HEAD_ONE + length
    volume, inode, revision = owner
    rest = _REST_ONE.pack(
        MAGIC, kind, 0, 1, container, offset >> 3, volume, inode, revision, sequence, length, stored,
        length, checksum(payload),
    )  # fmt: skip
    head = _CHECKSUM.pack(checksum(rest)) + rest
    tail = -stored & 7
    return [head, payload, _PADDING[tail]] if tail else [head, payload]


def pack(
    kind: int, container: int, offset: int, owner: Owner, sequence: int, payload: Buffer
) -> list[Buffer]:
    """Return the buffers of an unfiltered record, padding included; `payload` is kept, not copied.

    Raises:
        TooLarge: Beyond PAYLOAD_MAX.
        InvalidArgument: `offset` is no place for a record.
    """
    length = len(payload)
    if offset & 7:
        raise InvalidArgument(f"offset {offset} is no multiple of {ALIGN}")
    if 0 < length <= FRAME:
        return pack_small(kind, container, offset, owner, sequence, payload)
    frames = frame_checksums(payload)
    head = pack_head(kind, container, offset, owner, sequence, length, frames)
    tail = -(len(head) + length) & 7
    return [head, payload, _PADDING[tail]] if tail else [head, payload]


def frame_checksums(payload: Buffer) -> list[tuple[int, int]]:
    """Return the table of an unfiltered payload: (stored bytes, checksum) of each frame."""
    view = memoryview(payload)
    frames = []
    for start in range(0, len(view), FRAME):
        frame = view[start : start + FRAME]
        frames.append((len(frame), checksum(frame)))
    return frames


def pack_head(
    kind: int,
    container: int,
    offset: int,
    owner: Owner,
    sequence: int,
    length: int,
    frames: Sequence[tuple[int, int]],
    *,
    filters: str = "",
    room: int = 0,
) -> bytes:
    """Return head, filter names and frame table.

    Args:
        frames: (stored bytes | mask of skipped filters << 24, checksum) of each frame.
        room: Entries of the table, at least as many as frames; more where the record's length was not known at its begin.

    Raises:
        TooLarge: The payload is longer than PAYLOAD_MAX, or the filters' names longer than a record has room for.
    """
    if length > PAYLOAD_MAX:
        raise TooLarge(f"payload of {length} bytes > PAYLOAD_MAX {PAYLOAD_MAX}")
    room = max(room, len(frames))
    names = filters.encode()
    names += bytes(-len(names) & 7)
    if len(names) > 255 * 8:
        raise TooLarge(f"filter names of {len(names)} bytes > {255 * 8}")
    stored = HEAD + len(names) + ENTRY * room + sum(size & _LENGTH_BITS for size, _ in frames)
    rest = bytearray(
        _REST.pack(
            MAGIC,
            kind,
            len(names) >> 3,
            room,
            container,
            offset >> 3,
            *owner,
            sequence,
            length,
            stored,
        )
    )
    rest += names
    for size, digest in frames:
        rest += _ENTRY.pack(size, digest)
    rest += bytes(ENTRY * (room - len(frames)))
    return _CHECKSUM.pack(checksum(rest)) + bytes(rest)


def unpack_head(data: Buffer, *, at: int = 0) -> Head | None:
    """Return the head that begins at `data[at]`, or None if there is none that is whole and valid.

    Raises:
        NewerFormat: A record of a later release begins there.
    """
    if len(data) - at < HEAD:
        return None
    (
        digest,
        magic,
        kind,
        names,
        room,
        container,
        place,
        volume,
        inode,
        revision,
        sequence,
        length,
        stored,
    ) = _HEAD.unpack_from(data, at)
    if magic != MAGIC:
        if magic[:3] == MAGIC[:3] and magic[3] > VERSION:
            raise NewerFormat(
                f"a record has format version {magic[3]}, this release reads up to {VERSION}"
            )
        return None
    size = HEAD + 8 * names + ENTRY * room
    view = memoryview(data)
    if len(data) - at < size or checksum(view[at + 8 : at + size]) != digest:
        return None
    if room == 1 and not names and 0 < length <= FRAME:  # most records, in a third of the time
        mark, frame_digest = _ENTRY.unpack_from(data, at + HEAD)
        if size + (mark & _LENGTH_BITS) != stored:
            return None
        owner = Owner(volume, inode, revision)
        frame = (stored,), (mark >> 24,), (frame_digest,)
        return Head(kind, container, place << 3, owner, sequence, length, stored, "", size, *frame)
    used = frame_count(length)
    if used > room or length > PAYLOAD_MAX:
        return None
    end = size
    ends, skipped, checksums = array("I"), array("B"), array("Q")
    for mark, frame_digest in _ENTRY.iter_unpack(
        view[at + size - ENTRY * room : at + size - ENTRY * (room - used)]
    ):
        end += mark & _LENGTH_BITS
        ends.append(end)
        skipped.append(mark >> 24)
        checksums.append(frame_digest)
    if end != stored:
        return None
    filters = ""
    if names:
        filters = (
            bytes(view[at + HEAD : at + HEAD + 8 * names]).rstrip(b"\0").decode(errors="replace")
        )
    owner = Owner(volume, inode, revision)
    return Head(
        kind,
        container,
        place << 3,
        owner,
        sequence,
        length,
        stored,
        filters,
        size,
        ends,
        skipped,
        checksums,
    )


def head_span(data: Buffer, *, at: int = 0) -> int:
    """Return how many bytes head, names and table take, judged by the unverified head at `data[at]`; 0 if that is none."""
    if len(data) - at < HEAD or bytes(data[at + 8 : at + 12]) != MAGIC:
        return 0
    return HEAD + 8 * data[at + 13] + ENTRY * int.from_bytes(data[at + 14 : at + 16], "little")


def require_head(data: Buffer, chunk: Chunk) -> Head:
    """Return the head of a chunk's record, which `data` begins with.

    Raises:
        Corrupt: It is missing, damaged, or another record's.
    """
    head = unpack_head(data)
    if head is None:
        raise Corrupt(f"no valid record at {place(chunk)}")
    if head.container != chunk.container or head.offset != chunk.offset:
        raise Corrupt(f"the record at {place(chunk)} says that it belongs to {place(head.chunk)}")
    if head.stored != chunk.stored or head.length != chunk.length:
        raise Corrupt(
            f"the record at {place(chunk)} has {head.stored}/{head.length} bytes, {chunk.stored}/{chunk.length} were linked"
        )
    return head


def open_small(data: Buffer, chunk: Chunk) -> memoryview | None:
    """Return the payload of an unfiltered record of one frame that `data` holds whole, verified; None if anything is not so.

    The fast path of reads. What None means (damage, filters, several frames) is found out by `require_head`.
    """
    length = chunk.length
    if len(data) < HEAD_ONE + length:
        return None
    (
        digest,
        magic,
        _,
        names,
        room,
        container,
        position,
        _,
        _,
        _,
        _,
        held,
        stored,
        size,
        frame_digest,
    ) = _HEAD_ONE.unpack_from(data)
    if (
        held != length
        or container != chunk.container
        or position << 3 != chunk.offset
        or size != length
        or room != 1
        or names
        or stored != chunk.stored
        or magic != MAGIC
    ):
        return None
    view = memoryview(data)
    payload = view[HEAD_ONE : HEAD_ONE + length]
    if checksum(view[8:HEAD_ONE]) != digest or checksum(payload) != frame_digest:
        return None
    return payload


def bad_frames(head: Head, first: int, data: Buffer) -> list[int]:
    """Return which frames are damaged in `data`, the stored bytes of frames from `first` on."""
    view = memoryview(data)
    bad = []
    start = head.ends[first - 1] if first else head.size
    base = start
    frame = first
    while frame < len(head.ends) and start - base < len(view):
        end = head.ends[frame]
        stored = view[start - base : end - base]
        if len(stored) < end - start or checksum(stored) != head.checksums[frame]:
            bad.append(frame)
        start = end
        frame += 1
    return bad


def whole(data: Buffer, *, at: int = 0) -> Head | None:
    """Return the head at `data[at]` if the record is there to its end and every frame of it is good, else None."""
    head = unpack_head(data, at=at)
    if head is None or len(data) - at < head.stored:
        return None
    view = memoryview(data)
    if bad_frames(head, 0, view[at + head.size : at + head.stored]):
        return None
    return head


_ZEROS: Final = bytes(4 * 1024 * 1024)


def find_head(data: Buffer, *, container: int, base: int, start: int = 0) -> Head | None:
    """Return the first valid head at or after `data[start]` that names `container` and its own place.

    `base` is the offset in the container that `data` begins at, a multiple of ALIGN. A head whose table reaches beyond `data` is
    not found.
    """
    searchable = data.tobytes() if isinstance(data, memoryview) else data
    if len(searchable) <= len(_ZEROS) and _ZEROS.startswith(searchable):
        return None  # reserved and never written: compared in a twentieth of the time that a search takes
    at = searchable.find(MAGIC, max(start, 0) + 8)
    while at >= 0:
        begin = at - 8
        if not begin & 7:
            head = unpack_head(searchable, at=begin)
            if head is not None and head.container == container and head.offset == base + begin:
                return head
        at = searchable.find(MAGIC, at + 1)
    return None


def scan(data: Buffer, *, container: int, base: int = PAGE) -> Iterator[Head]:
    """Yield the heads of the records in `data`, the image of a container from offset `base` on; gaps are passed over.

    Frames are not verified: see `whole`.
    """
    at = 0
    while at + HEAD <= len(data):
        head = unpack_head(data, at=at)
        if head is None or head.container != container or head.offset != base + at:
            head = find_head(data, container=container, base=base, start=at)
            if head is None:
                return
        yield head
        at = head.next - base


def place(chunk: Chunk) -> str:
    """Say where a chunk is, for messages."""
    return f"container {chunk.container:016x} offset {chunk.offset}"
