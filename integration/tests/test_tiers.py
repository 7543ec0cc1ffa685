"""One WARP tiers to another: contents move by rules, come back for a while, and no kill loses or leaves anything."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import s3_client
from warp_integration.ports import free_ports
from warp_integration.requirements import locate, require
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

PATIENCE_S = 120.0
DAY_S = 1
SIZE = 300_000
RULES = {
    "Rules": [
        {
            "ID": "cold",
            "Status": "Enabled",
            "Filter": {"Prefix": "old/"},
            "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}],
        }
    ]
}
AT_ONCE = {
    "Rules": [
        {
            "ID": "cold",
            "Status": "Enabled",
            "Filter": {"Prefix": "old/"},
            "Transitions": [{"Date": datetime(2020, 1, 1, tzinfo=UTC), "StorageClass": "GLACIER"}],
        }
    ]
}


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)
    return result


def emptied(pair: Pair) -> None:
    """Wait until nothing lies at the other node, for as long as it gets less."""
    least = pair.blobs()
    deadline = time.monotonic() + PATIENCE_S
    while found := pair.blobs():
        if len(found) < len(least):
            least, deadline = found, time.monotonic() + PATIENCE_S
        assert time.monotonic() < deadline, f"the other node's space did not come back: {found}"
        time.sleep(0.1)


class Pair:
    """A node with a class GLACIER in a bucket of another node, which stays on one port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [port] = free_ports(1)
        far = folder / "far.toml"
        far.write_text(config_text(listen=f"127.0.0.1:{port}", extra=quick(DAY_S)))
        self.far = WarpServer(folder / "far", config=far, logs=folder / "far-logs")
        self.config = folder / "near.toml"
        self.url = f"http://127.0.0.1:{port}"
        self.write(DAY_S)
        self.near = WarpServer(
            folder / "near",
            config=self.config,
            logs=folder / "near-logs",
            environment={"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        )

    def write(self, day_s: float) -> None:
        """Say how long a day is, from the next start on."""
        store = (
            f'[[store]]\nkind = "s3"\nname = "far"\nendpoint = "{self.url}"\nbucket = "tier"\n'
            'prefix = "near"\nretries = 1\nwait = "1s"\n[storage_class.GLACIER]\nstores = ["far"]\narchive = true\n'
            '[storage_class.GLACIER_IR]\nstores = ["far"]\n'
        )
        self.config.write_text(
            config_text(stores=[self.folder / "disk"], extra=quick(day_s) + store)
        )

    def start(self) -> Any:
        """Start both where they do not run; return a client of the near one."""
        if not self.far.running:
            self.far.start()
            there = s3_client(self.far.s3)
            if not there.list_buckets()["Buckets"]:
                there.create_bucket(Bucket="tier")
        if not self.near.running:
            self.near.start()
        return s3_client(self.near.s3, retries={"max_attempts": 1})

    def blobs(self) -> dict[str, int]:
        """Return the containers that lie at the far node, with their sizes."""
        pages = s3_client(self.far.s3).get_paginator("list_objects_v2")
        return {
            each["Key"]: each["Size"]
            for page in pages.paginate(Bucket="tier", Prefix="near/b/c.")
            for each in page.get("Contents", [])
        }

    def ask(self, *words: str) -> Any:
        """Ask the running node by the command."""
        found = subprocess.run(
            [str(locate("warp")), *words, "--json", "--data", str(self.folder / "near"),
             "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": "/usr/bin:/bin", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        )  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr
        return json.loads(found.stdout)


def quick(day_s: float) -> str:
    return (
        f'[services.lifecycle]\nday = "{max(day_s, 1)}s"\n[services.heal]\ninterval = "1s"\nsettle = "0s"\n'
        '[services.gc]\ninterval = "1s"\n'
    )


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        yield made
    finally:
        made.near.kill()
        made.far.kill()


def content(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(s3: Any, key: str) -> str:
    """Return the digest of an object, or the code of the refusal."""
    try:
        return digest(s3.get_object(Bucket="box", Key=key)["Body"].read())
    except ClientError as error:
        return str(error.response["Error"]["Code"])


def classes(s3: Any) -> set[str]:
    found = s3.list_objects_v2(Bucket="box").get("Contents", [])
    return {each["StorageClass"] for each in found}


def archived(s3: Any) -> bool:
    return classes(s3) == {"GLACIER"}


def restored(s3: Any, keys: Mapping[str, str]) -> bool:
    heads = [s3.head_object(Bucket="box", Key=key) for key in keys]
    return all('"false"' in head.get("Restore", "") for head in heads)


def dropped(s3: Any, keys: Mapping[str, str]) -> bool:
    return all("Restore" not in s3.head_object(Bucket="box", Key=key) for key in keys)


def test_contents_go_to_another_warp_by_rule_and_come_back_for_a_while(pair: Pair) -> None:
    pair.write(3600)  # days long enough to look around in
    s3 = pair.start()
    s3.create_bucket(Bucket="box")
    wanted = {f"old/{n}": content(n) for n in range(4)}
    for key, data in wanted.items():
        s3.put_object(Bucket="box", Key=key, Body=data)
    s3.put_bucket_lifecycle_configuration(Bucket="box", LifecycleConfiguration=AT_ONCE)
    until(lambda: archived(s3), "the rule moved them")
    until(lambda: sum(pair.blobs().values()) > 4 * SIZE, "the bytes came to the other node")
    assert {read(s3, key) for key in wanted} == {"InvalidObjectState"}

    s3.put_object(Bucket="box", Key="at-once", Body=content(9), StorageClass="GLACIER_IR")
    until(lambda: sum(pair.blobs().values()) > 5 * SIZE, "what is put there came as well")
    assert read(s3, "at-once") == digest(content(9))

    for key in wanted:
        s3.restore_object(Bucket="box", Key=key, RestoreRequest={"Days": 1})
    pair.near.kill()
    s3 = pair.start()
    until(lambda: restored(s3, wanted), "they were brought back")
    assert {key: read(s3, key) for key in wanted} == {k: digest(v) for k, v in wanted.items()}
    assert pair.ask("fsck", "--deep")["problems"] == []

    for key in [*wanted, "at-once"]:
        s3.delete_object(Bucket="box", Key=key)
    emptied(pair)


@pytest.mark.slow
def test_kills_lose_nothing_and_leave_nothing(pair: Pair) -> None:
    rng = random.Random(7)
    s3 = pair.start()
    s3.create_bucket(Bucket="box")
    wanted = {f"old/{n}": digest(content(n)) for n in range(24)}
    for n in range(24):
        s3.put_object(Bucket="box", Key=f"old/{n}", Body=content(n))
    s3.put_bucket_lifecycle_configuration(Bucket="box", LifecycleConfiguration=RULES)

    def killed(times: int, *, far: bool = False) -> Any:
        for _ in range(times):
            time.sleep(rng.uniform(0.1, 2.0))
            pair.near.kill()
            if far and rng.random() < 0.3:
                pair.far.kill()
            found = pair.start()
        return found

    s3 = killed(12, far=True)
    until(lambda: archived(s3), "the rule moved them")
    for lap in range(3):
        pair.near.kill()
        pair.write(3600)
        s3 = pair.start()
        for key in wanted:
            s3.restore_object(Bucket="box", Key=key, RestoreRequest={"Days": 1})
        s3 = killed(8, far=True)
        until(partial(restored, s3, wanted), f"they were brought back, lap {lap}")
        assert {key: read(s3, key) for key in wanted} == wanted
        assert pair.ask("fsck", "--deep")["problems"] == []
        # A shorter end by asking anew, and a day of a second: the copies go, with kills between.
        pair.near.kill()
        pair.write(DAY_S)
        s3 = pair.start()
        for key in wanted:
            s3.restore_object(Bucket="box", Key=key, RestoreRequest={"Days": 1})
        s3 = killed(6)
        until(partial(dropped, s3, wanted), f"the copies went, lap {lap}")
        assert {read(s3, key) for key in wanted} == {"InvalidObjectState"}
        assert pair.ask("fsck", "--deep")["problems"] == []
    for key in wanted:
        s3.delete_object(Bucket="box", Key=key)
    emptied(pair)
    assert pair.ask("fsck", "--deep")["problems"] == []


@pytest.mark.slow
def test_another_node_that_is_away_is_waited_for(pair: Pair) -> None:
    s3 = pair.start()
    s3.create_bucket(Bucket="box")
    s3.put_object(Bucket="box", Key="there", Body=content(1), StorageClass="GLACIER_IR")
    until(lambda: pair.blobs(), "it came to the other node")
    pair.far.kill()
    s3.put_object(Bucket="box", Key="waits", Body=content(2), StorageClass="GLACIER_IR")

    assert read(s3, "waits") == digest(content(2))
    assert read(s3, "there") == "ServiceUnavailable"
    pair.near.kill()
    pair.near.start()  # without the other, which it has seen before
    s3 = s3_client(pair.near.s3, retries={"max_attempts": 1})
    until(lambda: read(s3, "waits") == digest(content(2)), "what waited is read")
    assert read(s3, "there") == "ServiceUnavailable"
    pair.far.start()
    until(lambda: read(s3, "there") == digest(content(1)), "it is read again")
    until(lambda: sum(pair.blobs().values()) > 2 * SIZE, "what waited came")


@pytest.mark.slow
def test_awscli_restores(pair: Pair) -> None:
    require("aws")
    s3 = pair.start()
    s3.create_bucket(Bucket="box")
    s3.put_object(Bucket="box", Key="k", Body=content(1), StorageClass="GLACIER")

    def aws(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["aws", "--endpoint-url", pair.near.s3, "--region", "us-east-1", "s3api", *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(pair.folder),
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            },
        )

    place = ("--bucket", "box", "--key", "k")
    refused = aws("get-object", *place, str(pair.folder / "k"))
    assert "InvalidObjectState" in refused.stderr
    asked = aws(
        "restore-object", *place, "--restore-request",
        '{"Days": 30, "GlacierJobParameters": {"Tier": "Standard"}}',
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    until(lambda: '"ongoing-request=\\"false' in aws("head-object", *place).stdout, "restored")
    assert aws("get-object", *place, str(pair.folder / "k")).returncode == 0
    assert digest((pair.folder / "k").read_bytes()) == digest(content(1))
