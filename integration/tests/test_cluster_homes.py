"""Two nodes and etcd: a node that dies or is stopped loses its volumes to the other, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from warp_integration.clients import s3_client
from warp_integration.nbd import warp
from warp_integration.ports import free_ports
from warp_integration.powercut import Ledger
from warp_integration.s3load import S3Load, settle
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
LEASE_S = 2
REFUSED = "error 503 ServiceUnavailable"
BACK_S = (
    10.0  # within which service is back, on a machine that is not busy with other things: printed
)
HANG_S = 60.0  # later it would never be
REFUSED_S = 15.0  # well before `wait` is over

pytestmark = [
    pytest.mark.workspace,
    pytest.mark.usefixtures("warp_serve"),
    pytest.mark.skipif(
        shutil.which("etcd") is None,
        reason="the program etcd is missing: install the package etcd-server",
    ),
]


class Pair:
    """Nodes "a" and "b" that keep copies of each other's volumes, and a member of etcd."""

    def __init__(self, folder: Path) -> None:
        from warp_core.certificates import issue, make_authority

        self.folder = folder
        make_authority(folder / "authority")
        client, peer, *ports = free_ports(6)
        self.address = f"http://127.0.0.1:{client}"
        command = [
            *("etcd", "--name=one", f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={self.address}", f"--advertise-client-urls={self.address}"),
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=one=http://127.0.0.1:{peer}",
        ]
        with (folder / "etcd.log").open("wb") as output:
            self.etcd = subprocess.Popen(command, stdout=output, stderr=output)
        self.nodes = {}
        for name, other, listen, reached, s3 in (
            ("a", "b", ports[0], ports[1], ports[2]),
            ("b", "a", ports[1], ports[0], ports[3]),
        ):
            issue(folder / "authority", name, folder / name / "data" / "tls")
            (folder / f"{name}.toml").write_text(f"""
[node]
name = "{name}"
[log]
level = "info"
[metadata]
engine = "etcd"
endpoints = ["{self.address}"]
[cluster]
lease = "{LEASE_S}s"
wait = "20s"
[peers]
listen = "127.0.0.1:{listen}"
[[store]]
path = "{folder}/{name}/disk"
[[store]]
kind = "peer"
node = "{other}"
address = "127.0.0.1:{reached}"
export = "for-{name}"
[[export]]
name = "for-{other}"
path = "{folder}/{name}/for-{other}"
to = ["{other}"]
[services.gc]
interval = "1s"
[protocols.s3]
listen = "127.0.0.1:{s3}"
""")
            self.nodes[name] = WarpServer(
                folder / name / "data", config=folder / f"{name}.toml", logs=folder / name / "logs"
            )

    @property
    def a(self) -> WarpServer:
        return self.nodes["a"]

    @property
    def b(self) -> WarpServer:
        return self.nodes["b"]

    def start(self) -> None:
        for node in self.nodes.values():
            node.launch()
        for node in self.nodes.values():
            node.wait_ready()

    def close(self) -> None:
        for node in self.nodes.values():
            if node.running:
                os.kill(node.pid, signal.SIGCONT)
            node.close()
        self.etcd.kill()
        self.etcd.wait()


@pytest.fixture
def pair(warp_serve: None, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        pair = Pair(tmp_path)
        stack.callback(pair.close)
        pair.start()
        yield pair


def until(condition: Any, within_s: float, what: str) -> float:
    """Wait for a condition whose errors mean not yet; return how long that took."""
    began = time.monotonic()
    problem: object = None
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except (BotoCoreError, ClientError) as error:
            problem = error
        assert time.monotonic() - began < within_s, f"{what}: not within {within_s} s: {problem}"
        time.sleep(0.05)


def told(took_s: float) -> str:
    return f"back after {took_s:.1f} s{', late' if took_s > BACK_S else ''}"


def put(s3: Any, key: str, body: bytes) -> bool:
    s3.put_object(Bucket="one", Key=key, Body=body)
    return True


def get(s3: Any, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket="one", Key=key)["Body"].read()
    return body


def test_the_volumes_of_a_killed_node_are_served_by_the_other_and_it_is_healed(pair: Pair) -> None:
    load = S3Load(Ledger(), seed=SEED, workers=3)
    asyncio.run(load.prepare(pair.a.s3))
    s3 = s3_client(pair.a.s3)
    s3.create_bucket(Bucket="one")
    put(s3, "large", b"large" * 2_000_000)
    working = threading.Thread(target=lambda: asyncio.run(load.run(pair.a.s3, seconds=3 * HANG_S)))
    working.start()
    until(lambda: load.answers["PUT 200"] > 50, HANG_S, "load")
    time.sleep(1.0)
    pair.a.kill()
    listed: Any = warp(pair.folder / "b" / "data", "volume", "list")  # nobody is their home yet
    assert "one" in [each["name"] for each in listed]
    working.join()

    s3 = s3_client(pair.b.s3)
    took_s = until(lambda: put(s3, "after", b"after"), HANG_S, "takeover")
    print(f"{told(took_s)}, {dict(load.answers)}")
    findings = asyncio.run(settle(load, pair.b.s3))
    assert not findings, pair.b.log_tail()
    assert get(s3, "large") == b"large" * 2_000_000
    put(s3, "large alone", b"alone" * 2_000_000)

    # It comes back, is healed, and can then serve all of it alone.
    pair.a.start()
    until(lambda: "a store is whole" in pair.b.log(), HANG_S, "healing")
    pair.b.kill()
    s3 = s3_client(pair.a.s3)
    until(lambda: put(s3, "back", b"back"), HANG_S, "takeover by the healed node")
    assert not asyncio.run(settle(load, pair.a.s3)), pair.a.log_tail()
    assert get(s3, "after") == b"after"
    assert get(s3, "large alone") == b"alone" * 2_000_000


def test_a_node_that_was_stopped_past_its_lease_acknowledges_nothing_more(pair: Pair) -> None:
    old, new = s3_client(pair.a.s3), s3_client(pair.b.s3)
    old.create_bucket(Bucket="one")
    put(old, "k", b"first")
    answers: dict[str, object] = {}

    def late(key: str, body: bytes) -> None:
        try:
            put(old, key, body)
            answers[key] = "acknowledged"
        except (BotoCoreError, ClientError) as error:
            answers[key] = error

    os.kill(pair.a.pid, signal.SIGSTOP)
    # These reach its sockets while it is stopped: it reads them when it goes on.
    writers = [
        threading.Thread(target=late, args=("k", b"late")),
        threading.Thread(target=late, args=("late", b"late" * 1_000_000)),
    ]
    for writer in writers:
        writer.start()
    print(told(until(lambda: put(new, "k", b"second"), HANG_S, "takeover")))
    os.kill(pair.a.pid, signal.SIGCONT)
    for writer in writers:
        writer.join()

    # Either it was refused, or it went to the new home in order: what is read is what was acknowledged last.
    assert get(new, "k") == (b"late" if answers["k"] == "acknowledged" else b"second")
    until(lambda: get(old, "k") == get(new, "k"), HANG_S, "the old home passes on what it is asked")
    assert "home of a domain" in pair.b.log()
    until(lambda: "a store is whole" in pair.b.log(), HANG_S, "healing")


def test_without_a_quorum_it_refuses_in_time_and_goes_on_when_there_is_one(pair: Pair) -> None:
    hasty = boto3.client(
        "s3",
        endpoint_url=pair.a.s3,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    hasty.create_bucket(Bucket="one")
    put(hasty, "k", b"first")

    os.kill(pair.etcd.pid, signal.SIGSTOP)
    time.sleep(LEASE_S + 0.5)
    for verb in (lambda: put(hasty, "k", b"late"), lambda: get(hasty, "k")):
        began = time.monotonic()
        with pytest.raises(ClientError) as refused:
            verb()
        assert refused.value.response["Error"]["Code"] in {"ServiceUnavailable", "SlowDown"}
        assert time.monotonic() - began < REFUSED_S
    os.kill(pair.etcd.pid, signal.SIGCONT)

    print(told(until(lambda: get(hasty, "k") == b"first", HANG_S, "service with a quorum again")))
    assert put(hasty, "k", b"second")
    assert get(s3_client(pair.b.s3), "k") == b"second"


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [int(os.environ.get("WARP_TEST_ROUNDS", "20"))])
def test_nothing_acknowledged_is_lost_whoever_dies_or_is_stopped(pair: Pair, rounds: int) -> None:
    rng = random.Random(SEED)
    load = S3Load(Ledger(), seed=SEED, workers=3)
    asyncio.run(load.prepare(pair.a.s3))
    for number in range(rounds):
        name = rng.choice("ab")
        victim, other = pair.nodes[name], pair.nodes["b" if name == "a" else "a"]
        asked = rng.choice((victim, other))
        event = rng.choice(("kill", "stop", "terminate", "nothing"))
        print(f"round {number}: {event} {name}, load on {'it' if asked is victim else 'the other'}")
        working = threading.Thread(
            target=lambda endpoint=asked.s3: asyncio.run(load.run(endpoint, seconds=3))
        )
        working.start()
        time.sleep(rng.uniform(0.3, 2.5))
        if event == "kill":
            victim.kill()
        elif event == "terminate":
            victim.terminate()
        elif event == "stop":
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 2.5) * LEASE_S)
            os.kill(victim.pid, signal.SIGCONT)
        working.join()
        s3 = s3_client(other.s3)
        until(lambda s3=s3: s3.list_objects_v2(Bucket="load"), HANG_S, "service")
        if victim.running:
            whole(pair, 40)  # stacks are opened anew until then
        # A read that was refused while nobody was the home shows nothing wrong.
        load.findings = [each for each in load.findings if each.seen != REFUSED]
        findings = asyncio.run(settle(load, other.s3))
        assert not findings, (number, findings)
        if not victim.running:
            victim.start()
        whole(pair, 40)


def whole(pair: Pair, within_s: float) -> None:
    """Wait until every domain is open with both copies."""
    until(lambda: all(len(each) == 2 for each in asyncio.run(wholes(pair))), within_s, "healing")


async def wholes(pair: Pair) -> list[tuple[str, ...]]:
    """Return for each domain the stores that hold everything acknowledged."""
    from warp_core.cluster import domains
    from warp_etcd import Config
    from warp_etcd.engine import Etcd

    async with Etcd(Config(endpoints=(pair.address,)), pair.folder) as engine:
        found = await domains.read(engine)
        return [tuple(domain.whole) for domain in found.domains.values()]
