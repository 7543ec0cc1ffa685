"""Pieces against a list of single bytes; rows and records against their inverses."""

from __future__ import annotations

import contextlib
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given
from warp_core.containers import Chunk
from warp_core.errors import Corrupt, NewerFormat
from warp_core.namespace.extents import (
    CHANGE_HEAD,
    HOLE,
    SIZE,
    WINDOW,
    WRITE,
    Change,
    Piece,
    Pieces,
    pack_change,
    split,
    unpack_change,
)

SIZE_MAX = 40
spans = st.tuples(st.integers(0, SIZE_MAX - 1), st.integers(1, 12))


def chunk(number: int, length: int = 100) -> Chunk:
    return Chunk(1, number * 4096, length + 76, length)


@st.composite
def steps(draw):
    kind = draw(st.sampled_from(["lay", "hole", "cut"]))
    offset, length = draw(spans)
    return kind, offset, length, draw(st.integers(0, 9))


def spread(pieces):
    """Return for each byte (chunk, place in it, owner), None in it for holes; bytes of no piece are missing."""
    return {
        piece.offset + i: (piece.chunk, piece.skip + i if piece.chunk else 0, piece.revision)
        for piece in pieces
        for i in range(piece.length)
    }


@given(st.lists(steps(), max_size=30), spans)
def test_pieces_are_a_list_of_bytes(script, probe):
    pieces = Pieces()
    model: dict[int, object] = {}
    for number, (kind, offset, length, owner) in enumerate(script):
        span = range(offset, offset + length)
        before = {byte: model[byte] for byte in span if byte in model}
        if kind == "cut":
            gone = pieces.cut(offset, offset + length)
            for byte in before:
                del model[byte]
        else:
            made = Piece(offset, length, chunk(number) if kind == "lay" else None, 0, 0, owner)
            gone = pieces.lay(made)
            model.update(spread([made]))
        assert spread(gone) == before

    held = list(pieces)
    assert spread(held) == model
    assert all(one.end <= two.offset for one, two in itertools.pairwise(held))
    start, end = probe[0], sum(probe)
    inside = {byte: what for byte, what in model.items() if start <= byte < end}
    assert spread(pieces.within(start, end)) == inside
    assert {b for low, high in pieces.gaps(start, end) for b in range(low, high)} == {
        byte for byte in range(start, end) if byte not in model
    }


def test_a_chunk_laid_in_two_parts_is_one_piece():
    pieces = Pieces()
    pieces.lay(Piece(0, 10, chunk(1), 24))
    pieces.lay(Piece(10, 5, chunk(1), 34))

    assert list(pieces) == [Piece(0, 15, chunk(1), 24)]


@given(st.integers(0, 5 * WINDOW), st.integers(0, 3 * WINDOW))
def test_parts_of_a_split_are_back_to_back_and_each_in_one_window(start, length):
    parts = list(split(start, start + length))

    assert sum(end - begin for begin, end in parts) == length
    assert all(one[1] == two[0] for one, two in itertools.pairwise(parts))
    assert all(begin // WINDOW == (end - 1) // WINDOW for begin, end in parts)


@given(st.sampled_from([HOLE, SIZE]), st.integers(0, 2**60), st.integers(0, 2**60))
def test_a_change_record_is_read_back(what, offset, length):
    assert unpack_change(pack_change(Change(what, offset, length))) == (what, offset, length)


def test_damaged_change_records_are_refused():
    good = pack_change(Change(WRITE, 5, 3)) + b"abc"
    assert unpack_change(good) == (WRITE, 5, 3)

    for bad in (
        good[:-1],
        good + b"x",
        good[: CHANGE_HEAD - 1],
        b"\1\x09" + good[2:],
        b"\0" + good[1:],
    ):
        with pytest.raises(Corrupt):
            unpack_change(bad)
    with pytest.raises(NewerFormat):
        unpack_change(b"\2" + good[1:])


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_readers(data):
    with contextlib.suppress(Corrupt, NewerFormat):
        read = unpack_change(data)
        assert unpack_change(pack_change(read) + data[CHANGE_HEAD:]) == read
