"""The protocol's shell: the listening socket, connections and their number, start and drain."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from warp_core import logs
from warp_core.connections import Connections
from warp_core.contexts import ProtocolContext
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.listening import Listening, listen, server_tls

from warp_admin.config import Config

if TYPE_CHECKING:
    from warp_admin.connection import Connection
    from warp_admin.service import Request, Response, Service

KEY: Final = "protocols.admin"
BACKLOG: Final = 64  # connections that may wait to be accepted
READ_LIMIT: Final = 64 * 1024  # bytes of a connection that may wait to be read

log = logs.get("warp_admin")


class Server(Protocol):
    """The admin API on one address.

    Attributes:
        config: Its options.
        draining: No new requests are taken.
    """

    capabilities = ProtocolCapabilities(view="objects", authenticated=True, tls=True)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare a server; nothing is opened yet."""
        self.config = config
        self.draining = False
        self._context = context
        self._connections = Connections["Connection"](config.connections_max)
        self._listening: Listening | None = None
        self._service: Service | None = None
        metrics = context.metrics
        self._answered = metrics.counters(
            "warp_admin_requests_total", "Requests of administration answered", labels=("status",)
        )
        self._failed = metrics.counter(
            "warp_admin_wrong_tokens_total", "Requests with a token that is none"
        )
        metrics.gauge("warp_admin_connections", "Open connections", lambda: len(self._connections))

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        config, data = self.config, self._context.data
        tls = server_tls(
            config.tls_certificate,
            config.tls_key,
            key=KEY,
            data=data,
            client_authorities=config.tls_client_ca,
            alpn=["http/1.1"],
        )
        self._listening = await listen(
            config.listen,
            self._accept,
            key=f"{KEY}.listen",
            data=data,
            backlog=BACKLOG,
            tls=tls,
            handshake_s=float(config.head_timeout),
            goodbye_s=1.0,
        )
        self.endpoint = (
            f"unix:{self._listening.path}"
            if self._listening.path
            else f"{'https' if tls else 'http'}://{self._listening.place}"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop accepting, let requests in flight finish, close."""
        self.draining = True
        if self._service is not None:
            self._service.draining = True
        assert self._listening is not None, "entered"
        self._listening.stop()
        if not await self._connections.end(_close_idle, self._context.drain_s):
            log.warning("requests cut off at the end of the drain", count=len(self._connections))
            left = [each.task for each in self._connections if each.task is not None]
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._listening.closed()

    async def answer(self, request: Request) -> Response:
        """Answer a request; raises as `Service.answer`."""
        if self._service is None:
            self._service = self._made()
        return await self._service.answer(request)

    def count(self, status: int) -> None:
        """Count an answer."""
        self._answered.labels(str(status)).add()

    def _made(self) -> Service:
        """Make what answers, with the first request: a node that nobody administers over HTTP need not import it."""
        from warp_admin.identity import Doorman
        from warp_admin.service import Service

        administration = self._context.administration
        doorman = None
        if administration is not None:
            doorman = Doorman(
                administration.tokens,
                self.config.clients,
                self.config.failures_max,
                failed=self._failed,
                clock=time.monotonic,
            )
        return Service(self.config, self._context, doorman, endpoint=self.endpoint)

    def _accept(self) -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=READ_LIMIT)
        return asyncio.StreamReaderProtocol(reader, self._connected)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from warp_admin.connection import Connection

        connection = Connection(self, reader, writer)
        if not self._connections.enter(connection):
            writer.transport.abort()
            return
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # by the end of the drain
        except Exception as error:
            log.exception("connection failed", error)
        finally:
            self._connections.leave(connection)


def _close_idle(connection: Connection) -> None:
    connection.close_idle()
