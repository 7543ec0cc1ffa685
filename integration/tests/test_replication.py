"""Two servers, one of which is told what happens on the other: everything arrives as it was, whoever is killed meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from warp_integration.clients import s3_client
from warp_integration.ports import free_ports
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

PART = 5 * 1024 * 1024
PATIENCE_S = 120.0
RULE: dict[str, Any] = {
    "ID": "all",
    "Status": "Enabled",
    "Priority": 1,
    "Filter": {"Prefix": ""},
    "DeleteMarkerReplication": {"Status": "Enabled"},
    "Destination": {"Bucket": "arn:aws:s3:::copy"},
}


def client(server: WarpServer) -> Any:
    return s3_client(
        server.s3,
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"max_attempts": 5},
    )


def config(port: int, destinations: Mapping[str, int]) -> str:
    """Return a configuration that serves S3 on a port, and knows where buckets are."""
    text = config_text(listen=f"127.0.0.1:{port}")
    text += '[services.replication]\ninterval = "100ms"\n'
    for bucket, there in destinations.items():
        text += (
            "[[services.replication.destination]]\n"
            f'bucket = "{bucket}"\nendpoint = "http://127.0.0.1:{there}"\n'
            f'access_key = "{ACCESS_KEY}"\nsecret_key = "{SECRET_KEY}"\n'
        )
    return text


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[WarpServer, WarpServer]]:
    """A server and another one, each of which knows the other."""
    ports = free_ports(2)
    made = []
    for name, port, other, bucket in (
        ("one", ports[0], ports[1], "copy"),
        ("two", ports[1], ports[0], "data"),
    ):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "warp.toml"
        file.write_text(config(port, {bucket: other}))
        made.append(WarpServer(tmp_path / name / "data", config=file, logs=tmp_path / name))
    with made[0] as one, made[1] as two:
        yield one, two


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def history(s3: Any, bucket: str) -> list[tuple[Any, ...]]:
    """Return everything that a bucket's versions are."""
    listed: list[tuple[Any, ...]] = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for row in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
            what = (row["Key"], row["VersionId"], row["LastModified"], row["IsLatest"])
            listed.append((*what, row.get("ETag"), row.get("Size"), row.get("StorageClass")))
    return sorted(listed, key=lambda row: row[:2])


def said(s3: Any, bucket: str, key: str, version: str) -> dict[str, Any]:
    """Return what a version says of itself but for its part in this, and its tags."""
    which = {"Bucket": bucket, "Key": key, "VersionId": version}
    head = s3.head_object(ChecksumMode="ENABLED", **which)
    for name in ("ResponseMetadata", "ReplicationStatus"):
        head.pop(name, None)
    return {**head, "tags": s3.get_object_tagging(**which)["TagSet"]}


def begin(one: Any, two: Any, *, lock: bool = False, **rule: Any) -> None:
    """Make both buckets, and the rule."""
    for s3, bucket in ((one, "data"), (two, "copy")):
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    replicate(one, "data", {**RULE, **rule})


def replicate(s3: Any, bucket: str, rule: dict[str, Any]) -> None:
    configuration = {"Role": "arn:aws:iam::123456789012:role/r", "Rules": [rule]}
    s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=configuration)


