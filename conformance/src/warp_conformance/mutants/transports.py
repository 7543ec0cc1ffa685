"""Faulty transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import pytest
from warp_core.errors import RemoteProtocolError, Unauthenticated, Unavailable
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import (
    PAYLOAD_MAX,
    Allocate,
    Link,
    Message,
    Transport,
    TransportCapabilities,
)

from warp_conformance.kits.transports import NODE, TransportKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.transports import (
    HANDSHAKE_S,
    LENGTHS,
    TAG_SIZE,
    Ends,
    Serve,
    StreamLink,
    StreamListener,
    StreamTransport,
)

faults = Faults("transports")


class OnTransport(TransportKit):
    """`implementation` is a transport, or a link or listener that takes its place in one."""

    implementation: ClassVar[type[StreamTransport | StreamLink | StreamListener]] = StreamTransport

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Transport]:
        async with self.made(b"key of the cluster") as transport:
            yield transport

    @pytest.fixture
    async def stranger(self) -> AsyncIterator[Transport]:
        async with self.made(b"key of another") as transport:
            yield transport

    def made(self, key: bytes) -> StreamTransport:
        part = self.implementation
        if issubclass(part, StreamTransport):
            return part(NODE, key)
        transport = StreamTransport(NODE, key)
        if issubclass(part, StreamLink):
            transport.link = part  # type: ignore[method-assign]
        else:
            listener = part
            transport.listener = lambda serve: listener(transport, serve)  # type: ignore[method-assign]
        return transport


class OnPlaintext(OnTransport):
    """For faults of transports that claim no authentication."""

    class implementation(StreamTransport):  # noqa: N801  (takes the attribute's place)
        capabilities = TransportCapabilities(authenticated=False, encrypted=False)

        def link(self, ends: Ends, peer: str, send_key: bytes, receive_key: bytes) -> StreamLink:
            return StreamLink(ends, "", send_key, receive_key)

        def check_peer(self, proved: str, wanted: str) -> None:
            if wanted:
                raise Unauthenticated("nobody proves a name here")

        def check_proof(self, shown: bytes, expected: bytes) -> None:
            pass

        def proof(self, role: bytes, both: bytes) -> bytes:
            return StreamTransport("", b"").proof(role, both)


# Link.send ----------------------------------------------------------------------------------------


@faults(OnTransport, "Link.send", "lost-message")
class LosesAMessage(StreamLink):
    def write(self, data: bytes) -> None:
        if self.sent == 4:
            self.sent -= 1
            self.write = super().write  # type: ignore[method-assign]
        else:
            super().write(data)


@faults(OnTransport, "Link.send", "duplicated-message")
class SendsTwice(StreamLink):
    def pack(self, header: bytes, payload: bytes) -> bytes:
        first = super().pack(header, payload)
        return first + super().pack(header, payload) if self.sent == 3 else first


@faults(OnTransport, "Link.send", "swapped-bytes")
class SwapsBytes(StreamLink):
    def pack(self, header: bytes, payload: bytes) -> bytes:
        if len(payload) > 50_000:
            payload = payload[:40_000] + payload[40_001:39_999:-1] + payload[40_002:]
        return super().pack(header, payload)


@faults(OnTransport, "Link.send", "first-buffer-only")
class SendsTheFirstBuffer(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        await super().send(header, payload[:1])


@faults(OnTransport, "Link.send", "first-thousand-buffers")
class SendsAThousandBuffers(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        await super().send(header, payload[:1024])


@faults(OnTransport, "Link.send", "cut-payload")
class CutsThePayload(StreamLink):
    def pack(self, header: bytes, payload: bytes) -> bytes:
        return super().pack(header, payload[: PAYLOAD_MAX - 1])


@faults(OnTransport, "Link.send", "empty-is-dropped")
class DropsWhatIsEmpty(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        if header or payload:
            await super().send(header, payload)


@faults(OnTransport, "Link.send", "ignored-limit")
class IgnoresLimits(StreamLink):
    def check_limits(self, header: int, payload: int) -> None:
        pass


@faults(OnTransport, "Link.send", "limit-for-each-buffer")
class LimitsEachBuffer(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        for buffer in payload:
            self.check_limits(len(header), len(buffer))
        self.check_limits(len(header), 0)
        async with self.sending:
            self.write(self.pack(bytes(header), b"".join(payload)))
            await self.flush()


@faults(OnTransport, "Link.send", "limit-is-one-too-low")
class LimitsTooEarly(StreamLink):
    def check_limits(self, header: int, payload: int) -> None:
        super().check_limits(header + 1, payload)


@faults(OnTransport, "Link.send", "limit-ends-the-link")
class EndsAtTheLimit(StreamLink):
    def check_limits(self, header: int, payload: int) -> None:
        try:
            super().check_limits(header, payload)
        except Exception:
            self.end()
            raise


@faults(OnTransport, "Link.send", "wrong-error-at-the-limit")
class SaysUnavailable(StreamLink):
    def check_limits(self, header: int, payload: int) -> None:
        try:
            super().check_limits(header, payload)
        except Exception as error:
            raise Unavailable("too large") from error


@faults(OnTransport, "Link.send", "no-backpressure")
class NeverWaits(StreamLink):
    async def flush(self) -> None:
        if self.closed or self.writer.transport.is_closing():
            raise Unavailable("link ended")


@faults(OnTransport, "Link.send", "keeps-buffers")
class SendsLater(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        self.check_limits(len(header), sum(map(len, payload)))
        if self.closed:
            raise Unavailable("link is closed")
        parts, turn = (header, *payload), asyncio.create_task(asyncio.sleep(0.001))
        async with self.sending:
            await self.flush()
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(self.later, parts, turn)

    def later(self, parts: Sequence[Buffer], turn: object) -> None:
        self.write(self.pack(bytes(parts[0]), b"".join(parts[1:])))


@faults(OnTransport, "Link.send", "small-overtakes-large")
class SmallFirst(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        if sum(map(len, payload)) > 100_000:
            await asyncio.sleep(0.02)
        await super().send(header, payload)


@faults(OnTransport, "Link.send", "interleaved-senders")
class Interleaves(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        self.check_limits(len(header), sum(map(len, payload)))
        if self.closed:
            raise Unavailable("link is closed")
        data = self.pack(bytes(header), b"".join(payload))
        for start in range(0, len(data), 65_536):
            self.write(data[start : start + 65_536])
            await self.flush()


@faults(OnTransport, "Link.send", "silent-after-the-end")
class IsSilentAfterTheEnd(StreamLink):
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        if not self.closed:
            await super().send(header, payload)


@faults(OnTransport, "Link.send", "library-error-escapes")
class RaisesOsErrors(StreamLink):
    async def flush(self) -> None:
        await self.writer.drain()
        if self.closed or self.writer.transport.is_closing():
            raise ConnectionResetError("link ended")


@faults(OnTransport, "Link.send", "plain-on-the-wire")
class MasksNothing(StreamLink):
    def mask(self, data: bytes, key: bytes, number: int) -> bytes:
        return data


@faults(OnTransport, "Link.send", "header-plain-on-the-wire")
class MasksThePayload(StreamLink):
    def pack(self, header: bytes, payload: bytes) -> bytes:
        data = super().pack(header, payload)
        lengths = LENGTHS.pack(len(header), len(payload))
        masked = header + data[LENGTHS.size + len(header) : -TAG_SIZE]
        return lengths + masked + self.tag(lengths + masked, self.send_key, self.sent - 1)

    def open(self, lengths: bytes, rest: bytes) -> bytes:
        header = rest[: LENGTHS.unpack(lengths)[0]]
        return header + super().open(lengths, rest)[len(header) :]


# Link.receive -------------------------------------------------------------------------------------


@faults(OnTransport, "Link.receive", "ignored-allocate")
class IgnoresAllocate(StreamLink):
    def deliver(self, header: bytes, payload: bytes, allocate: Allocate | None) -> Message:
        return Message(header, memoryview(payload))


@faults(OnTransport, "Link.receive", "allocates-twice")
class AllocatesTwice(StreamLink):
    def deliver(self, header: bytes, payload: bytes, allocate: Allocate | None) -> Message:
        if allocate and len(payload) > 10_000:
            allocate(header, len(payload))
        return super().deliver(header, payload, allocate)


@faults(OnTransport, "Link.receive", "allocates-without-header")
class AllocatesWithoutHeader(StreamLink):
    def deliver(self, header: bytes, payload: bytes, allocate: Allocate | None) -> Message:
        return Message(header, super().deliver(b"", payload, allocate).payload)


@faults(OnTransport, "Link.receive", "reused-room")
class ReusesItsRoom(StreamLink):
    room = bytearray(PAYLOAD_MAX)

    def deliver(self, header: bytes, payload: bytes, allocate: Allocate | None) -> Message:
        if allocate:
            return super().deliver(header, payload, allocate)
        self.room[: len(payload)] = payload
        return Message(header, memoryview(self.room)[: len(payload)])


@faults(OnTransport, "Link.receive", "cancelled-loses-the-head")
class LosesTheHead(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        self.pending = None
        return await super().receive(allocate)


@faults(OnTransport, "Link.receive", "cancelled-loses-the-message")
class LosesTheMessage(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        message = await super().receive(allocate)
        await asyncio.sleep(0)
        return message


@faults(OnTransport, "Link.receive", "half-a-message-at-the-end")
class DeliversHalfAMessage(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        try:
            return await super().receive(allocate)
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, asyncio.IncompleteReadError) and cause.partial and self.pending:
                pending, self.pending = self.pending, None
                return Message(b"", memoryview(cause.partial)[pending[0] :])
            raise


@faults(OnTransport, "Link.receive", "empty-message-at-the-end")
class EndsWithAnEmptyMessage(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        try:
            return await super().receive(allocate)
        except Unavailable:
            return Message(b"", memoryview(b""))


@faults(OnTransport, "Link.receive", "waits-after-the-end")
class WaitsAfterTheEnd(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        try:
            return await super().receive(allocate)
        except Unavailable:
            await asyncio.Event().wait()
            raise


@faults(OnTransport, "Link.receive", "library-error-escapes")
class RaisesEndOfFile(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        try:
            return await super().receive(allocate)
        except Unavailable as error:
            raise error.__cause__ or error from None


@faults(OnTransport, "Link.receive", "drops-what-came-before-the-end")
class DropsTheRest(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        if self.reader._eof:  # type: ignore[attr-defined]
            raise Unavailable("link ended")
        return await super().receive(allocate)


@faults(OnTransport, "Link.receive", "tag-not-checked")
class ChecksNoTag(StreamLink):
    def open(self, lengths: bytes, rest: bytes) -> bytes:
        self.received += 1
        return self.mask(rest[:-TAG_SIZE], self.receive_key, self.received - 1)


@faults(OnTransport, "Link.receive", "tag-covers-the-head-only")
class ChecksTheHead(StreamLink):
    def tag(self, data: bytes, key: bytes, number: int) -> bytes:
        return super().tag(data[:4096], key, number)


@faults(OnTransport, "Link.receive", "damage-waits-for-ever")
class WaitsAtDamage(StreamLink):
    async def receive(self, allocate: Allocate | None = None) -> Message:
        try:
            return await super().receive(allocate)
        except RemoteProtocolError:
            await asyncio.Event().wait()
            raise

    def bad(self, reason: str) -> RemoteProtocolError:
        return RemoteProtocolError(reason)


# Link.close ---------------------------------------------------------------------------------------


@faults(OnTransport, "Link.close", "wakes-no-receiver")
class WakesNoReceiver(StreamLink):
    def end(self) -> None:
        self.closed = True
        if not self.writer.is_closing():
            self.writer.write_eof()


@faults(OnTransport, "Link.close", "wakes-no-sender")
class WakesNoSender(StreamLink):
    def end(self) -> None:
        self.closed = True
        if not self.sending.locked():
            self.writer.close()
        self.reader.feed_eof()


@faults(OnTransport, "Link.close", "not-repeatable")
class ClosesOnce(StreamLink):
    async def close(self) -> None:
        if self.closed:
            raise Unavailable("link is closed")
        await super().close()


@faults(OnTransport, "Link.close", "leaked-descriptor")
class LeaksADescriptor(StreamLink):
    leaked: ClassVar[list[object]] = []

    def end(self) -> None:
        if not self.closed:
            self.leaked.append(open("/dev/null"))  # noqa: SIM115
        super().end()


@faults(OnTransport, "Link.close", "leaked-task")
class LeaksATask(StreamLink):
    leaked: ClassVar[list[object]] = []

    def end(self) -> None:
        if not self.closed:
            self.leaked.append(asyncio.ensure_future(asyncio.sleep(60)))
        super().end()


@faults(OnTransport, "Link.close", "drops-what-was-sent")
class DropsWhatWasSent(StreamLink):
    def end(self) -> None:
        if not self.closed:
            import socket
            import struct

            raw: socket.socket | None = self.writer.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        super().end()


# Transport.dial -----------------------------------------------------------------------------------


@faults(OnTransport, "Transport.dial", "any-name-will-do")
class AcceptsAnyName(StreamTransport):
    def check_peer(self, proved: str, wanted: str) -> None:
        pass


@faults(OnTransport, "Transport.dial", "prefix-of-a-name-will-do")
class AcceptsAPrefix(StreamTransport):
    def check_peer(self, proved: str, wanted: str) -> None:
        if not proved.startswith(wanted):
            raise Unauthenticated("another node")


@faults(OnTransport, "Transport.dial", "case-of-a-name-is-ignored")
class IgnoresCase(StreamTransport):
    def check_peer(self, proved: str, wanted: str) -> None:
        super().check_peer(proved.lower(), wanted.lower())


@faults(OnTransport, "Transport.dial", "wrong-error-for-another-name")
class SaysItIsUnavailable(StreamTransport):
    def check_peer(self, proved: str, wanted: str) -> None:
        if wanted and proved != wanted:
            raise Unavailable("another node")


@faults(OnTransport, "Transport.dial", "no-name")
class KnowsNoName(StreamTransport):
    def link(self, ends: Ends, peer: str, send_key: bytes, receive_key: bytes) -> StreamLink:
        return StreamLink(ends, "", send_key, receive_key)


@faults(OnTransport, "Transport.dial", "own-name-for-the-other")
class ProofOfAnyone(StreamTransport):
    async def greet(self, ends: Ends, *, dialing: bool) -> StreamLink:
        link = await super().greet(ends, dialing=dialing)
        link.peer = link.peer if dialing else "client"
        return link


@faults(OnTransport, "Transport.dial", "unproved-acceptor")
class TrustsTheAcceptor(StreamTransport):
    async def greet(self, ends: Ends, *, dialing: bool) -> StreamLink:
        if dialing:
            trusting = _Trusting(self.node, self.key)
            return await trusting.greet(ends, dialing=True)
        return await super().greet(ends, dialing=False)


class _Trusting(StreamTransport):
    def check_proof(self, shown: bytes, expected: bytes) -> None:
        pass


@faults(OnTransport, "Transport.dial", "library-error-escapes")
class RaisesConnectionRefused(StreamTransport):
    async def connected(self, host: str, port: int, peer: str) -> Link:
        try:
            return await super().connected(host, port, peer)
        except Unavailable as error:
            raise error.__cause__ or error from None


@faults(OnTransport, "Transport.dial", "ignored-timeout")
class IgnoresTheTimeout(StreamTransport):
    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        return await super().dial(address, peer=peer, timeout_s=60.0)


@faults(OnTransport, "Transport.dial", "wrong-error-at-the-timeout")
class SaysUnavailableAtTheTimeout(StreamTransport):
    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        try:
            async with asyncio.timeout(timeout_s):
                return await super().dial(address, peer=peer, timeout_s=60.0)
        except TimeoutError as error:
            raise Unavailable("too late") from error


@faults(OnPlaintext, "Transport.dial", "name-without-proof")
class AcceptsANameWithoutProof(OnPlaintext.implementation):
    def check_peer(self, proved: str, wanted: str) -> None:
        pass


@faults(OnPlaintext, "Transport.dial", "claims-a-name-without-proof")
class ClaimsANameWithoutProof(OnPlaintext.implementation):
    def link(self, ends: Ends, peer: str, send_key: bytes, receive_key: bytes) -> StreamLink:
        return StreamLink(ends, peer, send_key, receive_key)


# Transport.listen, Listener -----------------------------------------------------------------------


@faults(OnTransport, "Transport.listen", "unproved-dialer")
class TrustsTheDialer(StreamTransport):
    async def greet(self, ends: Ends, *, dialing: bool) -> StreamLink:
        if not dialing:
            trusting = _Trusting(self.node, self.key)
            return await trusting.greet(ends, dialing=False)
        return await super().greet(ends, dialing=True)


@faults(OnTransport, "Transport.listen", "library-error-escapes")
class RaisesAddressInUse(StreamTransport):
    async def listen(self, address: str, serve: Serve) -> StreamListener:
        listener = self.listener(serve)
        host, _, port = address.rpartition(":")
        await listener.start(host, int(port))
        return listener


@faults(OnTransport, "Transport.listen", "shares-the-address")
class SharesTheAddress(StreamListener):
    async def start(self, host: str, port: int) -> None:
        self.server = await asyncio.start_server(self.accept, host, port, reuse_port=True)
        self.address = f"{host}:{self.server.sockets[0].getsockname()[1]}"


@faults(OnTransport, "Transport.listen", "address-without-port")
class KnowsNoPort(StreamListener):
    async def start(self, host: str, port: int) -> None:
        await super().start(host, port)
        self.address = f"{host}:{port}"


@faults(OnTransport, "Transport.listen", "one-handshake-at-a-time")
class GreetsOneAtATime(StreamListener):
    async def run(self, ends: Ends) -> None:
        if not hasattr(self, "turn"):
            self.turn = asyncio.Lock()
        async with self.turn:
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    link = await self.owner.greet(ends, dialing=False)
            except (Unauthenticated, TimeoutError):
                ends[1].transport.abort()
                return
        try:
            await self.served(link)
        finally:
            self.ended(link)


@faults(OnTransport, "Transport.listen", "one-link-at-a-time")
class ServesOneAtATime(StreamListener):
    async def served(self, link: StreamLink) -> None:
        if not hasattr(self, "turn"):
            self.turn = asyncio.Lock()
        async with self.turn:
            await super().served(link)


@faults(OnTransport, "Transport.listen", "garbage-stops-it")
class StopsAtGarbage(StreamListener):
    async def run(self, ends: Ends) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                link = await self.owner.greet(ends, dialing=False)
        except Unauthenticated:
            ends[1].transport.abort()
            if self.server:
                self.server.close()
            return
        try:
            await self.served(link)
        finally:
            self.ended(link)


@faults(OnTransport, "Transport.listen", "failing-service-stops-it")
class StopsWithItsService(StreamListener):
    async def served(self, link: StreamLink) -> None:
        try:
            await self.serve(link)
        except ValueError:
            if self.server:
                self.server.close()


@faults(OnTransport, "Transport.listen", "failing-service-keeps-its-link")
class KeepsAFailedLink(StreamListener):
    async def served(self, link: StreamLink) -> None:
        try:
            await self.serve(link)
        except ValueError:
            await asyncio.Event().wait()


@faults(OnTransport, "Transport.listen", "link-outlives-its-service")
class KeepsLinksOpen(StreamListener):
    def ended(self, link: StreamLink) -> None:
        asyncio.get_running_loop().call_later(60, link.end)


@faults(OnTransport, "Listener.close", "links-go-on")
class LeavesLinks(StreamListener):
    async def end_links(self) -> None:
        pass


@faults(OnTransport, "Listener.close", "goes-on-accepting")
class GoesOnAccepting(StreamListener):
    async def close(self) -> None:
        await self.end_links()


@faults(OnTransport, "Listener.close", "not-repeatable")
class StopsOnce(StreamListener):
    async def close(self) -> None:
        if self.server and not self.server.is_serving():
            raise Unavailable("closed already")
        await super().close()
