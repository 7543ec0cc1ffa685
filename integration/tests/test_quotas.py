"""Quotas through `warp serve`: many writers, kills in between, and nobody gets past, over S3 or NBD."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

LIMIT = 400_000
SIZES = (500, 4096, 20_000, 70_000)
WRITERS = 6


@pytest.fixture
def server(tmp_path: Path) -> WarpServer:
    file = tmp_path / "warp.toml"
    file.write_text(
        config_text()
        + '[[account]]\nname = "ada"\nkeys = [{ access_key = "ADAADAADA", secret = "s3cret-of-ada-0123456789" }]\n'
        'quota = { objects = 60, soft_bytes = "200KB", grace = "30d" }\n'
    )
    return WarpServer(tmp_path / "data", config=file, logs=tmp_path / "logs")


def client(server: WarpServer) -> Any:
    return s3_client(
        server.s3,
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
    )


def warp(server: WarpServer, *words: str) -> Any:
    program = str(Path(sys.executable).with_name("warp"))
    data = server._command[server._command.index("--data") + 1]
    done = subprocess.run(
        [program, *words, "--data", data, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "WARP_CONFIG": str(Path(data).parent / "warp.toml")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def load(server: WarpServer, seed: int, met: threading.Event, stop: threading.Event) -> list[str]:
    """Write, overwrite, copy, upload in parts and delete until told to stop; returns the codes of refusals.

    `met` is set once the quota was met.
    """
    from botocore.exceptions import ClientError

    s3, rng, codes = client(server), random.Random(seed), []
    while not stop.is_set():
        key, other = (f"k{number}" for number in rng.sample(range(40), 2))
        body = bytes(rng.choice(SIZES))
        try:
            match rng.randrange(6):
                case 0 | 1 | 2:
                    s3.put_object(Bucket="bucket", Key=key, Body=body)
                case 3:
                    s3.copy_object(Bucket="bucket", Key=key, CopySource=f"bucket/{other}")
                case 4:
                    made = s3.create_multipart_upload(Bucket="bucket", Key=key)["UploadId"]
                    part = s3.upload_part(
                        Bucket="bucket", Key=key, UploadId=made, PartNumber=1, Body=body
                    )
                    named = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
                    s3.complete_multipart_upload(
                        Bucket="bucket", Key=key, UploadId=made, MultipartUpload=named
                    )
                case 5:
                    s3.delete_object(Bucket="bucket", Key=key)
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
            if codes[-1] == "QuotaExceeded":
                met.set()
        except Exception:  # it was killed: what a client makes of half an answer has many names
            return codes
    return codes


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_kills_leave_counters_exact_and_nobody_gets_past(server: WarpServer, kills: int) -> None:
    codes: set[str] = set()
    for turn in range(kills):
        server.start()
        if not turn:
            client(server).create_bucket(Bucket="bucket")
            warp(server, "quota", "set", "bucket", "--bytes", str(LIMIT))
        met, stop = threading.Event(), threading.Event()
        with ThreadPoolExecutor(WRITERS) as pool:
            running = [
                pool.submit(load, server, 100 * turn + each, met, stop) for each in range(WRITERS)
            ]
            try:
                assert met.wait(120), "nobody was refused"
                stop.wait(0.3)
                server.kill()
            finally:
                stop.set()
            for each in running:
                codes.update(each.result())
        server.start()
        shown = warp(server, "quota", "show", "bucket")
        assert shown["held_bytes"] <= LIMIT
        checked = warp(server, "fsck")
        assert checked["problems"] == []
        listed = client(server).list_objects_v2(Bucket="bucket").get("Contents", [])
        assert shown["held_bytes"] >= sum(each["Size"] for each in listed)
        assert shown["held_objects"] >= len(listed)
        server.kill()
    assert "QuotaExceeded" in codes
    assert codes <= {"QuotaExceeded", "NoSuchKey", "NoSuchUpload", "404"}, codes


def test_a_declared_account_and_a_disk_meet_their_limits(server: WarpServer) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    with server:
        ada = boto3.client(
            "s3",
            endpoint_url=server.s3,
            region_name="us-east-1",
            aws_access_key_id="ADAADAADA",
            aws_secret_access_key="s3cret-of-ada-0123456789",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        for bucket in ("one", "two"):
            ada.create_bucket(Bucket=bucket)
        for number in range(60):
            ada.put_object(Bucket=("one", "two")[number % 2], Key=str(number), Body=bytes(4000))
        with pytest.raises(ClientError) as refused:
            ada.put_object(Bucket="one", Key="more", Body=b"")
        assert refused.value.response["Error"]["Code"] == "QuotaExceeded"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        shown = warp(server, "quota", "show", "--account", "ada")
        assert (shown["held_objects"], shown["held_bytes"]) == (60, 240_000)
        assert shown["declared"]
        assert shown["soft_passed_since"]

        warp(server, "quota", "set", "one", "--bytes", "1MiB")
        program = str(Path(sys.executable).with_name("warp"))
        data = server._command[server._command.index("--data") + 1]
        done = subprocess.run(
            [program, "disk", "create", "one/disk", "--size", "2MiB", "--data", data, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert json.loads(done.stdout)["error"]["kind"] == "QuotaExceeded"
        assert warp(server, "disk", "list") == []
        warp(server, "quota", "clear", "one")
