"""The target: messages are published to JetStream and are taken when the stream has acknowledged them.

One connection carries them all. It is made when it is needed; one that is lost is replaced by the next message, not repaired, so that
nothing waits in a client's buffers, whose end nobody would learn of.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from warp_core.errors import ConfigError, Unavailable
from warp_core.interfaces.targets import EventTarget, Message, TargetCapabilities, TargetContext
from warp_core.logs import get

from warp_nats.config import Config

CLOSE_S: Final = 0.3  # for a last word; then the connection is cut

log = get("warp_nats")


class Nats(EventTarget):
    """One subject of JetStream."""

    def __init__(self, config: Config, context: TargetContext) -> None:
        """Take the options; nothing is opened yet."""
        self.capabilities = TargetCapabilities(at_once=config.at_once, deduplicates=True)
        self._config = config
        self._context = context
        self._tls: ssl.SSLContext | None = None
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._connecting = asyncio.Lock()
        self._waiting: set[asyncio.Timeout] = set()  # of messages without an answer

    async def __aenter__(self) -> Self:
        """Get ready to connect.

        Raises:
            ConfigError: `ca_file` or `creds_file` cannot be read.
        """
        config = self._config
        if config.ca_file or any(server.startswith("tls:") for server in config.servers):
            path = str(Path(self._context.data, config.ca_file)) if config.ca_file else None
            try:
                self._tls = ssl.create_default_context(cafile=path)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f'event target "{self._context.name}": ca_file {path} cannot be read: {error}'
                ) from error
        creds_file = Path(self._context.data, config.creds_file)
        if config.creds_file and not creds_file.is_file():  # noqa: ASYNC240  before anything is served
            raise ConfigError(
                f'event target "{self._context.name}": creds_file {config.creds_file} is no file'
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._drop(self._client)

    async def send(self, message: Message) -> None:
        """As `EventTarget.send`."""
        client: Client | None = None
        try:
            async with asyncio.timeout(float(self._config.timeout)) as limit:
                client, stream = await self._connected()
                self._waiting.add(limit)
                try:
                    await stream.publish(
                        self._config.subject.replace("{bucket}", message.bucket),
                        message.body,
                        timeout=float(self._config.timeout),
                        stream=self._config.stream or None,
                        headers={"Nats-Msg-Id": message.id},
                    )
                finally:
                    self._waiting.discard(limit)
        except nats.js.errors.NoStreamResponseError as error:
            raise Unavailable(
                f"{self._shown}: no stream has the subject {self._config.subject}"
            ) from error
        except nats.js.errors.APIError as error:
            raise Unavailable(f"{self._shown}: {error.description or error}") from error
        except TimeoutError as error:  # nats-py's own is one of these
            if client is not None and client.is_closed:
                raise Unavailable(f"{self._shown}: the connection is lost") from error
            await self._drop(client)  # it may hang; the next message asks anew
            raise Unavailable(f"{self._shown}: no answer within {self._config.timeout}") from error
        except (nats.errors.Error, OSError, ValueError) as error:
            await self._drop(client)
            raise Unavailable(f"{self._shown}: {str(error) or type(error).__name__}") from error

    @property
    def _shown(self) -> str:
        return ", ".join(self._config.servers)

    async def _connected(self) -> tuple[Client, JetStreamContext]:
        """Return a connection, a new one if there is none that lives."""
        async with self._connecting:
            client, stream = self._client, self._stream
            if client is not None and stream is not None and client.is_connected:
                return client, stream
            await self._drop(client)
            made = Client()
            try:
                await made.connect(list(self._config.servers), **self._options())
            except BaseException:
                await self._cut(made)
                raise
            self._client, self._stream = made, made.jetstream()
            return made, self._stream

    def _options(self) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {
            "name": f"warp {self._context.name}",
            "allow_reconnect": False,
            # Each server is tried twice and at once; how often in all is the sender's to say.
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": float(config.timeout),
            "error_cb": _noted,
            "closed_cb": self._lost,
        }
        if config.user:
            found |= {"user": config.user, "password": str(config.password)}
        if config.token:
            found["token"] = str(config.token)
        if config.creds_file:
            found["user_credentials"] = str(Path(self._context.data, config.creds_file))
        if self._tls is not None:
            found["tls"] = self._tls
        return found

    async def _lost(self) -> None:
        """End the waiting for answers of a connection that has ended: nats-py would wait for their time limit."""
        now_s = asyncio.get_running_loop().time()
        for limit in self._waiting:
            limit.reschedule(now_s)

    async def _drop(self, client: Client | None) -> None:
        """Forget a connection and close it; harmless where that was done."""
        if client is None:
            return
        if client is self._client:
            self._client = self._stream = None
        await self._cut(client)

    async def _cut(self, client: Client) -> None:
        """Close a connection, with a moment for what is still to be written."""
        with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSE_S):
                await client.close()


async def _noted(error: Exception) -> None:
    """Keep nats-py from writing to the log of its own; what a message needs to know, `publish` raises."""
    log.debug("nats", error=str(error) or type(error).__name__)
