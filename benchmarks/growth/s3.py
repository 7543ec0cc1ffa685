"""The same lookups as S3 requests, without sockets: what a client sees of growth, once signature, head and answer are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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


class Wire(asyncio.Transport):
    """Takes answers, of which each is one write here: the content is small."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()
        self.status = b""

    def write(self, data: Any) -> None:
        """Take an answer."""
        self.status = bytes(memoryview(data)[:12])
        self.answered.set()

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
    """One connection of a server, fed by hand."""

    def __init__(self, server: Server) -> None:
        self._wire = Wire()
        self._connection = Connection(server)
        self._connection.connection_made(self._wire)

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for the answer, which must be good."""
        wire = self._wire
        wire.answered.clear()
        buffer = self._connection.get_buffer(len(request))
        buffer[: len(request)] = request
        self._connection.buffer_updated(len(request))
        await wire.answered.wait()
        assert wire.status == b"HTTP/1.1 200", wire.status

    def close(self) -> None:
        """Hang up."""
        self._connection.connection_lost(None)


@asynccontextmanager
async def client_of(node: Node) -> AsyncIterator[Client]:
    """Serve a node's objects to one client."""
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
        client = Client(server)
        await asyncio.sleep(0)
        yield client
        client.close()


def signed(method: str, name: bytes) -> bytes:
    """Return a request for an object, signed as SDKs do."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=f"http://{HOST}/{VOLUME}/{name.decode()}")
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(request)
    head = "".join(f"{field}: {value}\r\n" for field, value in request.headers.items())
    return f"{method} /{VOLUME}/{name.decode()} HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n".encode()
