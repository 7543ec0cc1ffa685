"""The kit for protocols: how a server opens, survives its clients, and leaves. What it says is its own tests' business."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
import pytest
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyRunning
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.protocols import Protocol
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_core.registry import Entry

from warp_conformance.kit import Kit, sample_of
from warp_conformance.reference.auth import Disk, MemoryAuth
from warp_conformance.reference.node import Stage

ROOT = ("ROOTKEY", "the-secret-of-the-root-key")
DRAIN_S = 0.6  # that requests in flight get in these tests
SLACK_S = 2.0  # on a busy machine, beyond what the interface allows
FLOOD = (
    48 * 1024 * 1024
)  # bytes of one endless request: more than any protocol buffers, sockets included

GARBAGE = [
    b"\0",
    b"\r\n\r\n",
    b"\xff" * 200,
    b"GET / HTTP/1.1\r\nHost: \r\nContent-Length: -1\r\nContent-Length: 5\r\n\r\n",
    b"POST /v/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    bytes.fromhex("16030100a5010000a10303") + b"x" * 154,  # a TLS ClientHello
    bytes.fromhex("4e42444d41474943") * 9,  # NBD's magic, again and again
    b"SSH-2.0-OpenSSH_9.9\r\n" + bytes(400),
    bytes(range(256)) * 64,
    b"A" * 20_000 + b"\n",
]

Make = Callable[[Address], Protocol]
Build = Callable[[], Protocol]


def adopt(entry: Entry[Protocol]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit that fits: by its option `listen` (`warp_core.config.Listening`) a protocol tells that it has an address."""
    if "listen" not in entry.config.__struct_fields__:

        @pytest.fixture
        def make_local(self: LocalProtocolKit, context: ProtocolContext, tmp_path: Path) -> Build:
            sample = sample_of(entry, tmp_path)
            return lambda: entry.build(sample, context)

        yield LocalProtocolKit, {"make": make_local}
        return

    @pytest.fixture
    def make(self: ProtocolKit, context: ProtocolContext, tmp_path: Path) -> Make:
        sample = sample_of(entry, tmp_path)
        return lambda listen: entry.build(msgspec.structs.replace(sample, listen=listen), context)

    yield ProtocolKit, {"make": make}


class NodeInMemory(Kit):
    """What every protocol is built with: the fixture `context`, and a watch over errors that nobody catches."""

    @pytest.fixture
    async def context(self, tmp_path: Path) -> AsyncIterator[ProtocolContext]:
        """Yield a node in memory."""
        async with Stage() as stage:
            objects = NamespaceObjects(stage.namespace)
            if stage.volume != "v":
                await objects.create_volume("v", owner=Principal("account:root", admin=True))
            yield ProtocolContext(
                node="kit",
                data=tmp_path,
                objects=objects,
                files=stage.files,
                blocks=stage.blocks,
                authenticator=MemoryAuth(Disk(), ROOT),
                metrics=Metrics(),
                drain_s=DRAIN_S,
            )

    @pytest.fixture(autouse=True)
    async def _complaints(self) -> AsyncIterator[None]:
        """Fail a test in which an error reached nobody but the event loop."""
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(
                f"{context['message']}: {context.get('exception')!r}"
            )
        )
        yield
        await asyncio.sleep(0)
        assert complaints == []


class LocalProtocolKit(NodeInMemory, kit=True):
    """For protocols that listen at no address: mounts, devices. Give `make`: a function that builds it, with the fixture `context`."""

    @pytest.fixture
    def make(self) -> Build:
        """Return how to build the protocol."""
        raise NotImplementedError("an adoption of LocalProtocolKit gives a fixture `make`")

    async def test_building_opens_nothing(self, make: Build) -> None:
        tasks, files = len(asyncio.all_tasks()), descriptors()
        built = make()

        assert built.endpoint == ""
        assert (len(asyncio.all_tasks()), descriptors()) == (tasks, files)

    async def test_the_view_is_one_of_three(self, make: Build) -> None:
        async with make() as protocol:
            assert protocol.capabilities.view in ("objects", "files", "blocks")

    async def test_leaving_without_clients_is_quick(self, make: Build) -> None:
        async with make():
            left = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - left < DRAIN_S * 0.8

    async def test_nothing_is_left_behind(self, make: Build) -> None:
        async with make():
            pass  # what is opened once and kept is open from now on
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(3):
            async with make():
                await asyncio.sleep(0.01)
        await settled(tasks, files)

    async def test_an_error_in_the_block_closes_all_the_same(self, make: Build) -> None:
        async with make():
            pass
        tasks, files = len(asyncio.all_tasks()), descriptors()
        with pytest.raises(ValueError, match="planted"):
            async with make():
                raise ValueError("planted by the kit")
        await settled(tasks, files)


