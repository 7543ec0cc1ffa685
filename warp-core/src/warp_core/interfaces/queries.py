"""Queries: services that answer questions about one object's content, on request.

A protocol asks, and passes on what comes; the plugin knows languages and file formats. The error codes are those of S3's
SelectObjectContent, the only protocol that has such a request.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from warp_core.errors import InvalidArgument
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.interfaces.stores import Buffer


class QueryRefused(InvalidArgument):
    """The query, or the object that it is about, cannot be worked with.

    Attributes:
        code: S3 Select's error code, such as "ParseUnexpectedToken".
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class CsvInput(msgspec.Struct, frozen=True, tag="csv"):
    """How records lie in a CSV object; characters as text."""

    header: Literal["NONE", "USE", "IGNORE"] = "NONE"
    comments: str = "#"
    quote_escape: str = '"'
    record_delimiter: str = "\n"
    field_delimiter: str = ","
    quote: str = '"'
    quoted_delimiters: bool = False  # record delimiters may stand inside quotes


class JsonInput(msgspec.Struct, frozen=True, tag="json"):
    """How records lie in a JSON object."""

    lines: bool = False  # one value on each line; else whitespace or nothing between values


class ParquetInput(msgspec.Struct, frozen=True, tag="parquet"):
    """A Parquet object describes itself."""


class CsvOutput(msgspec.Struct, frozen=True, tag="csv"):
    """How records are written as CSV."""

    always_quote: bool = False
    quote_escape: str = '"'
    record_delimiter: str = "\n"
    field_delimiter: str = ","
    quote: str = '"'


class JsonOutput(msgspec.Struct, frozen=True, tag="json"):
    """How records are written as JSON."""

    record_delimiter: str = "\n"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to know.

    `start` and `end` are the scan range: records that begin in these bytes, `end` included. Without `start`, `end` counts bytes
    from the object's end.
    """

    expression: str
    input: CsvInput | JsonInput | ParquetInput
    output: CsvOutput | JsonOutput
    compression: Literal["NONE", "GZIP", "BZIP2"] = "NONE"
    start: int | None = None
    end: int | None = None


class Readable(Protocol):
    """What a query reads, such as `views.objects.Reader`."""

    async def read(self, offset: int, length: int) -> Buffer:
        """Return verified bytes, at most 1 MiB at a time; short only at the end."""


class Progress(msgspec.Struct, frozen=True):
    """How far a query is; comes with records, and every second without any."""

    scanned: int = 0  # bytes read of the object
    processed: int = 0  # bytes after decompression


class Queries(Service):
    """The shape of a service that answers queries. It is entered by the node that serves protocols; it has no passes of its own."""

    interval_s = 3600.0

    async def work(self, context: ServiceContext) -> Report:
        """Do nothing: all work is on request."""
        return Report({}, idle=True)

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Get ready; nothing may be started before the first query."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs."""

    @abstractmethod
    def run(
        self, query: Query, content: Readable, size: int
    ) -> AsyncGenerator[bytes | Progress, None]:
        """Answer a query about `size` bytes: whole records, at most 1 MiB at a time, and progress; the last item is progress.

        Closing the generator ends the query at once, and everything that works for it.

        Raises:
            QueryRefused: At any point; what was yielded before is still right.
        """
