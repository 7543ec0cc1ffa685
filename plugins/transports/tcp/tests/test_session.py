"""Framing without sockets: every fragmentation, every damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import LocalProtocolError, RemoteProtocolError
from warp_core.interfaces.transports import HEADER_MAX, PAYLOAD_MAX, Message
from warp_tcp.session import INBOX_STEP, Inbound
from warp_tcp.wire import HEAD_SIZE, HELLO, pack_head


def framed(messages: list[tuple[bytes, bytes]], first: int = 1) -> bytes:
    return b"".join(
        pack_head(header, len(payload), sequence=first + at) + header + payload
        for at, (header, payload) in enumerate(messages)
    )


def greeted() -> Inbound:
    inbound = Inbound()
    inbound.room()[:HEAD_SIZE] = pack_head(b"", 0, sequence=0, flags=HELLO)
    inbound.filled(HEAD_SIZE)
    assert inbound.greeting()
    return inbound


def pour(inbound: Inbound, data: bytes) -> list[Message]:
    """Feed bytes as room allows, taking every message that they complete."""
    messages = []
    while data:
        room = inbound.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        inbound.filled(count)
        data = data[count:]
        while (message := inbound.take(None)) is not None:
            messages.append(message)
    return messages


small = st.tuples(st.binary(max_size=100), st.binary(max_size=300))


@given(messages=st.lists(small, max_size=8), splits=st.lists(st.integers(0, 3000), max_size=10))
def test_fragmentation_does_not_matter(
    messages: list[tuple[bytes, bytes]], splits: list[int]
) -> None:
    inbound, wire = greeted(), framed(messages)
    taken = []
    ends = [*sorted(min(split, len(wire)) for split in splits), len(wire)]
    for start, end in zip([0, *ends], ends, strict=False):
        taken += pour(inbound, wire[start:end])

    assert [(message.header, bytes(message.payload)) for message in taken] == messages
    assert not inbound.unfinished


@pytest.mark.parametrize(
    "length", [1, INBOX_STEP - 33, INBOX_STEP, INBOX_STEP * 7 + 5, PAYLOAD_MAX]
)
def test_payloads_of_every_size_arrive(length: int) -> None:
    payload = bytes(range(256)) * (length // 256 + 1)
    messages = [(b"h" * 40, payload[:length]), (b"next", b"one")]

    taken = pour(greeted(), framed(messages))

    assert [(message.header, bytes(message.payload)) for message in taken] == messages


@pytest.mark.parametrize("length", [0, 1, INBOX_STEP, HEADER_MAX])
def test_headers_of_every_size_arrive(length: int) -> None:
    messages = [(b"x" * length, b"payload")] * 3

    assert [message.header for message in pour(greeted(), framed(messages))] == [b"x" * length] * 3


def test_little_of_a_bulk_payload_is_copied() -> None:
    inbound = greeted()
    head = pack_head(b"", PAYLOAD_MAX, sequence=1)
    pour(inbound, head + bytes(10))
    target = memoryview(bytearray(PAYLOAD_MAX))
    late = greeted()
    room = late.room()
    room[: len(head)] = head
    late.filled(len(head))

    assert late.take(lambda header, length: target) is None
    assert late.room().obj is target.obj
    assert len(late.room()) == PAYLOAD_MAX
    assert len(inbound.room()) == PAYLOAD_MAX - 10


def test_nothing_more_is_received_while_messages_wait() -> None:
    inbound, wire = greeted(), framed([(b"header", b"payload" * 100)] * 1000)
    fed = 0
    while room := inbound.room():
        room[:] = wire[fed : fed + len(room)]
        inbound.filled(len(room))
        fed += len(room)

    assert fed < 256 * 1024


@given(at=st.integers(0, HEAD_SIZE + 5), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(at: int, bit: int) -> None:
    wire = bytearray(framed([(b"header", b"")]))
    wire[at] ^= 1 << bit
    inbound = greeted()

    try:
        taken = pour(inbound, bytes(wire))
    except RemoteProtocolError:
        return
    assert taken == []  # a longer length: the rest never comes


@given(garbage=st.binary(min_size=HEAD_SIZE, max_size=200))
def test_garbage_is_found(garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        pour(greeted(), garbage)


def test_messages_out_of_order_are_found() -> None:
    for first in (0, 2):
        with pytest.raises(RemoteProtocolError, match="was due"):
            pour(greeted(), framed([(b"", b"")], first=first))


def test_lengths_beyond_the_limits_are_found_before_memory_is_taken() -> None:
    for head in (
        pack_head(b"", PAYLOAD_MAX + 1, sequence=1),
        pack_head(b"x" * (HEADER_MAX + 1), 0, sequence=1),
    ):
        with pytest.raises(RemoteProtocolError, match="MAX"):
            pour(greeted(), head)


def test_the_first_message_has_to_be_a_hello() -> None:
    for wire in (
        pack_head(b"", 0, sequence=0),
        pack_head(b"", 5, sequence=0, flags=HELLO) + b"12345",
    ):
        inbound = Inbound()
        room = inbound.room()
        room[: len(wire)] = wire
        inbound.filled(len(wire))

        with pytest.raises(RemoteProtocolError):
            inbound.greeting()


def test_a_hello_of_a_later_version_may_say_more() -> None:
    inbound = Inbound()
    wire = pack_head(b"more", 0, sequence=0, flags=HELLO) + b"more"
    for byte in wire[:-1]:
        inbound.room()[0] = byte
        inbound.filled(1)
        assert not inbound.greeting()
    inbound.room()[0] = wire[-1]
    inbound.filled(1)

    assert inbound.greeting()


def test_a_second_hello_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        pour(greeted(), pack_head(b"", 0, sequence=1, flags=HELLO))


def test_a_buffer_of_another_size_is_our_mistake() -> None:
    for buffer in (memoryview(bytearray(4)), memoryview(bytes(5))):
        inbound, wire = greeted(), framed([(b"", b"12345")])
        room = inbound.room()
        room[: len(wire)] = wire
        inbound.filled(len(wire))

        with pytest.raises(LocalProtocolError):
            inbound.take(lambda header, length, buffer=buffer: buffer)  # type: ignore[misc]
