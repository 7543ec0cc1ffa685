"""What PostgreSQL and asyncpg report → WARP's tree, by class and SQLSTATE."""

from __future__ import annotations

import ssl

import asyncpg
from warp_core.errors import Corrupt, NoSpace, StoreFailed, Unavailable, WarpError


class Lost(Exception):
    """The connection ended; what was asked last may or may not have been done."""


class Raced(Exception):
    """The server undid the statement because of another one: the same may succeed now."""


# SQLSTATE, or its class of two letters → what is raised.
_BY_STATE: dict[str, type[Exception]] = {
    "40": Raced,  # serialization failure, deadlock
    "55P03": Raced,  # a lock was not to be had in time
    "57014": Raced,  # cancelled, by us or by statement_timeout
    "08": Lost,
    "57P": Lost,  # shut down, crashed, starting up, idle for too long
    "25P03": Lost,  # idle in a transaction for too long
    "25006": Lost,  # read-only: a standby, or a primary that became one
    "53100": NoSpace,
    "53": Unavailable,  # out of memory, too many connections
    "58": StoreFailed,  # input or output of the server failed
    "XX001": Corrupt,
    "XX002": Corrupt,
}
_LOST = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError, ssl.SSLError)


def translated(error: Exception, place: str) -> Exception:
    """Return what to raise for an error of the driver: a `WarpError`, `Lost` or `Raced`."""
    if isinstance(error, TimeoutError):
        return Lost(f"no answer from PostgreSQL at {place} in time")
    if isinstance(error, _LOST) and not isinstance(error, asyncpg.PostgresError):
        return Lost(f"PostgreSQL at {place} cannot be reached: {_first_line(error)}")
    if not isinstance(error, asyncpg.PostgresError):
        return error
    state = str(error.sqlstate or "")
    kind = next(
        (_BY_STATE[key] for key in (state, state[:3], state[:2]) if key in _BY_STATE), StoreFailed
    )
    text = f"PostgreSQL at {place}: {_first_line(error)}"
    if kind is NoSpace:
        text += " (make room on the server's disk)"
    return kind(text)


def refusal(error: Exception, place: str, user: str) -> WarpError | None:
    """Return what is wrong with how the server was asked for, and what to do; None where it may simply be away.

    Raised while the engine is opened; later the same is `Unavailable`, as it may be mended.
    """
    text = _first_line(error)
    who = f'user "{user}"' if user else "this user"
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = (
            'name its authority in `authority`, or say `tls = "require"` to go without verification'
        )
    elif isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):  # class 28
        advice = f"give the password of {who} in `password_file` (or PGPASSWORD), and admit it in pg_hba.conf"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        advice = f"make it: createdb --owner {user or 'USER'} DATABASE"
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        advice = f"let {who} own the schema: CREATE SCHEMA warp AUTHORIZATION {user or 'USER'}"
    elif isinstance(error, asyncpg.TooManyConnectionsError):
        advice = "raise max_connections there, or lower `connections` here"
    elif isinstance(error, ConnectionError) and "SSL" in text:
        advice = 'it offers no TLS: set `ssl = on` there, or say `tls = "disable"` here'
    else:
        return None
    return Unavailable(f"metadata: PostgreSQL at {place} refuses: {text}; {advice}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
