"""Tables and overlays against a list of single bytes; rows against their inverse."""

from __future__ import annotations

import contextlib
import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given
from warp_core.containers import Chunk
from warp_core.errors import Corrupt
from warp_core.namespace.extents import WINDOW, Piece
from warp_core.namespace.rows import Extent, encode
from warp_core.namespace.tables import (
    Overlay,
    Table,
    chunks_of_window,
    pack_window,
    pieces_of_window,
    table_of,
    unpack_table,
    unpack_window,
)

SIZE_MAX = 40
spans = st.tuples(st.integers(0, SIZE_MAX - 1), st.integers(1, 12))
kinds = st.sampled_from(["data", "data", "hole", "cut"])
BASE = 7 * WINDOW


def chunk(number: int, length: int = 100) -> Chunk:
    return Chunk(1, number * 4096, length + 76, length)


def spread(pieces):
    """Return for each byte (chunk, place in it, owner), None in it for holes; bytes of no piece are missing."""
    return {
        piece.offset + i: (piece.chunk, piece.skip + i if piece.chunk else 0, piece.revision)
        for piece in pieces
        for i in range(piece.length)
    }


def pieces_in(entries, base):
    return [entry.piece(base) for entry in entries]


@given(st.lists(st.tuples(kinds, spans, st.integers(0, 9)), max_size=30), spans)
def test_a_table_is_a_list_of_bytes(script, probe):
    table, model = Table(), {}
    for number, (kind, (start, length), owner) in enumerate(script):
        span = range(BASE + start, BASE + start + length)
        before = {byte: model.pop(byte) for byte in span if byte in model}
        if kind == "cut":
            gone = table.cut(start, start + length)
        else:
            held = chunk(number) if kind == "data" else None
            made = Piece(BASE + start, length, held, 24 if held else 0, 0, owner if held else 0)
            gone = table.lay(made, BASE)
            model.update(spread([made]))
        assert spread(pieces_in(gone, BASE)) == before

    held = pieces_in(table, BASE)
    assert spread(held) == model
    assert all(one.end <= two.offset for one, two in itertools.pairwise(held))
    start, end = probe[0], sum(probe)
    inside = {byte: what for byte, what in model.items() if start <= byte - BASE < end}
    assert spread(pieces_in(table.within(start, end), BASE)) == inside
    whole = table.covering(start, end)
    assert table.touches(start, end) == bool(inside)
    if whole is not None:
        held, skip = whole
        assert len(inside) == end - start
        assert [what[:2] for _, what in sorted(inside.items())] == [
            (held, skip + i if held else 0) for i in range(end - start)
        ]
    assert spread(pieces_in(table.without_holes(), BASE)) == {
        byte: what for byte, what in model.items() if what[0] is not None
    }
    assert table.data_bytes() == sum(what[0] is not None for what in model.values())
    again = Table()
    for row in table.rows():
        assert again.lay_row(*row) == []
    assert again.pack() == table.pack() == unpack_table(table.pack()).pack()


places = st.one_of(
    st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(1, 12)),
    st.tuples(st.integers(0, 4), st.integers(WINDOW - 9, WINDOW - 1), st.integers(1, 3 * WINDOW)),
)


def marks(pieces, probes):
    """Return what the pieces say of some bytes."""
    return {
        at: (piece.chunk, piece.skip + at - piece.offset if piece.chunk else 0)
        for piece in pieces
        for at in probes
        if piece.offset <= at < piece.end
    }


@given(st.lists(st.tuples(st.booleans(), places), max_size=25), places)
def test_an_overlay_shows_what_was_laid_last(script, probe):
    overlay, laid = Overlay(), []
    for number, (hole, (window, start, length)) in enumerate(script):
        offset = window * WINDOW + start
        if not hole:
            length = min(length, (window + 1) * WINDOW - offset)
        piece = Piece(offset, length, None if hole else chunk(number), 0 if hole else 24)
        borders = {each for one in [*laid, piece] for each in (one.offset, one.end, one.end - 1)}
        before = marks(overlay.within(0, 9 * WINDOW), borders)
        gone = overlay.lay(piece)
        laid.append(piece)
        assert marks(gone, borders) == {
            at: what for at, what in before.items() if piece.offset <= at < piece.end and what[0]
        }

    borders = {each for one in laid for each in (one.offset, one.end, one.end - 1)}
    expected = {}
    for piece in laid:
        expected.update(marks([piece], borders))
    start, end = probe[0] * WINDOW + probe[1], probe[0] * WINDOW + probe[1] + probe[2]
    found = overlay.within(start, end)
    assert marks(found, borders) == {at: what for at, what in expected.items() if start <= at < end}
    assert all(one.end <= two.offset for one, two in itertools.pairwise(found))
    again = Overlay()
    for piece in overlay:
        again.lay(piece)
    assert marks(again.within(0, 9 * WINDOW), borders) == expected
    assert len(overlay) == sum(map(len, overlay.windows.values())) + len(overlay.holes)
    after = [each.offset for each in overlay.within(start, 1 << 62) if each.chunk]
    assert overlay.next_data(start) == (after[0] if after else None)


@given(st.integers(0, 2**20), st.lists(st.tuples(spans, st.booleans()), max_size=10))
def test_a_window_row_keeps_its_data(window, parts):
    table = Table()
    for number, ((offset, length), hole) in enumerate(parts):
        table.lay(Piece(offset, length, None if hole else chunk(number), 3), 0)
    value = pack_window(7, table)

    assert list(unpack_window(value)) == list(table.without_holes())
    assert pieces_of_window(window, value) == pieces_in(table.without_holes(), window * WINDOW)
    assert chunks_of_window(value) == {each.chunk for each in table if each.container}


def test_a_row_of_extents_is_still_read():
    extents = (Extent(0, 10, chunk(1), 24), Extent(50, 5, chunk(2), 24, 3, 4))
    table = unpack_window(encode((7, extents)))

    assert pieces_in(table, 0) == [Piece(0, 10, chunk(1), 24), Piece(50, 5, chunk(2), 24, 3, 4)]
    assert table.own_chunks() == {chunk(1)}
    assert {each.volume for each in table.owned_by(9)} == {9, 3}


@given(st.binary(max_size=120))
def test_no_bytes_crash_the_readers(data):
    for value in (data, encode((1, data)), encode((1, b"\1\0\0\0\2\0\0\0" + data))):
        with contextlib.suppress(Corrupt):
            unpack_window(value)


def test_a_damaged_table_is_refused():
    good = table_of([Piece(0, 10, chunk(1), 24)], 0).pack()
    for bad in (good[:-1], good + b"x", b"\2" + good[1:], b""):
        with pytest.raises(Corrupt):
            unpack_table(bad)
