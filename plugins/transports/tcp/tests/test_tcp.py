"""What the kit cannot know: forged frames, plaintext, peers that stall, limits on connections."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_core.config.types import Duration
from warp_core.contexts import TransportContext
from warp_core.errors import (
    InvalidArgument,
    RemoteProtocolError,
    Unauthenticated,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.transports import PAYLOAD_MAX, Link
from warp_core.metrics import Metrics
from warp_tcp.config import Config
from warp_tcp.transport import Tcp, split_address
from warp_tcp.wire import HELLO, pack_head


def plain(tmp_path: Path, *, stall: float = 0.4, links: int = 1024) -> Tcp:
    config = Config(plaintext=True, stall=Duration(stall), links=links)
    return Tcp(config, TransportContext("a", tmp_path, Metrics()))


class Peer:
    """A listener whose one link's fate is recorded, and the other end as raw bytes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fate: asyncio.Future[str | WarpError],
    ) -> None:
        self.reader, self.writer, self.fate = reader, writer, fate

    async def says(self, data: bytes) -> str | WarpError:
        self.writer.write(data)
        return await asyncio.wait_for(self.fate, 5)


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    fate: asyncio.Future[str | WarpError] = asyncio.get_running_loop().create_future()

    async def serve(link: Link) -> None:
        try:
            message = await link.receive()
            fate.set_result(message.header.decode())
        except WarpError as error:
            fate.set_result(error)

    async with plain(tmp_path) as transport:
        listener = await transport.listen("127.0.0.1:0", serve)
        host, port = split_address(listener.address)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(pack_head(b"", 0, sequence=0, flags=HELLO))
        assert await reader.readexactly(32) == pack_head(b"", 0, sequence=0, flags=HELLO)
        yield Peer(reader, writer, fate)
        writer.close()


async def test_a_message_may_come_byte_by_byte(peer: Peer) -> None:
    for byte in pack_head(b"hello", 3, sequence=1) + b"hello123":
        peer.writer.write(bytes([byte]))
        await peer.writer.drain()

    assert await peer.fate == "hello"


async def test_garbage_ends_the_link(peer: Peer) -> None:
    assert isinstance(
        await peer.says(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), RemoteProtocolError
    )
    assert await peer.reader.read() == b""


async def test_an_oversized_payload_ends_the_link_at_its_head(peer: Peer) -> None:
    fate = await peer.says(pack_head(b"", PAYLOAD_MAX + 1, sequence=1))

    assert isinstance(fate, RemoteProtocolError)
    assert "PAYLOAD_MAX" in str(fate)


async def test_a_replayed_message_ends_the_link(peer: Peer) -> None:
    assert isinstance(await peer.says(pack_head(b"", 0, sequence=0)), RemoteProtocolError)


async def test_an_end_in_the_middle_is_no_message(peer: Peer) -> None:
    peer.writer.write(pack_head(b"hello", 1000, sequence=1) + b"hello" + bytes(999))
    peer.writer.write_eof()

    fate = await asyncio.wait_for(peer.fate, 5)
    assert isinstance(fate, Unavailable)
    assert "in the middle of a message" in str(fate)


async def test_a_peer_that_stalls_in_a_message_loses_its_link(peer: Peer) -> None:
    fate = await peer.says(pack_head(b"hello", 1000, sequence=1) + b"hello" + bytes(500))

    assert isinstance(fate, Unavailable)
    assert "stalled" in str(fate)


async def test_silence_between_messages_ends_nothing(peer: Peer) -> None:
    await asyncio.sleep(0.9)

    assert await peer.says(pack_head(b"hello", 0, sequence=1) + b"hello") == "hello"


async def test_a_peer_that_does_not_read_loses_its_link(tmp_path: Path) -> None:
    fate: asyncio.Future[WarpError] = asyncio.get_running_loop().create_future()

    async def serve(link: Link) -> None:
        try:
            while True:
                await link.send(b"", [bytes(PAYLOAD_MAX)])
        except WarpError as error:
            fate.set_result(error)

    async with plain(tmp_path) as transport:
        listener = await transport.listen("127.0.0.1:0", serve)
        _, writer = await asyncio.open_connection(*split_address(listener.address), limit=1024)
        writer.write(pack_head(b"", 0, sequence=0, flags=HELLO))

        assert isinstance(await asyncio.wait_for(fate, 5), Unavailable)
        writer.close()


async def test_plaintext_is_for_loopback_only(tmp_path: Path) -> None:
    async with plain(tmp_path) as transport:
        with pytest.raises(InvalidArgument, match="loopback"):
            await transport.listen("0.0.0.0:0", lambda link: link.close())
        with pytest.raises(InvalidArgument, match="loopback"):
            await transport.dial("192.0.2.1:9")


async def test_plaintext_proves_no_name(tmp_path: Path) -> None:
    async with plain(tmp_path) as transport:
        listener = await transport.listen("127.0.0.1:0", lambda link: link.close())

        with pytest.raises(Unauthenticated):
            await transport.dial(listener.address, peer="a")
        assert (await transport.dial(listener.address)).peer == ""


async def test_more_links_than_allowed_are_refused(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def serve(link: Link) -> None:
        await waiting.wait()

    async with plain(tmp_path, links=3) as transport:
        listener = await transport.listen("127.0.0.1:0", serve)
        links = [await transport.dial(listener.address) for _ in range(3)]

        with pytest.raises(Unavailable):
            await transport.dial(listener.address)
        waiting.set()
        for link in links:
            await link.close()


async def test_a_peer_of_a_later_version_is_told_so(tmp_path: Path) -> None:
    async with plain(tmp_path) as transport:

        async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = bytearray(pack_head(b"", 0, sequence=0, flags=HELLO))
            head[4] = 9
            writer.write(head)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(later, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(RemoteProtocolError, match="speaks version 9, this node 1: upgrade"):
                await transport.dial(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["", "host", ":9", "host:", "host:port", "host:65536", "host:-1"]
)
async def test_a_wrong_address_says_how_to_write_it(tmp_path: Path, address: str) -> None:
    async with plain(tmp_path) as transport:
        with pytest.raises(InvalidArgument, match="HOST:PORT"):
            await transport.dial(address)


async def test_ipv6_works(tmp_path: Path) -> None:
    async with plain(tmp_path) as transport:
        try:
            listener = await transport.listen("[::1]:0", lambda link: link.send(b"six"))
        except Unavailable as error:
            pytest.skip(f"no IPv6 here: {error}")
        link = await transport.dial(listener.address)

        assert (await link.receive()).header == b"six"


async def test_a_reset_connection_ends_the_link(peer: Peer) -> None:
    import socket

    raw = peer.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()

    assert isinstance(await asyncio.wait_for(peer.fate, 5), Unavailable)
