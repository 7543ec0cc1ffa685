"""What names mean: columns of CSV, fields of JSON, columns of Parquet."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from warp_core.interfaces.queries import QueryRefused

from warp_select.errors import refused
from warp_select.sql import Kind, Parameters, Sql
from warp_select.syntax import Key

COLUMNS_MAX: Final = 100_000
"""Highest number of a column that may be named."""

_NUMBERED: Final = re.compile(r"_(\d{1,9})", re.ASCII)


class Source(ABC):
    """The records of one object, as SQL over one piece of it."""

    relation: str  # what stands behind FROM

    @abstractmethod
    def column(self, steps: Sequence[Key], parameters: Parameters) -> Sql | QueryRefused:
        """Return SQL for a path, or why there is none."""

    @abstractmethod
    def values(self, parameters: Parameters) -> str:
        """Return SQL for the list of all values of a record as texts, for the asterisk."""

    @abstractmethod
    def pairs(self, parameters: Parameters) -> str:
        """Return SQL for a record as a JSON object, for the asterisk."""


class CsvSource(Source):
    """Records are lists of texts, `r`."""

    relation = """(SELECT string_split(l, CAST($c_field AS VARCHAR)) AS r FROM
        (SELECT unnest(string_split(CAST($c_piece AS VARCHAR), CAST($c_record AS VARCHAR))) AS l)
        WHERE l <> '' AND NOT starts_with(l, CAST($c_comment AS VARCHAR)))"""

    def __init__(self, alias: str, header: Sequence[str] | None) -> None:
        """Start with the table's alias and the names of the columns, if the header is used."""
        self._tables = {"s3object", alias.lower()}
        self._header = header
        self._exact = {name: at for at, name in reversed(list(enumerate(header or ())))}
        self._folded: dict[str, list[int]] = {}
        for at, name in enumerate(header or ()):
            self._folded.setdefault(name.lower(), []).append(at)

    def column(self, steps: Sequence[Key], parameters: Parameters) -> Sql | QueryRefused:
        """Find a column by its name in the header, or as `_N`."""
        if len(steps) == 2 and steps[0].name.lower() in self._tables:
            steps = steps[1:]
        if len(steps) > 1:
            known = steps[0].name.lower() in self._tables
            return refused("InvalidKeyPath" if known else "InvalidTableAlias", steps[0].name[:100])
        key = steps[0]
        at = self._exact.get(key.name)
        if at is None and not key.quoted:
            found = self._folded.get(key.name.lower(), [])
            if len(found) > 1:
                return refused("AmbiguousFieldName", key.name[:100])
            at = found[0] if found else None
        if at is None:
            match = _NUMBERED.fullmatch(key.name)
            if match is None:
                return refused(
                    "InvalidColumnIndex" if self._header is None else "MissingHeaders",
                    key.name[:100],
                )
            at = int(match[1]) - 1
            if not 0 <= at < COLUMNS_MAX:
                return refused("InvalidColumnIndex", key.name)
        return Sql(f"r[{at + 1}]", "TEXT", atom=True, path=True)

    def values(self, parameters: Parameters) -> str:
        """Give the fields as they are."""
        return "r"

    def pairs(self, parameters: Parameters) -> str:
        """Name the fields by the header, or by their numbers."""
        names = [json.dumps(name, ensure_ascii=False) for name in self._header or ()]
        known = parameters.add(names, "VARCHAR[]")
        return (
            "'{' || array_to_string(list_transform(r, lambda v, i: "
            f"""coalesce({known}[i], '"_' || i || '"') || ':' || CAST(to_json(v) AS VARCHAR)), ',') || '}}'"""
        )


class JsonSource(Source):
    """Records are values of JSON, `j`; NULL where the path of FROM leads nowhere."""

    relation = """(SELECT CAST(CASE WHEN l <> CAST($c_missing AS VARCHAR) THEN l END AS JSON) AS j FROM
        (SELECT unnest(string_split(CAST($c_piece AS VARCHAR), CAST($c_record AS VARCHAR))) AS l)
        WHERE trim(l, ' \t\r\n') <> '')"""

    def __init__(self, alias: str) -> None:
        """Start with the table's alias."""
        self._tables = {"s3object", "_1", alias.lower()}

    def column(self, steps: Sequence[Key], parameters: Parameters) -> Sql | QueryRefused:
        """Go down the path; a field that is not there is missing."""
        if steps[0].name.lower() in self._tables and steps[0].index < 0:
            steps = steps[1:]
        return fields("j", steps, parameters)

    def values(self, parameters: Parameters) -> str:
        """Give the fields of an object in their order, or the value itself."""
        return (
            "CASE WHEN json_type(j) = 'OBJECT' THEN list_transform(json_keys(j), lambda k: "
            "ws_plain(json_extract(j, ws_pointer(k)))) ELSE [ws_plain(j)] END"
        )

    def pairs(self, parameters: Parameters) -> str:
        """Give an object as it is, and call any other value `_1`."""
        return (
            "CASE WHEN j IS NULL THEN '{}' WHEN json_type(j) = 'OBJECT' THEN CAST(json(j) AS VARCHAR) "
            """ELSE '{"_1":' || CAST(json(j) AS VARCHAR) || '}' END"""
        )


