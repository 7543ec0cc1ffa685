"""The object's bytes as text: ranges of records, decompression, UTF-8."""

from __future__ import annotations

import bz2
import codecs
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from warp_core.interfaces.queries import Query

from warp_select.errors import refused

STEP: Final = 4 * 1024 * 1024
"""Bytes that are asked for, and decompressed, at a time: what an SQL statement works on."""


class Remote(ABC):
    """The object, as a worker reaches it.

    Attributes:
        scanned: Bytes that were read.
        processed: Bytes after decompression.
    """

    scanned = 0
    processed = 0

    @abstractmethod
    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Give the bytes from `start` to before `end`, asking for the next while one is worked on."""

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Give a range; short only at the end."""


def texts(remote: Remote, query: Query, size: int, delimiter: str) -> Iterator[tuple[str, bool]]:
    """Give the text that a query is about, and with each part whether it is the last.

    Raises:
        QueryRefused: `InvalidCompressionFormat`, `InvalidTextEncoding` or `InvalidScanRange`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for data in _decompressed(_ranged(remote, query, size, delimiter.encode()), query):
            remote.processed += len(data)
            text = decoder.decode(data)
            if text:
                yield text, False
        yield decoder.decode(b"", final=True), True
    except UnicodeDecodeError as error:
        raise refused("InvalidTextEncoding") from error


def head(remote: Remote, size: int) -> str:
    """Give the first text of an object, for its header line."""
    data = remote.read_at(0, min(size, STEP))
    return data.decode("utf-8", "ignore").removeprefix("\ufeff")


def scan_range(query: Query, size: int) -> tuple[int, int]:
    """Return the first and the last byte in which records begin.

    Raises:
        QueryRefused: `InvalidScanRange`.
    """
    start, end = query.start, query.end
    if start is None and end is not None:
        return max(0, size - end), size
    first = start or 0
    last = size if end is None else end
    if first > last or (first >= size and first):
        raise refused("InvalidScanRange")
    return first, last


def _ranged(remote: Remote, query: Query, size: int, delimiter: bytes) -> Iterator[bytes]:
    """Give the records that begin in the scan range."""
    if query.start is None and query.end is None:
        yield from remote.stream(0, size)
        return
    first, last = scan_range(query, size)
    at = max(0, first - len(delimiter))
    skipping, held = first > 0, b""
    for data in remote.stream(at, size):
        held += data
        if skipping:
            found = held.find(delimiter)
            if found < 0:
                keep = len(delimiter) - 1
                at += len(held) - keep if keep else len(held)
                held = held[-keep:] if keep else b""
                continue
            at += found + len(delimiter)
            held = held[found + len(delimiter) :]
            skipping = False
        if at > last:
            return
        # The first delimiter behind which a record would begin too late ends the range.
        found = held.find(delimiter, max(0, last - at - len(delimiter) + 1))
        if found >= 0 and at + len(held) > last:
            yield held[: found + len(delimiter)]
            return
        keep = len(delimiter) - 1
        give = len(held) - keep
        if at + len(held) <= last and give > 0:
            yield held[:give]
            at += give
            held = held[give:]
    if held and not skipping:
        yield held


def _decompressed(pieces: Iterator[bytes], query: Query) -> Iterator[bytes]:
    if query.compression == "GZIP":
        return _gunzipped(pieces)
    if query.compression == "BZIP2":
        return _bunzipped(pieces)
    return pieces


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress members of gzip one after another, a bounded step at a time."""
    engine = zlib.decompressobj(wbits=31)
    begun = False
    try:
        for piece in pieces:
            data = piece
            while data:
                begun = True
                out = engine.decompress(data, STEP)
                if out:
                    yield out
                data = engine.unconsumed_tail
                if engine.eof:
                    data = engine.unused_data.lstrip(b"\0")  # padding between members
                    engine = zlib.decompressobj(wbits=31)
                    begun = False
        while begun and not engine.eof:
            out = engine.decompress(engine.unconsumed_tail, STEP)
            if not out:
                raise refused("TruncatedInput")
            yield out
    except zlib.error as error:
        raise refused("InvalidCompressionFormat", "it is no gzip") from error


def _bunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress streams of bzip2 one after another, a bounded step at a time."""
    engine = bz2.BZ2Decompressor()
    begun = False
    try:
        for piece in pieces:
            data = piece
            while data or not engine.needs_input:
                begun = True
                out = engine.decompress(data, STEP)
                data = b""
                if out:
                    yield out
                if engine.eof:
                    data = engine.unused_data
                    engine = bz2.BZ2Decompressor()
                    begun = False
                    if not data:
                        break
    except (OSError, EOFError) as error:
        raise refused("InvalidCompressionFormat", "it is no bzip2") from error
    if begun:
        raise refused("TruncatedInput")
