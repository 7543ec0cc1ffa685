"""The protocol's shell: the listening socket, connections and their limits, start and drain."""

import asyncio
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from warp_core import logs
from warp_core.connections import Connections
from warp_core.contexts import ProtocolContext
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.listening import Listening, ServerTls, listen, server_tls

from warp_nbd.config import Config
from warp_nbd.connection import Connection
from warp_nbd.exports import Exports
from warp_nbd.homes import Standings
from warp_nbd.memory import Budget
from warp_nbd.wire import COMMANDS

KEY: Final = "protocols.nbd"

SCRATCH: Final = 256 * 1024
"""Bytes of the buffer that all connections receive into; what is in it is used up or copied before the loop goes on."""

SWEEP_S: Final = 0.25
"""How often silent clients are looked for; timeouts are late by at most this."""

BACKLOG: Final = 128
"""Connections that may wait to be accepted."""

ABORT_S: Final = 2.0
"""How long connections that were cut off may take to clean up."""

_log = logs.get("warp_nbd")


class Server(Protocol):
    """NBD on one address.

    Attributes:
        scratch: Where bytes arrive that have no better place.
        exports: What there is to serve.
        memory: What payloads may take.
        standings: What clients were promised about each disk that is open.
        counts: A counter for each command.
        tls: How to begin TLS, None without a certificate.
        draining: The server is about to end.
    """

    capabilities = ProtocolCapabilities(view="blocks", authenticated=False, tls=True)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare a server; nothing is opened yet."""
        self._config = config
        self._context = context
        self._connections = Connections[Connection](config.connections_max)
        self._listening: Listening | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop
        self.scratch = memoryview(bytearray(SCRATCH))
        self.exports = Exports(config, context.blocks)
        self.memory = Budget(int(config.memory_max))
        self.tls: ServerTls | None = None
        self.draining = False
        self.handshake_s = float(config.handshake_timeout)
        self.stall_s = float(config.stall_timeout)
        self.home_s = float(config.home_timeout)
        self.standings = Standings()
        metrics = context.metrics
        requests = metrics.counters(
            "warp_nbd_requests_total", "Requests taken", labels=("command",)
        )
        self.counts = [requests.labels(command) for command in COMMANDS]
        metrics.gauge("warp_nbd_connections", "Open connections", lambda: len(self._connections))
        metrics.gauge(
            "warp_nbd_payload_bytes", "Memory that payloads take", lambda: self.memory.used
        )

    def attach(self, volume: str, path: bytes) -> str:
        """Return the URI of a disk, as nbdinfo, qemu and fio take it."""
        name = self.exports.name_of(volume, path)
        if not name:
            return ""
        place, question, query = self.endpoint.partition("?")
        slash = "" if place.endswith("/") else "/"
        return f"{place}{slash}{quote(name)}{question}{query}"

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        self.loop = asyncio.get_running_loop()
        config, data = self._config, self._context.data
        self.tls = server_tls(
            config.tls_certificate,
            config.tls_key,
            key=KEY,
            data=data,
            client_authorities=config.tls_client_ca,
        )
        # Without TLS: clients ask for it within the protocol.
        self._listening = await listen(
            config.listen,
            lambda: Connection(self),
            key=f"{KEY}.listen",
            data=data,
            backlog=BACKLOG,
            renewed=self.tls,
        )
        scheme = "nbds" if self.tls else "nbd"
        if self._listening.path:
            self.endpoint = f"{scheme}+unix:///?socket={quote(str(self._listening.path))}"
        else:
            self.endpoint = f"{scheme}://{self._listening.place}"
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
        if not await self._connections.end(Connection.leave, self._context.drain_s):
            _log.warning("connections cut off", count=len(self._connections))
            await self._connections.end(Connection.abort, ABORT_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._listening.closed()

    # What connections call ------------------------------------------------------------------------

    def connected(self, connection: Connection) -> bool:
        """Remember a connection; False if there are too many."""
        taken = self._connections.enter(connection)
        if not taken:
            _log.warning("connection refused", peer=connection.peer, open=len(self._connections))
        return taken

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.leave(connection)

    # ----------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Cut off clients that hold something up and say nothing."""
        limits = {"negotiate": self.handshake_s, "go on": self.stall_s}
        for connection in self._connections:
            waits = connection.waits_for_client
            if connection.active or not waits:
                connection.active = False
                connection.quiet_s = 0.0
                continue
            connection.quiet_s += SWEEP_S
            if connection.quiet_s > limits[waits]:
                _log.info("client is silent", peer=connection.peer, waited_for=waits)
                connection.abort()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
