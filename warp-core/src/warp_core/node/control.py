"""The control socket: how the command `warp` talks to the running node.

A Unix socket of mode 0600 inside the data directory (mode 0700): who can open it owns the node. Each
line is one JSON object:

```
→ {"id": 1, "verb": "volume.create", "arguments": {"name": "photos"}}
← {"id": 1, "progress": {"done": 3, "total": 10}}        any number of times
← {"id": 1, "result": {...}}   or   {"id": 1, "error": {"kind": "AlreadyOwned", "message": "..."}}
```

Requests of one connection may overlap; closing it cancels those that still run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from warp_core.errors import InvalidArgument, NotFound, StoreFailed, WarpError
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


@dataclass(frozen=True, slots=True)
class Verb(Generic[N]):
    """Something that a node can be asked. `offline`: also safe when only the data is open."""

    arguments: type[msgspec.Struct]
    run: Callable[[N, Any, Progress], Awaitable[object]]
    offline: bool = True


class Request(msgspec.Struct, frozen=True):
    """A line from the client."""

    id: int
    verb: str
    arguments: dict[str, object] = {}


class ControlServer(Generic[N]):
    """Answers requests about `subject`; entered while the data directory is locked.

    `verbs` is called with the first request: what answers requests need not be there to start.
    """

    def __init__(self, path: Path, verbs: Callable[[], Mapping[str, Verb[N]]], subject: N) -> None:
        self._path = path
        self._verbs = verbs
        self._subject = subject
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
        try:
            while line := await reader.readline():
                await slots.acquire()
                request = asyncio.create_task(self._answer(line, writer))
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

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
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


async def perform(
    verbs: Mapping[str, Verb[N]],
    subject: N,
    verb: str,
    arguments: Mapping[str, object],
    progress: Progress,
) -> object:
    """Do what a request asks.

    Raises:
        NotFound: No such verb.
        InvalidArgument: Arguments of the wrong shape.
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
    return await known.run(subject, decoded, progress)
