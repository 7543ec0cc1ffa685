"""Disks over NBD, through `warp serve`, with the clients that people have."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from warp_integration.nbd import BLOCK, NbdDisk, PromisedBlocks, disk, environment, export, warp
from warp_integration.requirements import locate, require
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
SEED = int(os.environ.get("WARP_TEST_SEED", "1"))


class Node:
    """A server with NBD, its data and its S3 client."""

    def __init__(self, server: WarpServer, data: Path) -> None:
        self.server = server
        self.data = data

    def uri(self, name: str) -> str:
        return export(self.server.endpoints["nbd"], name)

    @property
    def s3(self):
        return boto3.client(
            "s3", endpoint_url=self.server.s3, aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )  # fmt: skip

    def make(self, name: str, size: str) -> str:
        disk(self.data, "create", f"v/{name}", "--size", size)
        return self.uri(f"v/{name}")


def started(folder: Path, listen: str, tables: str = "") -> Iterator[Node]:
    config = folder / "warp.toml"
    config.write_text(config_text(extra=f"[protocols.nbd]\n{listen}\n{tables}"))
    with WarpServer(folder / "data", config=config, logs=folder / "logs") as server:
        node = Node(server, folder / "data")
        warp(node.data, "volume", "create", "v")
        yield node
        assert server.running, server.log_tail()


@pytest.fixture(scope="module")
def node(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from started(tmp_path_factory.mktemp("nbd"), "")


def run(*words: str, timeout_s: float = 120) -> str:
    """Run a client; its output is what a failure shows."""
    program = str(locate(words[0]))
    done = subprocess.run(
        [program, *words[1:]], capture_output=True, text=True, timeout=timeout_s, env=environment()
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def image(path: Path, size: int, seed: int = SEED) -> Path:
    """Write a disk image with data, zeros that were written, and holes."""
    rand = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(12):
            file.seek(rand.randrange(0, size - MIB, 512))
            file.write(rand.randbytes(rand.randrange(1, MIB)))
        file.seek(size // 2)
        file.write(bytes(MIB))
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Clients ------------------------------------------------------------------------------------------


def test_nbdinfo_sees_what_a_disk_is(node: Node) -> None:
    require("nbdinfo")
    uri = node.make("info", "10G")
    told = json.loads(run("nbdinfo", "--json", uri))
    (only,) = told["exports"]

    assert told["structured"]
    assert only["export-size"] == 10 << 30
    assert only["contexts"] == ["base:allocation"]
    wanted = ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")
    assert all(only[f"can_{what}"] for what in wanted)
    names = {each["export-name"] for each in json.loads(run("nbdinfo", "--list", "--json", node.uri("")))["exports"]}  # fmt: skip
    assert "v/info" in names
    assert run("nbdinfo", "--map", uri).split() == ["0", str(10 << 30), "3", "hole,zero"]


def test_an_image_goes_there_and_back(node: Node, tmp_path: Path) -> None:
    require("qemu-img")
    source, back = image(tmp_path / "source.raw", 48 * MIB), tmp_path / "back.raw"
    qcow = tmp_path / "source.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(qcow))
    uri = node.make("image", "48M")

    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", str(qcow), uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, str(back))
    assert digest(back) == digest(source)
    node.s3.download_file("v", "image", str(back))
    assert digest(back) == digest(source)


def test_an_image_uploaded_in_parts_is_a_disk(node: Node, tmp_path: Path) -> None:
    require("qemu-img")
    source = image(tmp_path / "source.raw", 24 * MIB, SEED + 3)
    parts = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    node.s3.upload_file(str(source), "v", "images/parts.raw", Config=parts)
    disk(node.data, "create", "v/images/parts.raw")

    uri = node.uri("v/images/parts.raw")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)
    run(
        "qemu-io",
        "-f",
        "raw",
        "-c",
        "write -P 7 9M 3M",
        "-c",
        "flush",
        "-c",
        "read -P 7 9M 3M",
        uri,
    )
    with source.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"\7" * (3 * MIB))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)


def test_nbdcopy_goes_there_and_back_over_several_connections(node: Node, tmp_path: Path) -> None:
    require("nbdcopy")
    source, back = image(tmp_path / "source.raw", 64 * MIB, SEED + 1), tmp_path / "back.raw"
    uri = node.make("copy", "64M")

    run("nbdcopy", "--connections=4", "--flush", str(source), uri)
    run("nbdcopy", "--connections=4", uri, str(back))
    assert digest(back) == digest(source)


def test_qemu_io_finds_its_patterns(node: Node) -> None:
    require("qemu-io")
    uri = node.make("patterns", "64M")
    steps = [
        "write -P 1 0 1M", "write -P 2 4095 4098", "write -f -P 3 123 77", "discard 64k 64k",
        "write -z 128k 4k", "write -z -u 192k 64k", "aio_write -P 4 2M 1M", "aio_write -P 5 3M 32M", "aio_flush", "flush",
        "read -P 3 123 77", "read -P 2 4095 4098", "read -P 0 64k 64k", "read -P 0 128k 4k", "read -P 0 192k 64k",
        "read -P 1 132k 60k", "read -P 4 2M 1M", "read -P 5 3M 32M", "read -P 0 35M 29M",
    ]  # fmt: skip
    said = run("qemu-io", "-f", "raw", *[word for step in steps for word in ("-c", step)], uri)

    assert "failed" not in said
    assert "error" not in said.lower()


@pytest.mark.parametrize("depth", [1, 16])
def test_fio_verifies_what_it_wrote(node: Node, tmp_path: Path, depth: int) -> None:
    require("fio")
    uri = node.make(f"fio-{depth}", "64M")
    run(
        "fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bsrange=512-128k",
        f"--iodepth={depth}", "--size=64m", "--io_size=96m", "--verify=crc32c", "--verify_backlog=512", "--fsync=64",
        f"--randseed={SEED}", "--blockalign=512", "--verify_fatal=1", cwd_of(tmp_path),
    )  # fmt: skip


def cwd_of(folder: Path) -> str:
    """Have fio leave its state files in a folder."""
    return f"--aux-path={folder}"


# One namespace ------------------------------------------------------------------------------------


def test_a_disk_is_an_object_of_the_same_bytes(node: Node) -> None:
    uri = node.make("object", "8M")
    data = random.Random(SEED).randbytes(MIB)
    with NbdDisk(uri) as connection:
        connection.write(3 * MIB - 7, data)
        connection.flush()
        got = node.s3.get_object(Bucket="v", Key="object")["Body"].read()
        assert len(got) == 8 * MIB
        assert got[3 * MIB - 7 :][:MIB] == data
        assert not any(got[: 3 * MIB - 7])
        connection.write(0, b"more")
    again = node.s3.get_object(Bucket="v", Key="object")["Body"].read()
    assert again[:4] == b"more"
    assert hashlib.sha256(again[4:]).digest() == hashlib.sha256(got[4:]).digest()


def test_an_uploaded_image_is_a_disk(node: Node) -> None:
    data = random.Random(SEED + 2).randbytes(6 * MIB)
    node.s3.put_object(Bucket="v", Key="images/up.raw", Body=data)
    disk(node.data, "create", "v/images/up.raw")

    with NbdDisk(node.uri("v/images/up.raw")) as connection:
        assert connection.size == 6 * MIB
        assert hashlib.sha256(connection.read(0, 6 * MIB)).digest() == hashlib.sha256(data).digest()
        connection.write(512, b"changed")
        for change in (
            lambda: node.s3.put_object(Bucket="v", Key="images/up.raw", Body=b"x" * 512),
            lambda: node.s3.delete_object(Bucket="v", Key="images/up.raw"),
        ):
            with pytest.raises(ClientError) as refused:  # it is in use
                change()
            answer = refused.value.response
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 409
            assert answer["Error"]["Code"] == "OperationAborted"
            assert "attached as a disk" in answer["Error"]["Message"]
        connection.flush()
        assert connection.read(512, 7) == b"changed"
    got = node.s3.get_object(Bucket="v", Key="images/up.raw")["Body"].read()
    assert got[512:519] == b"changed"
    node.s3.put_object(Bucket="v", Key="images/up.raw", Body=b"x" * 512)


def test_disks_are_thin_and_their_copies_cost_nothing(node: Node) -> None:
    uri = node.make("thin", "1T")
    assert disk(node.data, "show", "v/thin")["allocated"] == 0
    with NbdDisk(uri) as connection:
        connection.write(1 << 39, b"first" + bytes(range(256)) * (8 * MIB // 256))
        connection.flush()
        taken = disk(node.data, "show", "v/thin")["allocated"]
        disk(node.data, "snapshot", "v/thin", "s")
        connection.write(1 << 39, b"after")
        with NbdDisk(node.uri("v/thin@s")) as old:
            assert old.flags & 2
            assert old.read(1 << 39, 5) == b"first"
        disk(node.data, "clone", "v/thin@s", "v/copy-of-thin")
        with NbdDisk(node.uri("v/copy-of-thin")) as copy:
            assert copy.size == 1 << 40
            assert copy.read(1 << 39, 5) == b"first"
            copy.write(1 << 39, b"clone")
        assert connection.read(1 << 39, 5) == b"after"
        connection.send(4, 9, 0, (1 << 32) - 4096)
        assert connection.reply() == (9, 0)
        connection.send(4, 9, 1 << 39, 8 * MIB + 5)
        assert connection.reply() == (9, 0)
        connection.flush()
    assert taken <= 9 * MIB
    assert disk(node.data, "show", "v/thin")["allocated"] == 0
    listed = {each["disk"] for each in disk(node.data, "list")}
    assert {"v/thin", "v/copy-of-thin"} <= listed
    disk(node.data, "resize", "v/copy-of-thin", "--size", "2T")
    with NbdDisk(node.uri("v/copy-of-thin")) as copy:
        assert copy.size == 2 << 40
    disk(node.data, "delete", "v/copy-of-thin")
    disk(node.data, "delete", "v/thin")


STILL_S = 1.0


def taken(folder: Path) -> int:
    """Return the bytes of its file system that a folder takes."""
    return sum(each.lstat().st_blocks for each in folder.rglob("*")) * 512


def taken_in_the_end(folder: Path) -> int:
    """Return what a folder takes once that stands still: the journal lays out its room on its own time."""
    found, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S:
        if (now := taken(folder)) != found:
            found, since = now, time.monotonic()
        time.sleep(0.05)
    return found


def test_a_large_disk_costs_next_to_nothing_until_it_is_written(
    warp_serve: None, tmp_path: Path
) -> None:
    # A server of its own, whose journal nobody else fills.
    for node in started(tmp_path, ""):
        before = taken_in_the_end(node.data)
        uri = node.make("empty", "1T")
        with NbdDisk(uri) as connection:
            assert connection.size == 1 << 40
            assert connection.read((1 << 40) - MIB, MIB) == bytes(MIB)

        assert taken_in_the_end(node.data) - before < MIB
        assert disk(node.data, "show", "v/empty")["allocated"] == 0


def test_a_resize_is_seen_by_clients_that_stay_and_by_new_ones(node: Node) -> None:
    uri = node.make("growing", "1M")
    with NbdDisk(uri) as stays:
        stays.send(1, 5, MIB, 4, b"late")
        assert stays.reply() == (5, errno.ENOSPC)
        disk(node.data, "resize", "v/growing", "--size", "2M")
        stays.write(2 * MIB - 4, b"late")
        with NbdDisk(uri) as comes:
            assert comes.size == 2 * MIB
            assert comes.read(MIB, MIB) == bytes(MIB - 4) + b"late"


def test_space_comes_back_after_a_trim(tmp_path: Path) -> None:
    for node in started(tmp_path, "", '[services.gc]\ninterval = "1s"'):
        uri = node.make("trimmed", "256M")
        blobs = (
            node.data / "store" / "blobs"
        )  # beside it lie spare files, for the next segments of the log
        data = random.Random(SEED).randbytes(MIB)
        with NbdDisk(uri) as connection:
            connection.write(255 * MIB, data)
            connection.flush()
            before = taken(blobs)
            for at in range(192):
                connection.write(at * MIB, data)
            connection.flush()
            full = taken(blobs)
            # All but 4 KiB of each MiB: what is left of a container has to be moved.
            for at in range(192):
                connection.send(4, at, at * MIB + BLOCK, MIB - BLOCK)
                assert connection.reply() == (at, 0)
            connection.flush()
            deadline = time.monotonic() + 90
            while taken(blobs) > before + 64 * MIB and time.monotonic() < deadline:
                time.sleep(0.2)
            left = taken(blobs)
            for at in range(192):
                assert connection.read(at * MIB, 2 * BLOCK) == data[:BLOCK] + bytes(BLOCK)
            assert (
                hashlib.sha256(connection.read(255 * MIB, MIB)).digest()
                == hashlib.sha256(data).digest()
            )
        print(f"before {before >> 20} MiB, full {full >> 20} MiB, after the trim {left >> 20} MiB")
        assert full >= before + 128 * MIB
        assert left <= before + 64 * MIB  # a segment of the log more or less


def test_fio_finds_parent_snapshot_and_clone_as_each_was_written(
    node: Node, tmp_path: Path
) -> None:
    """Two areas of a disk of 100 GiB; what is written to the parent, to the clone, and before both, are told apart by seeds."""
    require("fio")
    uri = node.make("parent", "100G")
    near, far = "--offset=1g", "--offset=90g"

    def fio(to: str, area: str, seed: int, *words: str) -> list[str]:
        return [
            "fio", "--name=apart", "--ioengine=nbd", f"--uri={to}", area, "--size=12m", "--rw=randwrite", "--bsrange=4k-64k",
            "--iodepth=16", "--verify=crc32c", f"--randseed={seed}", cwd_of(tmp_path), *words,
        ]  # fmt: skip

    def write(to: str, area: str, seed: int) -> list[str]:
        return fio(to, area, seed, "--do_verify=0", "--end_fsync=1")

    def verify(to: str, area: str, seed: int) -> None:
        run(*fio(to, area, seed, "--verify_only", "--verify_fatal=1"))

    run(*write(uri, near, SEED))
    run(*write(uri, far, SEED + 1))
    disk(node.data, "snapshot", "v/parent", "s")
    disk(node.data, "clone", "v/parent@s", "v/child")
    child = node.uri("v/child")
    # Both are written at the same time, each over one area of what they share.
    with subprocess.Popen([str(locate("fio")), *write(child, far, SEED + 3)[1:]], stdout=subprocess.DEVNULL,
                          env=environment()) as beside:  # fmt: skip
        run(*write(uri, near, SEED + 2))
        assert beside.wait(120) == 0
    for turn in range(2):
        verify(uri, near, SEED + 2)
        verify(uri, far, SEED + 1)
        verify(child, near, SEED)
        verify(child, far, SEED + 3)
        if turn == 0:
            disk(node.data, "clone", "v/parent@s", "v/again")
            disk(node.data, "delete", "v/again")
            disk(node.data, "clone", "v/child", "v/grandchild")
    verify(node.uri("v/grandchild"), near, SEED)
    verify(node.uri("v/grandchild"), far, SEED + 3)
    old = node.uri("v/parent@s")
    with NbdDisk(old) as snapshot, NbdDisk(child) as other, NbdDisk(uri) as first:
        for at in range(0, 12 * MIB, MIB):
            assert snapshot.read((1 << 30) + at, MIB) == other.read((1 << 30) + at, MIB)
            assert snapshot.read((90 << 30) + at, MIB) == first.read((90 << 30) + at, MIB)


# What breaks --------------------------------------------------------------------------------------


def test_garbage_on_the_socket_costs_its_sender_the_connection(node: Node) -> None:
    uri = node.make("garbage", "1M")
    path = parse_qs(urlsplit(uri).query)["socket"][0]
    rand = random.Random(SEED)
    with NbdDisk(uri) as connection:
        for turn in range(60):
            garbage = rand.randbytes(rand.randrange(1, 3000))
            if turn % 2:
                garbage = b"\0\0\0\3IHAVEOPT" + garbage
            with socket.socket(socket.AF_UNIX) as plug:
                plug.settimeout(60)
                plug.connect(path)
                try:
                    plug.sendall(garbage)
                    plug.shutdown(socket.SHUT_WR)
                    while plug.recv(65536):
                        pass
                except ConnectionError:
                    continue
            assert connection.read(0, 512) == bytes(512)
    assert "client broke the protocol" in node.server.log()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority, and certificates of a server, a client, a stranger, and a client whose time is over."""
    require("openssl")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(
            [str(locate("openssl")), *words], cwd=folder, check=True, capture_output=True
        )

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("ca", "other"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, authority, days in (
        ("server", "ca", 2), ("client", "ca", 2), ("stranger", "other", 2), ("expired", "ca", -1),
    ):  # fmt: skip
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                "-CAcreateserial", "-days", str(days), "-out", f"{name}.pem", "-extfile", "san")  # fmt: skip
    return folder


