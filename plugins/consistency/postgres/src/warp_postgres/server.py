"""One connection after another to the server, each with the session settings that this engine relies on."""

from __future__ import annotations

import asyncio
import random
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import asyncpg
from warp_core.errors import ConfigError, Unavailable

from warp_postgres.config import Config
from warp_postgres.errors import Lost, Raced, refusal, translated

T = TypeVar("T")
Connection = Any  # of asyncpg, which ships no complete types
Kind = Literal["postgres", "cockroach", "yugabyte"]

BACKOFF_FIRST_S = 0.02  # a server that restarts is back within tenths of a second
BACKOFF_MAX_S = 0.5
CONNECT_S = 3.0  # for one attempt: a host that is gone must leave time to try another
SERVER_OLDEST = 13  # what is released before is out of support

# Plans must not depend on statistics: tables begin empty, and a plan kept from then would read all of a large one.
PLANS = (
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; "
    "SET jit = off; SET plan_cache_mode = force_generic_plan"
)


class Server:
    """How to reach the server; what it turned out to be."""

    def __init__(self, config: Config, *, folder: Path, node: str) -> None:
        self.place = config.place
        self.timeout_s = float(config.timeout)
        self.kind: Kind = "postgres"
        self._config = config
        self._folder = folder
        self._node = node

    async def connect(self, *, writes: bool = False) -> Connection:
        """Make one connection, for reading unless it `writes`.

        Raises:
            ConfigError: A file that the configuration names cannot be read.
            Lost: The server cannot be reached now.
            asyncpg.PostgresError: It refuses.
        """
        address = self._address()
        password = self._password()
        connection = None
        try:
            async with asyncio.timeout(min(CONNECT_S, self.timeout_s)):
                connection = await asyncpg.connect(
                    address,
                    password=password or None,
                    timeout=None,
                    command_timeout=None,
                    server_settings={"application_name": f"warp {self._node}"[:63]},
                )
                await self._settle(connection, writes)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, ssl_errors()) or not isinstance(error, Exception):
                raise
            if isinstance(error, asyncpg.PostgresError):
                raise
            raise translated(error, self.place) from error
        return connection

    async def _settle(self, connection: Connection, writes: bool) -> None:
        """Find out what the server is, and set what this engine relies on."""
        banner = await connection.fetchval("SELECT version()")
        self.kind = kind_of(banner)
        limit = int(self.timeout_s * 1000)
        # Reads do not outlive who waits for them. A commit is never cancelled: one that waits for a synchronous standby would be
        # acknowledged without it.
        settings = (
            f"SET statement_timeout = {0 if writes else limit}; SET lock_timeout = {limit}; "
            f"SET idle_in_transaction_session_timeout = {limit}"
        )
        if writes:  # what `head` proves, the server proves again
            settings += "; SET default_transaction_isolation = serializable"
        if self.kind == "postgres":
            settings += f"; {PLANS}"
            durable = await connection.fetchrow(
                "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
                "current_setting('synchronous_commit'), current_setting('transaction_read_only')"
            )
            if durable[0] != "on" or durable[1] != "on":
                name = "fsync" if durable[0] != "on" else "full_page_writes"
                raise ConfigError(
                    f"metadata: PostgreSQL at {self.place} runs with {name} = off, and would lose what it "
                    f"acknowledged in a power cut: set {name} = on"
                )
            if durable[2] == "off":
                settings += "; SET synchronous_commit = on"
            if durable[3] == "on":
                raise Lost(
                    f"PostgreSQL at {self.place} is read-only (a standby?): name the primary, "
                    "or add ?target_session_attrs=read-write to the url"
                )
        await connection.execute(settings)

    async def connect_first(self) -> Connection:
        """Make the first connection, within the timeout; say what to do where the server refuses.

        Raises:
            ConfigError, Unavailable: It cannot be used; the message says what to do.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        delay_s = BACKOFF_FIRST_S
        while True:
            try:
                return await self.connect()
            except ConfigError:
                raise
            except Exception as error:
                refused = refusal(error.__cause__ or error, self.place, self.user)  # type: ignore[arg-type]
                if refused is not None:
                    raise refused from error
                if asyncio.get_running_loop().time() + delay_s > deadline:
                    raise Unavailable(
                        f"metadata: {translated(error, self.place)}: start it, or mend `url` in [metadata]"
                    ) from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)

    @property
    def user(self) -> str:
        """Who the url says that this is; "" for the operating system's name of the process."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self._config.url).username or "")

    def _address(self) -> str:
        config = self._config
        parts = urllib.parse.urlsplit(config.url)
        options = urllib.parse.parse_qsl(parts.query)
        options.append(("sslmode", config.tls_mode))
        for name, path in (
            ("sslrootcert", config.authority),
            ("sslcert", config.certificate),
            ("sslkey", config.key),
        ):
            if path:
                options.append((name, str(self._folder / path)))
        if config.tls_mode.startswith("verify") and not config.authority:
            options.append(("sslrootcert", system_authorities()))
        return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(options)))

    def _password(self) -> str:
        """Return the password, read anew for each connection so that it can be changed."""
        config = self._config
        if not config.password_file:
            return str(config.password)
        path = self._folder / config.password_file
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"metadata.password_file: {path} cannot be read: {error}") from error
        if not lines or not lines[0]:
            raise ConfigError(f"metadata.password_file: the first line of {path} is empty")
        return lines[0]


