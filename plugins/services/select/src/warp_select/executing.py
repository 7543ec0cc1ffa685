"""A query, run: the plan's statements over one piece of the input after another, on a DuckDB that reaches nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import duckdb
from warp_core.interfaces.queries import CsvInput, JsonInput, ParquetInput, Query, QueryRefused

from warp_select.csv_pieces import CsvCutter, Piece
from warp_select.errors import MEANINGS, refused
from warp_select.json_pieces import MISSING, JsonCutter
from warp_select.messages import RECORDS_MAX
from warp_select.parquet_files import ADDRESS, ParquetFiles
from warp_select.parser import parse
from warp_select.planning import Plan, Statement, plan
from warp_select.prelude import MACROS
from warp_select.reading import Remote, head, texts
from warp_select.sources import CsvSource, JsonSource, ParquetSource, Source
from warp_select.syntax import Select

PARQUET_ROWS: Final = 20_000
"""Rows of Parquet that a statement works on: a few MiB of what is written of them."""

_CODED: Final = re.compile(r"WS:([A-Za-z]+):(.*)", re.DOTALL)

_LOCKED: Final = (
    "SET temp_directory = ''",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET allow_persistent_secrets = false",
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def connect(memory: int, files: ParquetFiles | None = None) -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory that reaches no file, no network and no extension, and cannot be told to.

    With `files` it reads one address, which is answered by `files`.
    """
    connection = duckdb.connect(
        ":memory:", config={"threads": "1", "memory_limit": f"{memory // 1024}KiB"}
    )
    for macro in MACROS:
        connection.execute(macro)
    if files is not None:
        connection.register_filesystem(files)
        connection.execute(f"SET allowed_paths = ['{ADDRESS}']")
    for setting in _LOCKED:
        connection.execute(setting)
    return connection


def answer(
    query: Query, size: int, memory: int, now: str, remote: Remote, tell: Callable[[], None]
) -> Iterator[bytes]:
    """Run a query; give whole records, at most `RECORDS_MAX` bytes at a time. `tell` is called after each piece of the input.

    Raises:
        QueryRefused: The query, or the object, cannot be worked with.
    """
    try:
        select = parse(query.expression)
        _check(query, select)
        if isinstance(query.input, ParquetInput):
            yield from _parquet(query, select, size, memory, now, remote, tell)
        else:
            yield from _text(query, select, size, memory, now, remote, tell)
    except duckdb.Error as error:
        raise translated(error) from error
    except RecursionError as error:
        raise refused("ExpressionTooLong") from error


def _check(query: Query, select: Select) -> None:
    if select.source and not isinstance(query.input, JsonInput):
        raise refused("InvalidDataSource", "only JSON has a path behind S3Object[*]")
    if query.start is None and query.end is None:
        return
    whole = query.compression != "NONE" or isinstance(query.input, ParquetInput)
    if isinstance(query.input, JsonInput):
        whole = not query.input.lines
    elif isinstance(query.input, CsvInput):
        whole |= query.input.quoted_delimiters
    if whole:
        raise refused("UnsupportedScanRangeInput")


# CSV and JSON -------------------------------------------------------------------------------------


def _text(
    query: Query,
    select: Select,
    size: int,
    memory: int,
    now: str,
    remote: Remote,
    tell: Callable[[], None],
) -> Iterator[bytes]:
    run: _Run | None = None
    for piece, source in _pieces(query, select, size, remote):
        if run is None:
            run = _Run(connect(memory), plan(select, source, query.output, now))
        yield from run.piece(
            {
                "c_piece": piece.text,
                "c_record": piece.record,
                "c_field": piece.field,
                "c_comment": piece.comment,
                "c_missing": MISSING,
            }
        )
        tell()
        if run.full:
            return
    if run is not None:
        yield from run.end()


def _pieces(
    query: Query, select: Select, size: int, remote: Remote
) -> Iterator[tuple[Piece, Source]]:
    """Give the pieces of an object, at least one, with what names mean in them."""
    if isinstance(query.input, CsvInput):
        yield from _csv_pieces(query, query.input, select, size, remote)
        return
    assert isinstance(query.input, JsonInput)
    source = JsonSource(select.alias)
    checker = connect(64 << 20)
    cutter = JsonCutter(select.source, lines=query.input.lines)
    yield Piece("", "\n"), source
    for text, final in texts(remote, query, size, "\n"):
        for piece in cutter.feed(text, final=final):
            if piece.plain and not _all_values(checker, piece):
                for each in cutter.again(piece, final=final):
                    yield each, source
            else:
                yield piece, source


def _all_values(checker: duckdb.DuckDBPyConnection, piece: Piece) -> bool:
    """Tell whether each line is a value of JSON."""
    found = checker.execute(
        "SELECT bool_and(json_valid(l)) FROM (SELECT unnest(string_split(CAST($t AS VARCHAR), chr(10))) AS l) "
        "WHERE trim(l, ' \t\r\n') <> ''",
        {"t": piece.text},
    ).fetchone()
    return found is None or found[0] is not False


