"""The protocol's shell: the listening socket, connections and their limits, start and drain.

asyncssh is imported with the first connection, in a thread: it takes as long as everything else of a start together, and a server of
which nobody wants files should not pay for it.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from warp_core import logs
from warp_core.connections import Connections
from warp_core.contexts import ProtocolContext
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.listening import Listening, listen

from warp_sftp.attempts import Attempts
from warp_sftp.config import Config
from warp_sftp.keys import HOST_KEY, PublicKeys, Stamp, host_key_files, stamp_of

if TYPE_CHECKING:
    from warp_sftp.ssh import Client, Ssh

KEY: Final = "protocols.sftp"

SWEEP_S: Final = 0.5
"""How often silent clients are looked for; timeouts are late by at most this."""

WARM_S: Final = 0.5
"""When the host key is made on the first start."""

RELOAD_S: Final = 5.0
"""How often files of keys are looked at."""

BACKLOG: Final = 256
"""Connections that may wait to be accepted."""

ABORT_S: Final = 2.0
"""How long connections that were cut off may take to clean up."""

UNPROVED_PART: Final = 2
"""At most one in so many connections is one that has not logged in: who only knocks keeps nobody else out."""

EARLY_MAX: Final = 64 * 1024
"""Bytes that a client may send while asyncssh is being imported."""

_log = logs.get("warp_sftp")


class Server(Protocol):
    """SFTP on one address.

    Attributes:
        draining: The server is about to end.
    """

    capabilities = ProtocolCapabilities(view="files", authenticated=True, tls=False)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare a server; nothing is opened yet."""
        self.config = config
        self.context = context
        self._connections = Connections["Client | Early"](config.connections_max)
        self._listening: Listening | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._warmer: asyncio.TimerHandle | None = None
        self._loading: asyncio.Future[Ssh] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._ssh: Ssh | None = None
        self._stamp: Stamp = ()
        self._reloaded_s = 0.0
        self.attempts = Attempts(config.address_attempts_max)
        self.draining = False
        metrics = context.metrics
        self.requests = metrics.counters(
            "warp_sftp_requests_total", "Requests taken", labels=("request",)
        )
        self.logins = metrics.counters(
            "warp_sftp_logins_total", "Logins, by how they were proved", labels=("method",)
        )
        metrics.gauge("warp_sftp_connections", "Open connections", lambda: len(self._connections))

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        config, data = self.config, self.context.data
        self._loop = asyncio.get_running_loop()
        if config.host_keys:
            self.host_keys = host_key_files(data, config.host_keys, key=KEY)
        for path in config.user_authorities:
            # What is wrong with them should be told now, not at the first login.
            await asyncio.to_thread(PublicKeys([data / path], key=f"{KEY}.user_authorities").load)
        if config.revoked_keys:
            revoked = PublicKeys([data / config.revoked_keys], key=f"{KEY}.revoked_keys")
            await asyncio.to_thread(revoked.load)
        if config.host_keys:
            self._ssh = await asyncio.to_thread(_make_ssh, self)
        self._listening = await listen(
            config.listen, self._accept, key=f"{KEY}.listen", data=data, backlog=BACKLOG
        )
        if self._listening.path:
            self.endpoint = f"sftp+unix://{self._listening.path}"
        else:
            self.endpoint = f"sftp://{self._listening.place}"
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        if not config.host_keys and not (data / HOST_KEY).exists():
            # Whoever sets up a server wants to tell others its fingerprint, but the start need not wait for it.
            self._warmer = self._loop.call_later(WARM_S, self.load)
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
        if not await self._connections.end(lambda each: each.leave(), self.context.drain_s):
            _log.warning("connections cut off", count=len(self._connections))
            await self._connections.end(lambda each: each.cut(), ABORT_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._warmer is not None:
            self._warmer.cancel()
        if self._loading is not None:
            self._loading.cancel()  # nobody waits for it any more
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        if self._ssh is not None:
            await self._ssh.ended()
        await self._listening.closed()

    def find_host_keys(self) -> None:
        """Find this server's keys, or make one.

        Raises:
            ConfigError, StoreFailed
        """
        self.host_keys = host_key_files(self.context.data, self.config.host_keys, key=KEY)
        self._stamp = stamp_of(self.host_keys)

    # Connections ----------------------------------------------------------------------------------

    def _accept(self) -> asyncio.BaseProtocol:
        return Early(self) if self._ssh is None else self._ssh.client()

    def connected(self, client: Client | Early, peer: str) -> bool:
        """Remember a connection; False if it is not to be."""
        if self.attempts.refuses(peer, time.monotonic()):
            _log.warning("connection refused: too many failed logins", peer=peer)
            return False
        unproved = sum(not each.proved for each in self._connections)
        if unproved > self.config.connections_max // UNPROVED_PART or not self._connections.enter(
            client
        ):
            _log.warning("connection refused", peer=peer, open=len(self._connections))
            return False
        return True

    def disconnected(self, client: Client | Early) -> None:
        """Forget a connection."""
        self._connections.leave(client)

    def load(self) -> None:
        """Begin to load what connections need."""
        if self._loading is None and self._ssh is None:
            self._loading = self._loop.run_in_executor(None, _make_ssh, self)
            self._loading.add_done_callback(self._loaded)

    def _loaded(self, future: asyncio.Future[Ssh]) -> None:
        self._loading = None
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._ssh = future.result()
        else:
            _log.error("no client can be served", error=str(error))
        for each in self._connections:
            if isinstance(each, Early):
                each.go_on(self._ssh)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)  # first: whatever happens below
        now_s = time.monotonic()
        for each in self._connections:
            each.look(now_s)
        if self._ssh is not None and now_s - self._reloaded_s > RELOAD_S:
            self._reloaded_s = now_s
            if self._reloading is None and stamp_of(self.host_keys) != self._stamp:
                self._reloading = self._loop.create_task(self._reload())

    async def _reload(self) -> None:
        """Use host keys that changed, for connections from now on."""
        assert self._ssh is not None
        stamp = stamp_of(self.host_keys)
        try:
            await asyncio.to_thread(self._ssh.load_keys)
            _log.info("new host keys are used")
        except Exception as error:
            # A key that is being written: this may be nothing. What was used before still is.
            _log.warning("changed host keys are not used", error=str(error))
        finally:
            self._stamp = stamp
            self._reloading = None


