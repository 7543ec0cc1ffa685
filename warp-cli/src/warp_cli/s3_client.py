"""A small S3 client for load: signed requests as bytes, answers read without copying their bodies.

It signs payloads as SDKs do over plain HTTP (SigV4, AWS Signature Version 4: "Authenticating
Requests"), keeps connections open, and knows just what `warp bench` asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from warp_core.errors import InvalidArgument, RemoteProtocolError, Unavailable

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
HEAD_MAX = 64 * 1024


class Answer(NamedTuple):
    """A response: its status, and the body if it was kept."""

    status: int
    length: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to ask."""

    host: str
    port: int
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @classmethod
    def parse(cls, url: str, access_key: str, secret_key: str) -> Endpoint:
        """Read an endpoint's URL.

        Raises:
            InvalidArgument: It is no `http://HOST:PORT`.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise InvalidArgument(f'endpoint "{url}": allowed: http://HOST:PORT')
        return cls(parts.hostname, parts.port or 80, access_key, secret_key)


class Signer:
    """Makes the heads of signed requests; the key derived for a day is kept."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._day = ""
        self._key = b""
        self._host = f"{endpoint.host}:{endpoint.port}"

    def head(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        payload_sha256: str = EMPTY_SHA256,
        length: int = 0,
        now_s: float | None = None,
    ) -> bytes:
        """Return the signed head of a request; its body follows."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        day = moment[:8]
        escaped = quote(path, safe="/-_.~")
        pairs = sorted(
            (quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in (query or {}).items()
        )
        text = "&".join(f"{key}={value}" for key, value in pairs)
        canonical = (
            f"{method}\n{escaped}\n{text}\nhost:{self._host}\nx-amz-content-sha256:{payload_sha256}\n"
            f"x-amz-date:{moment}\n\nhost;x-amz-content-sha256;x-amz-date\n{payload_sha256}"
        )
        scope = f"{day}/{self._endpoint.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(day), to_sign.encode(), "sha256").hex()
        target = f"{escaped}?{text}" if text else escaped
        return (
            f"{method} {target} HTTP/1.1\r\nhost: {self._host}\r\nx-amz-date: {moment}\r\n"
            f"x-amz-content-sha256: {payload_sha256}\r\ncontent-length: {length}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={self._endpoint.access_key}/{scope}, "
            f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}\r\n\r\n"
        ).encode()

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._endpoint.secret_key}".encode()
            for part in (day, self._endpoint.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._head = b""
        self._status = 0
        self._length = 0
        self._left = -1
        self._kept: list[bytes] | None = None
        self._no_body = False
        self._resume: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect.

        Raises:
            Unavailable: Nobody listens there.
        """
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(cls, endpoint.host, endpoint.port)
        except OSError as error:
            raise Unavailable(
                f"nobody answers at http://{endpoint.host}:{endpoint.port} ({error.strerror}): is the"
                " server running?"
            ) from None
        return made

    async def request(
        self,
        head: bytes,
        body: bytes | memoryview = b"",
        *,
        keep: bool = False,
        no_body: bool = False,
    ) -> Answer:
        """Send a request and wait for its answer; `keep` its body, expect `no_body` after HEAD."""
        assert self._transport is not None, "not connected"
        self._answer = asyncio.get_running_loop().create_future()
        self._kept = [] if keep else None
        self._no_body = no_body
        if len(body) <= 64 * 1024:
            self._transport.write(head + bytes(body))
        else:
            self._transport.write(head)
            self._transport.write(body)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport), "streams have such transports"
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(f"the server closed the connection ({error})"))

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        if self._left < 0:
            data = self._take_head(data)
            if self._left < 0:
                return
        if data:
            if self._kept is not None:
                self._kept.append(data)
            self._left -= len(data)
        if self._left == 0:
            self._finish()

    def _take_head(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > HEAD_MAX:
                self._fail(f"a head of more than {HEAD_MAX} bytes")
            return b""
        self._head = b""
        try:
            lines = head.decode("latin-1").split("\r\n")
            self._status = int(lines[0].split(" ", 2)[1])
            fields = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            self._length = int(fields.get("content-length", "0"))
        except (ValueError, IndexError):
            self._fail("no HTTP answer")
            return b""
        self._left = 0 if self._no_body or self._status in (204, 304) else self._length
        return rest

    def _finish(self) -> None:
        self._left = -1
        body = b"".join(self._kept) if self._kept else b""
        if self._answer is not None and not self._answer.done():
            # Ctrl-C cancels whoever waits from inside of any line, also between these two.
            with contextlib.suppress(asyncio.InvalidStateError):
                self._answer.set_result(Answer(self._status, self._length, body))

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RemoteProtocolError(f"the server sent {why}"))
        self.close()
