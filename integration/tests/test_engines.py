"""What holds for S3 on the engine `local` holds on the others: clients, compare-and-swap, kills, one history.

Kills under load with a judge of every promise are in `test_etcd` and `test_postgres`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import CLIENTS, files_of, mixed_files, s3_client
from warp_integration.histories import Histories, swaps
from warp_integration.server import WarpServer, config_text
from warp_postgres.throwaway import PACKAGE, Throwaway, programs

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
MIB = 1 << 20
LOST = ("PreconditionFailed", "ConditionalRequestConflict")


@pytest.fixture(scope="module", params=["etcd", "postgres"])
def table(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Yield what makes a table `[metadata]` for one more server."""
    if request.param == "etcd":
        if shutil.which("etcd") is None:
            pytest.skip("missing: etcd (package etcd-server)")
        yield lambda: 'engine = "etcd"'
        return
    if programs() is None:
        pytest.skip(f"missing: package {PACKAGE}")
    with Throwaway() as database:
        url = json.dumps(database.url)
        yield lambda: f'engine = "postgres"\nurl = {url}\nschema = "s{uuid.uuid4().hex}"'


def serving(folder: Path, table: Callable[[], str]) -> WarpServer:
    config = folder / "warp.toml"
    config.write_text(config_text(metadata=table()))
    return WarpServer(folder / "data", config=config, logs=folder / "logs")


@pytest.fixture(scope="module")
def server(
    table: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WarpServer]:
    with serving(tmp_path_factory.mktemp("engine"), table) as running:
        yield running
        assert running.running, running.log_tail()


@pytest.mark.parametrize(
    ("count", "large"),
    [
        pytest.param(10, 12 * MIB, id="10 files and 12 MiB"),
        pytest.param(1000, 2048 * MIB, id="1000 files and 2 GiB", marks=pytest.mark.slow),
    ],
)
# What a client asks for does not depend on the engine: `test_clients` has them all, and here one stands for the others.
@pytest.mark.parametrize(
    "name",
    [name if name == "boto3" else pytest.param(name, marks=pytest.mark.slow) for name in CLIENTS],
)
def test_a_client_stores_lists_reads_back_and_deletes(
    tmp_path: Path, server: WarpServer, name: str, count: int, large: int
) -> None:
    client = CLIENTS[name](server.s3, tmp_path / "home")
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mixed_files(source, count=count, large=large, seed=SEED)
    expected = files_of(source)
    bucket = f"{name}-{count}"
    client.create_bucket(bucket)
    client.store(source, bucket)

    assert client.list(bucket) == set(expected)
    client.read_back(bucket, target)
    assert files_of(target) == expected
    client.delete_all(bucket)
    assert client.list(bucket) == set()


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_counter_raised_by_compare_and_swap_counts_every_success(
    server: WarpServer, rounds: int
) -> None:
    s3 = s3_client(server.s3)
    bucket = f"counter-{rounds}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="n", Body=b"0")
    lost = 0

    def raise_it(_: int) -> None:
        nonlocal lost
        done = 0
        while done < rounds:
            got = s3.get_object(Bucket=bucket, Key="n")
            more = b"%d" % (int(got["Body"].read()) + 1)
            try:
                s3.put_object(Bucket=bucket, Key="n", Body=more, IfMatch=got["ETag"])
            except ClientError as error:
                if error.response["Error"]["Code"] not in LOST:
                    raise
                lost += 1
            else:
                done += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(raise_it, range(8)))

    assert s3.get_object(Bucket=bucket, Key="n")["Body"].read() == b"%d" % (8 * rounds)
    assert lost > 0, "nobody competed"


@pytest.mark.parametrize(
    ("seconds", "kills"), [(4.0, 1), pytest.param(200.0, 60, marks=pytest.mark.slow)]
)
def test_what_clients_saw_could_have_happened_one_by_one(
    tmp_path: Path, table: Callable[[], str], seconds: float, kills: int
) -> None:
    histories = Histories(SEED)
    rng = random.Random(SEED)

    async def killed_again_and_again(server: WarpServer) -> None:
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.2, 1.6) * seconds / (kills + 1))
            server.kill()
            await asyncio.sleep(0.05)  # until the clients have seen it
            histories.ended()
            await asyncio.to_thread(server.start)

    async def run(server: WarpServer) -> None:
        await histories.prepare(server.s3)
        async with asyncio.TaskGroup() as group:
            group.create_task(killed_again_and_again(server))
            group.create_task(
                histories.run(lambda: [server.s3], clients=8, seconds=seconds, answers=21)
            )

    with serving(tmp_path, table) as server:
        asyncio.run(run(server))
    verdicts = histories.verdicts()

    print({key: str(verdict) for key, verdict in verdicts.items()})
    for key, verdict in verdicts.items():
        assert verdict.linearizable, f"{key}: {verdict}"
        answered = [each for each in histories.operations[key] if each.answered]
        assert len(answered) > 20
        assert swaps(answered) == {True, False}, "won or lost: nobody competed"
