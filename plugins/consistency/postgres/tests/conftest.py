"""A real PostgreSQL server for the session: an operator's, or one of its own; without either the tests are skipped."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator

import asyncpg
import pytest
from warp_postgres.config import Config
from warp_postgres.throwaway import PACKAGE, Throwaway, programs

SCHEMAS = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Return where a server is."""
    url = os.environ.get("WARP_TEST_POSTGRES_URL", "")
    if url:
        yield url
        return
    if programs() is None:
        pytest.skip(f"needs Debian's package {PACKAGE}, or WARP_TEST_POSTGRES_URL")
    with Throwaway() as server:
        yield server.url


@pytest.fixture
def config(postgres_url: str) -> Iterator[Config]:
    """Yield a schema of its own on the server."""
    schema = f"t{os.getpid()}_{next(SCHEMAS)}"
    yield Config(url=postgres_url, schema=schema)
    if "WARP_TEST_POSTGRES_URL" in os.environ:
        asyncio.run(_drop(postgres_url, schema))


async def _drop(url: str, schema: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    await connection.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Throwaway]:
    """Yield a server that tests may kill and stop; they leave it running."""
    if programs() is None:
        pytest.skip(f"needs Debian's package {PACKAGE}")
    with Throwaway() as server:
        yield server
