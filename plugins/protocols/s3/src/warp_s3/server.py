"""The protocol's shell: listening sockets, connections and their limits, start and drain."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from os import cpu_count
from types import TracebackType
from typing import Final, Self

from warp_core import logs
from warp_core.connections import Connections
from warp_core.contexts import ProtocolContext
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.listening import Listening, listen, server_tls
from warp_core.metrics import Counter

from warp_s3.call import Answer
from warp_s3.checksums import warm
from warp_s3.config import Config
from warp_s3.connection import Connection
from warp_s3.http import Request
from warp_s3.http_log import HttpLog
from warp_s3.service import Service

KEY: Final = "protocols.s3"

LOGS: Final = "s3-access-logs"
"""Folder of the node's data for lines of access logs that wait."""

SCRATCH: Final = 64 * 1024
"""Bytes of the buffer that small reads of all connections share; each is copied out at once."""

SWEEP_S: Final = 0.25
"""How often deadlines are checked; timeouts are late by at most this."""

WARM_S: Final = 0.5
"""When libraries are imported that the first request may need."""

BACKLOG: Final = 512
"""Connections that may wait to be accepted."""

TLS_GOODBYE_S: Final = 1.0
"""How long a closing connection waits for the client to agree; idle clients never answer."""

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})

_log = logs.get("warp_s3")


class Server(Protocol):
    """S3 over HTTP/1.1 on one address.

    Attributes:
        scratch: Where bytes arrive that have no better place; used up before the loop goes on.
        draining: No new requests are taken.
    """

    capabilities = ProtocolCapabilities(view="objects", authenticated=True, tls=True)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare a server; nothing is opened yet."""
        self._config = config
        self._context = context
        self._connections = Connections[Connection](config.connections_max)
        self._listening: Listening | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._warmer: asyncio.TimerHandle | None = None
        self._request_ids = count(time.time_ns() & 0xFFFF_FFFF_FFFF_FFFF)
        self.loop: asyncio.AbstractEventLoop
        self.service: Service
        self.scratch = memoryview(bytearray(SCRATCH))
        self.draining = False
        self.idle_s = float(config.idle_timeout)
        self.head_s = float(config.head_timeout)
        self.stall_s = float(config.stall_timeout)
        place = config.http_log
        self._http_log = HttpLog(context.data / place) if place else None
        metrics = context.metrics
        self._answered = metrics.counters(
            "warp_s3_requests_total", "Requests answered", labels=("method", "status")
        )
        self._counters: dict[tuple[str, int], Counter] = {}
        self._bytes_sent = metrics.counter("warp_s3_sent_bytes_total", "Bytes of bodies in answers")
        metrics.gauge("warp_s3_connections", "Open connections", lambda: len(self._connections))

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        self.loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor((cpu_count() or 1) + 2, thread_name_prefix="warp-s3")
        self.service = Service(
            self._config,
            self._context.objects,
            self._context.authenticator,
            self._pool,
            self._context.data / LOGS,
            self._context.queries,
            self._context.targets,
            self._context.audit,
        )
        await self.service.log.start()
        try:
            await self._listen()
        except BaseException:
            await self.service.log.stop()
            raise
        # Once the node is ready; 70 ms that the first upload would otherwise wait for.
        self._warmer = self.loop.call_later(WARM_S, self._pool.submit, warm)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop accepting, let requests in flight finish, close."""
        self.draining = True
        assert self._listening is not None
        self._listening.stop()
        if not await self._connections.end(Connection.close_idle, self._context.drain_s):
            _log.warning("requests cut off at the end of the drain", count=len(self._connections))
            for connection in self._connections:
                connection.cancel()
        for timer in (self._sweeper, self._warmer):
            if timer is not None:
                timer.cancel()
        await self._listening.closed()
        if self._http_log is not None:
            self._http_log.close()
        await self.service.log.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # What connections call ------------------------------------------------------------------------

    def connected(self, connection: Connection) -> bool:
        """Remember a connection; False if there are too many."""
        return self._connections.enter(connection)

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.leave(connection)

    def next_request_id(self) -> str:
        """Name a request: 16 hexadecimal digits, never the same while the node runs."""
        return f"{next(self._request_ids) & 0xFFFF_FFFF_FFFF_FFFF:016X}"

    def now(self) -> int:
        """Give the wall clock in whole seconds."""
        return int(time.time())

    def count(self, request: Request | None, answer: Answer, connection: Connection) -> None:
        """Count an answer, and log it."""
        method = request.method if request is not None else ""
        if self._http_log is not None:
            self._http_log.write(
                request,
                client=connection.client.address or "",
                second=self.now(),
                status=answer.status,
                sent=None if method == "HEAD" else answer.length,
            )
        counter = self._counters.get((method, answer.status))
        if counter is None:
            counter = self._answered.labels(
                method if method in _METHODS else "other", str(answer.status)
            )
            if method in _METHODS:
                self._counters[method, answer.status] = counter
        counter.value += 1
        if answer.length is not None:
            self._bytes_sent.value += answer.length

    # Sockets --------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        config, data = self._config, self._context.data
        context = server_tls(
            config.tls_certificate, config.tls_key, key=KEY, data=data, alpn=["http/1.1"]
        )
        self._listening = await listen(
            config.listen,
            self._accept,
            key=f"{KEY}.listen",
            data=data,
            backlog=BACKLOG,
            tls=context,
            handshake_s=self.head_s,
            goodbye_s=TLS_GOODBYE_S,
        )
        self.endpoint = (
            f"unix:{self._listening.path}"
            if self._listening.path
            else f"{'https' if context else 'http'}://{self._listening.place}"
        )

    def _accept(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [one for one in self._connections if one.deadline < now]:
            connection.expire()
        if self._http_log is not None:
            self._http_log.flush()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
