"""The clients that people have, unmodified: store, list, read back, delete."""

from __future__ import annotations

from pathlib import Path

import pytest
from warp_integration.clients import CLIENTS, files_of, mixed_files
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
SIZES = [
    pytest.param(50, 24 * MIB, id="50 files and 24 MiB"),  # several parts for every client
    pytest.param(1000, 2048 * MIB, id="1000 files and 2 GiB", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "large"), SIZES)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_stores_lists_reads_back_and_deletes(
    tmp_path: Path, server: WarpServer, name: str, count: int, large: int
) -> None:
    client = CLIENTS[name](server.s3, tmp_path / "home")
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mixed_files(source, count=count, large=large, seed=1)
    expected = files_of(source)
    assert len(expected) == count + 1

    bucket = f"{name}-{count}"
    client.create_bucket(bucket)
    client.store(source, bucket)
    assert client.list(bucket) == set(expected)
    client.read_back(bucket, target)
    assert files_of(target) == expected
    client.delete_all(bucket)
    assert client.list(bucket) == set()