def test_what_is_written_arrives_as_it_was(pair: tuple[WarpServer, WarpServer]) -> None:
    one, two = map(client, pair)
    begin(one, two, lock=True)
    # And back again: what arrived is not sent to where it came from.
    replicate(two, "copy", {**RULE, "Destination": {"Bucket": "arn:aws:s3:::data"}})
    day = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    one.put_object(
        Bucket="data",
        Key="a/ü +%",
        Body=b"1",
        CacheControl="max-age=1",
        ContentType="text/plain",
        Metadata={"name": "value"},
        Tagging="a=b",
        StorageClass="STANDARD_IA",
        WebsiteRedirectLocation="/x",
    )
    one.put_object(Bucket="data", Key="a/ü +%", Body=b"", ChecksumAlgorithm="SHA256")
    one.delete_object(Bucket="data", Key="a/ü +%")
    large = one.put_object(Bucket="data", Key="large", Body=os.urandom(3_000_000))
    one.copy_object(Bucket="data", Key="copied", CopySource="data/large")
    begun = one.create_multipart_upload(Bucket="data", Key="parts", ChecksumAlgorithm="CRC32")
    named = {"Bucket": "data", "Key": "parts", "UploadId": begun["UploadId"]}
    parts = []
    for number, size in ((1, PART), (7, 1000)):
        body = os.urandom(size)
        part = one.upload_part(**named, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        parts.append(
            {"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}
        )
    one.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    one.put_object(
        Bucket="data",
        Key="locked",
        Body=b"l",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=day,
    )

    until(lambda: history(two, "copy") == history(one, "data"), "both are the same")
    which = {"Bucket": "data", "Key": "large", "VersionId": large["VersionId"]}
    until(lambda: one.head_object(**which)["ReplicationStatus"] == "COMPLETED", "it is noted")
    one.put_object_tagging(**which, Tagging={"TagSet": [{"Key": "new", "Value": "tag"}]})
    one.put_object_legal_hold(Bucket="data", Key="locked", LegalHold={"Status": "ON"})

    def settled() -> bool:
        rows = [row for row in history(one, "data") if row[4] is not None]
        return all(said(two, "copy", *row[:2]) == said(one, "data", *row[:2]) for row in rows)

    until(settled, "what is said of them is the same")
    for row in history(one, "data"):
        if row[4] is not None:
            found = {"Key": row[0], "VersionId": row[1]}
            there = two.get_object(Bucket="copy", **found)
            assert there["ReplicationStatus"] == "REPLICA"
            assert there["Body"].read() == one.get_object(Bucket="data", **found)["Body"].read()
    assert len(history(one, "data")) == len(history(two, "copy")) == 7


@pytest.mark.slow
def test_rules_say_what_goes_and_an_existing_object_only_if_they_say_so(
    pair: tuple[WarpServer, WarpServer],
) -> None:
    one, two = map(client, pair)
    for s3, bucket in ((one, "data"), (two, "copy")):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one.put_object(Bucket="data", Key="p/old", Body=b"old")
    filtered = {"And": {"Prefix": "p/", "Tags": [{"Key": "go", "Value": "yes"}]}}
    off = {"Status": "Disabled"}
    replicate(one, "data", {**RULE, "Filter": filtered, "DeleteMarkerReplication": off})
    one.put_object(Bucket="data", Key="p/none", Body=b"1")
    one.put_object(Bucket="data", Key="other", Body=b"1", Tagging="go=yes")
    one.put_object(Bucket="data", Key="p/goes", Body=b"1", Tagging="go=yes")
    until(lambda: history(two, "copy"), "what the rule names arrives")
    assert [row[0] for row in history(two, "copy")] == ["p/goes"]
    assert "ReplicationStatus" not in one.head_object(Bucket="data", Key="other")

    existing = {"Filter": {"Prefix": "p/"}, "ExistingObjectReplication": {"Status": "Enabled"}}
    replicate(one, "data", {**RULE, **existing})
    until(lambda: len(history(two, "copy")) == 3, "what was there arrives")
    assert [row[0] for row in history(two, "copy")] == ["p/goes", "p/none", "p/old"]


@pytest.mark.slow
def test_kills_of_either_side_lose_nothing(pair: tuple[WarpServer, WarpServer]) -> None:
    here, there = pair
    one, two = map(client, pair)
    begin(one, two)
    written = 0
    for turn in range(6):
        victim = (here, there)[turn % 2]
        for number in range(25):
            key = f"{number % 10}"
            if number % 7 == 3:
                one.delete_object(Bucket="data", Key=key)
            else:
                body = os.urandom(200_000 if number % 5 == 0 else 1000)
                one.put_object(Bucket="data", Key=key, Body=body, Metadata={"n": str(written)})
            written += 1
            if number == 12 and victim is there:
                victim.kill()
        if victim is here:
            victim.kill()
        victim.start()

    def same() -> bool:
        return history(two, "copy") == history(one, "data")

    until(same, "both are the same")
    assert len(history(one, "data")) == written == 150
    for row in history(one, "data"):
        if row[4] is not None:
            assert said(two, "copy", *row[:2]) == said(one, "data", *row[:2])
