"""S3 on metadata in etcd: on a member that the server runs itself, and on one that is there already."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from warp_integration.crashes import kill_under_load
from warp_integration.ports import free_ports
from warp_integration.powercut import Ledger
from warp_integration.s3load import S3Load
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
OWN = 'engine = "etcd"'

pytestmark = [
    pytest.mark.workspace,
    pytest.mark.usefixtures("warp_serve"),
    pytest.mark.skipif(
        shutil.which("etcd") is None,
        reason="the program etcd is missing: install the package etcd-server",
    ),
]


def server(tmp_path: Path, metadata: str, name: str = "data") -> WarpServer:
    config = tmp_path / f"{name}.toml"
    config.write_text(config_text(metadata=metadata))
    return WarpServer(tmp_path / name, config=config, logs=tmp_path / "logs")


def client(running: WarpServer) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=running.s3,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A member that somebody else runs, with etcd's own limits."""
    port, peer = free_ports(2)
    address, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [
        *("etcd", "--name=one", f"--data-dir={tmp_path / 'etcd'}", "--unsafe-no-fsync"),
        *(f"--listen-client-urls={address}", f"--advertise-client-urls={address}"),
        *(f"--listen-peer-urls={other}", f"--initial-advertise-peer-urls={other}"),
        f"--initial-cluster=one={other}",
    ]
    with (tmp_path / "etcd.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield address, process
    finally:
        process.kill()
        process.wait()


def test_objects_are_kept_listed_and_changed_under_conditions(tmp_path: Path) -> None:
    with server(tmp_path, OWN) as running:
        s3 = client(running)
        s3.create_bucket(Bucket="bucket")
        s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        for number in range(30):
            s3.put_object(Bucket="bucket", Key=f"a/{number:02d}", Body=b"x" * number * 1000)
        large = os.urandom(9 << 20)
        s3.put_object(Bucket="bucket", Key="large", Body=large)
        etag = s3.put_object(Bucket="bucket", Key="cas", Body=b"1")["ETag"]
        s3.put_object(Bucket="bucket", Key="cas", Body=b"2", IfMatch=etag)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="bucket", Key="cas", Body=b"3", IfMatch=etag)
        s3.delete_object(Bucket="bucket", Key="a/07")
        assert running.terminate() == 0

        running.start()
        s3 = client(running)
        listed = s3.list_objects_v2(Bucket="bucket", Prefix="a/")
        assert [each["Key"] for each in listed["Contents"]] == [
            f"a/{number:02d}" for number in range(30) if number != 7
        ]
        assert s3.get_object(Bucket="bucket", Key="large")["Body"].read() == large
        assert s3.get_object(Bucket="bucket", Key="cas")["Body"].read() == b"2"
        versions = s3.list_object_versions(Bucket="bucket", Prefix="cas")["Versions"]
        assert len(versions) == 2


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, kills: int) -> None:
    load = S3Load(Ledger(), seed=SEED, parts=1)
    result = kill_under_load(server(tmp_path, OWN), load, kills=kills, seed=SEED)

    print(result, dict(load.answers), sep="\n")
    assert result.kills == kills
    assert result.acknowledged > 5 * kills
    assert not result.findings, result


def test_a_server_uses_a_cluster_that_is_there(
    tmp_path: Path, etcd: tuple[str, subprocess.Popen[bytes]]
) -> None:
    settings = f'engine = "etcd"\nendpoints = [{json.dumps(etcd[0])}]\nprefix = "one/"'
    with server(tmp_path, settings) as running:
        s3 = client(running)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=b"v")

        assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"v"
        assert running.terminate() == 0
    with server(tmp_path, settings) as running:
        assert client(running).get_object(Bucket="bucket", Key="k")["Body"].read() == b"v"


def test_requests_are_refused_and_do_not_hang_while_etcd_hangs(
    tmp_path: Path, etcd: tuple[str, subprocess.Popen[bytes]]
) -> None:
    address, process = etcd
    settings = f'engine = "etcd"\nendpoints = [{json.dumps(address)}]\ntimeout = "500ms"'
    with server(tmp_path, settings) as running:
        s3 = boto3.client(
            "s3",
            endpoint_url=running.s3,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}),
        )
        s3.create_bucket(Bucket="bucket")
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(ClientError):
            s3.get_object(Bucket="bucket", Key="k")

        assert time.monotonic() - began < 15
