"""Records survive the round trip, and nothing else passes for one."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.containers import format as f
from warp_core.containers import pages
from warp_core.errors import Corrupt, InvalidArgument, NewerFormat, TooLarge
from warp_core.interfaces.stores import Buffer

OWNER = f.Owner(3, 1 << 40, 1 << 63)
CONTAINER = f.container_id(f.Lane.JOURNAL, 12345, 678)

payloads = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.binary(min_size=1, max_size=8), st.integers(1, 300_000)).map(
        lambda t: (t[0] * (t[1] // len(t[0]) + 1))[: t[1]]
    ),
)
owners = st.builds(
    f.Owner, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
)
offsets = st.integers(0, 2**32 - 1).map(lambda n: n * 8)


def joined(buffers: Sequence[Buffer]) -> bytes:
    return b"".join(bytes(b) for b in buffers)


def record(payload: bytes = b"payload", offset: int = f.PAGE, container: int = CONTAINER) -> bytes:
    return joined(f.pack(f.Kind.PAYLOAD, container, offset, OWNER, 99, payload))


@given(payloads, owners, offsets, st.integers(0, 255), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_a_record_gives_back_what_was_packed(
    payload: bytes, owner: f.Owner, offset: int, kind: int, sequence: int
) -> None:
    data = joined(f.pack(kind, CONTAINER, offset, owner, sequence, payload))

    head = f.whole(data)

    assert head is not None
    assert (head.kind, head.container, head.offset, head.owner, head.sequence) == (
        kind, CONTAINER, offset, owner, sequence,
    )  # fmt: skip
    assert head.length == len(payload)
    assert data[head.size : head.stored] == payload
    assert len(data) == f.align(head.stored)
    assert head.stored == f.stored_size(len(payload))
    assert f.require_head(data, head.chunk) == head
    if 0 < len(payload) <= f.FRAME:
        opened = f.open_small(data, head.chunk)
        assert opened is not None
        assert bytes(opened) == payload
    else:
        assert f.open_small(data, head.chunk) is None


@given(st.binary(min_size=1, max_size=400), st.data())
@settings(max_examples=150, deadline=None)
def test_any_flipped_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    whole = record(payload)
    chunk = f.Chunk(CONTAINER, f.PAGE, f.stored_size(len(payload)), len(payload))
    bit = data.draw(st.integers(0, chunk.stored * 8 - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8

    assert f.open_small(damaged, chunk) is None
    try:
        assert f.whole(damaged) is None
    except NewerFormat:
        assert bit // 8 == 11


@given(st.binary(max_size=200))
def test_garbage_is_no_record(data: bytes) -> None:
    assert f.unpack_head(data) is None
    assert f.whole(data) is None
    assert list(f.scan(data, container=CONTAINER)) == []
    assert pages.unpack_page(data) is None


@given(st.integers(0, 200), st.integers(0, 70_000))
@settings(max_examples=40, deadline=None)
def test_a_cut_record_is_no_whole_record(keep: int, length: int) -> None:
    data = record(bytes(length))
    stored = f.stored_size(length)

    assert f.whole(data[: max(0, stored - 1 - keep)]) is None


def test_a_record_of_another_place_is_refused() -> None:
    data = record(b"x" * 100)
    chunk = f.Chunk(CONTAINER, f.PAGE, f.stored_size(100), 100)

    f.require_head(data, chunk)
    for wrong in (
        f.Chunk(CONTAINER + 1, f.PAGE, chunk.stored, 100),
        f.Chunk(CONTAINER, f.PAGE + 8, chunk.stored, 100),
        f.Chunk(CONTAINER, f.PAGE, chunk.stored - 1, 99),
        f.Chunk(CONTAINER, f.PAGE, chunk.stored, 99),
    ):
        assert f.open_small(data, wrong) is None
        with pytest.raises(Corrupt):
            f.require_head(data, wrong)


def test_a_table_with_spare_room_and_filters_is_read_back() -> None:
    frames = [(100, 1), (200 | 0b10 << 24, 2), (5 | 0b1 << 24, 3)]
    data = f.pack_head(
        f.Kind.PAYLOAD,
        CONTAINER,
        4096,
        OWNER,
        7,
        2 * f.FRAME + 1,
        frames,
        filters="zstd:3,aes-gcm",
        room=128,
    )

    head = f.unpack_head(data)

    assert head is not None
    assert head.filters == "zstd:3,aes-gcm"
    assert head.size == len(data) == f.head_size(128, "zstd:3,aes-gcm") == f.head_span(data)
    assert list(head.ends) == [head.size + 100, head.size + 300, head.size + 305]
    assert list(head.skipped) == [0, 2, 1]
    assert list(head.checksums) == [1, 2, 3]
    assert head.span(1, 2) == (head.size + 100, head.stored)


def test_damaged_frames_are_named() -> None:
    payload = bytes(range(256)) * 1024  # four frames
    data = bytearray(record(payload))
    head = f.unpack_head(data)
    assert head is not None
    data[head.size + 2 * f.FRAME + 5] ^= 1

    assert f.bad_frames(head, 0, data[head.size : head.stored]) == [2]
    assert f.bad_frames(head, 3, data[head.ends[2] : head.stored]) == []
    assert f.bad_frames(head, 1, data[head.ends[0] : head.ends[2]]) == [2]
    assert f.bad_frames(head, 3, data[head.ends[2] : head.stored - 1]) == [3]


@given(st.lists(st.binary(max_size=200), max_size=12), st.lists(st.integers(0, 11), max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_scan_finds_every_record_behind_damage(parts: list[bytes], damaged: list[int]) -> None:
    image, places = bytearray(), []
    for part in parts:
        places.append(f.PAGE + len(image))
        image += record(part, f.PAGE + len(image))
    bad = {i for i in damaged if i < len(parts)}
    for i in bad:
        image[places[i] - f.PAGE + 20] ^= 0xFF

    found = [head.offset for head in f.scan(image, container=CONTAINER)]

    assert found == [p for i, p in enumerate(places) if i not in bad]


def test_a_scan_ignores_records_of_other_containers_and_places() -> None:
    image = (
        record(b"old", f.PAGE, CONTAINER - 1)
        + record(b"moved", f.PAGE)
        + record(b"here", f.PAGE + 176)
    )

    assert len(record(b"old")) == 80
    assert [head.offset for head in f.scan(image, container=CONTAINER)] == []
    image = image[:168] + bytes(8) + image[168:]
    assert [head.offset for head in f.scan(image, container=CONTAINER)] == [f.PAGE + 176]


def test_newer_formats_are_refused_not_skipped() -> None:
    data = bytearray(record())
    data[11] = f.VERSION + 1
    page = bytearray(pages.pack_page(pages.Page(CONTAINER)))
    page[11] = f.VERSION + 1

    with pytest.raises(NewerFormat):
        f.unpack_head(data)
    with pytest.raises(NewerFormat):
        pages.unpack_page(page)


def test_limits_are_kept() -> None:
    with pytest.raises(TooLarge):
        f.pack_head(1, 1, 0, OWNER, 0, f.PAYLOAD_MAX + 1, [])
    with pytest.raises(InvalidArgument):
        f.pack(1, 1, 4, OWNER, 0, b"x")
    with pytest.raises(TooLarge):
        f.container_id(0, 1, 1 << 24)


def test_a_lying_length_is_no_record() -> None:
    data = bytearray(record(b"x" * 64))
    struct.pack_into("<I", data, 56, f.PAYLOAD_MAX)
    struct.pack_into("<Q", data, 0, f.checksum(bytes(data[8:76])))

    assert f.unpack_head(data) is None


@given(
    st.builds(
        pages.Page,
        container=st.integers(0, 2**64 - 1),
        form=st.integers(0, 2),
        state=st.integers(0, 1),
        copies=st.integers(0, 255),
        created_ns=st.integers(0, 2**64 - 1),
        rewrite=st.integers(0, 2**32 - 1),
        size=st.integers(0, 2**64 - 1),
        map_entries=st.integers(0, 2**32 - 1),
        map_place=st.integers(0, 2**64 - 1),
        map_checksum=st.integers(0, 2**64 - 1),
    ),
    st.integers(0, f.PAGE * 8 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_page_gives_back_what_was_packed_and_notices_damage(page: pages.Page, bit: int) -> None:
    data = bytearray(pages.pack_page(page))

    assert len(data) == f.PAGE
    assert pages.unpack_page(data) == page
    data[bit // 8] ^= 1 << bit % 8
    try:
        assert pages.unpack_page(data) is None
    except NewerFormat:
        assert bit // 8 == 11


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), max_size=50))
def test_a_map_leads_every_kept_offset_to_its_place(
    gaps_and_lengths: list[tuple[int, int]],
) -> None:
    runs, offset = [], f.PAGE
    for gap, length in gaps_and_lengths:
        offset += gap * 8
        runs.append((offset, length * 8))
        offset += length * 8
    mapped = pages.Map.unpack(pages.Map(runs).pack())

    position = f.PAGE
    for start, length in runs:
        assert mapped.position(start - 8) is None or start - 8 in {s + n - 8 for s, n in runs}
        assert mapped.position(start) == position
        assert mapped.position(start + length - 8) == position + length - 8
        position += length
    assert mapped.end == position
    assert mapped.position(offset) is None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_blob_names_round_trip_and_sort_by_container(container: int, rewrite: int) -> None:
    assert f.parse_blob_name(f.blob_name(container, rewrite)) == (container, rewrite)
    assert (f.blob_name(container) < f.blob_name(5)) == (container < 5)


@pytest.mark.parametrize(
    "name", ["x/0000000000000001", "c/1", "c/000000000000000g", "c/0000000000000001.1", "c"]
)
def test_other_names_are_no_copies(name: str) -> None:
    assert f.parse_blob_name(name) is None


def test_epochs_grow_even_when_the_last_one_was_forgotten_or_the_clock_went_back() -> None:
    first = f.next_epoch(0, f.EPOCH_ZERO_S + 100)

    assert first == 100
    assert f.next_epoch(first, f.EPOCH_ZERO_S + 90) == 101
    assert f.next_epoch(0, f.EPOCH_ZERO_S + 200) > first
    assert f.epoch_of(f.container_id(1, first, 7)) == first
    assert f.lane_of(f.container_id(1, first, 7)) == 1
