"""What a query cannot reach: whatever it says, DuckDB has no files, and no text of a client becomes SQL."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from warp_core.interfaces.queries import (
    CsvInput,
    CsvOutput,
    JsonInput,
    JsonOutput,
    ParquetInput,
    Query,
)
from warp_select import executing
from warp_select.parser import parse
from warp_select.planning import plan
from warp_select.sources import CsvSource, JsonSource, ParquetSource

FORBIDDEN = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM glob('/*')",
    "ATTACH '/tmp/warp-select-x.db'",
    "COPY (SELECT 1) TO '/tmp/warp-select-x.csv'",
    "COPY (SELECT 1) TO 'warp://object'",
    "EXPORT DATABASE '/tmp/warp-select-x'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_paths = ['/etc/passwd']",
    "SET memory_limit = '100GB'",
    "PRAGMA memory_limit = '100GB'",
    "RESET lock_configuration",
    "CREATE SECRET s (TYPE s3)",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_duckdb_itself_is_locked(sql: str) -> None:
    with pytest.raises(duckdb.Error):
        executing.connect(64 << 20).execute(sql)


PAYLOADS = [
    "'; ATTACH '/tmp/warp-select-x.db'; --",
    "\"; COPY (SELECT 1) TO '/tmp/warp-select-x'; --",
    "') FROM read_csv('/etc/passwd') --",
    "$p0",
    "$c_piece",
    "{limit}",
    "{x}",
    "{l}",
    "\\'; PRAGMA database_list; --",
    "/etc/passwd",
    "WS:Busy:x",
]

SPOTS = [
    "SELECT {text} FROM S3Object s",
    "SELECT s.{name} FROM S3Object s",
    "SELECT 1 AS {name} FROM S3Object s",
    "SELECT {name} FROM S3Object {name}",
    "SELECT 1 FROM S3Object s WHERE _1 = {text}",
    "SELECT 1 FROM S3Object s WHERE _1 LIKE {text} OR _1 LIKE 'x' ESCAPE {text}",
    "SELECT TO_STRING(UTCNOW(), {text}) FROM S3Object",
    "SELECT TO_TIMESTAMP({text}) FROM S3Object",
    "SELECT CAST({text} AS INT) FROM S3Object",
    "SELECT TRIM(BOTH {text} FROM {text}) FROM S3Object",
    "SELECT CASE {text} WHEN {text} THEN {text} END, COALESCE({text}) FROM S3Object",
    "SELECT * FROM S3Object[*].{name}[*]",
    "SELECT s[{text}] FROM S3Object s",
    "SELECT {name}({text}) FROM S3Object",
    "SELECT 1 FROM S3Object s LIMIT {text}",
    "SELECT CAST(1 AS {name}) FROM S3Object s",
    "SELECT DATE_ADD({name}, 1, UTCNOW()) FROM S3Object s",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_a_client_becomes_sql(payload: str) -> None:
    text = "'" + payload.replace("'", "''") + "'"
    name = '"' + payload.replace('"', '""') + '"'
    for spot in SPOTS:
        try:
            select = parse(spot.replace("{text}", text).replace("{name}", name))
        except executing.QueryRefused:
            continue
        for source in (
            CsvSource(select.alias, [payload]),
            JsonSource(select.alias),
            ParquetSource(select.alias, [("id", "BIGINT")]),
        ):
            for target in (
                CsvOutput(quote=payload[0], field_delimiter=payload),
                JsonOutput(payload),
            ):
                if isinstance(source, ParquetSource) and not select.items:
                    continue
                try:
                    made = plan(select, source, target, "2026-01-01T00:00Z")
                except executing.QueryRefused:
                    continue
                statement = made.rows
                assert statement is not None
                assert payload not in statement.sql.replace("{limit}", "") or payload.startswith(
                    "$"
                )
                for word in ("ATTACH", "read_csv", "PRAGMA", "COPY", "passwd"):
                    assert word not in statement.sql


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_are_texts_like_others(run: Any, payload: str) -> None:
    text = "'" + payload.replace("'", "''") + "'"
    name = '"' + payload.replace('"', '""') + '"'
    data = '{{"{}": 1}}'.format(payload.replace("\\", "\\\\").replace('"', '\\"'))

    assert run(f"SELECT {text} = {name}, CHAR_LENGTH({text}) FROM S3Object", "x\n") == (
        f"true,{len(payload)}\n"
    )
    assert run(f"SELECT s.{name} FROM S3Object s", data, JsonInput()) == "1\n"
    for spot in SPOTS:
        query = spot.replace("{text}", text).replace("{name}", name)
        source = JsonInput() if "S3Object[" in spot else CsvInput()

        assert "root:" not in run(query, "1\n", source)


def test_columns_of_a_hostile_file_are_quoted(run: Any, tmp_path: Any) -> None:
    path = tmp_path / "t.parquet"
    name = "x\"; ATTACH '/tmp/warp-select-x.db'; --"
    quoted = name.replace('"', '""')
    duckdb.connect().execute(f"COPY (SELECT 5 AS \"{quoted}\") TO '{path}' (FORMAT parquet)")

    assert run("SELECT * FROM S3Object", path.read_bytes(), ParquetInput()) == "5\n"


def test_the_one_address_is_the_object_alone() -> None:
    query = Query(expression="", input=ParquetInput(), output=CsvOutput())

    assert query.input == ParquetInput()
    with pytest.raises(duckdb.Error):
        executing.connect(64 << 20).execute("SELECT * FROM read_parquet('warp://object')")