def _csv_pieces(
    query: Query, options: CsvInput, select: Select, size: int, remote: Remote
) -> Iterator[tuple[Piece, Source]]:
    header: list[str] | None = None
    cutter = CsvCutter(options)
    skipping = (
        options.header != "NONE" and not query.start and not (query.start is None and query.end)
    )
    if options.header == "USE" and not skipping:
        header, _ = CsvCutter(options).first(head(remote, size))
    source: Source | None = None
    held = ""
    for text, final in texts(remote, query, size, options.record_delimiter):
        if skipping:
            held += text
            fields, rest = cutter.first(held.removeprefix("\ufeff"))
            if not final and not rest and len(held) < 8 << 20:
                continue  # the header may go on
            if options.header == "USE":
                header = fields
            text, skipping = rest, False
        if source is None:
            source = CsvSource(select.alias, header)
            yield Piece("", "\n", ",", "#"), source
        for piece in cutter.feed(text, final=final):
            yield piece, source


class _Run:
    """A plan on its connection.

    Attributes:
        full: LIMIT is reached: nothing more is wanted.
        by_rows: Records come piece by piece, not one at the end.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, made: Plan) -> None:
        self._connection = connection
        self._plan = made
        self._left = made.limit
        self._begun = False
        self.by_rows = made.rows is not None
        self.full = made.limit == 0 and self.by_rows

    def piece(self, values: dict[str, Any]) -> Iterator[bytes]:
        """Run the plan over one piece."""
        if self._plan.rows is not None:
            limit = "" if self._left is None else f" LIMIT {self._left:d}"
            count, text = self._one(self._plan.rows, values, limit)
            if self._left is not None:
                self._left -= count
                self.full = self._left <= 0
            yield from cut_records(text or "")
            return
        assert self._plan.pieces is not None
        into = "INSERT INTO partials" if self._begun else "CREATE TABLE partials AS"
        self._begun = True
        used = _used(self._plan.pieces, values)
        self._connection.execute(f"{into} {self._plan.pieces.sql}", used)

    def end(self) -> Iterator[bytes]:
        """Give the record that aggregates come to."""
        if self._plan.final is not None and self._plan.limit != 0:
            row = self._connection.execute(self._plan.final.sql, self._plan.final.values).fetchone()
            yield from cut_records(row[0] if row else "")

    def _one(
        self, statement: Statement, values: dict[str, Any], limit: str
    ) -> tuple[int, str | None]:
        sql = statement.sql.replace("{limit}", limit)
        row = self._connection.execute(sql, _used(statement, values)).fetchone()
        assert row is not None
        return row[0], row[1]


def _used(statement: Statement, values: dict[str, Any]) -> dict[str, Any]:
    """Add the values of a piece that a statement names: DuckDB takes no others."""
    named = {name: value for name, value in values.items() if f"${name} " in statement.sql}
    return {**statement.values, **named}


def cut_records(text: str) -> Iterator[bytes]:
    """Cut text into messages: S3 cuts between bytes, too, and clients join what they get."""
    data = text.encode()
    for at in range(0, len(data), RECORDS_MAX):
        yield data[at : at + RECORDS_MAX]


# Parquet ------------------------------------------------------------------------------------------


def _parquet(
    query: Query,
    select: Select,
    size: int,
    memory: int,
    now: str,
    remote: Remote,
    tell: Callable[[], None],
) -> Iterator[bytes]:
    if query.compression != "NONE":
        raise refused("InvalidCompressionFormat", "Parquet is compressed inside only")
    if size < 12 or remote.read_at(0, 4) != b"PAR1" or remote.read_at(size - 4, 4) != b"PAR1":
        raise refused("ParquetParsingError")
    connection = connect(memory, ParquetFiles(remote, size))
    try:
        schema = connection.execute(
            f"DESCRIBE SELECT * FROM read_parquet('{ADDRESS}', binary_as_string=true)"
        ).fetchall()
        counted = connection.execute(
            f"SELECT num_rows FROM parquet_file_metadata('{ADDRESS}')"
        ).fetchone()
    except duckdb.Error as error:
        raise refused("ParquetParsingError") from error
    rows = counted[0] if counted else 0
    source = ParquetSource(select.alias, [(name, type_) for name, type_, *_ in schema])
    run = _Run(connection, plan(select, source, query.output, now))
    step = PARQUET_ROWS if run.by_rows else PARQUET_ROWS * 50
    for first in range(0, max(rows, 1), step):
        try:
            yield from run.piece({"c_first": first, "c_end": first + step})
        except (duckdb.IOException, duckdb.SerializationException) as error:
            raise refused("ParquetParsingError") from error
        remote.processed = remote.scanned
        tell()
        if run.full:
            return
    yield from run.end()


# Errors -------------------------------------------------------------------------------------------


def translated(error: duckdb.Error) -> QueryRefused:
    """Find S3's code for what DuckDB says."""
    text = str(error)
    coded = _CODED.search(text)
    if coded is not None and coded[1] in MEANINGS:
        return refused(coded[1], coded[2].split("\n")[0][:200])
    if "Malformed JSON" in text:
        return refused("JSONParsingError")
    if isinstance(error, duckdb.OutOfRangeException):
        return refused("IntegerOverflow")
    if isinstance(error, duckdb.ConversionException):
        return refused("CastFailed", text.split("\n")[0].removeprefix("Conversion Error: ")[:200])
    if isinstance(error, duckdb.OutOfMemoryException):
        return refused("ExternalEvalException", "it needs more memory than a query may use")
    if (
        isinstance(error, (duckdb.SyntaxException, duckdb.InvalidInputException))
        and "ESCAPE" in text.upper()
    ):
        return refused("LikeInvalidInputs")
    return refused("ExternalEvalException")
