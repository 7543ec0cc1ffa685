"""The control socket: how the command `warp` talks to the running node.

A Unix socket of mode 0600 inside the data directory (mode 0700): who can open it owns the node. Each
line is one JSON object:

```
→ {"id": 1, "verb": "volume.create", "arguments": {"name": "photos"}}
← {"id": 1, "progress": {"done": 3, "total": 10}}        any number of times
← {"id": 1, "result": {...}}   or   {"id": 1, "error": {"kind": "AlreadyOwned", "message": "..."}}
```

Requests of one connection may overlap; closing it cancels those that still run. What changes something goes into the audit log, by the
user id that the kernel tells of the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from warp_core.audit.entries import told
from warp_core.errors import InvalidArgument, NotFound, StoreFailed, WarpError
from warp_core.interfaces.audit import NO_AUDIT, NOBODY, Audit, Caller
from warp_core.listening import reachable
from warp_core.logs import get

LINE_MAX = 1024 * 1024  # bytes of one request: the longest carries a policy or a document
CONNECTIONS_MAX = 64
REQUESTS_MAX = 16  # at once, on one connection

log = get("warp_core.node")

N = TypeVar("N")
Progress = Callable[[Mapping[str, object]], None]


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Role(IntEnum):
    """What somebody may ask of a node who is not its owner; each may do what those before may."""

    VIEWER = 1  # looks
    OPERATOR = 2  # makes and removes volumes, disks, snapshots, quotas; repairs
    ADMIN = 3  # says who may do what


READING = frozenset({"list", "show", "status", "metrics", "text"})
"""Last words of verbs that only look, where their row does not say so."""


@dataclass(frozen=True, slots=True)
class Verb(Generic[N]):
    """Something that a node can be asked.

    Attributes:
        arguments: What it takes. Required text at the beginning names what the verb is about.
        run: Does it.
        offline: Also safe when only the data is open.
        role: Who may ask; None: viewers where it only looks, else administrators.
        reads: It only looks, and needs no line in the audit log; None: its name says so (`READING`).
        long: It tells of its progress.
    """

    arguments: type[msgspec.Struct]
    run: Callable[[N, Any, Progress], Awaitable[object]]
    offline: bool = True
    role: Role | None = None
    reads: bool | None = None
    long: bool = False

    def only_reads(self, name: str) -> bool:
        """Say whether the verb, which has this name, only looks."""
        return name.rpartition(".")[2] in READING if self.reads is None else self.reads

    def role_of(self, name: str) -> Role:
        """Return who may ask for the verb, which has this name."""
        if self.role is not None:
            return self.role
        return Role.VIEWER if self.only_reads(name) else Role.ADMIN


class Request(msgspec.Struct, frozen=True):
    """A line from the client."""

    id: int
    verb: str
    arguments: dict[str, object] = {}


class ControlServer(Generic[N]):
    """Answers requests about `subject`; entered while the data directory is locked.

    `verbs` is called with the first request: what answers requests need not be there to start.
    """

    def __init__(
        self,
        path: Path,
        verbs: Callable[[], Mapping[str, Verb[N]]],
        subject: N,
        audit: Audit = NO_AUDIT,
    ) -> None:
        self._path = path
        self._verbs = verbs
        self._subject = subject
        self._audit = audit
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Bind; a socket that an earlier process left behind is replaced."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            with reachable(self._path) as address:
                listener.bind(address)
        except OSError as error:
            listener.close()
            raise StoreFailed(
                f"{self._path} cannot be made ({error.strerror}): the data directory must be on a file"
                " system that allows Unix sockets"
            ) from None
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LINE_MAX)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "callbacks of a stream server run as tasks"
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        running: set[asyncio.Task[None]] = set()
        slots = asyncio.Semaphore(REQUESTS_MAX)
        caller = peer_of(writer.get_extra_info("socket"), "control")
        try:
            while line := await reader.readline():
                await slots.acquire()
                request = asyncio.create_task(self._answer(line, writer, caller))
                running.add(request)
                request.add_done_callback(running.discard)
                request.add_done_callback(lambda _: slots.release())
        except (ConnectionError, ValueError):  # ValueError: a line beyond LINE_MAX
            pass
        finally:
            for request in running:
                request.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._connections.discard(task)
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter, caller: Caller) -> None:
        id = 0

        def say(**what: object) -> None:
            writer.write(msgspec.json.encode({"id": id, **what}, enc_hook=repr) + b"\n")

        try:
            request = msgspec.json.decode(line, type=Request)
            id = request.id
            result = await perform(
                self._verbs(),
                self._subject,
                request.verb,
                request.arguments,
                lambda progress: say(progress=progress),
                audit=self._audit,
                caller=caller,
            )
            say(result=result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            say(error={"kind": "InvalidArgument", "message": f"no request: {error}"})
        except WarpError as error:
            say(error={"kind": type(error).__name__, "message": str(error)})
        except Exception as error:
            log.exception("control request failed", error)
            say(error={"kind": "WarpError", "message": f"{type(error).__name__}: {error}"})
        with contextlib.suppress(ConnectionError):
            await writer.drain()


_CREDENTIALS = struct.Struct("iII")  # struct ucred, socket.h: pid, uid, gid


def peer_of(connection: Any, via: str) -> Caller:
    """Return who is at the other end of a Unix socket, as the kernel says."""
    try:
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:  # gone already
        return Caller("unix:?", via)
    pid, uid, _ = _CREDENTIALS.unpack(told)
    return Caller(f"unix:{uid}", via, f"pid {pid}")


def own_user(via: str) -> Caller:
    """Return who runs this process."""
    return Caller(f"unix:{os.getuid()}", via, f"pid {os.getpid()}")


async def perform(
    verbs: Mapping[str, Verb[N]],
    subject: N,
    verb: str,
    arguments: Mapping[str, object],
    progress: Progress,
    *,
    audit: Audit = NO_AUDIT,
    caller: Caller = NOBODY,
) -> object:
    """Do what a request asks; what changes something is put on record.

    Raises:
        NotFound: No such verb.
        InvalidArgument: Arguments of the wrong shape.
        StoreFailed, NoSpace: It cannot be put on record.
    """
    known = verbs.get(verb)
    if known is None:
        raise NotFound(
            f'this node does not know the request "{verb}": it may be of another release'
        )
    try:
        decoded = msgspec.convert(dict(arguments), known.arguments)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{verb}: {error}") from None
    return await run(verb, known, subject, decoded, progress, audit=audit, caller=caller)


async def run(
    name: str,
    verb: Verb[N],
    subject: N,
    arguments: msgspec.Struct,
    progress: Progress,
    *,
    audit: Audit,
    caller: Caller,
) -> object:
    """Do a verb whose arguments have the right shape."""
    if verb.only_reads(name):
        return await verb.run(subject, arguments, progress)
    async with audit.change(caller, name, told(arguments)):
        return await verb.run(subject, arguments, progress)