class ProtocolKit(NodeInMemory, kit=True):
    """Give `make`: a function that builds the protocol for an address to listen at, with the fixture `context`.

    `context` is a node in memory with a volume `v`, an object `hello` in it, and the root key ROOT. An adopter who knows the
    protocol says more: `exchange` is a request, cut in two anywhere, and a part of its answer. Then serving and draining are proved
    by it, else by connecting alone.
    """

    anywhere: ClassVar[Address] = Address("127.0.0.1:0")
    exchange: ClassVar[tuple[bytes, bytes, bytes] | None] = None

    @pytest.fixture
    def make(self) -> Make:
        """Return how to build the protocol."""
        raise NotImplementedError("an adoption of ProtocolKit gives a fixture `make`")

    @pytest.fixture
    async def subject(self, make: Make) -> AsyncIterator[Protocol]:
        """Yield the protocol, serving."""
        async with make(self.anywhere) as protocol:
            yield protocol

    # Opening --------------------------------------------------------------------------------------

    async def test_building_opens_nothing(self, make: Make) -> None:
        tasks, files = len(asyncio.all_tasks()), descriptors()
        built = make(self.anywhere)

        assert built.endpoint == ""
        assert (len(asyncio.all_tasks()), descriptors()) == (tasks, files)

    async def test_the_endpoint_names_the_port_that_was_bound(self, subject: Protocol) -> None:
        parts = urlsplit(subject.endpoint)

        assert parts.scheme
        assert parts.hostname
        assert parts.port
        await self.serves(subject)

    async def test_a_port_that_was_asked_for_is_used(self, make: Make) -> None:
        async with make(self.anywhere) as first:
            port = urlsplit(first.endpoint).port
        async with make(Address(f"127.0.0.1:{port}")) as second:
            assert urlsplit(second.endpoint).port == port
            await self.serves(second)

    async def test_a_taken_port_is_refused_with_its_address(
        self, make: Make, subject: Protocol
    ) -> None:
        port = urlsplit(subject.endpoint).port
        tasks, files = len(asyncio.all_tasks()), descriptors()
        with pytest.raises(AlreadyRunning, match=str(port)):
            await make(Address(f"127.0.0.1:{port}")).__aenter__()

        await self.serves(subject)
        await settled(tasks, files)

    async def test_two_may_serve_at_once(self, make: Make, subject: Protocol) -> None:
        async with make(self.anywhere) as other:
            assert other.endpoint != subject.endpoint
            await self.serves(other)
        await self.serves(subject)

    async def test_the_view_is_one_of_three(self, subject: Protocol) -> None:
        assert subject.capabilities.view in ("objects", "files", "blocks")

    # Clients --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
    async def test_garbage_costs_its_sender_the_connection_at_most(
        self, subject: Protocol, garbage: bytes
    ) -> None:
        for step in (len(garbage), 1 + len(garbage) // 7):
            await throw(subject, garbage, step)
            await self.serves(subject)

    async def test_garbage_behind_a_request_harms_nobody(self, subject: Protocol) -> None:
        if self.exchange is None:
            pytest.skip("the adopter names no exchange")
        for garbage in GARBAGE:
            await throw(subject, self.exchange[0] + self.exchange[1] + garbage, 1 << 20)
            await throw(subject, self.exchange[0] + garbage, 1 << 20)
        await self.serves(subject)

    async def test_who_hangs_up_harms_nobody(self, subject: Protocol) -> None:
        first = self.exchange[0] if self.exchange else b"x"
        for data in (b"", first, first * 3):
            for abort in (True, False):
                async with connected(subject) as (_, writer):
                    writer.write(data)
                    if abort:
                        writer.transport.abort()
                    elif writer.can_write_eof():
                        writer.write_eof()
                        await asyncio.sleep(0.01)
        await self.serves(subject)

    async def test_silent_and_slow_clients_hold_nobody_up(self, subject: Protocol) -> None:
        first = self.exchange[0] if self.exchange else b"x"
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(
                SLACK_S
            ):  # a moment of standing still for each is too long as well
                for number in range(60):
                    _, writer = await stack.enter_async_context(connected(subject))
                    writer.write(first[: number % (len(first) + 1)])

                await self.serves(subject)

    async def test_many_clients_come_and_go(self, subject: Protocol) -> None:
        for _ in range(5):
            await asyncio.gather(*(self.serves(subject) for _ in range(20)))

    async def test_an_endless_request_is_not_buffered(self, subject: Protocol) -> None:
        # Python's own allocations show in the trace, those of extensions in the process's size.
        async with traced(), connected(subject) as (_, writer):
            taken, before, block = 0, memory(), b"x" * (1 << 20)
            with contextlib.suppress(ConnectionError, TimeoutError):
                while taken < FLOOD:  # ended, left unread or thrown away: all three are fine
                    async with asyncio.timeout(2.0):
                        writer.write(block)
                        await writer.drain()
                    taken += len(block)

            kept = max(memory() - before, tracemalloc.get_traced_memory()[0])
            assert kept < FLOOD // 2, f"of {taken} bytes, {kept} were kept"
        await self.serves(subject)

    # Leaving --------------------------------------------------------------------------------------

    async def test_leaving_closes_the_port(self, make: Make) -> None:
        async with make(self.anywhere) as protocol:
            place = place_of(protocol)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*place)

    async def test_a_port_can_be_taken_again_at_once(self, make: Make) -> None:
        async with make(self.anywhere) as first:
            port = urlsplit(first.endpoint).port
            for _ in range(3):
                await self.serves(first)
            stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(connected(first))
        async with make(Address(f"127.0.0.1:{port}")) as second:
            await self.serves(second)
        await stack.aclose()

    async def test_leaving_ends_silent_connections_within_the_drain_time(self, make: Make) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with make(self.anywhere) as protocol:
                ends = [await stack.enter_async_context(connected(protocol)) for _ in range(5)]
                await self.serves(protocol)
                left = asyncio.get_running_loop().time()
            took = asyncio.get_running_loop().time() - left

            for reader, _ in ends:
                async with asyncio.timeout(SLACK_S):
                    with contextlib.suppress(ConnectionError):
                        while await reader.read(65_536):
                            pass
        assert took < DRAIN_S + SLACK_S

    async def test_leaving_without_clients_is_quick(self, make: Make) -> None:
        async with make(self.anywhere) as protocol:
            await self.serves(protocol)
            await asyncio.sleep(0.05)
            left = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - left < DRAIN_S * 0.8

    async def test_a_request_in_flight_is_finished(self, make: Make) -> None:
        if self.exchange is None:
            pytest.skip("the adopter names no exchange")
        first, rest, answer = self.exchange
        protocol = make(self.anywhere)
        await protocol.__aenter__()
        async with connected(protocol) as (reader, writer):
            writer.write(first)
            await asyncio.sleep(0.05)
            leaving = asyncio.create_task(protocol.__aexit__(None, None, None))
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*place_of(protocol))
            writer.write(rest)
            async with asyncio.timeout(DRAIN_S + SLACK_S):
                received = await reader.read()
                await leaving

        assert answer in received

    async def test_a_request_that_is_never_finished_does_not_hold_up_leaving(
        self, make: Make
    ) -> None:
        first = self.exchange[0] if self.exchange else b"x"
        protocol = make(self.anywhere)
        await protocol.__aenter__()
        async with connected(protocol) as (_, writer):
            writer.write(first)
            await asyncio.sleep(0.05)
            async with asyncio.timeout(DRAIN_S + SLACK_S):
                await protocol.__aexit__(None, None, None)

    async def test_an_error_in_the_block_closes_all_the_same(self, make: Make) -> None:
        protocol = make(self.anywhere)
        with pytest.raises(ValueError, match="planted"):
            async with protocol:
                raise ValueError("planted by the kit")
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*place_of(protocol))

    async def test_nothing_is_left_behind(self, make: Make) -> None:
        async with make(self.anywhere) as protocol:
            await self.serves(protocol)  # what is opened once and kept is open from now on
        await asyncio.sleep(0.01)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(3):
            async with make(self.anywhere) as protocol:
                await self.serves(protocol)
                for garbage in GARBAGE:
                    await throw(protocol, garbage, 1 << 20)
        await settled(tasks, files)

    async def test_connections_that_ended_leave_nothing_while_it_serves(
        self, subject: Protocol
    ) -> None:
        await self.serves(subject)
        await asyncio.sleep(0.01)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(10):
            await self.serves(subject)
            await throw(subject, GARBAGE[2], 1 << 20)
        await settled(tasks, files)

    # Helpers --------------------------------------------------------------------------------------

    async def serves(self, protocol: Protocol) -> None:
        """Prove that a client is served, as far as the kit knows how."""
        async with asyncio.timeout(self.time_limit_s / 2), connected(protocol) as (reader, writer):
            if self.exchange is None:
                await asyncio.sleep(0)
                return
            writer.write(self.exchange[0])
            writer.write(self.exchange[1])
            received = b""
            while self.exchange[2] not in received:
                data = await reader.read(65_536)
                assert data, f"the connection ended after {received[:200]!r}"
                received += data


