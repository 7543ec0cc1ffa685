"""A query to SQL statements: for each piece of the input, and, with aggregates, for what the pieces gave."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from warp_core.interfaces.queries import CsvOutput, JsonOutput

from warp_select.sources import ParquetSource, Source
from warp_select.sql import Parameters, Sql
from warp_select.syntax import Item, Path, Select, has_aggregate
from warp_select.translating import Translator

_PARAMETER: Final = re.compile(r"\$(p\d+)\b")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and the values that it names."""

    sql: str
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    Attributes:
        rows: For each piece: how many records, and their text. With `{limit}` where the rest of LIMIT goes. None with aggregates.
        pieces: For each piece with aggregates: one row of partial results.
        final: The one record that comes of the table `partials`.
        limit: Records at most.
    """

    rows: Statement | None
    pieces: Statement | None
    final: Statement | None
    limit: int | None


def plan(select: Select, source: Source, output: CsvOutput | JsonOutput, now: str) -> Plan:
    """Translate a query.

    Raises:
        QueryRefused: It names what is not there, or does what S3 Select cannot.
    """
    parameters = Parameters()
    translator = Translator.of(source, select.items, parameters, now)
    where = f" WHERE {translator.condition(select.where)}" if select.where is not None else ""
    aggregated = any(has_aggregate(item.expression) for item in select.items)
    writer = _Writer(source, output, translator, parameters)
    if not aggregated:
        line = writer.line(select.items, merged=False)
        sql = (
            "SELECT count(*), string_agg(line, '') FROM "
            f"(SELECT {line} AS line FROM (SELECT * FROM {source.relation}{where}{{limit}}))"
        )
        return Plan(_statement(sql, parameters), None, None, select.limit)
    line = writer.line(select.items, merged=True)
    columns: list[str] = []
    merges: list[str] = []
    for at, partial in enumerate(translator.partials):
        names = []
        for piece in partial.pieces:
            names.append(f"c{len(columns)}")
            columns.append(f"{piece} AS c{len(columns)}")
        merges.append(f"{partial.merge(names)} AS m{at}")
    pieces = f"SELECT {', '.join(columns)} FROM {source.relation}{where}"
    final = f"SELECT {line} FROM (SELECT {', '.join(merges)} FROM partials)"
    if not columns:  # aggregates of nothing but NULL
        pieces, final = f"SELECT 1 AS c0 FROM {source.relation} LIMIT 0", f"SELECT {line}"
    return Plan(None, _statement(pieces, parameters), _statement(final, parameters), select.limit)


def _statement(sql: str, parameters: Parameters) -> Statement:
    used = set(_PARAMETER.findall(sql))
    return Statement(
        sql, {name: value for name, value in parameters.values.items() if name in used}
    )


@dataclass(frozen=True, slots=True)
class _Writer:
    """Makes SQL for a record as it is sent."""

    source: Source
    output: CsvOutput | JsonOutput
    translator: Translator
    parameters: Parameters

    def line(self, items: tuple[Item, ...], *, merged: bool) -> str:
        """Return SQL for the text of a record, its delimiter included."""
        end = self._character(self.output.record_delimiter)
        if isinstance(self.output, CsvOutput):
            return f"{self._csv(self.output, items, merged)} || {end}"
        return f"{self._json(items, merged)} || {end}"

    def _values(self, items: tuple[Item, ...], merged: bool) -> list[tuple[str, Sql]]:
        if not items:
            assert isinstance(self.source, ParquetSource)
            return self.source.columns()
        translate = self.translator.merged if merged else self.translator.row
        return [
            (name_of(item, number), translate(item.expression))
            for number, item in enumerate(items, 1)
        ]

    def _csv(self, output: CsvOutput, items: tuple[Item, ...], merged: bool) -> str:
        field = self._character(output.field_delimiter)
        if not items and not isinstance(self.source, ParquetSource):
            values = self.source.values(self.parameters)
            quoted = self._quoted(output, "coalesce(v, '')")
            return f"array_to_string(list_transform({values}, lambda v: {quoted}), {field})"
        texts = []
        for _, sql in self._values(items, merged):
            text = f"coalesce({self.translator.text(sql)}, '')"
            bound = f"list_transform([{text}], lambda v: {self._quoted(output, 'v')})[1]"
            texts.append(f"({bound})")
        return f" || {field} || ".join(texts)

    def _quoted(self, output: CsvOutput, v: str) -> str:
        if not output.quote:
            return v
        quote, escape = self._character(output.quote), self._character(output.quote_escape)
        if output.always_quote:
            return f"ws_quoted({v}, {quote}, {escape})"
        field = self._character(output.field_delimiter)
        record = self._character(output.record_delimiter)
        return f"ws_csv({v}, {field}, {record}, {quote}, {escape})"

    def _json(self, items: tuple[Item, ...], merged: bool) -> str:
        if not items and not isinstance(self.source, ParquetSource):
            return self.source.pairs(self.parameters)
        pairs = []
        for name, sql in self._values(items, merged):
            key = self._character(json.dumps(name, ensure_ascii=False) + ":")
            value = self._json_value(sql)
            # A missing field is left out: what is NULL to `concat_ws` is not there.
            pairs.append(f"{key} || {value}" if sql.path else f"{key} || coalesce({value}, 'null')")
        return "'{' || concat_ws(',', " + ", ".join(pairs) + ") || '}'"

    def _json_value(self, sql: Sql) -> str:
        if sql.kind == "JSON":
            return f"CAST(json({sql.text}) AS VARCHAR)"
        text = self.translator.text(sql)
        if sql.kind in {"TEXT", "TIME"}:
            return f"CAST(to_json({text}) AS VARCHAR)"
        return text

    def _character(self, text: str) -> str:
        return self.parameters.add(text, "VARCHAR")


def name_of(item: Item, number: int) -> str:
    """Return what an item is called in JSON: its alias, the last step of its path, or its number."""
    if item.alias:
        return item.alias
    if isinstance(item.expression, Path) and item.expression.steps[-1].index < 0:
        return item.expression.steps[-1].name
    return f"_{number}"
