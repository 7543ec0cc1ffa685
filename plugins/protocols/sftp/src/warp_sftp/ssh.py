"""The part of the server that needs asyncssh: options that connections share, and connections that the server knows."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, Final

import asyncssh
import asyncssh.logging
from warp_core import logs
from warp_core.errors import ConfigError
from warp_core.metrics import Counter
from warp_core.namespace.locks import Owner

from warp_sftp.connection import Connection
from warp_sftp.keys import PublicKeys
from warp_sftp.logins import Gate, Login
from warp_sftp.server import KEY, Early, Server
from warp_sftp.serving import Serving
from warp_sftp.tree import Tree
from warp_sftp.users import Users
from warp_sftp.verbs import Verbs
from warp_sftp.wire import Kind

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""What is served, best first; see `ciphers.preferred`. None of them pads by what was sent before, as CBC did."""

MACS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
"""For AES-CTR."""

LINK_FIRST: Final = ("AsyncSSH", "libssh_")
"""Clients that send SYMLINK as the draft has it to servers that do not call themselves OpenSSH; all others do as OpenSSH."""

REKEY_BYTES: Final = 4 << 30
"""Bytes of one direction under one key: far below what AES-GCM may seal."""

_log = logs.get("warp_sftp")


class Client(Connection):
    """A connection that the server knows."""

    def __init__(
        self,
        server: Server,
        options: asyncssh.SSHServerConnectionOptions,
        early: Early | None = None,
    ) -> None:
        """Take what all share; the server may know it by who it was before."""
        super().__init__(asyncio.get_running_loop(), options)
        self._shell = server
        self._member: Client | Early = early or self
        self._entered = False
        self._leaving = False
        self.begun_s = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once where there are too many."""
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else "local"
        if self._member is self and not self._shell.connected(self, peer):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        self._entered = True
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        """Take bytes, unless it is about to end."""
        if self._entered:
            super().data_received(data, datatype)

    def gone(self) -> None:
        """Note that nothing of it is left."""
        if self._entered:
            self._entered = False
            self._shell.disconnected(self._member)

    def look(self, now_s: float) -> None:
        """End it if it has been silent for too long, or did not log in in time."""
        config = self._shell.config
        if not self._auth_complete:
            if now_s - self.begun_s > float(config.login_timeout):
                _log.info("no login in time", peer=self.peer)
                self.abort()
        elif now_s - self.heard_s > float(config.idle_timeout) and all(
            each.waits_for_client for each in self.login.sessions
        ):
            _log.info("silent for too long", peer=self.peer, account=self.login.account)
            self.disconnect(asyncssh.DISC_BY_APPLICATION, "idle for too long")

    @property
    def proved(self) -> bool:
        """Say whether somebody logged in."""
        return bool(self._auth_complete)

    def leave(self) -> None:
        """Finish what came so far, then end."""
        self._leaving = True
        if not self._auth_complete:
            if not self.received:
                self.abort()
            return  # a login that was begun may be finished, within the time that there is
        for session in list(self.login.sessions):
            session.leave()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if not self._transport:
            return
        if not self.login.sessions and not self.waiting:
            self.disconnect(asyncssh.DISC_BY_APPLICATION, "the server ends")
        else:
            self._loop.call_later(0.02, self._leave_if_done)

    def cut(self) -> None:
        """End, whatever is under way."""
        self.abort()


class Ssh:
    """What clients of one server share."""

    def __init__(self, server: Server) -> None:
        """Load keys; called in a thread."""
        self._server = server
        context, config = server.context, server.config
        self._gate = Gate(config, context.authenticator, server.attempts, server.logins)
        data = context.data
        if config.user_authorities and "certificate" in config.logins:
            self._gate.authorities = PublicKeys(
                [data / each for each in config.user_authorities], key=f"{KEY}.user_authorities"
            )
        if config.revoked_keys:
            self._gate.revoked = PublicKeys([data / config.revoked_keys], key=f"{KEY}.revoked_keys")
        self._users = Users(context.authenticator)
        self._numbers = itertools.count(1)
        self._ending: set[asyncio.Task[None]] = set()
        self._counters: dict[int, Counter] = {}
        self._options: asyncssh.SSHServerConnectionOptions
        self.load_keys()
        asyncssh.logging.set_log_level("CRITICAL")  # what matters is logged here, with the account

    def load_keys(self) -> None:
        """Read this server's keys, for connections from then on.

        Raises:
            ConfigError: They cannot be used.
        """
        try:
            keys = [asyncssh.read_private_key(path) for path in self._server.host_keys]
            self._options = asyncssh.SSHServerConnectionOptions(
                server_factory=self._login,
                server_host_keys=keys,
                server_version="WARP",
                encryption_algs=list(CIPHERS),
                mac_algs=list(MACS),
                compression_algs=["none"],
                gss_host=None,
                host_based_auth=False,
                x509_trusted_certs=None,
                agent_forwarding=False,
                allow_pty=False,
                login_timeout=0,  # `Client.look` has it
                rekey_bytes=REKEY_BYTES,
                encoding=None,
            )
        except (OSError, ValueError, asyncssh.KeyImportError) as error:
            names = ", ".join(str(path) for path in self._server.host_keys)
            raise ConfigError(f"{KEY}.host_keys: cannot use {names}: {error}") from error

    def client(self, early: Early | None = None) -> Client:
        """Return the protocol object of a new connection."""
        return Client(self._server, self._options, early)

    async def ended(self) -> None:
        """Wait until every session has let go of what it had."""
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _login(self) -> Login:
        def ended(connection: Connection) -> None:
            assert isinstance(connection, Client)
            connection.gone()

        return Login(self._gate, self._session, ended)

    def _session(self, login: Login, ended: Any) -> Serving:
        told: dict[str, object] = {"account": login.account, "peer": login.connection.peer}
        client: int | None = None
        claims = self._server.context.files.claims

        async def begin() -> Verbs:
            nonlocal client
            context, config = self._server.context, self._server.config
            assert login.principal is not None
            version = str(login.connection.get_extra_info("client_version", ""))
            name = f"sftp {context.node} {login.connection.peer} {next(self._numbers)}"
            client = await claims.add_client(name)
            tree = Tree(context.files, context.objects, login.principal, config)
            await tree.enter(login.account)
            return Verbs(
                context.files,
                tree,
                self._users,
                Owner(client, 0),
                account=login.account,
                admin=login.principal.admin,
                read_only=config.read_only,
                umask=int(config.umask, 8),
                handles_max=config.handles_max,
                link_first=any(name in version for name in LINK_FIRST),
            )

        def gone(serving: Serving) -> None:
            ended(serving)
            if client is not None:
                task = asyncio.get_running_loop().create_task(claims.drop_client(client))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

        return Serving(begin, gone, self._count, told)

    def _count(self, kind: int) -> Counter:
        found = self._counters.get(kind)
        if found is None:
            try:
                name = Kind(kind).name.lower()
            except ValueError:
                return self._server.requests.labels("unknown")
            found = self._counters[kind] = self._server.requests.labels(name)
        return found
