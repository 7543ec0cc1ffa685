"""A server that webhooks post to, in this process: HTTP/1.1 by hand, so that it can misbehave."""

from __future__ import annotations

import asyncio
import ssl

from warp_conformance.kits.targets import Taken
from warp_conformance.reference.targets import PlainReceiver

ANSWERS = {"takes": b"200 OK", "refuses": b"503 Service Unavailable"}


class Hook(PlainReceiver):
    """Keeps what is posted, by its id.

    Attributes:
        heads: Headers of every request that came whole, names in lower case.
        answer: Status line's rest, in place of the usual one.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.heads: list[dict[str, str]] = []
        self.answer = b""

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/hook?token=in-the-query"

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        assert lines[0] == "POST /hook?token=in-the-query HTTP/1.1"
        pairs = (line.partition(": ") for line in lines[1:] if line)
        head = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(head["content-length"]))
        self.heads.append(head)
        if not await self.may_answer(reader, writer):
            return False
        if self.mode == "takes" and not self.answer:
            self.found.append(Taken(head["x-warp-event-id"], body))
        status = self.answer or ANSWERS[self.mode]
        if status.startswith(b"204"):
            writer.write(b"HTTP/1.1 %b\r\n\r\n" % status)
        else:
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status)
        await writer.drain()
        return True
