"""The same verbs as S3 requests, without sockets: what a client sees of growth, once signature, head and answer are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.node.assembly import Node
from warp_s3.config import Config
from warp_s3.connection import Connection
from warp_s3.server import Server

from benchmarks.growth.data import ACCESS_KEY, SECRET_KEY, VOLUME

HOST = "127.0.0.1:9000"
CONNECTIONS = 16  # of clients that write at once: commits of one batch share a sync
GOOD = (b"HTTP/1.1 200", b"HTTP/1.1 204")


class Wire(asyncio.Transport):
    """Takes answers, of which each is one write here: the content is small."""

    def __init__(self, answered: Callable[[bytes], None]) -> None:
        """Take what is told the beginning of each answer."""
        super().__init__()
        self._answered = answered

    def write(self, data: Any) -> None:
        """Take an answer."""
        self._answered(bytes(memoryview(data)[:12]))

    def writelines(self, list_of_data: Any) -> None:
        """Take an answer in parts."""
        self.write(next(iter(list_of_data)))

    def is_closing(self) -> bool:
        """Say that it is open."""
        return False

    def close(self) -> None:
        """Nothing is open."""

    abort = close
    pause_reading = close
    resume_reading = close

    def get_write_buffer_size(self) -> int:
        """Say that all is sent."""
        return 0


class Client:
    """One connection of a server, fed by hand: the loop calls it as it calls a socket's, which is no part of any task."""

    def __init__(self, server: Server) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(server)
        self._connection.connection_made(Wire(self._take))
        self._waiting: Iterator[bytes] = iter(())
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def ask(self, requests: Iterator[bytes]) -> None:
        """Send requests, each when the answer before it is there, which must be good."""
        self._waiting, self._done = requests, self._loop.create_future()
        self._go_on()
        await self._done

    def _go_on(self) -> None:
        request = next(self._waiting, None)
        if request is not None:
            self._loop.call_soon(self._feed, request)
        else:
            self._done.set_result(None)

    def _feed(self, request: bytes) -> None:
        buffer = self._connection.get_buffer(len(request))
        buffer[: len(request)] = request
        self._connection.buffer_updated(len(request))

    def _take(self, status: bytes) -> None:
        if status in GOOD:
            self._go_on()
        else:
            self._done.set_exception(ValueError(f"{status!r} is no good answer"))

    def close(self) -> None:
        """Hang up."""
        self._connection.connection_lost(None)


async def ask(clients: Iterable[Client], requests: Iterable[bytes]) -> None:
    """Send requests over all connections at once."""
    waiting = iter(requests)
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.ask(waiting))


@asynccontextmanager
async def clients_of(node: Node) -> AsyncIterator[list[Client]]:
    """Serve a node's objects to some clients."""
    context = ProtocolContext(
        node="growth",
        data=node.data.settings.data,
        objects=node.objects,
        files=node.files,
        blocks=node.blocks,
        authenticator=node.authenticator,
        metrics=node.data.metrics,
        drain_s=0.1,
    )
    async with Server(Config(listen=Address("127.0.0.1:0")), context) as server:
        clients = [Client(server) for _ in range(CONNECTIONS)]
        await asyncio.sleep(0)
        yield clients
        for client in clients:
            client.close()


def signed(method: str, name: bytes, body: bytes = b"") -> bytes:
    """Return a request for an object, signed as SDKs do."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=f"http://{HOST}/{VOLUME}/{name.decode()}", data=body)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
    head = "".join(f"{field}: {value}\r\n" for field, value in request.headers.items())
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    line = f"{method} /{VOLUME}/{name.decode()} HTTP/1.1\r\nHost: {HOST}\r\n"
    return f"{line}{head}\r\n".encode() + body
