"""Messages: whole, in order, in the buffers that were asked for, and within limits."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import strategies as st
from warp_core.errors import TooLarge
from warp_core.interfaces.transports import HEADER_MAX, PAYLOAD_MAX, Link, Message, Transport

from warp_conformance.difference import same
from warp_conformance.kit import given
from warp_conformance.kits.transports.stage import BUFFERED_MAX, TransportPart, pattern


class Messages(TransportPart, kit=True):
    """Messages: whole, in order, in the buffers that were asked for, and within limits."""

    # Messages -------------------------------------------------------------------------------------

    @given(
        messages=st.lists(
            st.tuples(st.binary(max_size=2000), st.lists(st.binary(max_size=3000), max_size=4)),
            max_size=6,
        )
    )
    async def test_messages_arrive_as_they_were_sent(
        self, subject: Transport, messages: list[tuple[bytes, list[bytes]]]
    ) -> None:
        async with self.pair(subject) as (link, other):
            for header, payload in messages:
                await link.send(header, payload)
            arrived = [await other.receive() for _ in messages]

        assert [(message.header, bytes(message.payload)) for message in arrived] == [
            (header, b"".join(payload)) for header, payload in messages
        ]

    @pytest.mark.parametrize("header", [0, 1, HEADER_MAX])
    @pytest.mark.parametrize("payload", [0, 1, 16_384, 65_537, PAYLOAD_MAX])
    async def test_messages_of_every_size_arrive(
        self, subject: Transport, header: int, payload: int
    ) -> None:
        content = pattern(payload)
        async with self.pair(subject) as (link, other):
            sending = asyncio.create_task(link.send(b"h" * header, [content]))
            first = await other.receive()
            await sending
            await link.send(b"next")

            assert same(first.header, b"h" * header)
            assert same(first.payload, content)
            assert (await other.receive()).header == b"next"

    async def test_a_payload_may_come_from_many_buffers(self, subject: Transport) -> None:
        parts = [pattern(at * 7 % 900) for at in range(2000)]
        async with self.pair(subject) as (link, other):
            buffers = [
                bytearray(part) if at % 3 else memoryview(part) for at, part in enumerate(parts)
            ]
            sending = asyncio.create_task(link.send(bytearray(b"h"), buffers))
            message = await other.receive()
            await sending

        assert same(message.payload, b"".join(parts))

    async def test_messages_cross(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):

            async def send(end: Link, byte: bytes) -> None:
                for _ in range(6):
                    await end.send(byte, [byte * PAYLOAD_MAX])

            async def receive(end: Link) -> set[bytes]:
                return {bytes((await end.receive()).payload[:: 1 << 20]) for _ in range(6)}

            _, _, here, there = await asyncio.gather(
                send(link, b"a"), send(other, b"b"), receive(link), receive(other)
            )

        assert (here, there) == ({b"bbbb"}, {b"aaaa"})

    async def test_messages_of_many_senders_stay_whole_and_in_order(
        self, subject: Transport
    ) -> None:
        async with self.pair(subject) as (link, other):

            async def send(sender: int) -> None:
                for number in range(15):
                    size = 300_000 if (sender + number) % 5 == 0 else 10
                    await link.send(b"%d %d" % (sender, number), [bytes([sender]) * size])

            sending = asyncio.gather(*(send(sender) for sender in range(8)))
            arrived = [await other.receive() for _ in range(8 * 15)]
            await sending

        for sender in range(8):
            own = [message for message in arrived if message.header.split()[0] == b"%d" % sender]
            assert [int(message.header.split()[1]) for message in own] == list(range(15))
        for message in arrived:
            assert set(bytes(message.payload)) == {int(message.header.split()[0])}

    async def test_a_small_message_does_not_overtake(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            large = asyncio.create_task(link.send(b"large", [bytes(PAYLOAD_MAX)]))
            await asyncio.sleep(0)
            small = asyncio.create_task(link.send(b"small"))

            assert (await other.receive()).header == b"large"
            assert (await other.receive()).header == b"small"
            await large
            await small

    # Buffers --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("length", [1, 5000, 100_000, PAYLOAD_MAX])
    async def test_a_payload_is_received_into_the_buffer_that_was_asked_for(
        self, subject: Transport, length: int
    ) -> None:
        asked: list[tuple[bytes, int]] = []
        room = bytearray(length)

        def allocate(header: bytes, size: int) -> memoryview:
            asked.append((header, size))
            return memoryview(room)[:size]

        async with self.pair(subject) as (link, other):
            sending = asyncio.create_task(link.send(b"header", [pattern(length)]))
            message = await other.receive(allocate)
            await sending

        assert asked == [(b"header", length)]
        assert message.payload.obj is room
        assert same(room, pattern(length))

    async def test_buffers_may_be_reused_once_send_returns(self, subject: Transport) -> None:
        buffer = bytearray(200_000)
        header = bytearray(1)
        async with self.pair(subject) as (link, other):

            async def send() -> None:
                for number in range(60):
                    buffer[:] = bytes([number]) * len(buffer)
                    header[0] = number
                    await link.send(header, [buffer])
                buffer[:] = bytes([99]) * len(buffer)
                header[0] = 99

            sending = asyncio.create_task(send())
            await asyncio.sleep(0.05)
            arrived = [await other.receive() for _ in range(60)]
            await sending

        assert [message.header[0] for message in arrived] == list(range(60))
        assert [set(bytes(message.payload)) for message in arrived] == [
            {number} for number in range(60)
        ]

    async def test_received_messages_stay_as_they_are(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            for number in range(10):
                await link.send(b"%d" % number, [bytes([number]) * 1000])
            arrived = [await other.receive() for _ in range(10)]

        assert [message.header for message in arrived] == [b"%d" % number for number in range(10)]
        assert [set(bytes(message.payload)) for message in arrived] == [
            {number} for number in range(10)
        ]

    # Limits ---------------------------------------------------------------------------------------

    async def test_what_is_too_large_is_refused_and_the_link_goes_on(
        self, subject: Transport
    ) -> None:
        half = bytes(PAYLOAD_MAX // 2)
        async with self.pair(subject) as (link, other):
            with pytest.raises(TooLarge):
                await link.send(bytes(HEADER_MAX + 1))
            with pytest.raises(TooLarge):
                await link.send(b"", [half, half, b"x"])
            await link.send(b"fits")

            assert (await other.receive()).header == b"fits"

    async def test_a_sender_waits_for_a_slow_receiver(self, subject: Transport) -> None:
        sent = 0
        async with self.pair(subject) as (link, other):

            async def send() -> None:
                nonlocal sent
                while sent < BUFFERED_MAX // PAYLOAD_MAX:
                    await link.send(b"%d" % sent, [bytes(PAYLOAD_MAX)])
                    sent += 1

            sending = asyncio.create_task(send())
            seen = -1
            while seen != sent:
                seen = sent
                await asyncio.sleep(0.1)
            waited = not sending.done()
            arrived = [(await other.receive()).header for _ in range(seen + 1 if waited else seen)]
            sending.cancel()

        assert waited, f"{BUFFERED_MAX} bytes were taken without a receiver"
        assert arrived == [b"%d" % number for number in range(len(arrived))]

    async def test_a_cancelled_receive_loses_nothing(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):

            async def send() -> None:
                for number in range(30):
                    await link.send(
                        b"%d" % number, [bytes([number]) * (number * 40_000 % PAYLOAD_MAX)]
                    )
                    await asyncio.sleep(0)

            sending = asyncio.create_task(send())
            arrived: list[Message] = []
            patience = 0
            while len(arrived) < 30:
                receiving = asyncio.create_task(other.receive())
                for _ in range(patience % 7):
                    await asyncio.sleep(0)
                patience += 1
                receiving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    arrived.append(await receiving)
            await sending

        assert [message.header for message in arrived] == [b"%d" % number for number in range(30)]
        assert all(
            same(message.payload, bytes([number]) * (number * 40_000 % PAYLOAD_MAX))
            for number, message in enumerate(arrived)
        )
