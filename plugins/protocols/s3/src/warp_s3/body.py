"""A request's body as it arrives: transfer coding and aws-chunked taken off, bytes into buffers."""

import asyncio
import time
from concurrent.futures import Executor
from typing import Final, NamedTuple, Protocol

from warp_core.interfaces.auth import ANONYMOUS

from warp_s3.aws_chunked import AwsChunkedDecoder
from warp_s3.errors import S3Error
from warp_s3.http import ChunkedDecoder, ChunkFraming
from warp_s3.router import Route

POOL_MIN: Final = 64 * 1024
"""Bytes from which hashing goes to the pool: below, the hop costs more than it saves the loop."""

WIRE_BUFFER: Final = 256 * 1024
"""Bytes of an encoded body that are received before they are decoded."""

DISCARD_MAX: Final = 256 * 1024
"""Bytes of an unwanted body that are read and dropped to keep the connection; else it closes."""


class Client(NamedTuple):
    """Where a request comes from."""

    address: str | None  # None: a socket of this machine
    tls_version: str | None  # such as "1.3"; None: no TLS


class Note:
    """What is learnt about a request on its way, for the access log."""

    __slots__ = ("answered_s", "began_s", "error", "principal", "route")

    def __init__(self, route: Route) -> None:
        """Begin with the request."""
        self.route = route
        self.principal = ANONYMOUS
        self.began_s = time.monotonic()
        self.answered_s = self.began_s
        self.error = ""


class Source(Protocol):
    """The connection, as its body sees it."""

    @property
    def client(self) -> Client:
        """Where its requests come from."""

    @property
    def request_id(self) -> str:
        """What the request under way is called."""

    def take(self, length_max: int) -> bytes:
        """Give bytes that have already arrived, perhaps none."""

    def give_back(self, data: bytes) -> None:
        """Return bytes that belong to the next request."""

    async def more(self) -> None:
        """Wait until `take` has something.

        Raises:
            S3Error: `IncompleteBody` at the end of the stream, `RequestTimeout` if nothing comes.
        """

    async def fill(self, view: memoryview) -> None:
        """Receive exactly as many bytes as `view` holds, without a copy; raises as `more`."""

    def proceed(self) -> None:
        """Tell a client that waits for it to send the body (100 Continue)."""