def place_of(protocol: Protocol) -> tuple[str, int]:
    """Return the host and port of an endpoint."""
    parts = urlsplit(protocol.endpoint)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@asynccontextmanager
async def connected(
    protocol: Protocol,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect; hang up at the end."""
    reader, writer = await asyncio.open_connection(*place_of(protocol))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def throw(protocol: Protocol, garbage: bytes, step: int) -> None:
    """Send garbage in pieces, and wait a moment for the connection to be ended."""
    async with connected(protocol) as (reader, writer):
        with contextlib.suppress(ConnectionError, TimeoutError):
            for start in range(0, len(garbage), step):
                writer.write(garbage[start : start + step])
                await asyncio.sleep(0)
            async with asyncio.timeout(0.03):
                await writer.drain()
                while await reader.read(65_536):
                    pass


@asynccontextmanager
async def traced() -> AsyncIterator[None]:
    """Trace Python's allocations."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def memory() -> int:
    """Return the bytes of anonymous memory that this process has in use; 0 where the system does not tell."""
    # What earlier tests freed and the allocator kept would take in a request unseen.
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def settled(tasks: int, files: int) -> None:
    """Wait until no more tasks and files are there than before; fail if that does not come."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.5):
            # Nothing tells when the last of them is gone.
            while len(asyncio.all_tasks()) > tasks or descriptors() > files:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) <= tasks, "tasks were left behind"
    assert descriptors() <= files, "descriptors were left behind"
