"""Encryption through `warp serve` with nothing but a `warp.toml`: kills, a lost master key, disks in the hands of others."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

TEXT = b"nobody else reads this. "
SECRET = bytes(range(200, 232))
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": SECRET}
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "payroll"}
WISHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"ServerSideEncryption": "AES256"}, {}),
    (KMS, {}),
    (CUSTOMER, CUSTOMER),
]
SIZES = [100, 4096, 70_000, 3_000_000]


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., WarpServer]:
    """Make servers over one data directory."""

    def make(**options: str) -> WarpServer:
        file = tmp_path / "warp.toml"
        file.write_text(config_text(**options) + '[kms]\nkeys = ["payroll"]\n')
        return WarpServer(tmp_path / "data", config=file, logs=tmp_path / "logs")

    return make


def client(server: WarpServer) -> Any:
    return s3_client(
        server.s3,
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
    )


def text(size: int, seed: int) -> bytes:
    return (b"%d " % seed + TEXT * (size // len(TEXT) + 1))[:size]


def read(s3: Any, key: str, **secret: Any) -> bytes:
    found: bytes = s3.get_object(Bucket="bucket", Key=key, **secret)["Body"].read()
    return found


def same(found: bytes, expected: bytes) -> bool:
    return hashlib.sha256(found).digest() == hashlib.sha256(expected).digest()


def stored(folder: Path) -> list[bytes]:
    """Return what lies in the files of a data directory, but for its keys."""
    files = [each for each in folder.rglob("*") if each.is_file() and each.suffix != ".key"]
    return [each.read_bytes() for each in files]


def test_what_was_acknowledged_is_there_after_a_kill_and_nothing_lies_in_the_clear(
    configured: Callable[..., WarpServer], tmp_path: Path
) -> None:
    done: dict[str, tuple[int, int, int]] = {}
    with configured() as server:
        client(server).create_bucket(Bucket="bucket")
        for turn in range(2):
            s3 = client(server)

            def put(turn: int = turn, s3: Any = s3) -> None:
                at = 0
                while True:
                    wish, size = at % 3, SIZES[at // 3 % 4]
                    name = f"{turn}-{at}"
                    try:
                        s3.put_object(
                            Bucket="bucket", Key=name, Body=text(size, at), **WISHES[wish][0]
                        )
                    except Exception:
                        return  # it was killed
                    done[name] = wish, size, at
                    at += 1

            thread = threading.Thread(target=put)
            thread.start()
            thread.join(2.0)
            server.kill()
            thread.join(60)
            server.start()
        s3 = client(server)

        assert len(done) > 10
        for name, (wish, size, at) in done.items():
            assert same(read(s3, name, **WISHES[wish][1]), text(size, at)), name
    found = stored(tmp_path / "data")
    assert not [1 for each in found if TEXT in each]
    assert not [1 for each in found if SECRET in each]
    log = b"".join(each.read_bytes() for each in (tmp_path / "logs").iterdir())
    assert SECRET not in log


def test_without_its_master_key_a_server_serves_what_is_plain_and_names_the_key(
    configured: Callable[..., WarpServer], tmp_path: Path
) -> None:
    from botocore.exceptions import ClientError

    with configured() as server:
        s3 = client(server)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="plain", Body=b"plain" * 1000)
        s3.put_object(Bucket="bucket", Key="kms", Body=b"kms" * 1000, **KMS)
        s3.put_object(Bucket="bucket", Key="own", Body=b"own" * 1000, **CUSTOMER)
        assert server.terminate() == 0
        master = tmp_path / "data" / "master.key"
        assert master.stat().st_mode & 0o777 == 0o600
        kept = master.rename(tmp_path / "kept.key")
        server.start()
        s3 = client(server)
        for call in (
            lambda: s3.get_object(Bucket="bucket", Key="kms"),
            lambda: s3.put_object(Bucket="bucket", Key="new", Body=b"x", **KMS),
        ):
            with pytest.raises(ClientError) as caught:
                call()
            assert caught.value.response["Error"]["Code"] == "KMS.KMSInvalidStateException"
        assert read(s3, "plain") == b"plain" * 1000
        assert read(s3, "own", **CUSTOMER) == b"own" * 1000
        assert not master.exists()
        assert server.terminate() == 0
        kept.rename(master)
        server.start()

        assert read(client(server), "kms") == b"kms" * 1000


def test_keys_are_managed_by_command(configured: Callable[..., WarpServer], tmp_path: Path) -> None:
    from botocore.exceptions import ClientError

    def warp(*words: str) -> Any:
        command = [sys.executable, "-m", "warp_cli", "kms", *words, "--json"]
        if words[0] != "master":
            command += ["--data", str(tmp_path / "data")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    with configured() as server:
        s3 = client(server)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="before", Body=b"x" * 5000, **KMS)
        assert warp("create", "archive")["key"] == "archive"
        assert warp("rotate", "payroll")["versions"] == 2
        assert [each["key"] for each in warp("list")] == ["archive", "payroll"]
        s3.put_object(Bucket="bucket", Key="after", Body=b"y" * 5000, **KMS)
        assert warp("disable", "payroll")["enabled"] is False
        with pytest.raises(ClientError) as caught:
            read(s3, "before")
        assert caught.value.response["Error"]["Code"] == "KMS.DisabledException"
        warp("enable", "payroll")

        assert read(s3, "before") == b"x" * 5000
        assert read(s3, "after") == b"y" * 5000
    made = tmp_path / "made.key"
    assert warp("master", str(made))["master_key"] == str(made)
    assert made.stat().st_mode & 0o777 == 0o600


def test_bytes_that_somebody_changed_are_never_answered(
    configured: Callable[..., WarpServer], tmp_path: Path
) -> None:
    body = os.urandom(200_000)
    with configured() as server:
        s3 = client(server)
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=body, ServerSideEncryption="AES256")
        assert server.terminate() == 0
        blobs = [each for each in (tmp_path / "data").rglob("*") if each.is_file()]
        blob = next(each for each in blobs if b"aes-gcm@" in each.read_bytes())
        blob.chmod(0o600)  # who is not root may not write to a whole blob
        whole = blob.read_bytes()
        start = whole.index(b"aes-gcm@") + 300
        rand = random.Random(4)
        for _ in range(2):
            changed = bytearray(whole)
            for _ in range(5):
                changed[start + rand.randrange(190_000)] ^= 1 << rand.randrange(8)
            blob.write_bytes(changed)
            server.start()
            with pytest.raises(Exception) as caught:
                read(client(server), "k")
            assert not isinstance(caught.value, AssertionError)
            assert server.terminate() == 0
        blob.write_bytes(whole)
        server.start()

        assert same(read(client(server), "k"), body)


def test_a_volume_may_be_encrypted_as_a_whole(
    configured: Callable[..., WarpServer], tmp_path: Path
) -> None:
    key = tmp_path / "volume.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(32))
    extra = (
        f'[policy.default]\nfilters = ["zstd:1", "aes-gcm"]\n[codecs.aes-gcm]\nkey_file = "{key}"\n'
    )
    with configured(extra=extra) as server:
        s3 = client(server)
        s3.create_bucket(Bucket="bucket")
        for at, size in enumerate(SIZES):
            s3.put_object(Bucket="bucket", Key=str(at), Body=text(size, at))
            wish, secret = WISHES[2]
            s3.put_object(Bucket="bucket", Key=f"c{at}", Body=text(size, at), **wish)
        server.kill()
        server.start()
        s3 = client(server)
        for at, size in enumerate(SIZES):
            assert same(read(s3, str(at)), text(size, at))
            assert same(read(s3, f"c{at}", **secret), text(size, at))
    assert not [1 for each in stored(tmp_path / "data") if TEXT in each]
