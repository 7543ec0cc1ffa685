"""CSV text to pieces that SQL can split: whole records, without quotes.

Where a piece of the object has no quotes, it is passed on as it is; else its records are read and written anew with separators that
the piece does not contain.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from warp_core.interfaces.queries import CsvInput

from warp_select.errors import refused

RECORD_MAX: Final = 8 * 1024 * 1024
"""Characters of a record; S3 itself stops at 1 MiB."""

_SEPARATORS: Final = "\x1f\x1e\x1d\x1c\x1b\x1a\x19\x18" + "".join(map(chr, range(0xE000, 0xE040)))
_LONE_RETURN: Final = re.compile(r"\r(?!\n)")

csv.field_size_limit(RECORD_MAX)


class Piece(NamedTuple):
    """Whole records, and what stands between records and between fields."""

    text: str
    record: str
    field: str = ""
    comment: str = ""  # a record that begins so is none
    plain: bool = False  # JSON lines that nobody has looked at yet


class CsvCutter:
    """Takes text as it comes and gives pieces."""

    def __init__(self, options: CsvInput) -> None:
        """Start before the first character."""
        self._options = options
        self._rest = ""
        self._begun = False

    def feed(self, text: str, *, final: bool) -> Iterator[Piece]:
        """Take the next text; give the records that it completes.

        Raises:
            QueryRefused: `OverMaxRecordSize`.
        """
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix("\ufeff")
        text = self._rest + text
        delimiter = self._options.record_delimiter
        if final:
            body, self._rest = text, ""
        else:
            cut = self._cut(text)
            if cut < 0:
                self._rest = text
                if len(text) > RECORD_MAX:
                    raise refused("OverMaxRecordSize")
                return
            body, self._rest = text[:cut], text[cut + len(delimiter) :]
        if body:
            yield self._piece(body)

    def first(self, body: str) -> tuple[list[str], str]:
        """Take the first record off a piece of text; return its fields and the rest."""
        at, delimiter = 0, self._options.record_delimiter
        while at < len(body):
            end = self._end_of_record(body, at)
            record = self._stripped(body[at:end])
            at = end + len(delimiter)
            if record and not self._is_comment(record):
                return self._fields(record), body[at:]
        return [], ""

    def _end_of_record(self, body: str, start: int) -> int:
        delimiter = self._options.record_delimiter
        at = body.find(delimiter, start)
        while at >= 0 and self._options.quoted_delimiters and self._open_quote(body[start:at]):
            at = body.find(delimiter, at + len(delimiter))
        return at if at >= 0 else len(body)

    def _cut(self, text: str) -> int:
        """Find the last end of a record."""
        delimiter = self._options.record_delimiter
        cut = text.rfind(delimiter)
        if self._options.quoted_delimiters and self._options.quote:
            while cut >= 0 and self._open_quote(text[:cut]):
                cut = text.rfind(delimiter, 0, cut)
        return cut

    def _open_quote(self, text: str) -> bool:
        quote, escape = self._options.quote, self._options.quote_escape
        if escape and escape != quote:
            text = text.replace(escape * 2, "").replace(escape + quote, "")
        return text.count(quote) % 2 == 1 if quote else False

    def _piece(self, body: str) -> Piece:
        options = self._options
        if not options.quote or options.quote not in body:
            if options.record_delimiter == "\n" and "\r" in body:
                body = body.replace("\r\n", "\n").removesuffix("\r")
            comment = options.comments or _unused(body, options.record_delimiter)
            return Piece(body, options.record_delimiter, options.field_delimiter, comment)
        record, field = _two_unused(body)
        if options.quoted_delimiters:
            lines = [field.join(fields) for fields in self._quoted_records(body)]
        else:
            lines = []
            for each in body.split(options.record_delimiter):
                line = self._stripped(each)
                if not line or self._is_comment(line):
                    continue
                if options.quote in line:
                    lines.append(field.join(self._fields(line)))
                else:
                    lines.append(line.replace(options.field_delimiter, field))
        return Piece(record.join(lines), record, field, record)

    def _quoted_records(self, body: str) -> Iterator[list[str]]:
        """Read records whose fields may contain record delimiters."""
        options = self._options
        if (
            options.quote == options.quote_escape
            and options.record_delimiter == "\n"
            and len(options.field_delimiter) == 1
            and not options.comments
            and not _LONE_RETURN.search(body)
        ):
            rows = csv.reader(
                io.StringIO(body, newline=""),
                delimiter=options.field_delimiter,
                quotechar=options.quote,
            )
            yield from (row for row in rows if row)
            return
        at = 0
        while at < len(body):
            end = self._end_of_record(body, at)
            record = self._stripped(body[at:end])
            at = end + len(options.record_delimiter)
            if record and not self._is_comment(record):
                yield self._fields(record)

    def _is_comment(self, record: str) -> bool:
        return bool(self._options.comments) and record.startswith(self._options.comments)

    def _stripped(self, record: str) -> str:
        return record.removesuffix("\r") if self._options.record_delimiter == "\n" else record

    def _fields(self, record: str) -> list[str]:
        """Split one record at the delimiters that no quotes enclose."""
        options = self._options
        quote, escape, delimiter = options.quote, options.quote_escape, options.field_delimiter
        fields: list[str] = []
        at = 0
        while True:
            if not quote or not record.startswith(quote, at):
                end = record.find(delimiter, at)
                fields.append(record[at:] if end < 0 else record[at:end])
            else:
                value, at = _unquoted(record, at + len(quote), quote, escape)
                end = record.find(delimiter, at)
                fields.append(value + (record[at:] if end < 0 else record[at:end]))
            if end < 0:
                return fields
            at = end + len(delimiter)


def _unquoted(record: str, at: int, quote: str, escape: str) -> tuple[str, int]:
    """Read a quoted value from behind its quote; return it and where it ends. Without an end, all is the value."""
    parts: list[str] = []
    while True:
        closing = record.find(quote, at)
        escaping = record.find(escape, at) if escape and escape != quote else -1
        if 0 <= escaping < closing or (escaping >= 0 > closing):
            parts.append(record[at:escaping])
            following = record[escaping + len(escape) : escaping + len(escape) + 1]
            if following and following in {quote, escape}:
                parts.append(following)
                at = escaping + len(escape) + 1
            else:
                parts.append(escape)
                at = escaping + len(escape)
            continue
        if closing < 0:
            parts.append(record[at:])
            return "".join(parts), len(record)
        parts.append(record[at:closing])
        at = closing + len(quote)
        if escape == quote and record.startswith(quote, at):
            parts.append(quote)
            at += len(quote)
            continue
        return "".join(parts), at


def _unused(text: str, *taken: str) -> str:
    for character in _SEPARATORS:
        if character not in text and character not in taken:
            return character
    raise refused("CSVParsingError", "it has every control character there is")


def _two_unused(text: str) -> tuple[str, str]:
    first = _unused(text)
    return first, _unused(text, first)
