"""The kit for transports: messages arrive whole, in order and from whom they claim, whatever hostile peers do."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from warp_core.contexts import TransportContext
from warp_core.errors import (
    AlreadyRunning,
    RemoteProtocolError,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.transports import (
    HEADER_MAX,
    PAYLOAD_MAX,
    Link,
    Listener,
    Message,
    Transport,
)
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given, requires, sample_of

NODE = "sample"  # the node that `Entry.sample` of a transport configures
BUFFERED_MAX = 32 * PAYLOAD_MAX  # accepted without a reader: more is no backpressure

Pair = tuple[Link, Link]

GARBAGE = [
    b"\0",
    b"\xff" * 64,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    bytes.fromhex("16030100a5010000a10303") + b"x" * 154,  # the beginning of a TLS ClientHello
    b"\x7fELF" * 5000,
    bytes(range(256)) * 4096,
]


def adopt(entry: Entry[Transport]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit; `Entry.sample` has to configure the node `sample`, each time as the only node of a cluster of its own."""

    @asynccontextmanager
    async def node(folder: Path) -> AsyncIterator[Transport]:
        os.mkdir(folder)
        context = TransportContext(node=NODE, data=folder, metrics=Metrics())
        async with entry.build(sample_of(entry, folder), context) as transport:
            yield transport

    @pytest.fixture
    async def subject(self: Kit, tmp_path: Path) -> AsyncIterator[Transport]:
        async with node(tmp_path / "node") as transport:
            yield transport

    @pytest.fixture
    async def stranger(self: Kit, tmp_path: Path) -> AsyncIterator[Transport]:
        async with node(tmp_path / "stranger") as transport:
            yield transport

    yield TransportKit, {"subject": subject, "stranger": stranger}