def secured(endpoint: str, folder: Path, who: str) -> ssl.SSLSocket:
    """Return a connection on which TLS has begun, as a client of that name."""
    parts = urlsplit(endpoint)
    plug = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60)
    assert plug.recv(18, socket.MSG_WAITALL)[8:16] == b"IHAVEOPT"
    plug.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 5, 0))  # STARTTLS
    assert plug.recv(20, socket.MSG_WAITALL)[12:16] == struct.pack(">I", 1)
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if who:
        context.load_cert_chain(folder / f"{who}.pem", folder / f"{who}.key")
    return context.wrap_socket(plug, server_hostname="127.0.0.1")


def exports(plug: ssl.SSLSocket) -> bytes:
    """Ask for the list of exports, and return the first reply's kind."""
    plug.sendall(struct.pack(">8sII", b"IHAVEOPT", 3, 0))
    told = b""
    while len(told) < 20 and (more := plug.recv(20 - len(told))):
        told += more
    return told[12:16]


def test_a_wrong_or_expired_certificate_is_refused_and_named(
    tmp_path: Path, certificates: Path
) -> None:
    files = "\n".join(
        f'{option} = "{certificates / file}"'
        for option, file in (
            ("tls_certificate", "server.pem"),
            ("tls_key", "server.key"),
            ("tls_client_ca", "ca.pem"),
        )
    )
    for node in started(tmp_path, f'listen = "127.0.0.1:0"\nauth = "certificate"\n{files}'):
        endpoint = node.server.endpoints["nbd"]
        with secured(endpoint, certificates, "client") as known:
            for who in ("", "stranger", "expired"):
                told = b""
                with suppress(OSError), secured(endpoint, certificates, who) as other:
                    told = exports(other)
                assert told == b"", who
            assert exports(known) == struct.pack(">I", 1)  # the others disturbed nobody
        deadline = time.monotonic() + 30  # a client may see its end before the log is written
        while (said := node.server.log()).count("TLS failed") < 3:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        assert "certificate has expired" in said
        assert "peer did not return a certificate" in said


