"""A cluster made by commands alone: two storing nodes and a witness, S3 and NBD on both, each for the volumes of the other too."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from warp_integration.nbd import NbdDisk, export
from warp_integration.ports import free_ports
from warp_integration.requirements import locate
from warp_integration.server import WarpServer

pytestmark = [
    pytest.mark.workspace,
    pytest.mark.usefixtures("warp_serve"),
    pytest.mark.skipif(
        shutil.which("etcd") is None,
        reason="the program etcd is missing: install the package etcd-server",
    ),
]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"
MIB = 1 << 20
NO_ROOT = {"WARP_ACCESS_KEY": "", "WARP_SECRET_KEY": ""}  # the root key comes with joining
REFUSED_WITHIN_S = 60.0  # a hang would last longer
HANG_S = 60.0


def warp(*words: str, fails: bool = False) -> Any:
    """Run a command and return what it prints as JSON."""
    done = subprocess.run(
        [str(locate("warp")), *words, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **NO_ROOT},
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else json.loads(done.stdout)


def healthy(*words: str) -> Any:
    """Return what `status` says as soon as it finds nothing wrong: new copies are filled first."""
    deadline = time.monotonic() + HANG_S
    while True:
        done = subprocess.run(
            [str(locate("warp")), *words, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.5)


def commands() -> list[str]:
    """Return the commands of the guide, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.S)
    return [line for block in blocks for line in block.splitlines() if line]