class TransportKit(Kit, kit=True):
    """Give `subject`, a transport of the node `node`, and, where it claims `authenticated`, `stranger`: one of another cluster.

    `anywhere` is an address to listen at where the transport chooses the port. Raw bytes are sent to addresses of the form HOST:PORT;
    transports with others are not tried with garbage.
    """

    anywhere: ClassVar[str] = "127.0.0.1:0"
    node: ClassVar[str] = NODE

    @pytest.fixture
    def stranger(self) -> Transport:
        """Yield a transport of another cluster."""
        raise NotImplementedError(
            "a transport that claims `authenticated` is tried with a `stranger`"
        )

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

    # Endings --------------------------------------------------------------------------------------

    async def test_the_other_side_hears_of_the_end(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            receiving = asyncio.create_task(other.receive())
            await asyncio.sleep(0.01)
            await link.close()

            with pytest.raises(Unavailable):
                await receiving
            with pytest.raises(Unavailable):
                await other.receive()

    @pytest.mark.parametrize(("count", "size"), [(3, 10), (20, 5000)])
    async def test_what_was_sent_before_the_end_arrives_before_it(
        self, subject: Transport, count: int, size: int
    ) -> None:
        async with self.pair(subject) as (link, other):
            for number in range(count):
                await link.send(b"%d" % number, [bytes(size)])
            await link.close()
            await asyncio.sleep(0.02)

            arrived = [(await other.receive()).header for _ in range(count)]
            assert arrived == [b"%d" % number for number in range(count)]
            with pytest.raises(Unavailable):
                await other.receive()

    async def test_closing_wakes_whoever_waits(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, _):
            receiving = asyncio.create_task(link.receive())
            await asyncio.sleep(0.01)
            await link.close()

            with pytest.raises(Unavailable):
                await receiving

    async def test_closing_wakes_who_waits_to_send(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, _):
            count = BUFFERED_MAX // PAYLOAD_MAX
            sending = [
                asyncio.create_task(link.send(b"", [bytes(PAYLOAD_MAX)])) for _ in range(count)
            ]
            await asyncio.sleep(0.1)
            await link.close()
            outcomes = await asyncio.gather(*sending, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes if outcome is not None} == {Unavailable}

    async def test_a_closed_link_refuses_everything(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            await other.send(b"unread")
            await link.close()
            await link.close()

            with pytest.raises(Unavailable):
                await link.send(b"late")
            with pytest.raises(Unavailable):
                await link.receive()

    async def test_sending_to_who_is_gone_fails(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):

            async def talk() -> None:
                for _ in range(100):
                    await link.send(b"hello", [bytes(10_000)])
                    await asyncio.sleep(0.01)

            await other.close()
            with pytest.raises(Unavailable):
                await talk()

    async def test_a_link_is_closed_when_its_service_returns(self, subject: Transport) -> None:
        async def serve(link: Link) -> None:
            await link.send(b"once")

        async with self.listening(subject, serve) as listener:
            link = await subject.dial(listener.address)

            assert (await link.receive()).header == b"once"
            with pytest.raises(Unavailable):
                await link.receive()
            await link.close()

    async def test_a_service_that_fails_harms_no_other(self, subject: Transport) -> None:
        async def serve(link: Link) -> None:
            message = await link.receive()
            if message.header == b"fail":
                raise ValueError("planted by the kit")
            await link.send(message.header, [message.payload])

        async with self.listening(subject, serve) as listener:
            failing = await subject.dial(listener.address)
            fine = await subject.dial(listener.address)
            await failing.send(b"fail")
            with pytest.raises(Unavailable):
                await failing.receive()
            await fine.send(b"fine")

            assert (await fine.receive()).header == b"fine"
            await self.echoes(subject, listener)
            await failing.close()
            await fine.close()

    async def test_closing_a_listener_ends_its_links(self, subject: Transport) -> None:
        async with self.listening(subject, forever) as listener:
            links = [await subject.dial(listener.address) for _ in range(3)]
            await listener.close()

            for link in links:
                with pytest.raises(Unavailable):
                    await link.receive()
                await link.close()
            await listener.close()

    async def test_a_closed_listener_gives_its_address_back(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            address = listener.address
            await listener.close()
            with pytest.raises(Unavailable):
                await subject.dial(address, timeout_s=1.0)
            again = await subject.listen(address, echo)

            await self.echoes(subject, again)
            await again.close()

    async def test_nothing_is_left_behind(self, subject: Transport) -> None:
        async with self.pair(subject):
            pass  # what a transport opens once and keeps is open from now on
        await asyncio.sleep(0.01)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(5):
            async with self.pair(subject) as (link, other):
                await link.send(b"hello")
                await other.receive()
            with pytest.raises((Unavailable, TimedOut)):
                await subject.dial(await self.unused(subject), timeout_s=0.5)
        async with asyncio.timeout(2):
            # Nothing tells when the last of them is gone.
            while len(asyncio.all_tasks()) > tasks or descriptors() > files:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    # Dialing and listening ------------------------------------------------------------------------

    async def test_nobody_there_is_unavailable(self, subject: Transport) -> None:
        with pytest.raises(Unavailable):
            await subject.dial(await self.unused(subject), timeout_s=2.0)

    async def test_a_taken_address_is_refused(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            with pytest.raises(AlreadyRunning):
                await subject.listen(listener.address, echo)

            await self.echoes(subject, listener)

    async def test_many_links_at_once_are_kept_apart(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:

            async def talk(number: int, link: Link) -> None:
                for at in range(5):
                    header, payload = b"%d %d" % (number, at), bytes([number]) * 1000
                    await link.send(header, [payload])
                    message = await link.receive()
                    assert (message.header, bytes(message.payload)) == (header, payload)

            dialing = (subject.dial(listener.address, timeout_s=15.0) for _ in range(40))
            links = await asyncio.gather(*dialing)
            await asyncio.gather(*(talk(number, link) for number, link in enumerate(links)))
            for link in links:
                await link.close()

    async def test_a_listener_may_dial(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as first, self.listening(subject, echo) as second:
            assert first.address != second.address
            await self.echoes(subject, first)
            await self.echoes(subject, second)

    # Who is there ---------------------------------------------------------------------------------

    @requires(authenticated=True)
    async def test_both_sides_know_who_the_other_is(self, subject: Transport) -> None:
        async with self.pair(subject) as (link, other):
            assert link.peer == self.node
            assert other.peer == self.node

    @requires(authenticated=True)
    async def test_dialing_a_node_by_name_reaches_only_that_node(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            link = await subject.dial(listener.address, peer=self.node)
            await link.close()

            for name in ("someone-else", self.node + "x", self.node[:-1], self.node.upper()):
                with pytest.raises(Unauthenticated):
                    await subject.dial(listener.address, peer=name)

    @requires(authenticated=True)
    async def test_a_stranger_is_not_let_in(self, subject: Transport, stranger: Transport) -> None:
        served: list[str] = []

        async def serve(link: Link) -> None:
            served.append(link.peer)

        async def talk() -> None:
            link = await stranger.dial(listener.address)
            await link.receive()

        async with self.listening(subject, serve) as listener:
            with pytest.raises((Unauthenticated, Unavailable)):
                await talk()

        assert served == []

    @requires(authenticated=True)
    async def test_a_stranger_is_not_talked_to(
        self, subject: Transport, stranger: Transport
    ) -> None:
        async with self.listening(stranger, echo) as listener:
            with pytest.raises(Unauthenticated):
                await subject.dial(listener.address)

    @requires(authenticated=True)
    async def test_who_stays_silent_is_given_up(self, subject: Transport) -> None:
        async with silence() as address:
            started = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut):
                await subject.dial(address, timeout_s=0.3)

        assert asyncio.get_running_loop().time() - started < 2.0

    @requires(authenticated=False)
    async def test_without_names_dialing_by_name_is_refused(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            link = await subject.dial(listener.address)
            assert link.peer == ""
            await link.close()

            with pytest.raises(Unauthenticated):
                await subject.dial(listener.address, peer=self.node)

    # The wire -------------------------------------------------------------------------------------

    @requires(encrypted=True)
    async def test_the_wire_shows_nothing(self, subject: Transport) -> None:
        header, payload = b"secret header " * 4, b"secret payload " * 20_000
        async with self.listening(subject, echo) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            await link.send(header, [payload])
            assert same((await link.receive()).payload, payload)
            await link.close()

        assert len(wire.seen) > 2 * len(payload)
        assert b"secret" not in wire.seen

    @requires(encrypted=True)
    @pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
    async def test_what_was_changed_on_the_wire_is_refused(
        self, subject: Transport, place: float
    ) -> None:
        payload = pattern(200_000)
        async with self.listening(subject, echo) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            await link.send(b"first")
            await link.receive()

            async def talk() -> None:
                await link.send(b"second", [payload])
                await link.receive()

            wire.flip_at = len(wire.seen) + int(200_000 * place)
            with pytest.raises((Unavailable, RemoteProtocolError)):
                await talk()
            await link.close()

    async def test_an_end_in_the_middle_is_no_message(self, subject: Transport) -> None:
        arrived: list[int] = []

        async def serve(link: Link) -> None:
            while True:
                arrived.append(len((await link.receive()).payload))

        async with self.listening(subject, serve) as listener, relay(listener.address) as wire:
            link = await subject.dial(wire.address)
            wire.cut_at = len(wire.seen) + 150_000
            with contextlib.suppress(Unavailable):
                await link.send(b"first", [bytes(100_000)])
                await link.send(b"second", [bytes(100_000)])
            with pytest.raises((Unavailable, RemoteProtocolError)):
                await link.receive()
            await link.close()

        assert arrived in ([], [100_000])

    async def test_garbage_harms_no_other(self, subject: Transport) -> None:
        served = 0

        async def serve(link: Link) -> None:
            nonlocal served
            served += 1
            await echo(link)

        async with self.listening(subject, serve) as listener:
            for garbage in GARBAGE:
                await throw(listener.address, garbage)
                await self.echoes(subject, listener)

        # Without proofs, anything may pass for a peer that then says garbage.
        assert served == len(GARBAGE) or not subject.capabilities.authenticated

    async def test_peers_that_say_nothing_hold_nobody_up(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener, contextlib.AsyncExitStack() as stack:
            for number in range(30):
                writer = await stack.enter_async_context(raw(listener.address))
                writer.write(b"\x16" * (number % 3))

            async with asyncio.timeout(3):
                await self.echoes(subject, listener)

    async def test_peers_that_hang_up_at_once_harm_nobody(self, subject: Transport) -> None:
        async with self.listening(subject, echo) as listener:
            for _ in range(30):
                async with raw(listener.address) as writer:
                    writer.transport.abort()

            await self.echoes(subject, listener)

    # Helpers --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def listening(
        self, subject: Transport, serve: Callable[[Link], Any]
    ) -> AsyncIterator[Listener]:
        """Listen until the block ends."""
        listener = await subject.listen(self.anywhere, serve)
        try:
            yield listener
        finally:
            await listener.close()

    @asynccontextmanager
    async def pair(self, subject: Transport) -> AsyncIterator[Pair]:
        """Yield the dialing and the accepting end of a link."""
        accepted: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        done = asyncio.Event()

        async def serve(link: Link) -> None:
            accepted.set_result(link)
            await done.wait()

        async with self.listening(subject, serve) as listener:
            link = await subject.dial(listener.address)
            try:
                yield link, await accepted
            finally:
                done.set()
                await link.close()

    async def echoes(self, subject: Transport, listener: Listener) -> None:
        """Prove that a listener serves."""
        link = await subject.dial(listener.address)
        await link.send(b"are you there", [b"?"])
        message = await link.receive()
        assert (message.header, bytes(message.payload)) == (b"are you there", b"?")
        await link.close()

    async def unused(self, subject: Transport) -> str:
        """Return an address at which nobody listens."""
        async with self.listening(subject, echo) as listener:
            return listener.address


async def echo(link: Link) -> None:
    """Send back what comes, until the link ends."""
    with contextlib.suppress(WarpError):
        while True:
            message = await link.receive()
            await link.send(message.header, [message.payload])


async def forever(link: Link) -> None:
    """Keep a link open."""
    await asyncio.Event().wait()


def pattern(length: int) -> bytes:
    """Return bytes in which any shift shows."""
    return b"".join(number.to_bytes(4) for number in range(length // 4 + 1))[:length]


def descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


@asynccontextmanager
async def raw(address: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Connect without speaking the protocol."""
    _, writer = await asyncio.open_connection(*place_of(address))
    try:
        yield writer
    finally:
        writer.transport.abort()


async def throw(address: str, garbage: bytes) -> None:
    """Send garbage and wait a moment for the connection to be ended."""
    reader, writer = await asyncio.open_connection(*place_of(address))
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(garbage)
        async with asyncio.timeout(0.05):
            await writer.drain()
            await reader.read()
    writer.transport.abort()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """Accept connections and say nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def place_of(address: str) -> tuple[str, int]:
    """Return host and port; skip the test for addresses of another form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        pytest.skip(f"no raw connection to {address}")
    return host.strip("[]"), int(port)


class Wire:
    """What passes between two ends; `flip_at` and `cut_at` count the bytes of both directions."""

    def __init__(self) -> None:
        self.address = ""
        self.seen = bytearray()
        self.flip_at = -1
        self.cut_at = -1


@asynccontextmanager
async def relay(address: str) -> AsyncIterator[Wire]:
    """Stand between a dialer and a listener."""
    wire, place = Wire(), place_of(address)
    tasks: set[asyncio.Task[Any] | None] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := bytearray(await reader.read(8192)):
            start = len(wire.seen)
            wire.seen += data
            if start <= wire.flip_at < len(wire.seen):
                data[wire.flip_at - start] ^= 4
            if 0 <= wire.cut_at < len(wire.seen):
                for each in writers:
                    each.transport.abort()
                return
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        target_reader, target_writer = await asyncio.open_connection(*place)
        writers.extend((writer, target_writer))
        with contextlib.suppress(ConnectionError, RuntimeError):
            await asyncio.gather(pass_on(reader, target_writer), pass_on(target_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            if task is not None:
                task.cancel()
