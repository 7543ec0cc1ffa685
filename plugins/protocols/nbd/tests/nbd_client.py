"""A client of NBD for tests: it says what it is told to, right or wrong."""

from __future__ import annotations

import asyncio
import ssl
import struct
from urllib.parse import parse_qs, urlsplit

from warp_nbd import wire
from warp_nbd.wire import Option, Reply


class Refused(Exception):
    """The server answered with an error."""


class Client:
    """One connection."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.socket = parse_qs(parts.query).get("socket", [""])[0]
        self.host, self.port = parts.hostname, parts.port
        self.structured = False
        self.size = self.flags = 0
        self.infos: dict[int, bytes] = {}
        self._cookie = 0

    async def __aenter__(self) -> Client:
        if self.socket:
            self.reader, self.writer = await asyncio.open_unix_connection(self.socket)
        else:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        assert await self.take(18) == b"NBDMAGICIHAVEOPT\0\3"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def take(self, length: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(length)

    async def ended(self) -> bool:
        """Say whether the server hangs up now."""
        try:
            async with asyncio.timeout(5):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    # Negotiation ------------------------------------------------------------------------------

    def begin(self, flags: int = 3) -> Client:
        self.send(flags.to_bytes(4, "big"))
        return self

    async def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; returns the replies before the last, which has to be ACK."""
        self.send(wire.pack_option(option, data))
        found = []
        while True:
            answered, reply, length = wire.unpack_option_reply(await self.take(20))
            assert answered == option
            body = await self.take(length)
            if reply == Reply.ACK:
                return found
            if reply >> 31:
                raise Refused(Reply(reply).name, body.decode())
            found.append((reply, body))

    async def go(
        self, name: str = "", *, structured: bool = True, status: bool = True, infos=(1, 2, 3)
    ) -> Client:
        self.begin()
        if structured:
            await self.option(Option.STRUCTURED_REPLY)
            self.structured = True
            if status:
                query = wire.pack_context_request(name, ["base:allocation"])
                await self.option(Option.SET_META_CONTEXT, query)
        for _, body in await self.option(Option.GO, wire.pack_info_request(name, infos)):
            self.infos[int.from_bytes(body[:2], "big")] = body[2:]
        self.size, self.flags = struct.unpack(">QH", self.infos[0])
        return self

    async def start_tls(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        await self.option(Option.STARTTLS)
        await self.writer.start_tls(context, server_hostname=name)

    # Transmission -----------------------------------------------------------------------------

    def ask(self, command: int, offset: int = 0, length: int = 0, *, flags=0, data=b"") -> int:
        """Send a request and return its cookie."""
        self._cookie += 1
        self.send(wire.pack_request(command, self._cookie, offset, length, flags=flags) + data)
        return self._cookie

    async def answer(self, read: int = 0) -> tuple[int, int, object]:
        """Return (cookie, error, what was said) of the next reply; `read` bytes follow a simple one."""
        (magic,) = struct.unpack(">I", await self.take(4))
        if magic == wire.SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", await self.take(12))
            return cookie, error, await self.take(read) if read and not error else b""
        assert magic == wire.CHUNK_MAGIC
        found: list[tuple[str, object, object]] = []
        while True:
            flags, kind, cookie, length = struct.unpack(">HHQI", await self.take(16))
            body = await self.take(length)
            if kind == wire.CHUNK_ERROR:
                (error,) = struct.unpack_from(">I", body)
                return cookie, error, body[6:].decode()
            if kind == wire.CHUNK_DATA:
                found.append(("data", int.from_bytes(body[:8], "big"), body[8:]))
            elif kind == wire.CHUNK_HOLE:
                found.append(("hole", *struct.unpack(">QI", body)))
            elif kind == wire.CHUNK_BLOCK_STATUS:
                pairs = [struct.unpack_from(">II", body, at) for at in range(4, length, 8)]
                found.append(("status", int.from_bytes(body[:4], "big"), pairs))
            if flags & wire.CHUNK_DONE:
                return cookie, 0, found
            assert await self.take(4) == wire.CHUNK_MAGIC.to_bytes(4, "big")

    async def call(self, command: int, offset=0, length=0, *, flags=0, data=b"") -> object:
        """Send a request and return what its reply says; an error is raised by its number."""
        cookie = self.ask(command, offset, length or len(data), flags=flags, data=data)
        read = length if command == wire.READ and not self.structured else 0
        answered, error, said = await self.answer(read)
        assert answered == cookie
        if error:
            raise Refused(wire.Errno(error).name, said)
        return said

    async def read(self, offset: int, length: int, flags: int = 0) -> bytes:
        """Read and put together what comes."""
        said = await self.call(wire.READ, offset, length, flags=flags)
        if not self.structured:
            return said
        found = bytearray(b"\xee" * length)
        for kind, at, what in said:
            data = what if kind == "data" else bytes(what)
            found[at - offset : at - offset + len(data)] = data
        return bytes(found)

    async def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        await self.call(wire.WRITE, offset, flags=flags, data=data)
