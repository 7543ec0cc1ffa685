"""The shell: sockets to sessions. Only here anything waits."""

from __future__ import annotations

import asyncio
import errno
from types import TracebackType
from typing import Self

from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyRunning, RemoteProtocolError
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities

from warp_skeleton.config import Config
from warp_skeleton.session import Session

READ_MAX = 64 * 1024  # bytes taken from the socket at once


class Skeleton(Protocol):
    """Serves one view to clients until it is left."""

    capabilities = ProtocolCapabilities(view="objects", authenticated=True, tls=False)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        self._config = config
        self._context = context
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Bind and accept connections."""
        address = self._config.listen
        try:
            self._server = await asyncio.start_server(self._serve, address.host, address.port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(
                    f"protocols.skeleton.listen: {address} is taken by another program; stop it or"
                    " choose another port"
                ) from error
            raise
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"skeleton://{address.host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop accepting, let connections finish within the drain time, close."""
        if self._server is not None:
            self._server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=self._context.drain_s)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "callbacks of a stream server run as tasks"
        self._connections.add(task)
        session = Session()
        try:
            while data := await reader.read(READ_MAX):
                for request in session.receive(data):
                    writer.write(session.answer(request))
                await writer.drain()
        except (RemoteProtocolError, ConnectionError):
            pass  # costs its sender the connection, and nothing more
        except asyncio.CancelledError:
            pass  # the drain time is over; a stream server complains of tasks that end cancelled
        finally:
            self._connections.discard(task)
            writer.close()