@pytest.mark.parametrize(
    "policy", ["", '[policy.default]\nfilters = ["zstd:1"]'], ids=["plain", "zstd"]
)
@pytest.mark.parametrize(
    "rounds", [pytest.param(2, id="two"), pytest.param(30, id="many", marks=pytest.mark.slow)]
)
def test_what_was_flushed_survives_a_kill(tmp_path: Path, rounds: int, policy: str) -> None:
    promised = PromisedBlocks(2000, SEED)
    for node in started(tmp_path, "", policy):
        uri = node.make("kept", "64M")
        for turn in range(rounds):
            writer = threading.Thread(target=promised.run, args=(uri,))
            writer.start()
            deadline = time.monotonic() + 120  # a busy machine takes long to its first flush
            while promised.flushed <= turn and writer.is_alive():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(random.Random(SEED + turn).uniform(0, 1))
            node.server.kill()
            writer.join(120)
            assert not writer.is_alive()
            node.server.start()

            assert promised.refused == []
            assert promised.judge(uri) == []
        assert promised.flushed >= rounds


@pytest.mark.parametrize(
    "kills", [pytest.param(2, id="two"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)
def test_fio_finds_what_it_wrote_after_kills(tmp_path: Path, kills: int) -> None:
    """Each round: write one half to its end and flush, be killed while the other half is written, verify the first."""
    require("fio")
    for node in started(tmp_path, 'listen = "127.0.0.1:0"\nauth = "none"'):
        disk(node.data, "create", "v/kept", "--size", "32M")
        for turn in range(kills):
            half, other = ("0", "16m") if turn % 2 else ("16m", "0")
            words = [
                "fio", "--ioengine=nbd", "--rw=randwrite", "--bsrange=4k-32k", "--iodepth=16", "--size=16m",
                "--verify=crc32c", f"--randseed={SEED + turn}", cwd_of(tmp_path),
            ]  # fmt: skip
            kept = [*words, "--name=kept", f"--offset={half}"]
            run(*kept, f"--uri={node.uri('v/kept')}", "--do_verify=0", "--end_fsync=1")
            with subprocess.Popen(
                [str(locate("fio")), *words[1:], "--name=cut", f"--offset={other}", "--time_based", "--runtime=60",
                 "--do_verify=0", "--fsync=16", f"--uri={node.uri('v/kept')}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
            ) as cut:  # fmt: skip
                time.sleep(random.Random(SEED + turn).uniform(0.3, 1.0))
                node.server.kill()
                try:
                    cut.wait(10)  # with an error: its server is gone
                except subprocess.TimeoutExpired:
                    cut.kill()
            node.server.start()
            run(*kept, f"--uri={node.uri('v/kept')}", "--verify_only", "--verify_fatal=1")