class ParquetSource(Source):
    """Records are rows of DuckDB's reader, which asks for the bytes that it needs."""

    relation = """(SELECT * FROM read_parquet('warp://object', file_row_number=true, binary_as_string=true)
        WHERE file_row_number >= CAST($c_first AS BIGINT) AND file_row_number < CAST($c_end AS BIGINT))"""

    def __init__(self, alias: str, schema: Sequence[tuple[str, str]]) -> None:
        """Start with the table's alias, and names and DuckDB types of the columns."""
        self._tables = {"s3object", alias.lower()}
        self._schema = list(schema)

    def column(self, steps: Sequence[Key], parameters: Parameters) -> Sql | QueryRefused:
        """Find a column by its name, or as `_N`; structures are read as JSON."""
        at = self._position(steps[0])
        if at is None and len(steps) > 1 and steps[0].name.lower() in self._tables:
            steps = steps[1:]
            at = self._position(steps[0])
        if isinstance(at, QueryRefused):
            return at
        if at is None:
            return refused("EvaluatorBindingDoesNotExist", steps[0].name[:100])
        found = self._typed(at)
        if len(steps) == 1:
            return found
        if found.kind != "JSON":
            return refused("InvalidKeyPath", steps[0].name[:100])
        return fields(found.text, steps[1:], parameters)

    def values(self, parameters: Parameters) -> str:
        """Not asked for: the planner selects every column of `columns`."""
        raise NotImplementedError

    def pairs(self, parameters: Parameters) -> str:
        """Not asked for, likewise."""
        raise NotImplementedError

    def columns(self) -> list[tuple[str, Sql]]:
        """Return every column, by name."""
        return [(name, self._typed(at)) for at, (name, _) in enumerate(self._schema)]

    def _position(self, key: Key) -> int | QueryRefused | None:
        names = [name for name, _ in self._schema]
        if key.name in names:
            return names.index(key.name)
        if not key.quoted:
            found = [at for at, name in enumerate(names) if name.lower() == key.name.lower()]
            if len(found) > 1:
                return refused("AmbiguousFieldName", key.name[:100])
            if found:
                return found[0]
        match = _NUMBERED.fullmatch(key.name)
        if match is not None and 1 <= int(match[1]) <= len(names):
            return int(match[1]) - 1
        return None

    def _typed(self, at: int) -> Sql:
        name, type_ = self._schema[at]
        text = '"' + name.replace('"', '""') + '"'
        found = _PARQUET.get(type_)
        if found is not None:
            kind, pattern = found
            return Sql(pattern.replace("{}", text), kind, atom=True)
        if type_.startswith("DECIMAL(") and "[" not in type_:
            scale = int(type_[8:-1].split(",")[1])
            return Sql(text, "DECIMAL", atom=True, scale=scale)
        if type_.startswith(("STRUCT", "MAP", "UNION")) or type_.endswith("]"):
            return Sql(f"to_json({text})", "JSON")
        if type_.startswith("ENUM"):
            return Sql(f"CAST({text} AS VARCHAR)", "TEXT", atom=True)
        raise refused("UnsupportedParquetType", f"{name[:100]} is {type_[:100]}")


_MOMENT: Final = "CASE WHEN {} IS NULL THEN NULL ELSE struct_pack(t := CAST({} AS TIMESTAMP), o := 0, p := %s) END"
_PARQUET: Final[dict[str, tuple[Kind, str]]] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), ("INT", "CAST({} AS BIGINT)")),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER"), ("INT", "CAST({} AS BIGINT)")),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT"), ("INT", "CAST({} AS HUGEINT)")),
    **dict.fromkeys(("FLOAT", "DOUBLE"), ("FLOAT", "CAST({} AS DOUBLE)")),
    "BOOLEAN": ("BOOL", "{}"),
    "VARCHAR": ("TEXT", "{}"),
    "JSON": ("JSON", "{}"),
    **dict.fromkeys(("UUID", "TIME", "BLOB"), ("TEXT", "CAST({} AS VARCHAR)")),
    "DATE": ("TIME", _MOMENT % 3),
    **dict.fromkeys(("TIMESTAMP_S", "TIMESTAMP_MS"), ("TIME", _MOMENT % 8)),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_NS"), ("TIME", _MOMENT % 11)),
    "TIMESTAMP WITH TIME ZONE": (
        "TIME",
        _MOMENT.replace("CAST({} AS TIMESTAMP)", "timezone('UTC', {})") % 11,
    ),
}


def fields(value: str, steps: Sequence[Key], parameters: Parameters) -> Sql:
    """Return SQL for what a path leads to in a value of JSON."""
    if not steps:
        return Sql(value, "JSON", atom=value == "j", path=True)
    pointer = "".join(
        "/" + (key.name.replace("~", "~0").replace("/", "~1") if key.index < 0 else str(key.index))
        for key in steps
    )
    exact = f"json_extract({value}, {parameters.add(pointer, 'VARCHAR')})"
    if all(key.quoted or key.index >= 0 for key in steps):
        return Sql(exact, "JSON", path=True)
    # A name without quotes means a field in upper or lower case, if none is called exactly so.
    found = value
    for at, key in enumerate(steps):
        name = parameters.add(key.name, "VARCHAR")
        if key.index >= 0:
            step = f"json_extract(g{at}, {parameters.add(f'/{key.index}', 'VARCHAR')})"
        elif key.quoted:
            step = f"json_extract(g{at}, ws_pointer({name}))"
        else:
            step = f"coalesce(json_extract(g{at}, ws_pointer({name})), ws_field(g{at}, {name}))"
        found = f"list_transform([{found}], lambda g{at}: {step})[1]"
    return Sql(f"coalesce({exact}, {found})", "JSON", path=True)