class Cluster:
    """Nodes a and b, and the witness w; everything they are made of comes from `warp node`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("a", "b", "w"), self._ports(), strict=True))
        self.nodes = {
            name: WarpServer(
                folder / name,
                config=folder / f"{name}.toml",
                logs=folder / f"{name}-logs",
                environment=NO_ROOT,
            )
            for name in self.ports
        }
        self.a, self.b, self.w = self.nodes.values()

    def _ports(self) -> Iterator[tuple[int, int]]:
        found = free_ports(6)
        return zip(found[::2], found[1::2], strict=True)

    def options(self, name: str) -> list[str]:
        listen, metadata = self.ports[name]
        return [
            *("--name", name, *self.node(name)),
            *("--listen", f"127.0.0.1:{listen}", "--metadata", f"127.0.0.1:{metadata}"),
        ]

    def node(self, name: str) -> list[str]:
        return [
            *("--config", str(self.folder / f"{name}.toml")),
            *("--data", str(self.folder / name)),
        ]

    def form(self) -> None:
        """Do what the guide says, with addresses and folders of this machine."""
        token = ""
        for line in commands():
            words = shlex.split(self._here(line).replace("TOKEN", token or "TOKEN"))[1:]
            if words[0] == "serve":
                node = self.nodes[Path(words[-1]).stem]
                if node.running:
                    assert node.terminate() == 0
                node.start()
                continue
            answer = warp(*words) if words[0] != "status" else healthy(*words)
            if words[:2] == ["node", "token"]:
                token = answer["token"]
            if words[:2] == ["node", "found"]:
                # Nobody waits for a partner that cannot be there yet; those who join get the same.
                file = self.folder / "a.toml"
                text = file.read_text().replace("[cluster]", '[cluster]\nwait = "1s"')
                file.write_text(text)

    def _here(self, line: str) -> str:
        for number, name in enumerate(self.ports, start=1):
            listen, metadata = self.ports[name]
            line = line.replace(
                f"--listen 10.0.0.{number}",
                f"--listen 127.0.0.1:{listen} --metadata 127.0.0.1:{metadata}",
            )
            line = line.replace(f"{name}.toml", f"{self.folder}/{name}.toml")
            line = line.replace(f"/srv/{name}", f"{self.folder}/{name}")
        return line.replace("s3=127.0.0.1:9000", "s3=127.0.0.1:0")

    def s3(self, name: str, **config: Any) -> Any:
        lines = (self.folder / name / "root.key").read_text().splitlines()
        key = dict(line.split("=", 1) for line in lines)
        return boto3.client(
            "s3",
            endpoint_url=self.nodes[name].endpoints["s3"],
            aws_access_key_id=key["WARP_ACCESS_KEY"],
            aws_secret_access_key=key["WARP_SECRET_KEY"],
            region_name="us-east-1",
            config=Config(**config),
        )

    def nbd(self, name: str, disk: str) -> NbdDisk:
        return NbdDisk(export(self.nodes[name].endpoints["nbd"], disk))

    def close(self) -> None:
        for node in self.nodes.values():
            if node.running:
                os.kill(node.pid, signal.SIGCONT)
            node.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"))
        stack.callback(cluster.close)
        cluster.form()
        yield cluster


def test_a_cluster_made_by_commands_serves_everything_everywhere(cluster: Cluster) -> None:
    one, other = cluster.s3("a"), cluster.s3("b")
    large = os.urandom(9 * MIB)

    # S3: made at one node, used through the other, both ways.
    one.create_bucket(Bucket="photos")
    other.create_bucket(Bucket="films")
    other.put_object(Bucket="photos", Key="k", Body=b"through b", Metadata={"by": "b"})
    other.put_object(Bucket="photos", Key="large", Body=large)
    one.put_object(Bucket="films", Key="k", Body=b"through a")
    found = one.get_object(Bucket="photos", Key="k")
    assert (found["Body"].read(), found["Metadata"]) == (b"through b", {"by": "b"})
    assert one.get_object(Bucket="photos", Key="large")["Body"].read() == large
    assert other.get_object(Bucket="photos", Key="large")["Body"].read() == large
    assert other.get_object(Bucket="films", Key="k")["Body"].read() == b"through a"
    for s3 in (one, other):
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["films", "photos"]
        listed = s3.list_objects_v2(Bucket="photos")["Contents"]
        assert [each["Key"] for each in listed] == ["k", "large"]
        with pytest.raises(ClientError) as missing:
            s3.get_object(Bucket="photos", Key="nothing")
        assert missing.value.response["Error"]["Code"] == "NoSuchKey"
    other.copy_object(Bucket="films", Key="copy", CopySource={"Bucket": "photos", "Key": "large"})
    assert one.head_object(Bucket="films", Key="copy")["ContentLength"] == len(large)

    # NBD: a disk of a, through b; commands about it at b.
    warp("disk", "create", "photos/vm", "--size", "16MiB", *cluster.node("b"))
    with cluster.nbd("b", "photos/vm") as there, cluster.nbd("a", "photos/vm") as here:
        there.write(4096, large[:MIB])
        there.flush()
        assert here.read(4096, MIB) == large[:MIB]
        here.write(0, b"x" * 4096)
        assert there.read(0, 8192) == b"x" * 4096 + large[:4096]
    assert warp("volume", "show", "photos", *cluster.node("b"))["name"] == "photos"
    assert [each["name"] for each in warp("volume", "list", *cluster.node("b"))] == [
        "films",
        "photos",
    ]

    # What the cluster says of itself.
    shown = warp("node", "list", *cluster.node("w"))
    assert [(each["name"], each["here"]) for each in shown["nodes"]] == [
        ("a", True),
        ("b", True),
        ("w", True),
    ]
    assert [each["home"] for each in shown["domains"]] == ["a", "b"]
    assert [[copy["node"] for copy in each["copies"]] for each in shown["domains"]] == [
        ["a", "b"],
        ["b", "a"],
    ]
    status = warp("status", *cluster.node("a"))
    assert [each["name"] for each in status["cluster"]["nodes"]] == ["a", "b", "w"]


def test_what_is_wrong_at_the_node_port_is_refused_and_named(cluster: Cluster) -> None:
    """Garbage, strangers, a frame with a wrong checksum: each ends its own connection, and the log says whose."""
    from warp_core.certificates import issue, make_authority
    from warp_tcp.wire import HELLO, pack_head

    s3 = cluster.s3("a")
    s3.create_bucket(Bucket="undisturbed")
    s3.put_object(Bucket="undisturbed", Key="k", Body=b"before")
    place = ("127.0.0.1", cluster.ports["a"][0])
    strangers, old = cluster.folder / "strangers", cluster.folder / "old"
    make_authority(strangers)
    issue(strangers, "b", strangers / "tls")
    long_ago = datetime.now(UTC) - timedelta(days=6 * 365)
    issue(cluster.folder / "a" / "tls" / "authority", "b", old, now=long_ago)

    def said(tls: Path | None, data: bytes) -> bytes:
        """Say something at the node port, and return what is answered until the other side hangs up."""
        with socket.create_connection(place, timeout=HANG_S) as plain:
            if tls is None:
                plain.sendall(data)
                return _rest(plain)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(tls / "node.pem", tls / "node.key")
            with context.wrap_socket(plain) as secure:
                secure.sendall(data)
                return _rest(secure)

    hello = pack_head(b"", 0, sequence=0, flags=HELLO)
    broken = bytearray(pack_head(b"hello", 0, sequence=1) + b"hello")
    broken[-1] ^= 1
    said(None, os.urandom(4096))
    for tls in (strangers / "tls", old):
        with contextlib.suppress(OSError):  # TLS says so itself
            assert said(tls, hello) == b""
    assert said(cluster.folder / "b" / "tls", hello + broken) in (b"", hello)
    assert said(cluster.folder / "b" / "tls", b"GET / HTTP/1.1\r\n\r\n" + bytes(64)) in (b"", hello)

    deadline = time.monotonic() + HANG_S
    log = ""
    for reason in (
        "certificate has expired",
        "self.signed|unable to get local issuer|unknown",
        "damaged",
        "speaks something else",
    ):
        while not re.search(reason, log):
            assert time.monotonic() < deadline, f"{reason}: {log[-3000:]}"
            time.sleep(0.1)
            log = cluster.a.log()
    other = cluster.s3("b")
    assert other.get_object(Bucket="undisturbed", Key="k")["Body"].read() == b"before"
    other.put_object(Bucket="undisturbed", Key="k", Body=b"after")
    assert not warp("node", "list", *cluster.node("a"))["problems"]


def _rest(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while more := connection.recv(4096):
            found += more
    return found


def test_what_all_nodes_need_the_same_comes_with_joining(cluster: Cluster) -> None:
    names = ("wrap.key", "master.key", "tls/authority/ca.key")
    at = {node: [cluster.folder / node / name for name in names] for node in cluster.nodes}
    assert [path.read_bytes() for path in at["a"]] == [path.read_bytes() for path in at["b"]]
    assert {path.stat().st_mode & 0o777 for path in at["b"]} == {0o600}
    assert not any(path.exists() for path in at["w"])
    one, other = cluster.s3("a"), cluster.s3("b")
    one.create_bucket(Bucket="sealed")
    for number, s3 in enumerate((one, other)):
        s3.put_object(
            Bucket="sealed", Key=f"k{number}", Body=b"secret", ServerSideEncryption="aws:kms"
        )
    key = warp("key", "create", "account:alice", *cluster.node("a"))
    warp("key", "list", *cluster.node("b"))

    assert {
        s3.get_object(Bucket="sealed", Key=name)["Body"].read()
        for s3 in (one, other)
        for name in ("k0", "k1")
    } == {b"secret"}
    alice = boto3.client(
        "s3",
        endpoint_url=cluster.b.endpoints["s3"],
        aws_access_key_id=key["access_key"],
        aws_secret_access_key=key["secret_key"],
        region_name="us-east-1",
    )
    with pytest.raises(ClientError) as refused:  # who she is was proved at b, with a key of a
        alice.get_object(Bucket="sealed", Key="k0")
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    # A token of one that joined works as well: that node then asks the same questions as the founder.
    token = warp("node", "token", *cluster.node("b"))["token"]
    fresh = [
        *("--config", str(cluster.folder / "y.toml"), "--data", str(cluster.folder / "y")),
        *cluster.options("w")[6:],
    ]
    assert "has a node" in warp("node", "join", token, "--name", "a", *fresh, fails=True)


def test_tokens_are_for_once_and_names_for_one(cluster: Cluster) -> None:
    token = warp("node", "token", *cluster.node("a"))["token"]
    options = cluster.options("w")[2:]
    fresh = ["--config", str(cluster.folder / "x.toml"), "--data", str(cluster.folder / "x")]
    options = [*fresh, *options[4:]]

    assert "has a node" in warp("node", "join", token, "--name", "b", *options, fails=True)
    assert "token" in warp("node", "join", token[:-8], "--name", "x", *options, fails=True)
    assert "witness" in warp("node", "token", *cluster.node("w"), fails=True)
    assert not (cluster.folder / "x.toml").exists()


def test_without_a_majority_requests_are_refused_in_time(cluster: Cluster) -> None:
    cluster.s3("a").create_bucket(Bucket="minority")
    cluster.w.kill()
    cluster.b.kill()
    s3 = cluster.s3("a", retries={"max_attempts": 1}, read_timeout=120)

    began = time.monotonic()
    with pytest.raises(ClientError) as put:
        s3.put_object(Bucket="minority", Key="k", Body=b"no majority")
    with pytest.raises(ClientError) as got:
        s3.get_object(Bucket="minority", Key="k")

    for refused in (put, got):
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert time.monotonic() < began + REFUSED_WITHIN_S


def test_a_node_that_is_gone_for_good_is_removed(cluster: Cluster) -> None:
    for node in (cluster.a, cluster.w):
        if not node.running:
            node.start()
    if cluster.b.running:
        assert "runs" in warp("node", "remove", "b", *cluster.node("a"), fails=True)
        cluster.b.kill()
    assert "another" in warp("node", "remove", "a", *cluster.node("a"), fails=True)
    deadline = time.monotonic() + 60
    while True:  # until the other has taken over what was at home there
        done = subprocess.run(
            [str(locate("warp")), "node", "remove", "b", *cluster.node("a"), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            break
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.5)

    assert json.loads(done.stdout) == {
        "node": "b",
        "voted": True,
        "one_copy": [0, 1],
        "new_copies": {},  # the witness has no disks
    }
    shown = warp("node", "list", *cluster.node("a"))
    assert [(each["name"], each["metadata"]) for each in shown["nodes"]] == [
        ("a", "voting"),
        ("w", "voting"),
    ]
    file = cluster.folder / "a.toml"
    while 'node = "b"' in file.read_text():  # it is cleaned of what is nowhere any more
        assert time.monotonic() < deadline, cluster.a.log_tail()
        time.sleep(0.2)
    assert [each["name"] for each in tomllib.loads(file.read_text())["export"]] == ["for-b"]
    cluster.s3("a").create_bucket(Bucket="after")
