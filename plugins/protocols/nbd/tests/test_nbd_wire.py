"""Layouts: what is packed comes back, and nothing else is taken for it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import RemoteProtocolError
from warp_nbd import wire
from warp_nbd.session import OPTIONS_MAX, STRAIGHT, Negotiation, Request, Requests

names = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))

FLAGS = (3).to_bytes(4, "big")


# Layouts ------------------------------------------------------------------------------------------


@given(names, st.lists(u16, max_size=10))
def test_an_information_request_comes_back(name, infos):
    packed = wire.pack_info_request(name, infos)

    assert wire.unpack_info_request(packed) == (name, tuple(infos))


@given(names, st.lists(names, max_size=5))
def test_a_context_request_comes_back(name, queries):
    packed = wire.pack_context_request(name, queries)

    assert wire.unpack_context_request(packed) == (name, tuple(queries))


@given(names, st.lists(u16, max_size=3), st.data())
def test_no_other_length_is_an_information_request(name, infos, data):
    packed = wire.pack_info_request(name, infos)
    cut = data.draw(st.integers(0, len(packed) - 1))

    for broken in (packed[:cut], packed + b"x"):
        with pytest.raises(RemoteProtocolError):
            wire.unpack_info_request(broken)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data):
    for unpack in (wire.unpack_info_request, wire.unpack_context_request, wire.unpack_name):
        with contextlib.suppress(RemoteProtocolError):
            unpack(data)


def test_more_than_the_limits_is_refused():
    with pytest.raises(RemoteProtocolError, match="4097"):
        wire.unpack_name(b"x" * 4097)
    with pytest.raises(RemoteProtocolError, match="65 queries"):
        wire.unpack_context_request(wire.pack_context_request("a", ["q"] * 65))
    with pytest.raises(RemoteProtocolError, match="65 information"):
        wire.unpack_info_request(wire.pack_info_request("a", [1] * 65))
    with pytest.raises(RemoteProtocolError, match="zero"):
        wire.unpack_name(b"a\0b")


def test_client_flags_that_nobody_knows_are_refused():
    assert wire.unpack_client_flags(FLAGS) == 3
    with pytest.raises(RemoteProtocolError):
        wire.unpack_client_flags((7).to_bytes(4, "big"))


def test_a_long_message_is_cut_between_letters():
    packed = wire.pack_error(7, 5, "é" * 4000)

    assert int.from_bytes(packed[24:26], "big") == 4096
    assert packed[26:].decode() == "é" * 2048


# Negotiation --------------------------------------------------------------------------------------


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        step = sizes[turn % len(sizes)]
        pieces.append(data[at : at + step])
        at, turn = at + step, turn + 1
    return pieces


def drain(session: Negotiation) -> None:
    """Take options until there are no more."""
    while session.next():
        pass


pieces = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(st.lists(st.tuples(u32, st.binary(max_size=60)), max_size=6), pieces, st.binary(max_size=5))
def test_options_come_out_whatever_the_pieces(options, sizes, rest):
    stream = FLAGS + b"".join(wire.pack_option(*option) for option in options)
    session, found = Negotiation(), []
    for piece in cut(stream, sizes):
        session.receive(piece)
        while asked := session.next():
            found.append(tuple(asked))

    assert found == options
    assert session.flags == 3
    assert not session.begun
    session.receive(rest)
    assert session.rest() == rest


def test_an_option_that_is_too_long_is_thrown_away_and_named():
    session = Negotiation()
    session.receive(FLAGS + wire.pack_option(99, bytes(wire.OPTION_MAX + 1))[:-1])
    assert session.next() is None
    assert session.begun
    session.receive(b"\0" + wire.pack_option(3))

    assert session.next() == (99, None)
    assert session.next() == (3, b"")


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(40), FLAGS + b"IHAVEOPX", FLAGS + wire.pack_option(1, bytes(2**20 + 1))],
    ids=["http", "zeros", "magic", "endless"],
)  # fmt: skip
def test_what_is_no_option_is_refused(garbage):
    session = Negotiation()
    session.receive(garbage)
    with pytest.raises(RemoteProtocolError):
        drain(session)


def test_options_have_an_end():
    session = Negotiation()
    session.receive(FLAGS + wire.pack_option(3) * (OPTIONS_MAX + 1))
    with pytest.raises(RemoteProtocolError, match="options"):
        drain(session)


# Requests -----------------------------------------------------------------------------------------

requests = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 2, 3, 4, 7, 77]), u16, u64, u64, u32, st.none()),
        st.tuples(st.just(1), u16, u64, u64, st.none(), st.binary(max_size=90)),
    ),
    max_size=8,
)


def stream_of(wanted) -> tuple[bytes, list[Request]]:
    """Return requests as bytes, and as they should come out."""
    stream, expected = b"", []
    for command, flags, cookie, offset, length, payload in wanted:
        length = len(payload) if payload is not None else length
        stream += wire.pack_request(command, cookie, offset, length, flags=flags) + (payload or b"")
        expected.append(Request(command, flags, cookie, offset, length, payload))
    return stream, expected


@given(requests, pieces)
def test_requests_come_out_whatever_the_pieces(wanted, sizes):
    stream, expected = stream_of(wanted)
    session, found = Requests(), []
    scratch = bytearray(64)
    for piece in cut(stream, sizes):
        scratch[: len(piece)] = piece  # one buffer for all, as the server has it
        session.feed(memoryview(scratch)[: len(piece)])
        while request := session.next():
            payload = None if request.payload is None else bytes(request.payload)
            found.append(request._replace(payload=payload))
        session.settle()

    assert found == expected
    assert session.waiting == 0


@given(requests)
def test_requests_that_have_to_wait_stay(wanted):
    stream, expected = stream_of(wanted)
    session, found = Requests(), []
    scratch = bytearray(stream)
    session.feed(memoryview(scratch))
    for _ in range(len(expected)):
        request = session.next()
        payload = None if request.payload is None else bytes(request.payload)
        found.append(request._replace(payload=payload))
        session.settle()
        scratch[:] = bytes(len(scratch))

    assert found == expected


@given(st.integers(STRAIGHT, STRAIGHT + 4000), st.integers(0, 300))
def test_a_large_payload_is_told_with_what_came_of_it(missing, here):
    payload = bytes(range(256)) * 200
    payload = payload[: here + missing]
    stream = wire.pack_request(1, 7, 512, len(payload)) + payload
    session = Requests()
    session.feed(stream[: 28 + here])

    assert session.next() is None
    assert session.large == (1, 0, 7, 512, len(payload), None)
    assert session.begun == payload[:here]
    assert session.next() is None
    session.filled()
    session.feed(wire.pack_request(2, 8))
    assert session.next() == (2, 0, 8, 0, 0, None)


@pytest.mark.parametrize("length", [wire.PAYLOAD_MAX + 1, 2**32 - 1])
def test_a_write_that_is_too_long_is_refused_before_its_payload(length):
    session = Requests()
    session.feed(wire.pack_request(1, 7, 0, length))
    with pytest.raises(RemoteProtocolError, match=str(length)):
        session.next()


@given(st.binary(min_size=28, max_size=200))
def test_what_is_no_request_is_refused(data):
    if data[:4] == wire.REQUEST_MAGIC.to_bytes(4, "big"):
        return
    session = Requests()
    session.feed(data)
    with pytest.raises(RemoteProtocolError):
        session.next()
