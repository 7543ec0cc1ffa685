"""`warp serve` with its metadata in PostgreSQL: clients, either of the two killed, and a full disk under the database."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from warp_conformance.linearizability import check
from warp_integration.clients import Boto3, files_of, mixed_files, s3_client
from warp_integration.crashes import kill_under_load
from warp_integration.faults import Call, Faults, enospc
from warp_integration.histories import OBJECT, Histories
from warp_integration.powercut import Ledger
from warp_integration.s3load import S3Load, settle
from warp_integration.server import ServerFailed, WarpServer, config_text
from warp_postgres.throwaway import PACKAGE, Throwaway, programs

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
MIB = 1 << 20
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict")

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Throwaway]:
    """Yield a server that tests may kill; they leave it running."""
    if programs() is None:
        pytest.skip(f"needs Debian's package {PACKAGE}")
    with Throwaway() as server:
        yield server


def serving(postgres: Throwaway, folder: Path, schema: str) -> WarpServer:
    config = folder / "warp.toml"
    table = f'engine = "postgres"\nurl = {json.dumps(postgres.url)}\nschema = "{schema}"\n'
    config.write_text(config_text(metadata=table))
    return WarpServer(folder / "data", config=config, logs=folder / "logs")


def test_boto3_stores_lists_reads_back_and_deletes_and_a_restart_keeps_everything(
    postgres: Throwaway, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mixed_files(source, count=40, large=12 * MIB, seed=1)
    expected = files_of(source)
    with serving(postgres, tmp_path, "boto3") as server:
        client = Boto3(server.s3, tmp_path / "home")
        client.create_bucket("bucket")
        client.store(source, "bucket")
        assert server.terminate() == 0
        server.start()

        client = Boto3(server.s3, tmp_path / "home")
        assert client.list("bucket") == set(expected)
        client.read_back("bucket", target)
        assert files_of(target) == expected
        client.delete_all("bucket")
        assert client.list("bucket") == set()


def test_a_node_refuses_the_metadata_of_another(postgres: Throwaway, tmp_path: Path) -> None:
    with serving(postgres, tmp_path, "mine") as server:
        s3_client(server.s3).create_bucket(Bucket="bucket")
    with pytest.raises(ServerFailed, match="other metadata"):
        serving(postgres, tmp_path, "empty").start()


def test_of_many_that_create_an_object_one_succeeds(postgres: Throwaway, tmp_path: Path) -> None:
    with serving(postgres, tmp_path, "create") as server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="bucket")

        def create(number: int) -> bool:
            try:
                s3.put_object(Bucket="bucket", Key="k", Body=b"%d" % number, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] in REFUSED:
                    return False
                raise
            return True

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(create, range(32)))

        assert won.count(True) == 1
        body = s3.get_object(Bucket="bucket", Key="k")["Body"].read()
        assert body == b"%d" % won.index(True)


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_when_warp_is_killed(
    postgres: Throwaway, tmp_path: Path, kills: int
) -> None:
    load = S3Load(Ledger(), seed=SEED, parts=1)
    server = serving(postgres, tmp_path, f"warp_killed_{kills}")

    result = kill_under_load(server, load, kills=kills, seed=SEED)

    print(result, dict(load.answers), sep="\n")
    assert result.kills == kills
    assert result.acknowledged > kills
    assert not result.findings, result


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_when_the_database_is_killed(
    postgres: Throwaway, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(SEED)
    load = S3Load(Ledger(), seed=SEED, parts=1)

    async def kill_and_start() -> None:
        await asyncio.sleep(rng.uniform(0.1, 0.8))
        postgres.kill()
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        postgres.start(wait=False)

    async def run(server: WarpServer) -> None:
        await load.prepare(server.s3)
        for _ in range(kills):
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(server.s3, seconds=3.0, acknowledged=6))
                group.create_task(kill_and_start())
            postgres.wait()
            load.findings += await settle(load, server.s3)

    with serving(postgres, tmp_path, f"killed_{kills}") as server:
        asyncio.run(run(server))
        assert server.running, server.log_tail()

    print(load.ledger.acknowledged(), dict(load.answers))
    assert load.ledger.acknowledged() > 5 * kills
    assert not load.findings


def test_what_clients_saw_could_have_happened_one_by_one_while_the_database_is_killed(
    postgres: Throwaway, tmp_path: Path
) -> None:
    histories = Histories(SEED)

    async def kill_and_start() -> None:
        await asyncio.sleep(1.0)
        postgres.kill()
        postgres.start(wait=False)

    async def run(server: WarpServer) -> None:
        await histories.prepare(server.s3)
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_and_start())
            group.create_task(
                histories.run(lambda: [server.s3], clients=8, seconds=5.0, answers=21)
            )

    with serving(postgres, tmp_path, "histories") as server:
        asyncio.run(run(server))
    postgres.wait()

    for key, verdict in histories.verdicts().items():
        assert verdict.linearizable, f"{key}: {verdict}"
        assert check(histories.operations[key], OBJECT).linearizable
        assert len([each for each in histories.operations[key] if each.answered]) > 20


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that the database's user can reach, unlike those of a test."""
    folder = Path(tempfile.mkdtemp(prefix="warp-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_full_disk_under_the_database_refuses_writes_and_leaves_reads(
    open_folder: Path, tmp_path: Path
) -> None:
    if programs() is None:
        pytest.skip(f"needs Debian's package {PACKAGE}")
    later = 1 << 40
    with Faults(open_folder, [enospc(Call.WRITE, first=later, path="/base/")]) as faults:
        shim = open_folder / "faults.so"
        shutil.copy(faults.environment["LD_PRELOAD"], shim)
        Path(faults.environment["WARP_FAULT_COUNTS"]).chmod(0o666)
        environment = faults.environment | {"LD_PRELOAD": str(shim)}
        with (
            Throwaway(faults=environment) as postgres,
            serving(postgres, tmp_path, "full") as server,
        ):
            s3 = s3_client(server.s3)
            s3.create_bucket(Bucket="bucket")
            s3.put_object(Bucket="bucket", Key="before", Body=b"before")
            faults.reset(0, later)
            code = ""
            for number in range(400):  # until a table has to grow
                try:
                    s3.put_object(Bucket="bucket", Key=f"{number}-" * 50, Body=bytes(900))
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    break
            read = s3.get_object(Bucket="bucket", Key="before")["Body"].read()
            faults.reset(0, 0)
            s3.put_object(Bucket="bucket", Key="after", Body=b"after")
            after = s3.get_object(Bucket="bucket", Key="after")["Body"].read()
            keys = [each["Key"] for each in s3.list_objects_v2(Bucket="bucket")["Contents"]]

    assert code == "InsufficientStorage"
    assert (read, after) == (b"before", b"after")
    assert f"{number}-" * 50 not in keys
