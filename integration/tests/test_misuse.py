"""A server that is misused goes on, or says in one sentence why it does not start."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from warp_core.s3.signing import Endpoint, Signer
from warp_integration.clients import s3_client
from warp_integration.namespace import MountNamespace
from warp_integration.powercut import EXT4
from warp_integration.requirements import locate, require, require_root
from warp_integration.server import ACCESS_KEY, SECRET_KEY, ServerFailed, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "noise": os.urandom(200_000),
    "zeros": bytes(200_000),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a line without an end": b"GET /" + b"a" * 1_000_000,
    "two lengths": b"PUT /b/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a chunk without an end": b"PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    "nothing": b"",
}


def address(server: WarpServer) -> tuple[str, int]:
    url = urlsplit(server.s3)
    return str(url.hostname), int(url.port or 0)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_socket_costs_its_sender_the_connection(
    server: WarpServer, name: str
) -> None:
    started = time.monotonic()
    got = b""
    with (
        socket.create_connection(address(server), timeout=60) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(GARBAGE[name])
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            got += piece

    assert time.monotonic() - started < 60
    assert not got or got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))
    assert "Traceback" not in server.log()
    assert s3_client(server.s3).list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200


def code_of(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    said = raised.value.response
    return said["ResponseMetadata"]["HTTPStatusCode"], said["Error"]["Code"]


def test_wrong_keys_get_nothing(server: WarpServer) -> None:
    import boto3

    for keys, code in (
        ((ACCESS_KEY, "wrong" * 8), "SignatureDoesNotMatch"),
        (("WARPNOBODYNOBODY", SECRET_KEY), "InvalidAccessKeyId"),
    ):
        s3 = boto3.client(
            "s3",
            endpoint_url=server.s3,
            region_name="us-east-1",
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
        )
        assert code_of(s3.list_buckets) == (403, code)
        assert code_of(s3.create_bucket, Bucket="mine") == (403, code)
        assert SECRET_KEY not in server.log()


@pytest.mark.parametrize("off_s", [-3600, -1000, 1000, 86400 * 400])
def test_a_wrong_clock_is_told_as_such(server: WarpServer, off_s: int) -> None:
    signer = Signer(Endpoint.parse(server.s3, ACCESS_KEY, SECRET_KEY))
    with socket.create_connection(address(server), timeout=60) as client:
        client.sendall(signer.head("GET", "/", now_s=time.time() + off_s))
        got = client.recv(65536)

    assert got.startswith(b"HTTP/1.1 403")
    assert b"RequestTimeTooSkewed" in got


def bench(server: WarpServer, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    warp = locate("warp")
    assert warp
    return subprocess.run(
        [warp, "bench", "--endpoint", server.s3, "--seconds", "0.1"],
        cwd=folder,
        env={**os.environ, "WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_bench_with_wrong_keys_or_nobody_there_is_one_sentence(
    server: WarpServer, tmp_path: Path
) -> None:
    told = bench(server, tmp_path, WARP_SECRET_KEY="wrong" * 8)

    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert "SignatureDoesNotMatch" in line
    assert "WARP_SECRET_KEY" in line
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    warp = locate("warp")
    assert warp
    gone = subprocess.run(
        [warp, "bench", "--endpoint", f"http://127.0.0.1:{port}"],
        cwd=tmp_path,
        env={**os.environ, "WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert gone.returncode == 1
    assert len(gone.stderr.splitlines()) == 1


def test_a_killed_server_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
        s3_client(server.s3).create_bucket(Bucket="box")
        for number in range(3):
            s3_client(server.s3).put_object(Bucket="box", Key=f"{number}", Body=b"x" * number)
            server.kill()
            assert (tmp_path / "data" / "control.sock").exists()
            server.start()
            assert "Traceback" not in server.log()
        listed = s3_client(server.s3).list_objects_v2(Bucket="box")
        assert [each["Size"] for each in listed["Contents"]] == [0, 1, 2]
        assert server.terminate() == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[MountNamespace, Path]]:
    require_root()
    require("unshare", "nsenter", "mount", "mkfs.ext4")
    at = tmp_path / "disk"
    at.mkdir()
    with MountNamespace() as namespace:
        yield namespace, at


def server_on(tmp_path: Path, disk: tuple[MountNamespace, Path], size: int) -> WarpServer:
    """Return a server whose data are on a file system of `size` bytes."""
    namespace, at = disk
    EXT4.format(tmp_path / "image", size)
    namespace.mount_image(tmp_path / "image", at)
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    return WarpServer(at / "data", config=config, prefix=namespace.prefix, logs=tmp_path / "logs")


def refused(server: WarpServer) -> str:
    with pytest.raises(ServerFailed, match="ended with 1"):
        server.start()
    (line,) = server.log().splitlines()
    return line


def test_a_disk_that_is_too_small_to_begin_is_one_sentence(
    tmp_path: Path, disk: tuple[MountNamespace, Path]
) -> None:
    with contextlib.closing(server_on(tmp_path, disk, 16 * MIB)) as server:
        line = refused(server)

    assert str(disk[1]) in line
    assert "free some space" in line


def test_a_disk_that_others_filled_refuses_writes_and_loses_nothing(
    tmp_path: Path, disk: tuple[MountNamespace, Path]
) -> None:
    namespace, at = disk
    with contextlib.closing(server_on(tmp_path, disk, 384 * MIB)) as server:
        server.start()
        s3_client(server.s3).create_bucket(Bucket="box")
        s3_client(server.s3).put_object(Bucket="box", Key="k", Body=b"kept")
        server.kill()
        filler = namespace.path(at) / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(MIB)):
                pass
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x"):
                pass
        server.start()  # what it has to write then fits where it wrote before
        assert kept(server)
        put = s3_client(server.s3, retries={"max_attempts": 1}).put_object
        refusal = code_of(put, Bucket="box", Key="large", Body=bytes(32 * MIB))
        assert refusal == (507, "InsufficientStorage")
        told = status_of(namespace.path(at) / "data")
        assert told.returncode == 1
        assert ": add a store, or delete something" in told.stdout
        filler.unlink()
        assert status_of(namespace.path(at) / "data").returncode == 0
        put(Bucket="box", Key="large", Body=bytes(32 * MIB))
        assert kept(server)


def status_of(data: Path) -> subprocess.CompletedProcess[str]:
    warp = locate("warp")
    assert warp
    return subprocess.run(
        [warp, "status", "--data", data], capture_output=True, text=True, timeout=120
    )


def kept(server: WarpServer) -> bool:
    body = s3_client(server.s3).get_object(Bucket="box", Key="k")["Body"].read()
    return bool(body == b"kept")
