"""Queries over bytes in memory, without processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from warp_core.interfaces.queries import CsvInput, CsvOutput, JsonOutput, Query, QueryRefused
from warp_select import executing, reading
from warp_select.reading import Remote

NOW = "2026-01-02T03:04:05.000000Z"


class Memory(Remote):
    """An object in memory; `most` is the longest piece that a stream gave."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, reading.STEP):
            piece = self._data[at : min(at + reading.STEP, end)]
            self.scanned += len(piece)
            yield piece

    def read_at(self, offset: int, length: int) -> bytes:
        self.scanned += length
        return self._data[offset : offset + length]


Run = Callable[..., str]


@pytest.fixture(scope="session")
def shared() -> duckdb.DuckDBPyConnection:
    """Return one connection for many queries: opening one takes 30 ms."""
    return executing.connect(256 << 20)


@pytest.fixture
def run(shared: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what answers a query over an object: its records, or the code of its error."""

    real = executing.connect

    def connect(memory: int, files: Any = None) -> duckdb.DuckDBPyConnection:
        if files is not None:
            return real(memory, files)
        shared.execute("DROP TABLE IF EXISTS partials")
        return shared

    monkeypatch.setattr(executing, "connect", connect)

    def answered(
        expression: str,
        data: str | bytes = "a,1\nb,2\n",
        source: Any = None,
        target: CsvOutput | JsonOutput | None = None,
        **more: Any,
    ) -> str:
        content = data.encode() if isinstance(data, str) else data
        query = Query(
            expression=expression,
            input=source or CsvInput(),
            output=target or CsvOutput(),
            **more,
        )
        remote = Memory(content)
        try:
            found = executing.answer(query, len(content), 256 << 20, NOW, remote, lambda: None)
            return b"".join(found).decode()
        except QueryRefused as error:
            return error.code

    return answered


@pytest.fixture
def remote() -> type[Memory]:
    """Return what makes an object of bytes."""
    return Memory
