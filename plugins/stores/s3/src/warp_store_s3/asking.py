"""Requests to one bucket: repeated while the endpoint is away or busy, answers turned into errors that say which of these it was.

| what happened | error |
| --- | --- |
| nobody answers, or it is busy for longer than the retries last | `StoreFailed`, "is away": the next call may find it again |
| 403 | `StoreFailed`, "refuses" |
| the bucket is missing | `StoreFailed`, "has no bucket" |
| the key is missing | `NotFound` |
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from warp_core.errors import (
    InvalidArgument,
    NotFound,
    RemoteProtocolError,
    StoreFailed,
    TimedOut,
    Unavailable,
    WarpError,
)
from warp_core.s3 import Body, Client, Endpoint, Response

from warp_store_s3.config import Config
from warp_store_s3.credentials import Credentials

FIRST_WAIT_S: Final = 0.1
WAIT_MAX_S: Final = 8.0

_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
_BUSY_CODES: Final = frozenset({"SlowDown", "RequestTimeout", "InternalError", "OperationAborted"})
_NO_KEY: Final = frozenset({"NoSuchKey", "NoSuchUpload", "NotFound", ""})


class Away(StoreFailed):
    """The endpoint does not answer, or is too busy to: later it may."""

    retryable = True


class Bucket:
    """One bucket at one endpoint, asked through few connections."""

    def __init__(
        self, config: Config, credentials: Credentials, data: Path, client: Client | None = None
    ) -> None:
        """Prepare; nothing is opened."""
        self._config = config
        self._path = b"/" if config.style == "virtual" else f"/{config.bucket}/".encode()
        self.client = client or make_client(config, credentials, data)

    async def ask(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
        also: tuple[int, ...] = (),
    ) -> Response:
        """Send a request until it is answered; return a success, or an answer whose status is in `also`.

        Raises:
            NotFound: The endpoint has no such key.
            Away: Nobody answers, or it stays busy.
            StoreFailed: It refuses, has no such bucket, or answers otherwise.
        """
        wait_s = FIRST_WAIT_S
        for left in range(self._config.retries, -1, -1):
            try:
                answer = await self.client.request(
                    method, self._path + key.encode(), query=query, headers=headers, body=body
                )
            except (Unavailable, TimedOut, RemoteProtocolError) as error:
                if not left:
                    raise Away(f"{self._config.place} is away: {error}") from error
            else:
                # The end of an upload may begin as a success and turn out to be none.
                failed = method == "POST" and b"<Error>" in answer.body[:500]
                if (answer.ok and not failed) or answer.status in also:
                    return answer
                busy = answer.status in _BUSY or answer.code in _BUSY_CODES
                if not busy or not left:
                    raise self._error(answer, key, busy=busy)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, WAIT_MAX_S)
        raise AssertionError("the last attempt returns or raises")

    def _error(self, answer: Response, key: str, *, busy: bool) -> WarpError:
        where = self._config.place
        if busy:
            return Away(f"{where} is away: it answers {answer.reason}")
        if answer.code == "NoSuchBucket":
            return StoreFailed(
                f'{self._config.endpoint} has no bucket "{self._config.bucket}": make it, or correct the [[store]]'
            )
        if answer.status == 404 and answer.code in _NO_KEY:
            return NotFound(f"{where} has no {key}")
        if answer.status in (401, 403):
            return StoreFailed(
                f"{where} refuses ({answer.reason}): give its access key the right to read, write, list and delete"
                " there, or correct the credentials"
            )
        return StoreFailed(f"{where} answers {answer.reason}")


def make_client(config: Config, credentials: Credentials, data: Path) -> Client:
    """Return a client of the endpoint.

    Raises:
        InvalidArgument: The endpoint is no URL.
        StoreFailed: The file of authorities cannot be used.
    """
    endpoint = Endpoint.parse(
        config.endpoint,
        credentials.access_key,
        credentials.secret_key,
        region=config.region,
        token=credentials.token,
    )
    if config.style == "virtual":
        if ":" in endpoint.host or endpoint.host.replace(".", "").isdecimal():
            raise InvalidArgument(
                f'store {config.place}: style = "virtual" needs a host name, not an address'
            )
        endpoint = replace(endpoint, host=f"{config.bucket}.{endpoint.host}")
    tls = None
    if config.authorities:
        import ssl

        file = Path(data, Path(config.authorities).expanduser())
        try:
            tls = ssl.create_default_context(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise StoreFailed(f"authorities {file} cannot be used: {error}") from None
    return Client(
        endpoint, connections_max=config.connections, stall_s=float(config.timeout), tls=tls
    )