class Body:
    """The payload of one request, read once.

    Attributes:
        length: Payload bytes, or None if only the end of the body tells.
        trailers: Trailer fields, complete when the payload is.
        note: What the access log will say of the request, where its bucket has one.
    """

    def __init__(
        self, source: Source, *, length: int | None, chunked: bool, expects_continue: bool
    ) -> None:
        """Start before the first byte; `length` and `chunked` are what the head says."""
        self._source = source
        self._expects_continue = expects_continue
        self._wire_left = length  # None: the transfer coding ends the body
        self._transfer = ChunkedDecoder(size_max=2**62) if chunked else None
        self._aws: AwsChunkedDecoder | None = None
        self._pool: Executor | None = None
        self._pieces: list[memoryview] = []  # decoded, not yet given out; first comes last
        self.length = length if not chunked else None
        self.note: Note | None = None

    @property
    def client(self) -> Client:
        """Where the request comes from."""
        return self._source.client

    @property
    def request_id(self) -> str:
        """What the client is told the request is called."""
        return self._source.request_id

    def decode_aws_chunked(self, decoder: AwsChunkedDecoder, length: int, pool: Executor) -> None:
        """Take the aws-chunked coding off as well; `length` is the payload's."""
        self._aws = decoder
        self._pool = pool
        self.length = length

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """Trailer fields of the aws-chunked coding."""
        return self._aws.trailers if self._aws is not None else []

    @property
    def done(self) -> bool:
        """Tell whether every byte of the body has been read."""
        if self._transfer is not None:
            return self._transfer.done
        return not self._wire_left

    async def read(self, length_max: int) -> bytes:
        """Read the whole payload.

        Raises:
            S3Error: `EntityTooLarge` if it is longer than `length_max`; whatever breaks the body.
        """
        length = self.length
        if length is not None and length > length_max:
            raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(length_max)})
        if length is not None and self._transfer is None and self._aws is None:
            return await self._read_plain(length)
        whole = bytearray(length_max + 1 if length is None else length + 1)
        filled = 0
        with memoryview(whole) as view:
            while filled < len(whole):
                count = await self.fill(view[filled:])
                if not count:
                    return bytes(view[:filled])
                filled += count
        raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(length_max)})

    async def _read_plain(self, length: int) -> bytes:
        self._continue()
        data = self._source.take(length)
        if len(data) < length:
            whole = bytearray(length)
            whole[: len(data)] = data
            with memoryview(whole) as view:
                await self._source.fill(view[len(data) :])
            data = bytes(whole)
        self._wire_left = 0
        return data

    async def fill(self, view: memoryview) -> int:
        """Put payload into `view`, as much as it holds unless the payload ends; 0 at its end.

        Raises:
            S3Error: The body is malformed, cut short, badly signed, or does not come.
        """
        self._continue()
        if self._transfer is None and self._aws is None:
            return await self._fill_plain(view)
        filled = 0
        while filled < len(view):
            if not self._pieces:
                if self._decoded_all():
                    break
                await self._decode_more()
                continue
            piece = self._pieces.pop()
            count = min(len(piece), len(view) - filled)
            view[filled : filled + count] = piece[:count]
            if count < len(piece):
                self._pieces.append(piece[count:])
            filled += count
        return filled

    async def discard(self) -> bool:
        """Read what is left of the body; False if that is too much or cannot be done."""
        if self.done:
            return True
        if self._expects_continue:
            return False  # it may come or not, so the connection's framing is lost
        if self._transfer is not None or (self._wire_left or 0) > DISCARD_MAX:
            return False
        while self._wire_left:
            data = self._source.take(self._wire_left)
            if not data:
                await self._source.more()
            self._wire_left -= len(data)
        return True

    def _continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._source.proceed()

    async def _fill_plain(self, view: memoryview) -> int:
        assert self._wire_left is not None
        length = min(len(view), self._wire_left)
        if not length:
            return 0
        data = self._source.take(length)
        count = len(data)
        if count:
            view[:count] = data
        if count < length:
            await self._source.fill(view[count:length])
        self._wire_left -= length
        return length

    def _decoded_all(self) -> bool:
        if self._aws is not None:
            if self._aws.done:
                return True
            if self.done:
                raise S3Error("IncompleteBody", closes=True)
            return False
        return self.done

    async def _decode_more(self) -> None:
        """Receive some of the body and decode it; leaves the pieces in reverse."""
        if self._transfer is not None:
            pieces = await self._transfer_pieces(self._transfer)
        else:
            pieces = [await self._wire_piece()]
        if self._aws is None:
            self._pieces = pieces[::-1]
            return
        decoded: list[memoryview] = []
        for piece in pieces:
            decoded += await self._decode_aws(self._aws, piece)
        if self._aws.done and not self._aws_ends_body():
            raise S3Error("InvalidRequest", "Data after the last chunk.", closes=True)
        self._pieces = decoded[::-1]

    async def _decode_aws(self, decoder: ChunkFraming, piece: memoryview) -> list[memoryview]:
        if len(piece) < POOL_MIN or self._pool is None:
            decoded = decoder.decode(piece)
        else:
            loop = asyncio.get_running_loop()
            decoded = await loop.run_in_executor(self._pool, decoder.decode, piece)
        if decoder.consumed < len(piece):
            raise S3Error("InvalidRequest", "Data after the last chunk.", closes=True)
        return decoded

    def _aws_ends_body(self) -> bool:
        # The last chunk and the end of the transfer coding may come in two packets.
        return self._transfer is not None or not self._wire_left

    async def _wire_piece(self) -> memoryview:
        assert self._wire_left is not None
        length = min(self._wire_left, WIRE_BUFFER)
        data = bytearray(length)
        start = self._source.take(length)
        data[: len(start)] = start
        view = memoryview(data)
        if len(start) < length:
            await self._source.fill(view[len(start) :])
        self._wire_left -= length
        return view

    async def _transfer_pieces(self, transfer: ChunkFraming) -> list[memoryview]:
        data = self._source.take(WIRE_BUFFER)
        if not data:
            await self._source.more()
            data = self._source.take(WIRE_BUFFER)
        pieces = transfer.decode(memoryview(data))
        if transfer.done:
            self._source.give_back(data[transfer.consumed :])
        return pieces
