"""A server that webhooks post to, in this process: HTTP/1.1 by hand, so that it can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from warp_conformance.kits.targets import Mode, Receiver, Taken

ANSWERS = {"takes": b"200 OK", "refuses": b"503 Service Unavailable"}


class Hook(Receiver):
    """Keeps what is posted, by its id.

    Attributes:
        heads: Headers of every request that came whole, names in lower case.
        answer: Status line's rest, in place of the usual one.
    """

    modes = frozenset({"takes", "refuses", "hangs", "drops", "holds"})

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.heads: list[dict[str, str]] = []
        self.answer = b""
        self._tls = tls
        self._mode: Mode = "takes"
        self._changed = asyncio.Event()
        self._came = asyncio.Event()
        self._found: list[Taken] = []
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/hook?token=in-the-query"

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def taken(self) -> list[Taken]:
        return list(self._found)

    async def behave(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        self._came.clear()

    async def holding(self) -> None:
        await self._came.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("receiver of the test")
        self._serving.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        assert lines[0] == "POST /hook?token=in-the-query HTTP/1.1"
        pairs = (line.partition(": ") for line in lines[1:] if line)
        head = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(head["content-length"]))
        self.heads.append(head)
        while self._mode in ("holds", "hangs"):
            self._came.set()
            await self._changed.wait()
            if self._mode == "hangs" or reader.at_eof():
                return False
        if self._mode == "drops":
            return False
        if self._mode == "takes" and not self.answer:
            self._found.append(Taken(head["x-warp-event-id"], body))
        status = self.answer or ANSWERS[self._mode]
        if status.startswith(b"204"):
            writer.write(b"HTTP/1.1 %b\r\n\r\n" % status)
        else:
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status)
        await writer.drain()
        return True
