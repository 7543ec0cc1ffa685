"""Webhooks: each message is the body of a POST, taken when the answer is of the 200s."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from warp_core.errors import ConfigError, Unavailable
from warp_core.interfaces.targets import EventTarget, Message, TargetCapabilities, TargetContext

from warp_events.config import WebhookConfig

KEPT_S: Final = 15.0  # a connection without requests; what the other side closes first costs a try
ANSWER_MAX: Final = 64 * 1024  # bytes of an answer that are read to use its connection again
TOLD_MAX: Final = 200  # characters of an answer in a message about it


class Webhook(EventTarget):
    """One URL."""

    def __init__(self, config: WebhookConfig, context: TargetContext) -> None:
        """Take the options; nothing is opened yet."""
        self.capabilities = TargetCapabilities(
            at_once=config.connections, batch_max=config.batch, deduplicates=False
        )
        self._config = config
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        parts = urlsplit(config.url)
        self._shown = f"{parts.scheme}://{parts.netloc}{parts.path}"  # its query may be a secret
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"warp-events/{version('warp-events')}",
        }
        if config.authorization:
            self._headers["Authorization"] = str(config.authorization)

    async def __aenter__(self) -> Self:
        """Get ready to connect.

        Raises:
            ConfigError: `ca_file` cannot be read.
        """
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._config.connections,
                keepalive_timeout=KEPT_S,
                ssl=self._tls(),
            ),
            timeout=aiohttp.ClientTimeout(total=float(self._config.timeout)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._config.ca_file:
            return True
        path = Path(self._context.data, self._config.ca_file)
        try:
            return ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f'event target "{self._context.name}": ca_file {path} cannot be read: {error}'
            ) from error

    async def send(self, message: Message) -> None:
        """As `EventTarget.send`."""
        headers = {**self._headers, "X-Warp-Event-Id": message.id}
        if self._config.secret:
            headers["X-Warp-Signature"] = signature(
                str(self._config.secret), message.body, second=int(time.time())
            )
        try:
            try:
                await self._post(message.body, headers)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                # Most likely the other side closed a kept connection while the request was on its way.
                await self._post(message.body, headers)
        except TimeoutError as error:
            raise Unavailable(f"{self._shown}: no answer within {self._config.timeout}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            told = (str(error) or type(error).__name__).replace(self._config.url, self._shown)
            raise Unavailable(f"{self._shown}: {' '.join(told.split())[:TOLD_MAX]}") from error

    async def _post(self, body: bytes, headers: dict[str, str]) -> None:
        assert self._session is not None, "a target is used while it is open"
        async with self._session.post(
            self._config.url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            said = await answer.content.read(ANSWER_MAX)
            while said and len(said) < ANSWER_MAX and not answer.content.at_eof():
                more = await answer.content.read(ANSWER_MAX - len(said))
                if not more:
                    break
                said += more
            if not 200 <= answer.status < 300:
                told = " ".join(said[:TOLD_MAX].decode("utf-8", "replace").split())
                raise Unavailable(f"{self._shown}: answered {answer.status} {told}".rstrip())


def signature(secret: str, body: bytes, *, second: int) -> str:
    """Return the header that signs a message: its time, and HMAC-SHA256 of the time, a dot and the body."""
    text = str(second).encode() + b"." + body
    return f"t={second},v1={hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"
