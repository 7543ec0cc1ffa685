"""The protocol's shell: the listening socket, connections and their limits, start and drain."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from warp_core import logs
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyRunning, ConfigError
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.node.control import reachable

from warp_nbd.config import Config
from warp_nbd.connection import Connection
from warp_nbd.exports import Exports
from warp_nbd.memory import Budget
from warp_nbd.wire import COMMANDS

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
        counts: A counter for each command.
        tls: How to begin TLS, None without a certificate.
        draining: The server is about to end.
    """

    capabilities = ProtocolCapabilities(view="blocks", authenticated=False, tls=True)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare a server; nothing is opened yet."""
        self._config = config
        self._context = context
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event
        self._socket: str = ""
        self.loop: asyncio.AbstractEventLoop
        self.scratch = memoryview(bytearray(SCRATCH))
        self.exports = Exports(config, context.blocks)
        self.memory = Budget(int(config.memory_max))
        self.tls: ssl.SSLContext | None = None
        self.draining = False
        self.handshake_s = float(config.handshake_timeout)
        self.stall_s = float(config.stall_timeout)
        metrics = context.metrics
        requests = metrics.counters(
            "warp_nbd_requests_total", "Requests taken", labels=("command",)
        )
        self.counts = [requests.labels(command) for command in COMMANDS]
        metrics.gauge("warp_nbd_connections", "Open connections", lambda: len(self._connections))
        metrics.gauge(
            "warp_nbd_payload_bytes", "Memory that payloads take", lambda: self.memory.used
        )

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        self.loop = asyncio.get_running_loop()
        self._emptied = asyncio.Event()
        self.tls = self._tls()
        listener = self._bind()
        self._listener = await self.loop.create_server(
            lambda: Connection(self), sock=listener, backlog=BACKLOG
        )
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
        assert self._listener is not None
        self._listener.close()
        for connection in list(self._connections):
            connection.leave()
        if not await self._empty(self._context.drain_s):
            _log.warning("connections cut off", count=len(self._connections))
            for connection in list(self._connections):
                connection.abort()
            await self._empty(ABORT_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._listener.wait_closed()
        if self._socket:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)

    async def _empty(self, seconds: float) -> bool:
        """Wait until no connection is left; False if that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        return not self._connections

    # What connections call ------------------------------------------------------------------------

    def connected(self, connection: Connection) -> bool:
        """Remember a connection; False if there are too many."""
        if self.draining or len(self._connections) >= self._config.connections_max:
            _log.warning("connection refused", peer=connection.peer, open=len(self._connections))
            return False
        self._connections.add(connection)
        return True

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    # ----------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Cut off clients that hold something up and say nothing."""
        limits = {"negotiate": self.handshake_s, "go on": self.stall_s}
        for connection in list(self._connections):
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

    def _bind(self) -> socket.socket:
        """Return a socket that is bound, and note the endpoint."""
        address = self._config.listen
        if address.path:
            path = self._context.data / address.path
            path.unlink(missing_ok=True)
            plug = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            os.fchmod(plug.fileno(), 0o600)  # before it is bound: Linux makes the file like that
            try:
                with reachable(path) as reached:
                    plug.bind(reached)
                path.chmod(0o600)
            except OSError as error:
                plug.close()
                raise ConfigError(
                    f"protocols.nbd.listen: cannot listen on {address}: {error.strerror}"
                ) from error
            self._socket = str(path)
            scheme = "nbds+unix" if self.tls else "nbd+unix"
            self.endpoint = f"{scheme}:///?socket={quote(str(path))}"
            return plug
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        plug = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            plug.bind((address.host, address.port))
        except OSError as error:
            plug.close()
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"protocols.nbd.listen: {address} is taken by another program; stop it or "
                    "choose another port"
                ) from error
            raise ConfigError(
                f"protocols.nbd.listen: cannot listen on {address}: {error.strerror}"
            ) from error
        port = plug.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.endpoint = f"{'nbds' if self.tls else 'nbd'}://{host}:{port}"
        return plug

    def _tls(self) -> ssl.SSLContext | None:
        config = self._config
        if not config.tls_certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        data = self._context.data
        certificate = data / config.tls_certificate
        key = data / config.tls_key if config.tls_key else None
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"protocols.nbd.tls_certificate: cannot use {certificate}"
                f"{f' with key {key}' if key else ''}: {error}"
            ) from error
        if config.tls_client_ca:
            authorities = data / config.tls_client_ca
            try:
                context.load_verify_locations(authorities)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"protocols.nbd.tls_client_ca: cannot use {authorities}: {error}"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context
