"""A bucket as a store of whole blobs.

```
PREFIX/warp-store.json    which store this is
PREFIX/b/NAME             blobs, each put in one request, or in parts that become one object at the end
```

A name's slashes become other characters, in a way that keeps the order (`-` `!`, `.` `-`, `/` `.`). To some endpoints a slash is a
folder, in which no file may have the name of another folder, and which they list in an order of their own.

An object store replaces and deletes atomically, and keeps what it acknowledged; it appends nothing and writes nothing in place. So the
store does not claim to `grow`, and only sealed containers come here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from warp_core.errors import (
    Corrupt,
    NewerFormat,
    NotFound,
    StoreFailed,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)
from warp_core.s3 import Body, Client

from warp_store_s3.asking import Away, Bucket
from warp_store_s3.config import Config
from warp_store_s3.credentials import find_credentials
from warp_store_s3.listing import keys_of, total_of, upload_id, uploads_of
from warp_store_s3.memory import remember, remembered

FORMAT: Final = 1
MARKER: Final = "warp-store.json"
BLOBS: Final = "b/"
PAGE: Final = 1000  # keys of one listing: what S3 gives at most
READ_MAX: Final = 4 * 1024 * 1024  # bytes of one answer; longer ranges are asked for piece by piece
PARTS_AT_ONCE: Final = 2  # of one blob on their way: each is a copy of `part` bytes in memory
RETRY_S: Final = 0.5  # between attempts to reach the endpoint at the start


class Marker(msgspec.Struct, frozen=True):
    """Content of MARKER, as JSON."""

    format: int
    id: str


class S3Store(BlobStore):
    """Blobs in a bucket."""

    capabilities = StoreCapabilities(durable=True)

    def __init__(self, config: Config, data: Path, *, client: Client | None = None) -> None:
        """Keep where it is; nothing is read yet."""
        self._config = config
        self._data = data
        self._client = client
        self._prefix = config.prefix + "/" if config.prefix.strip("/") else ""
        self._prefix = self._prefix.replace("//", "/")
        self._blobs = self._prefix + BLOBS  # what keys of blobs begin with
        self._bucket: Bucket | None = None

    async def __aenter__(self) -> Self:
        """Find out which store this is; make it one if nothing is there.

        One that was seen before is taken for what it was when the endpoint does not answer: it may be back later.

        Raises:
            ConfigError: There are no credentials.
            Unavailable: The endpoint did not answer within `wait`, and never did.
            StoreFailed: It refuses, or has no such bucket.
        """
        self._bucket = Bucket(
            self._config,
            find_credentials(self._config, self._data, os.environ),
            self._data,
            self._client,
        )
        await self._bucket.client.__aenter__()
        until = time.monotonic() + float(self._config.wait)
        while True:
            try:
                self.id = (await self._identity()).id
                await asyncio.to_thread(remember, self._data, self._config.place, self.id)
                await self._drop_uploads()
            except Away as error:
                if time.monotonic() + RETRY_S > until:
                    self.id = await asyncio.to_thread(remembered, self._data, self._config.place)
                    if self.id:
                        return self
                    await self._bucket.client.__aexit__(None, None, None)
                    raise Unavailable(
                        f"store {error}; start it, or remove the [[store]]"
                    ) from error
            else:
                return self
            await asyncio.sleep(RETRY_S)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        if self._bucket is not None:
            await self._bucket.client.__aexit__(kind, error, trace)

    @property
    def bucket(self) -> Bucket:
        """The bucket, once the store was entered."""
        assert self._bucket is not None, "the store is not open"
        return self._bucket

    async def _identity(self) -> Marker:
        key = self._prefix + MARKER
        for _ in range(2):
            try:
                answer = await self.bucket.ask("GET", key)
            except NotFound:
                made = Marker(FORMAT, secrets.token_hex(16))
                headers = {"if-none-match": "*", "content-type": "application/json"}
                body = msgspec.json.encode(made)
                # Who else makes it just now was first, or an endpoint without conditions lets the last one win: it is read again.
                await self.bucket.ask("PUT", key, headers=headers, body=body, also=(409, 412))
                continue
            try:
                marker = msgspec.json.decode(answer.body, type=Marker)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Corrupt(f"{self._config.place}/{MARKER} is damaged: {error}") from None
            if marker.format > FORMAT:
                raise NewerFormat(
                    f"{self._config.place} was written by a newer release (format {marker.format}, this one reads"
                    f" up to {FORMAT}): upgrade warp"
                )
            return marker
        raise StoreFailed(f"{self._config.place} does not keep what is put there")

    async def _drop_uploads(self) -> None:
        """Abort what an earlier run began to send in parts: nobody else writes below the prefix."""
        while True:
            answer = await self.bucket.ask("GET", query={"uploads": "", "prefix": self._blobs})
            found, more = uploads_of(answer.body)
            for key, upload in found:
                if key.startswith(self._blobs):
                    with suppress(NotFound):
                        await self.bucket.ask("DELETE", key, query={"uploadId": upload})
            if not more or not found:
                return

    # Whole blobs ----------------------------------------------------------------------------------

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`. The endpoint compares MD5 sums before it keeps anything.

        Raises:
            StoreFailed: The endpoint is away, refuses, or got other bytes.
        """
        check_blob_name(name)
        key = self._key(name)
        part = int(self._config.part)
        if sum(map(len, buffers)) <= part:
            data = b"".join(buffers)
            await self._send(key, data, self._headers())
        else:
            await self._put_in_parts(key, buffers, part)

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/octet-stream"}
        if self._config.storage_class:
            headers["x-amz-storage-class"] = self._config.storage_class
        return headers

    async def _send(
        self,
        key: str,
        data: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> str:
        """Send an object or a part; return its ETag, with quotes."""
        digest = await asyncio.to_thread(_md5, data)
        body = Body(len(data), lambda: _once(data))
        answer = await self.bucket.ask(
            "PUT", key, query=query, headers={**headers, "content-md5": digest}, body=body
        )
        return answer.headers.get("etag", "")

    async def _put_in_parts(self, key: str, buffers: Sequence[Buffer], size: int) -> None:
        answer = await self.bucket.ask("POST", key, query={"uploads": ""}, headers=self._headers())
        upload = upload_id(answer.body)
        if not upload:
            raise StoreFailed(f"{self._config.place} begins an upload without an id")
        try:
            etags = await self._send_parts(key, upload, buffers, size)
            listed = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
                for number, etag in enumerate(etags, 1)
            )
            body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
            await self.bucket.ask("POST", key, query={"uploadId": upload}, body=body)
        except BaseException:
            # Cancelled as well: what cannot be aborted now, the next start aborts.
            with suppress(WarpError):
                await asyncio.shield(self._abort(key, upload))
            raise

    async def _send_parts(
        self, key: str, upload: str, buffers: Sequence[Buffer], size: int
    ) -> list[str]:
        etags: list[str] = []
        waiting: list[asyncio.Task[str]] = []
        try:
            for number, data in enumerate(_parts(buffers, size), 1):
                if len(waiting) == PARTS_AT_ONCE:
                    etags.append(await waiting[0])
                    del waiting[0]
                query = {"partNumber": str(number), "uploadId": upload}
                waiting.append(asyncio.create_task(self._send(key, data, {}, query)))
            while waiting:
                etags.append(await waiting[0])
                del waiting[0]
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return etags

    async def _abort(self, key: str, upload: str) -> None:
        await self.bucket.ask("DELETE", key, query={"uploadId": upload})

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """See `BlobStore.read`. A range of several requests is of one and the same object."""
        if not _is_name(name):
            raise NotFound(f"{self._config.place} has no {name}")
        while True:
            data = await self._read(self._key(name), offset, length)
            if data is not None:
                return data

    async def _read(self, key: str, offset: int, length: int) -> bytes | None:
        """Return a range; None if the object was replaced meanwhile."""
        if length <= 0:
            await self.bucket.ask("HEAD", key)
            return b""
        pieces: list[bytes] = []
        at, end, etag = offset, offset + length, ""
        while at < end:
            headers = {"range": f"bytes={at}-{min(at + READ_MAX, end) - 1}"}
            if etag:
                headers["if-match"] = etag
            answer = await self.bucket.ask("GET", key, headers=headers, also=(412, 416))
            if answer.status == 412:
                return None
            if answer.status == 416:  # behind the end
                break
            if answer.status != 206 and at == 0 and len(answer.body) <= end:
                return answer.body  # the whole: some endpoints answer so when that was asked for
            if answer.status != 206:
                raise StoreFailed(f"{self._config.place} does not serve ranges")
            etag = answer.headers.get("etag", "")
            pieces.append(answer.body)
            at += len(answer.body)
            total = total_of(answer.headers.get("content-range", ""))
            if not answer.body or (total is not None and at >= total):
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _key(self, name: str) -> str:
        return self._blobs + name.translate(_FLAT)

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        await self.stat(name)  # S3 deletes what is not there as well
        await self.bucket.ask("DELETE", self._key(name))

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """See `BlobStore.list`."""
        found: list[BlobInfo] = []
        start = after
        while len(found) < limit:
            query = {
                "list-type": "2",
                "prefix": self._key(prefix),
                "max-keys": str(min(PAGE, limit - len(found))),
            }
            if start:
                query["start-after"] = self._key(start)
            page = keys_of((await self.bucket.ask("GET", query=query)).body)
            for key, size in page.entries:
                name = _name(key.removeprefix(self._blobs))
                if key.startswith(self._blobs) and name > after and _is_name(name):
                    found.append(BlobInfo(name, size, size))
            if not page.more or not page.entries:
                break
            start = _name(page.entries[-1][0].removeprefix(self._blobs))
        return found[:limit]

    async def stat(self, name: str) -> BlobInfo:
        """See `BlobStore.stat`."""
        if not _is_name(name):
            raise NotFound(f"{self._config.place} has no {name}")
        answer = await self.bucket.ask("HEAD", self._key(name))
        size = answer.headers.get("content-length", "")
        if not size.isdecimal():
            raise StoreFailed(f"{self._config.place} does not say how long {name} is")
        return BlobInfo(name, int(size), int(size))

    async def space(self) -> Space:
        """See `BlobStore.space`: what the configuration says, since an endpoint says nothing."""
        capacity = int(self._config.capacity)
        return Space(capacity, capacity, 0)


_FLAT: Final = str.maketrans("-./", "!-.")
_FOLDED: Final = str.maketrans("!-.", "-./")


def _name(flat: str) -> str:
    return flat.translate(_FOLDED)


def _is_name(name: str) -> bool:
    with suppress(WarpError):
        check_blob_name(name)
        return True
    return False


def _parts(buffers: Sequence[Buffer], size: int) -> Iterator[bytes]:
    """Yield copies of `size` bytes each, the last one shorter."""
    gathered: list[Buffer] = []
    length = 0
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            piece = view[: size - length]
            gathered.append(piece)
            length += len(piece)
            view = view[len(piece) :]
            if length == size:
                yield b"".join(gathered)
                gathered, length = [], 0
    if gathered:
        yield b"".join(gathered)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


async def _once(data: bytes) -> AsyncIterator[Buffer]:
    yield data
