"""Parquet: typed columns, read by ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from warp_core.interfaces.queries import JsonOutput, ParquetInput

PARQUET = ParquetInput()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of 50,000 rows in groups of 10,000, written by DuckDB's own writer."""
    path: Path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    duckdb.connect().execute(
        f"""COPY (SELECT i AS id, 'n' || i AS "Na""me", CAST(i AS DECIMAL(10,2)) / 4 AS half, i * 0.5::DOUBLE AS f,
        i % 2 = 0 AS even, TIMESTAMP '2020-01-01' + INTERVAL (i) HOUR AS ts, DATE '2020-01-01' + CAST(i % 9 AS INTEGER) AS day,
        {{'a': i, 'B': [i, NULL]}} AS st, CASE WHEN i % 2 = 0 THEN i END AS gaps FROM range(50000) t(i))
        TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 10000)"""
    )
    return path.read_bytes()


QUERIES = [
    (
        "SELECT COUNT(*), SUM(id), MAX(s.f), COUNT(gaps) FROM S3Object s",
        "50000,1249975000,24999.5,25000\n",
    ),
    (
        "SELECT s.id, even, day, _1 FROM S3Object s WHERE id = 49999",
        "49999,false,2020-01-05,49999\n",
    ),
    ('SELECT s."Na""me" FROM S3Object s LIMIT 2', "n0\nn1\n"),
    ("SELECT s.st.a, s.st.b[0] FROM S3Object s WHERE id = 7", "7,7\n"),
    ("SELECT id FROM S3Object WHERE ts = `2020-01-01T05:00Z`", "5\n"),
    ("SELECT EXTRACT(HOUR FROM ts), ts FROM S3Object LIMIT 1", "0,2020-01-01T00:00:00.000000Z\n"),
    ("SELECT COUNT(*) FROM S3Object WHERE gaps IS NULL", "25000\n"),
    ("SELECT nope FROM S3Object", "EvaluatorBindingDoesNotExist"),
    ("SELECT id.x FROM S3Object", "InvalidKeyPath"),
]


@pytest.mark.parametrize(("expression", "expected"), QUERIES)
def test_parquet_is_asked(run: Any, table: bytes, expression: str, expected: str) -> None:
    assert run(expression, table, PARQUET) == expected


def test_the_asterisk_gives_every_column(run: Any, table: bytes) -> None:
    found = run("SELECT * FROM S3Object WHERE id = 3", table, PARQUET, JsonOutput())

    assert found == (
        '{"id":3,"Na\\"me":"n3","half":0.75,"f":1.5,"even":false,"ts":"2020-01-01T03:00:00.000000Z",'
        '"day":"2020-01-04","st":{"a":3,"B":[3,null]},"gaps":null}\n'
    )


def test_a_damaged_file_is_refused(run: Any, table: bytes) -> None:
    damaged = table[: len(table) // 2] + b"\0" * 500 + table[len(table) // 2 + 500 :]

    assert run("SELECT * FROM S3Object", table[:-1], PARQUET) == "ParquetParsingError"
    assert run("SELECT * FROM S3Object", b"PAR1" + table[-5000:], PARQUET) in {
        "ParquetParsingError",
        "ExternalEvalException",
    }
    assert isinstance(run("SELECT * FROM S3Object", damaged, PARQUET), str)