def _make_ssh(server: Server) -> Ssh:
    """Import asyncssh and read the host keys; in a thread."""
    from warp_sftp.ssh import Ssh

    server.find_host_keys()
    return Ssh(server)


class Early(asyncio.Protocol):
    """A client that came before asyncssh was there: what it sends waits. Then it is a client, and the server knows it by this."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._client: Client | None = None

    @property
    def proved(self) -> bool:
        """Say whether somebody logged in."""
        return self._client is not None and self._client.proved

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        if not self._server.connected(self, str(name[0]) if isinstance(name, tuple) else "local"):
            transport.abort()
            return
        self._server.load()

    def data_received(self, data: bytes) -> None:
        """Keep what comes."""
        self._data += data
        if len(self._data) > EARLY_MAX:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._transport = None
        self._server.disconnected(self)

    def go_on(self, ssh: Ssh | None) -> None:
        """Become a client; without asyncssh, leave."""
        transport = self._transport
        if transport is None or self._client is not None:
            return
        if ssh is None or transport.is_closing():
            self.cut()
            return
        self._client = client = ssh.client(self)
        transport.set_protocol(client)
        client.connection_made(transport)
        if self._data:
            client.data_received(bytes(self._data))
            self._data.clear()
        if self._server.draining:
            client.leave()

    def look(self, now_s: float) -> None:
        """End it if it is late."""
        if self._client is not None:
            self._client.look(now_s)

    def leave(self) -> None:
        """Leave, at once if nothing was begun."""
        if self._client is not None:
            self._client.leave()
        elif not self._data:
            self.cut()

    def cut(self) -> None:
        """End."""
        if self._client is not None:
            self._client.cut()
        elif self._transport is not None:
            self._transport.abort()
