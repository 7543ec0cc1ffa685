"""Filters applied to frames, and taken off again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warp_core.containers.format import (
    FRAME,
    FRAME_STORED_MAX,
    Head,
    Owner,
    align,
    checksum,
    frame_context,
    frame_count,
    head_size,
    pack_head,
    place,
)
from warp_core.containers.keyring import MARK, Keyring
from warp_core.errors import Corrupt, InvalidArgument, TooLarge
from warp_core.interfaces.codecs import Chunker, Codec, Filter
from warp_core.interfaces.stores import Buffer

STAGES = ("compress", "encrypt")  # ciphertext does not compress: the order is not a choice
FILTERS_MAX = 8  # a frame's table entry has a bit for each


class Codecs:
    """Codecs by the names that policies and records use (`zstd:3`); each is made once."""

    def __init__(self, make: Callable[[str], Codec]) -> None:
        self._make = make
        self.keyring = Keyring(self._get)
        self._made: dict[str, Codec] = {}
        self._chains: dict[str, tuple[Filter, ...]] = {}

    def chunker(self, name: str) -> Chunker:
        """Return a chunker.

        Raises:
            InvalidArgument: The codec is something else.
            NotFound: No such codec is installed.
        """
        codec = self._get(name)
        if not isinstance(codec, Chunker):
            raise InvalidArgument(f'codec "{name}" is a {codec.shape}, not a chunker')
        return codec

    def chain(self, names: str) -> tuple[Filter, ...]:
        """Return the filters of a comma separated list, in the order of encoding.

        Raises:
            InvalidArgument: One is no filter, or they are in an order that cannot be meant.
            NotFound: One is not installed.
            Sealed: One is under a key that nobody holds.
        """
        if MARK in names:
            return self._keyed(names)
        chain = self._chains.get(names)
        if chain is None:
            chain = self._chains[names] = tuple(
                self._filter(name) for name in names.split(",") if name
            )
            stages = [STAGES.index(one.stage) for one in chain]
            if stages != sorted(stages):
                raise InvalidArgument(f'filters "{names}": compress before encrypt')
            if len(chain) > FILTERS_MAX or stages.count(0) > 1:
                raise InvalidArgument(
                    f'filters "{names}": at most one that compresses, and {FILTERS_MAX} in all'
                )
        return chain

    def _keyed(self, names: str) -> tuple[Filter, ...]:
        """Return a chain that ends with a filter under a content's own key: it is not remembered, for the key is not."""
        before, _, last = names.rpartition(",")
        if MARK in before:
            raise InvalidArgument(f'filters "{names}": one key at most, and it comes last')
        return (*self.chain(before), self.keyring.get(last))

    def _filter(self, name: str) -> Filter:
        codec = self._get(name)
        if not isinstance(codec, Filter):
            raise InvalidArgument(f'codec "{name}" is a {codec.shape}, not a filter')
        return codec

    def _get(self, name: str) -> Codec:
        codec = self._made.get(name)
        if codec is None:
            codec = self._made[name] = self._make(name)
        return codec


class FilteredRecords:
    """Packs payload records whose frames go through filters, by the names in a record's head: a `journal.Packer`."""

    def __init__(self, codecs: Codecs, names: str) -> None:
        self._codecs = codecs
        self._names = names

    def most(self, length: int) -> int:
        """Return what a record of so many bytes may take.

        Filters are told their place, so the place is taken before the size is known: twice the payload always suffices.
        """
        return align(head_size(frame_count(length), self._names) + 2 * length + 1024)

    def pack(
        self, kind: int, container: int, offset: int, owner: Owner, sequence: int, payload: Buffer
    ) -> tuple[list[Buffer], int]:
        """Return the buffers of a record for its place, padding included, and its bytes without it.

        Raises:
            NotFound, InvalidArgument: The filters.
            TooLarge: One grew a frame beyond what a record allows.
        """
        chain = self._codecs.chain(self._names)
        table, parts = encode_frames(
            chain, memoryview(payload), container=container, offset=offset, first=0
        )
        head = pack_head(
            kind, container, offset, owner, sequence, len(payload), table, filters=self._names
        )
        stored = len(head) + sum(map(len, parts))
        return [head, *parts, bytes(align(stored) - stored)], stored


def encode_frames(
    chain: Sequence[Filter], payload: memoryview, *, container: int, offset: int, first: int
) -> tuple[list[tuple[int, int]], list[Buffer]]:
    """Return table entries and stored bytes of the frames in `payload`, the first of which has number `first`.

    Raises:
        TooLarge: A filter grew a frame beyond what a record allows.
    """
    if len(chain) == 1 and chain[0].stage == "encrypt":
        return _sealed_frames(chain[0], payload, container=container, offset=offset, first=first)
    table, stored = [], []
    for start in range(0, len(payload), FRAME):
        frame: Buffer = payload[start : start + FRAME]
        skipped = 0
        context = frame_context(container, offset, first + start // FRAME)
        for bit, one in enumerate(chain):
            encoded = one.encode(memoryview(frame), context=context)
            if encoded is None:
                skipped |= 1 << bit
            else:
                frame = encoded
        if len(frame) > FRAME_STORED_MAX:
            raise TooLarge(
                f"a filter made {len(frame)} bytes of a frame, at most {FRAME_STORED_MAX} are kept"
            )
        table.append((len(frame) | skipped << 24, checksum(frame)))
        stored.append(frame)
    return table, stored


def _sealed_frames(
    one: Filter, payload: memoryview, *, container: int, offset: int, first: int
) -> tuple[list[tuple[int, int]], list[Buffer]]:
    """Do what `encode_frames` does where the sizes are known before: everything goes into one buffer."""
    frames = frame_count(len(payload))
    whole = memoryview(bytearray(len(payload) + frames * one.overhead))
    table: list[tuple[int, int]] = []
    at = 0
    for number in range(frames):
        frame = payload[number * FRAME : (number + 1) * FRAME]
        size = len(frame) + one.overhead
        target = whole[at : at + size]
        one.encode_into(frame, target, context=frame_context(container, offset, first + number))
        table.append((size, checksum(target)))
        at += size
    return table, [whole]


def decode_frames(chain: Sequence[Filter], head: Head, first: int, data: Buffer) -> Buffer:
    """Return the payload of the frames from `first` on whose verified stored bytes are `data`.

    Raises:
        Corrupt: A filter does not accept what it is given: another key, or another version of it.
    """
    view = memoryview(data)
    base = start = head.span(first, first)[0]
    last = first
    while head.ends[last] - base < len(view):
        last += 1
    size = min((last + 1) * FRAME, head.length) - first * FRAME
    target = memoryview(bytearray(size))
    at = 0
    for frame in range(first, last + 1):
        end = head.ends[frame]
        part: Buffer = view[start - base : end - base]
        length = min(FRAME, head.length - frame * FRAME)
        context = frame_context(head.container, head.offset, frame)
        applied = [one for bit, one in enumerate(chain) if not head.skipped[frame] >> bit & 1]
        place_of_frame = target[at : at + length]
        for one in reversed(applied[1:]):
            part = one.decode(memoryview(part), length=len(part) - one.overhead, context=context)
        if applied:
            applied[0].decode_into(memoryview(part), place_of_frame, context=context)
        elif len(part) == length:
            place_of_frame[:] = part
        else:
            raise Corrupt(
                f"frame {frame} of {place(head.chunk)} decodes to {len(part)} bytes, not {length}"
            )
        at += length
        start = end
    return target
