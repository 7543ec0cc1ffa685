"""Who may in: passwords, access keys, public keys and certificates of accounts; attempts are counted, slowed and ended.

Who fails is told nothing but that, after the same time and in the same way, whoever it claimed to be.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate
from warp_core import logs
from warp_core.errors import Unauthenticated, WarpError
from warp_core.interfaces.auth import Authenticator, Principal
from warp_core.metrics import Counter, Family
from warp_core.ssh_keys import SshKeys, fingerprint

from warp_sftp.attempts import Attempts
from warp_sftp.channel import FileChannel
from warp_sftp.config import Config
from warp_sftp.connection import Connection
from warp_sftp.keys import PublicKeys
from warp_sftp.serving import Serving

if TYPE_CHECKING:
    from asyncssh.connection import SSHServerConnection

_log = logs.get("warp_sftp")

NAME_MAX: Final = 128
"""Characters of a user's name: those of an access key."""


class Gate:
    """What all logins share.

    Attributes:
        attempts: Failures by address.
        connections: Open connections by account.
    """

    def __init__(
        self,
        config: Config,
        authenticator: Authenticator,
        attempts: Attempts,
        counters: Family[Counter],
    ) -> None:
        """Take who knows accounts."""
        self.counters = counters
        self.config = config
        self.authenticator = authenticator
        self.attempts = attempts
        self.connections: dict[str, int] = {}
        keeps = authenticator.capabilities.keeps_records
        self.keys = SshKeys(authenticator) if keeps and "key" in config.logins else None
        self.authorities: PublicKeys | None = None
        self.revoked: PublicKeys | None = None

    async def by_password(self, user: str, password: str) -> Principal:
        """Return whose password or secret it is.

        Raises:
            Unauthenticated
        """
        try:
            credential = await self.authenticator.lookup(user)
        except WarpError:
            pass  # no access key: it may be an account's name
        else:
            if hmac.compare_digest(credential.secret.encode(), password.encode()):
                return credential.principal
        # Also for an access key with another secret: that takes as long as anything that is wrong.
        return await self.authenticator.verify_password(user, password)

    def is_revoked(self, *blobs: bytes) -> bool:
        """Say whether one of these keys is refused; everything is while the file cannot be read."""
        if self.revoked is None:
            return False
        found = self.revoked.now()
        return found is None or any(blob in found for blob in blobs)


