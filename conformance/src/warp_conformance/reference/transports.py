"""A transport over asyncio streams whose nodes share a key: proofs of names, masked and tagged messages. For tests only.

Handshake, each way: 16 random bytes, name length, name; then a proof keyed with the cluster's key over the role and both greetings.
Message: two lengths, header and payload under a mask, tag.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from warp_core.errors import (
    AlreadyRunning,
    InvalidArgument,
    RemoteProtocolError,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import (
    HEADER_MAX,
    PAYLOAD_MAX,
    Allocate,
    Link,
    Listener,
    Message,
    Transport,
    TransportCapabilities,
)

LENGTHS = struct.Struct(">II")
TAG_SIZE = 16
HANDSHAKE_S = 2.0

Serve = Callable[[Link], Awaitable[None]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StreamLink(Link):
    """One connection."""

    def __init__(self, ends: Ends, peer: str, send_key: bytes, receive_key: bytes) -> None:
        self.reader, self.writer = ends
        self.peer = peer
        self.send_key, self.receive_key = send_key, receive_key
        self.sent = self.received = 0
        self.pending: tuple[int, int] | None = None
        self.sending = asyncio.Lock()
        self.closed = False
        self.broken: RemoteProtocolError | None = None

    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """Mask, tag, write, wait for room."""
        length = sum(len(buffer) for buffer in payload)
        self.check_limits(len(header), length)
        async with self.sending:
            if self.closed:
                raise Unavailable("link is closed")
            self.write(self.pack(bytes(header), b"".join(payload)))
            await self.flush()

    def check_limits(self, header: int, payload: int) -> None:
        """Refuse what is too large."""
        if header > HEADER_MAX or payload > PAYLOAD_MAX:
            raise TooLarge(f"message of {header} + {payload} bytes")

    def pack(self, header: bytes, payload: bytes) -> bytes:
        """Return the next message for the wire."""
        lengths = LENGTHS.pack(len(header), len(payload))
        masked = self.mask(header + payload, self.send_key, self.sent)
        self.sent += 1
        return lengths + masked + self.tag(lengths + masked, self.send_key, self.sent - 1)

    def write(self, data: bytes) -> None:
        """Hand bytes to the stream."""
        self.writer.write(data)

    async def flush(self) -> None:
        """Wait for room in the stream."""
        try:
            await self.writer.drain()
        except OSError as error:
            raise Unavailable("link ended") from error
        if self.closed or self.writer.transport.is_closing():
            raise Unavailable("link ended")

    async def receive(self, allocate: Allocate | None = None) -> Message:
        """Read one message; what a cancelled call has read is kept."""
        if self.broken:
            raise RemoteProtocolError(str(self.broken))
        try:
            if self.closed:
                raise Unavailable("link is closed")
            if self.pending is None:
                self.pending = self.unpack(await self.reader.readexactly(LENGTHS.size))
            header_length, payload_length = self.pending
            rest = await self.reader.readexactly(header_length + payload_length + TAG_SIZE)
            self.pending = None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Unavailable("link ended") from error
        body = self.open(LENGTHS.pack(header_length, payload_length), rest)
        return self.deliver(body[:header_length], body[header_length:], allocate)

    def unpack(self, lengths: bytes) -> tuple[int, int]:
        """Check the lengths of the next message."""
        header, payload = LENGTHS.unpack(lengths)
        if header > HEADER_MAX or payload > PAYLOAD_MAX:
            raise self.bad("lengths beyond the limits")
        return header, payload

    def open(self, lengths: bytes, rest: bytes) -> bytes:
        """Check the tag, take off the mask."""
        masked, tag = rest[:-TAG_SIZE], rest[-TAG_SIZE:]
        if not hmac.compare_digest(
            tag, self.tag(lengths + masked, self.receive_key, self.received)
        ):
            raise self.bad("tag does not match")
        self.received += 1
        return self.mask(masked, self.receive_key, self.received - 1)

    def deliver(self, header: bytes, payload: bytes, allocate: Allocate | None) -> Message:
        """Put the payload where the caller wants it."""
        room = (
            allocate(header, len(payload))
            if allocate and payload
            else memoryview(bytearray(len(payload)))
        )
        room[:] = payload
        return Message(header, room)

    def bad(self, reason: str) -> RemoteProtocolError:
        """End the link for what the peer sent."""
        self.broken = RemoteProtocolError(reason)
        self.end()
        return self.broken

    def mask(self, data: bytes, key: bytes, number: int) -> bytes:
        """Return data under the mask of a message."""
        stream = hashlib.shake_128(key + number.to_bytes(8)).digest(len(data))
        return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))

    def tag(self, data: bytes, key: bytes, number: int) -> bytes:
        """Return the tag of a masked message."""
        return hashlib.blake2b(
            data, key=key, salt=number.to_bytes(8), digest_size=TAG_SIZE
        ).digest()

    async def close(self) -> None:
        """End the link."""
        self.end()
        await asyncio.sleep(0)

    def end(self) -> None:
        """Close the stream and wake whoever reads or waits for room."""
        if not self.closed:
            self.closed = True
            if self.sending.locked():
                self.writer.transport.abort()
            self.writer.close()
            self.reader.feed_eof()


class StreamListener(Listener):
    """A server and the tasks of its links."""

    def __init__(self, owner: StreamTransport, serve: Serve) -> None:
        self.owner, self.serve = owner, serve
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Bind."""
        self.server = await asyncio.start_server(self.accept, host, port)
        self.address = f"{host}:{self.server.sockets[0].getsockname()[1]}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own."""
        task = asyncio.get_running_loop().create_task(self.run((reader, writer)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self, ends: Ends) -> None:
        """Serve one connection."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                link = await self.owner.greet(ends, dialing=False)
        except (Unauthenticated, Unavailable, TimeoutError):
            ends[1].transport.abort()
            return
        except BaseException:
            ends[1].transport.abort()
            raise
        try:
            await self.served(link)
        finally:
            self.ended(link)

    async def served(self, link: StreamLink) -> None:
        """Run the service; what it raises ends its link."""
        with contextlib.suppress(Exception):
            await self.serve(link)

    def ended(self, link: StreamLink) -> None:
        """Close a link whose service returned."""
        link.end()

    async def close(self) -> None:
        """Stop, end links, wait for their tasks."""
        if self.server:
            self.server.close()
        await self.end_links()

    async def end_links(self) -> None:
        """End accepted links."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class StreamTransport(Transport):
    """A node of the cluster that knows `key`."""

    capabilities = TransportCapabilities(authenticated=True, encrypted=True)

    def __init__(self, node: str, key: bytes) -> None:
        self.node, self.key = node, key

    async def __aenter__(self) -> Self:
        """Nothing is kept open between links."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left."""

    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        """Connect and exchange proofs."""
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                return await self.connected(host, int(port), peer)
        except TimeoutError as error:
            raise TimedOut(f"{address} did not answer") from error

    async def connected(self, host: str, port: int, peer: str) -> Link:
        """Connect, then greet; the connection is closed if that fails."""
        try:
            ends = await asyncio.open_connection(host, port)
        except OSError as error:
            raise Unavailable(f"nobody at {host}:{port}") from error
        try:
            link = await self.greet(ends, dialing=True)
            self.check_peer(link.peer, peer)
        except BaseException:
            ends[1].transport.abort()
            raise
        return link

    def check_peer(self, proved: str, wanted: str) -> None:
        """Refuse another node than was wanted."""
        if wanted and proved != wanted:
            raise Unauthenticated(f"the other side is {proved}")

    async def greet(self, ends: Ends, *, dialing: bool) -> StreamLink:
        """Exchange greetings and proofs, derive keys."""
        reader, writer = ends
        own = os.urandom(16) + bytes([len(self.node)]) + self.node.encode()
        try:
            writer.write(own)
            start = await reader.readexactly(17)
            theirs = start + await reader.readexactly(start[16])
            both = own + theirs if dialing else theirs + own
            writer.write(self.proof(b"dials" if dialing else b"accepts", both))
            shown = await reader.readexactly(32)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Unauthenticated("the other side proved nothing") from error
        self.check_proof(shown, self.proof(b"accepts" if dialing else b"dials", both))
        keys = [self.proof(direction, both) for direction in (b"out", b"back")]
        send, receive = keys if dialing else reversed(keys)
        try:
            return self.link(ends, theirs[17:].decode(), send, receive)
        except UnicodeDecodeError as error:
            raise Unauthenticated("no name") from error

    def link(self, ends: Ends, peer: str, send_key: bytes, receive_key: bytes) -> StreamLink:
        """Make the link."""
        return StreamLink(ends, peer, send_key, receive_key)

    def proof(self, role: bytes, both: bytes) -> bytes:
        """Return what only who knows the key can say in a role about two greetings."""
        return hmac.digest(self.key, role + both, "sha256")

    def check_proof(self, shown: bytes, expected: bytes) -> None:
        """Compare a proof."""
        if not hmac.compare_digest(shown, expected):
            raise Unauthenticated("the other side does not know the key")

    async def listen(self, address: str, serve: Serve) -> Listener:
        """Bind and accept."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise InvalidArgument(f"no address: {address}")
        listener = self.listener(serve)
        try:
            await listener.start(host, int(port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(f"{address} is taken") from error
            raise Unavailable(str(error)) from error
        return listener

    def listener(self, serve: Serve) -> StreamListener:
        """Make a listener that is not bound yet."""
        return StreamListener(self, serve)