def kind_of(banner: str) -> Kind:
    """Return what a server is by what it says of itself.

    Raises:
        ConfigError: It is too old.
    """
    if "CockroachDB" in banner:
        return "cockroach"
    if "-YB-" in banner:
        return "yugabyte"
    number = re.match(r"PostgreSQL (\d+)", banner)
    if number and int(number[1]) < SERVER_OLDEST:
        raise ConfigError(f"metadata: {number[0]} is too old: {SERVER_OLDEST} or newer is needed")
    return "postgres"


def ssl_errors() -> tuple[type[Exception], ...]:
    """Return what a certificate that does not verify raises; imported when it is needed."""
    import ssl

    return (ssl.SSLCertVerificationError,)


def system_authorities() -> str:
    """Return the file of certificates that the system trusts."""
    import ssl

    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile


class Line:
    """One connection, made when it is first needed and again after it was lost. Used by one task at a time."""

    def __init__(self, server: Server, *, writes: bool = False) -> None:
        self.server = server
        self._writes = writes
        self._connection: Connection = None
        self._prepared: dict[str, Any] = {}

    async def fetch(
        self, statement: str, arguments: Sequence[object], deadline_s: float
    ) -> list[Any]:
        """Run one statement in a transaction of its own and return its rows; connects first where necessary.

        Raises:
            Lost: The connection ended while it ran: it may have been applied.
            Raced: The server undid it because of another.
            Unavailable: There is no connection, so it was not run.
            NoSpace, StoreFailed, Corrupt: The server says so; it was not applied.
        """
        if not self.connected:
            await self.connect(deadline_s)
        # At the deadline the connection is cut. A cancelled `fetch` would ask the server to cancel, and a commit that waits for a
        # synchronous standby would then go on without it.
        connection = self._connection
        cut = asyncio.get_running_loop().call_at(deadline_s, connection.terminate)
        try:
            prepared = self._prepared.get(statement)
            if prepared is None:
                prepared = await connection.prepare(statement)
                self._prepared[statement] = prepared
            rows: list[Any] = await prepared.fetch(*arguments)
            return rows
        except Exception as error:
            known = translated(error, self.server.place)
            if isinstance(known, Lost) or not self.connected:
                self.drop()
                if not isinstance(known, Lost):
                    known = Lost(str(known))
            raise known from error
        except BaseException:
            self.drop()  # cancelled in the middle: the connection is between two answers
            raise
        finally:
            cut.cancel()

    async def connect(self, deadline_s: float) -> Connection:
        """Connect, with growing delays until the deadline.

        Raises:
            Unavailable: It did not succeed; the message says why the last attempt failed.
        """
        self.drop()
        delay_s = BACKOFF_FIRST_S
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with asyncio.timeout_at(deadline_s):
                    self._connection = await self.server.connect(writes=self._writes)
                return self._connection
            except Exception as error:
                known = translated(error, self.server.place)
            if clock() + delay_s > deadline_s:
                raise Unavailable(f"metadata: {known}")
            await asyncio.sleep(delay_s * (0.5 + random.random()))
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)

    async def retried(self, work: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Do what may be done twice, again and again until it succeeds or the deadline passes.

        Raises:
            Unavailable: It did not succeed in time.
        """
        delay_s = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            try:
                return await work()
            except (Lost, Raced) as error:
                if clock() + delay_s >= deadline_s:
                    raise Unavailable(f"metadata: {error}") from error
            if delay_s:
                await asyncio.sleep(delay_s * random.random())
            delay_s = min(2 * delay_s, BACKOFF_MAX_S) or BACKOFF_FIRST_S

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    def adopt(self, connection: Connection) -> None:
        """Go on with a connection that was made already."""
        self.drop()
        self._connection = connection

    def drop(self) -> None:
        """End the connection at once; the next use makes another."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._prepared.clear()

    async def close(self) -> None:
        """End the connection politely, or at once if the server does not answer."""
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if connection is not None and not connection.is_closed():
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except Exception:
                connection.terminate()