class Login(asyncssh.SSHServer):
    """One connection's way in, and who came."""

    def __init__(
        self,
        gate: Gate,
        session: Callable[[Login, Callable[[Serving], None]], Serving],
        ended: Callable[[Connection], None],
    ) -> None:
        """Take what makes sessions, and whom to tell of the end."""
        self._gate = gate
        self._session = session
        self._ended = ended
        self._failures = 0
        self._passwords = 0
        self._tried: set[bytes] = set()
        self._counted = False
        self.connection: Connection
        self.principal: Principal | None = None
        self.user = ""
        self.method = ""
        self.sessions: set[Serving] = set()

    @property
    def account(self) -> str:
        """The name of the account, "" before it is known."""
        return self.principal.name.removeprefix("account:") if self.principal else ""

    @property
    def _address(self) -> str:
        return self.connection.peer.rpartition(":")[0]

    # What asyncssh calls --------------------------------------------------------------------------

    def connection_made(self, conn: SSHServerConnection) -> None:
        """Take the connection."""
        assert isinstance(conn, Connection)
        self.connection = conn
        conn.login = self

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        if self._counted:
            left = self._gate.connections[self.account] - 1
            if left:
                self._gate.connections[self.account] = left
            else:
                del self._gate.connections[self.account]
        if self.principal is not None:
            _log.info("logged out", account=self.account, peer=self.connection.peer)
        self._ended(self.connection)

    def begin_auth(self, username: str) -> bool:
        """Ask everybody who they are."""
        self.user = username
        if self._gate.config.banner:
            self.connection.send_auth_banner(self._gate.config.banner.rstrip("\n") + "\r\n")
        return True

    def password_auth_supported(self) -> bool:
        """Say whether passwords are asked for."""
        return "password" in self._gate.config.logins

    def public_key_auth_supported(self) -> bool:
        """Say whether keys are taken."""
        return self._gate.keys is not None or self._gate.authorities is not None

    async def validate_password(self, username: str, password: str) -> bool:
        """Check a password, or the secret of an access key."""
        self._passwords += 1
        if self._passwords > self._gate.config.attempts_max:
            # Of many at once asyncssh drops all but the last; they count all the same.
            self._end_attempts()
        try:
            if len(username) > NAME_MAX:
                raise Unauthenticated("a name that long is nobody's")
            principal = await self._gate.by_password(username, password)
        except Unauthenticated:
            await self._failed("password")
            return False
        except WarpError as error:
            _log.error("login cannot be checked", error=str(error), **self._told())
            await self._failed("password")
            return False
        except asyncio.CancelledError:  # another attempt came before this one was answered
            self._gate.attempts.failed(self._address, time.monotonic())
            raise
        self._proved(principal, "password")
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Say whether a key is the account's; that its holder has it is proved by a signature."""
        blob = key.public_data
        keys = self._gate.keys
        if keys is not None and not self._gate.is_revoked(blob):
            name = f"account:{username}"
            try:
                if any(hmac.compare_digest(each.blob, blob) for each in await keys.of(name)):
                    self._proved(await self._gate.authenticator.principal_of(name), "key")
                    return True
            except Unauthenticated:
                pass
            except WarpError as error:
                _log.error("login cannot be checked", error=str(error), **self._told())
        await self._refused_key(blob)
        return False

    async def certified(self, username: str, certificate: SSHOpenSSHCertificate) -> bool:
        """Say whether a certificate is one for an account, but for its signature, dates and addresses, which asyncssh checks."""
        why = ""
        signer = certificate.signing_key.public_data
        authorities = self._gate.authorities.now() if self._gate.authorities else None
        if authorities is None or signer not in authorities:
            why = "nobody knows who signed it"
        elif self._gate.is_revoked(signer, certificate.key.public_data):
            why = "it is revoked"
        elif not certificate.principals:
            why = "it names no principals"  # asyncssh would take it for everybody's
        elif username not in certificate.principals:
            why = "it is another's"
        else:
            try:
                certificate.validate(asyncssh.public_key.CERT_TYPE_USER, username)
                self._proved(
                    await self._gate.authenticator.principal_of(f"account:{username}"),
                    "certificate",
                )
                return True
            except ValueError as error:
                why = str(error)
            except Unauthenticated:
                why = "there is no such account"
            except WarpError as error:
                why = str(error)
        _log.info("certificate refused", why=why, **self._told())
        await self._refused_key(certificate.key.public_data + b"-cert")
        return False

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Say whether a key signs certificates."""
        authorities = self._gate.authorities
        found = authorities.now() if authorities is not None else None
        return found is not None and key.public_data in found

    def auth_completed(self) -> None:
        """Let somebody in who proved to be an account."""
        assert self.principal is not None
        open_now = self._gate.connections.get(self.account, 0)
        limit = self._gate.config.account_connections_max
        if limit and open_now >= limit:
            _log.warning("too many connections", open=open_now, **self._told())
            raise asyncssh.DisconnectError(
                asyncssh.DISC_TOO_MANY_CONNECTIONS,
                f"the account has {open_now} connections, the most it may have",
            )
        self._gate.connections[self.account] = open_now + 1
        self._counted = True
        self._gate.counters.labels(self.method).add()
        _log.info("logged in", method=self.method, **self._told())

    def session_requested(self) -> tuple[FileChannel, Serving] | bool:
        """Begin a session."""
        if self.principal is None or len(self.sessions) >= self._gate.config.sessions_max:
            return False
        conn = self.connection
        serving = self._session(self, self.sessions.discard)
        self.sessions.add(serving)
        return FileChannel(conn, conn._loop), serving

    async def signed_wrongly(self) -> None:
        """Count a signature that does not fit."""
        await self._failed("signature")

    # ----------------------------------------------------------------------------------------------

    def _told(self) -> dict[str, object]:
        return {"account": self.account or self.user, "peer": self.connection.peer}

    def _proved(self, principal: Principal, method: str) -> None:
        self.principal, self.method = principal, method

    async def _refused_key(self, blob: bytes) -> None:
        """Count a key that is not taken, once: clients offer all they have, and some ask twice about each."""
        if blob not in self._tried:
            self._tried.add(blob)
            await self._failed(
                f"key {fingerprint(blob)}" if not blob.endswith(b"-cert") else "certificate"
            )

    async def _failed(self, what: str) -> None:
        self.principal = None
        self._failures += 1
        attempts = self._gate.attempts
        if what == "password":
            # Keys that are not taken prove no bad will, and cannot be guessed: they count for the connection only.
            delay_s = attempts.failed(self._address, time.monotonic())
            _log.info("login failed", tried=what, attempt=self._failures, **self._told())
            await asyncio.sleep(delay_s)
        if self._failures >= self._gate.config.attempts_max:
            self._end_attempts()

    def _end_attempts(self) -> NoReturn:
        _log.warning("too many failed attempts", attempts=self._failures, **self._told())
        raise asyncssh.DisconnectError(
            asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many failed attempts"
        )
