"""Chunked bodies, incremental: the transfer coding of HTTP/1.1 and the frame S3's own one shares.

Both are a row of chunks, each a line with a hexadecimal size, that many bytes and CR LF; a chunk of
size 0 ends the row, then come trailer lines and an empty line:

    SIZE ──line──► DATA ──size bytes──► DATA_END ──CR LF──► SIZE
      └──line, size 0──► TRAILER ──line──► TRAILER ──empty line──► DONE
"""

import enum
import re
from typing import Final

from warp_s3.errors import S3Error

LINE_MAX: Final = 4096
"""Bytes of one size or trailer line; a signed chunk's line has 85, a trailer line under 200."""

TRAILERS_MAX: Final = 16
"""Trailer lines; S3 clients send one checksum and one signature."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;[\t\x20-\x7e]*)?)")
_TRAILER_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}):([\t\x20-\x7e\x80-\xff]*)"
)


class State(enum.IntEnum):
    """Where in the row of chunks the next byte belongs."""

    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILER = 3
    DONE = 4


class ChunkFraming:
    """Takes a chunked body apart; subclasses give meaning to extensions, data and trailers.

    Attributes:
        done: The body has ended; bytes beyond `consumed` belong to whatever follows it.
        consumed: How many bytes of the last `decode` call belonged to this body.
        received: Payload bytes so far.
        trailers: Trailer fields in order, names in lower case.
    """

    def __init__(self, *, size_max: int) -> None:
        """Start before the first size line; payload beyond `size_max` bytes is refused."""
        self._state = State.SIZE
        self._line = bytearray()
        self._left = 0
        self._size_max = size_max
        self.consumed = 0
        self.received = 0
        self.trailers: list[tuple[str, str]] = []

    @property
    def done(self) -> bool:
        """Tell whether the end of the body has been seen."""
        return self._state is State.DONE

    def decode(self, data: memoryview) -> list[memoryview]:
        """Feed bytes; give the payload in them, as views of `data` that are not copied.

        Raises:
            S3Error: The body is malformed; `closes` is set.
        """
        pieces: list[memoryview] = []
        at, end = 0, len(data)
        while at < end and self._state is not State.DONE:
            if self._state is State.DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                self._on_data(piece)
                if not self._left:
                    self._on_chunk_end()
                    self._state = State.DATA_END
            else:
                at = self._take_line(data, at)
        self.consumed = at
        return pieces

    def _take_line(self, data: memoryview, at: int) -> int:
        window = bytes(data[at : at + LINE_MAX])
        stop = window.find(b"\n") + 1
        self._line += window[: stop or None]
        if len(self._line) > LINE_MAX:
            raise self._malformed(f"line longer than {LINE_MAX} bytes")
        if not stop:
            return at + len(window)
        if not self._line.endswith(b"\r\n"):
            raise self._malformed("line that does not end in CR LF")
        line = bytes(self._line[:-2])
        self._line.clear()
        self._on_line(line)
        return at + stop

    def _on_line(self, line: bytes) -> None:
        if self._state is State.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise self._malformed("malformed chunk size")
            size = int(match[1], 16)
            self.received += size
            if self.received > self._size_max:
                raise self._oversized()
            self._on_chunk(size, match[2])
            self._left = size
            self._state = State.DATA if size else State.TRAILER
        elif self._state is State.DATA_END:
            if line:
                raise self._malformed("chunk longer than its size")
            self._state = State.SIZE
        elif line:
            self._on_trailer(line)
        else:
            self._on_end()
            self._state = State.DONE

    def _on_trailer(self, line: bytes) -> None:
        match = _TRAILER_LINE.fullmatch(line)
        if match is None or len(self.trailers) == TRAILERS_MAX:
            raise S3Error("MalformedTrailerError", closes=True)
        self.trailers.append(
            (match[1].decode("ascii").lower(), match[2].decode("latin-1").strip(" \t"))
        )

    def _malformed(self, what: str) -> S3Error:
        return S3Error("InvalidRequest", f"Malformed chunked body: {what}.", closes=True)

    def _oversized(self) -> S3Error:
        return S3Error(
            "EntityTooLarge",
            f"Your proposed upload exceeds the maximum allowed size: more than {self._size_max} "
            "bytes.",
            closes=True,
        )

    def _on_chunk(self, size: int, extension: bytes) -> None:
        """Begin a chunk of `size` bytes; `extension` starts with `;` or is empty."""

    def _on_data(self, piece: memoryview) -> None:
        """Take payload of the current chunk."""

    def _on_chunk_end(self) -> None:
        """Finish a chunk that had data."""

    def _on_end(self) -> None:
        """Finish the body; trailers are complete."""


class ChunkedDecoder(ChunkFraming):
    """The chunked transfer coding (RFC 9112, section 7.1); extensions and trailers are ignored."""
