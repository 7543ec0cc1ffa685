"""What `[metadata] engine = "postgres"` may say."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from warp_core.config.types import Between, Duration, Secret

SCHEMES = ("postgresql", "postgres")
SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")  # PostgreSQL cuts names at 63 bytes
LOCAL = ("", "localhost", "127.0.0.1", "[::1]", "::1")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the engine `postgres`; relative paths start at the node's data folder."""

    # Where the server is: postgresql://USER@HOST:PORT/DATABASE, several hosts separated by commas, or
    # postgresql:///DATABASE?host=/var/run/postgresql for a Unix socket. The password stands elsewhere.
    url: str = "postgresql:///warp"
    password: Secret = Secret("")
    password_file: str = ""  # holds the password in its first line; else PGPASSWORD or ~/.pgpass
    schema: str = "warp"  # everything lies in it, so that a database may be shared
    # "": verify-full, and disable for a Unix socket or the loopback address.
    tls: Literal["", "disable", "require", "verify-ca", "verify-full"] = ""
    authority: str = ""  # certificates that sign the server's, PEM; empty: the system's
    certificate: str = ""  # this node's, PEM
    key: str = ""  # its private key
    connections: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4  # for reading; two more do the rest
    # After which an unanswered request is given up.
    timeout: Annotated[Duration, Between("100ms", "1min")] = Duration(5.0)
    # For how long changes are remembered, for watchers that resume and for requests sent again.
    history: Annotated[Duration, Between("30s", "1d")] = Duration(60.0)

    def __post_init__(self) -> None:
        """Check what the types do not tell."""
        try:
            parts = urlsplit(self.url)
            password = parts.password
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if parts.scheme not in SCHEMES or not parts.path.strip("/"):
            raise ValueError("url: postgresql://USER@HOST:PORT/DATABASE is needed")
        options = parse_qs(parts.query)
        if password is not None or "password" in options:
            raise ValueError("url: the password stands in password_file, not here")
        unwanted = {name for name in options if name.startswith("ssl")}
        if unwanted:
            raise ValueError(
                f"url: tls, authority, certificate and key say what {min(unwanted)} would"
            )
        if self.password and self.password_file:
            raise ValueError("password_file: either it or password")
        if not SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise ValueError("schema: small letters, digits and _ are needed, at most 48, no pg_")
        if self.history < 4 * self.timeout:
            raise ValueError(
                "history: at least four times timeout, as commits are asked for that long"
            )
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate: it comes with a key, and a key with it")
        if self.tls == "disable" and (self.authority or self.certificate):
            raise ValueError("tls: certificates are for connections with TLS")

    @property
    def place(self) -> str:
        """The server and database, for messages."""
        parts = urlsplit(self.url)
        hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ()))
        return f'{hosts or "the local socket"}, database "{unquote(parts.path.strip("/"))}"'

    @property
    def tls_mode(self) -> str:
        """What `tls` means for this server."""
        if self.tls:
            return self.tls
        parts = urlsplit(self.url)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        hosts += parse_qs(parts.query).get("host", [])
        names = [host if host.startswith("/") else re.sub(r":\d*$", "", host) for host in hosts]
        local = all(name in LOCAL or name.startswith("/") for name in names)
        return "disable" if local else "verify-full"
