"""The client's end of the control socket: blocking, and cheap to import."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from warp_core import errors
from warp_core.errors import Unavailable, WarpError
from warp_core.listening import reachable

ANSWER_MAX = 256 * 1024 * 1024  # bytes of one line: a list of a million disks would fit
CONNECT_S = 5.0

Progress = Callable[[Mapping[str, Any]], None]


class Control:
    """A connection to a running node."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._inbox = b""
        self._id = 0

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            Unavailable: No node listens there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_S)
        try:
            with reachable(self._path) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise Unavailable(
                f"no node answers at {self._path} ({error.strerror or error})"
            ) from None
        connection.settimeout(None)
        self._socket = connection
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()

    def call(self, verb: str, *, progress: Progress | None = None, **arguments: Any) -> Any:
        """Ask, and return the result; `progress` hears of long work.

        Raises:
            WarpError: What the node raised, by its class where this release has it.
            Unavailable: The node ended before it answered.
        """
        assert self._socket is not None, "not connected"
        self._id += 1
        request = {"id": self._id, "verb": verb, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                reply = json.loads(self._line())
                if reply.get("id") != self._id:
                    continue
                if "progress" in reply:
                    if progress is not None:
                        progress(reply["progress"])
                elif "error" in reply:
                    raise _error(reply["error"])
                else:
                    return reply.get("result")
        except (OSError, ValueError) as error:
            raise Unavailable(f"the node at {self._path} broke off: {error}") from None

    def _line(self) -> bytes:
        assert self._socket is not None, "not connected"
        while b"\n" not in self._inbox:
            data = self._socket.recv(256 * 1024)
            if not data:
                raise Unavailable(f"the node at {self._path} ended before it answered")
            self._inbox += data
            if len(self._inbox) > ANSWER_MAX:
                raise Unavailable(f"the node's answer is longer than {ANSWER_MAX} bytes")
        line, _, self._inbox = self._inbox.partition(b"\n")
        return line


def _error(said: Mapping[str, str]) -> WarpError:
    kind = getattr(errors, said.get("kind", ""), WarpError)
    if not (isinstance(kind, type) and issubclass(kind, WarpError)):
        kind = WarpError
    return kind(said.get("message", "unknown error"))
