"""A small S3 client for tests that must know the moment an answer arrived and must not retry.

Real clients retry, pool and buffer, which hides what a crash did. This one sends one signed request on one connection
and returns or raises. Signing is botocore's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from warp_integration.server import ACCESS_KEY, SECRET_KEY

TIMEOUT_S = 60.0  # for one answer; longer is a hang, which a test should see
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class ConnectionLost(Exception):
    """The connection ended or stalled before the answer was complete: nobody knows what the request did."""


@dataclass(frozen=True, slots=True)
class Response:
    """One complete answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error code of S3's XML, or "" without one."""
        if self.status < 400 or not self.body.startswith(b"<"):
            return ""
        return ElementTree.fromstring(self.body).findtext("Code", "")

    def texts(self, path: str) -> list[str]:
        """Return the text of every element at `path` (names without namespace) of the XML body."""
        steps = "/".join(step and _NAMESPACE + step for step in path.split("/"))
        return [found.text or "" for found in ElementTree.fromstring(self.body).findall(steps)]


class S3Connection:
    """One keep-alive connection to one endpoint; one request at a time. Opened with the first request."""

    def __init__(self, endpoint: str) -> None:
        self._url = urllib.parse.urlsplit(endpoint)
        self._endpoint = endpoint.rstrip("/")
        self._auth = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> S3Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Send one signed request and read its whole answer.

        Args:
            method: The HTTP method.
            path: "/bucket/key", not yet quoted.
            query: Parameters, not yet quoted.
            headers: More headers; they are signed.
            body: The payload; its SHA-256 is signed.

        Raises:
            ConnectionLost: The answer did not arrive whole.
        """
        head = self._sign(method, path, query or {}, headers or {}, body)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._exchange(method, head, body)
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionLost(f"{method} {path}: {type(error).__name__} {error}") from error
        except BaseException:
            self.close()  # cancelled halfway: the next answer on it would be this one's
            raise

    def _sign(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> bytes:
        target = urllib.parse.quote(path, safe="/~")
        if query:
            target += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        signed = AWSRequest(
            method,
            self._endpoint + target,
            headers={**headers, "Content-Length": str(len(body))},
            data=body,
        )
        self._auth.add_auth(signed)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._url.netloc}"]
        lines += [f"{name}: {value}" for name, value in signed.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _exchange(self, method: str, head: bytes, body: bytes) -> Response:
        if not self._streams:
            self._streams = await asyncio.open_connection(self._url.hostname, self._url.port)
        reader, writer = self._streams
        writer.write(head)
        # A server may answer and close before it has read all; its answer counts, not the broken pipe.
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(body), 1 << 20):
                writer.write(body[at : at + (1 << 20)])
                await writer.drain()
        while True:
            status, headers = await _read_head(reader)
            if status >= 200:
                break
        payload = b""
        if method != "HEAD" and status not in (204, 304):
            payload = await _read_body(reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Response(status, headers, payload)


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(first.split(" ")[1]), headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.read()
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


def content_md5(body: bytes) -> str:
    """Return the MD5 of `body` as S3's simple ETags show it."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
