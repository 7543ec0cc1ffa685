"""What the service sends, against another side that is a dictionary with moods."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from warp_conformance.reference.node import Stage
from warp_core import replication
from warp_core.config.types import Duration, Secret
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.metrics import Metrics
from warp_core.namespace import feed
from warp_core.namespace.objects import NamespaceObjects
from warp_core.replication import Replication, Rule
from warp_core.views.objects import Attributes, Digests
from warp_replication import Config, Destination, Replicator
from warp_replication import service as services

ALICE = Principal("account:alice")
V = "data"
ALL = Rule(id="all", bucket="copy", markers=True)


@dataclass
class Other:
    """A server that takes versions, and says what it was asked."""

    status: int = 200
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, version
    port: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Other]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
                self.asked.append((method, path, fields.get("x-warp-source-version-id", "")))
                body = b"" if self.status < 300 else b"<Error><Code>Mood</Code></Error>"
                writer.write(
                    b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body))
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@dataclass
class Rig:
    stage: Stage
    other: Other

    def __post_init__(self) -> None:
        self.objects = NamespaceObjects(self.stage.namespace)
        self.restart()

    def restart(self) -> None:
        there = f"http://127.0.0.1:{self.other.port}"
        destination = Destination(
            bucket="copy", endpoint=there, access_key="k", secret_key=Secret("s"), there="their"
        )
        config = Config(interval=Duration(0.1), destination=(destination,))
        self.service: Replicator = Replicator(config)

    async def again(self) -> None:
        """End the service, and begin a new one."""
        await self.service.__aexit__(None, None, None)
        self.restart()

    async def rules(self, *rules: Rule, since_ns: int = 2**62) -> None:
        document = replication.pack(Replication(rules, since_ns=since_ns))
        await self.objects.set_document(V, replication.DOCUMENT, document)

    async def put(self, key: str, **said: object) -> str:
        attributes = Attributes(**said)  # type: ignore[arg-type]
        made = await self.objects.put(V, key.encode(), b"x", attributes, Digests(etag="e"))
        return made.version

    async def work(self) -> dict[str, int]:
        """Work until there is nothing left to do now."""
        context = ServiceContext(self.stage.namespace, self.stage.containers, Metrics())
        total: dict[str, int] = {}
        for _ in range(100):
            report = await self.service.work(context)
            for name, count in report.counts.items():
                total[name] = total.get(name, 0) + count
            if report.idle:
                return total
        raise AssertionError("never idle")

    async def status(self, key: str) -> str:
        return (await self.objects.head(V, key.encode())).attributes.replication


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Stage() as stage, Other().serving() as other:
        made = Rig(stage, other)
        await made.objects.create_volume(V, owner=ALICE)
        await made.objects.set_versioning(V, "on")
        yield made
        await made.service.__aexit__(None, None, None)


@pytest.mark.workspace
def test_a_configuration_is_read_and_its_secret_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "warp.toml"
    file.write_text(
        """[protocols.s3]
[[services.replication.destination]]
bucket = "copy"
endpoint = "https://other:9000"
access_key = "KEY"
secret_key = "nobody-sees-this"
"""
    )
    words = [sys.executable, "-m", "warp_cli", "config", "show", "--config", str(file)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert 'services.replication.destination[0].endpoint     "https://other:9000"' in shown
    assert "nobody-sees-this" not in shown
    secret = Secret("nobody")
    made = Destination(bucket="b", endpoint="https://o", access_key="k", secret_key=secret)
    assert "nobody" not in repr(made)


async def test_what_is_written_is_sent_once_and_noted(rig: Rig) -> None:
    await rig.rules(ALL)
    await rig.work()
    first = await rig.put("k ü", replication="PENDING")
    second = await rig.put("k ü", replication="PENDING")
    gone = await rig.objects.delete(V, b"gone")

    assert await rig.work() == {"replicated": 2, "markers": 1}
    await rig.again()
    assert await rig.work() == {}
    path = "/their/k%20%C3%BC"
    assert sorted(rig.other.asked) == sorted(
        [("PUT", path, first), ("PUT", path, second), ("DELETE", "/their/gone", gone.version)]
    )
    assert rig.other.asked.index(("PUT", path, first)) < rig.other.asked.index(
        ("PUT", path, second)
    )
    assert await rig.status("k ü") == "COMPLETED"


async def test_a_replica_is_not_sent_on(rig: Rig) -> None:
    await rig.rules(ALL)
    await rig.work()
    await rig.put("k", replication="REPLICA")
    await rig.objects.set_tags(V, b"k", {"a": "b"})
    await rig.work()
    assert rig.other.asked == []


async def test_one_that_is_away_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "AWAY_S", 0.0)
    await rig.rules(ALL)
    for status in (503, 403, 409):
        rig.other.status = status
        version = await rig.put("k", replication="PENDING")
        await rig.work()
        assert await rig.status("k") == "PENDING"
        rig.other.status = 200
        assert (await rig.work())["replicated"] == 1
        assert rig.other.asked[-1] == ("PUT", "/their/k", version)
        assert await rig.status("k") == "COMPLETED"


async def test_what_is_refused_is_told_and_does_not_hold_up_the_rest(rig: Rig) -> None:
    await rig.rules(ALL)
    rig.other.status = 400
    await rig.put("bad", replication="PENDING")
    assert (await rig.work())["failed"] == 1
    assert await rig.status("bad") == "FAILED"
    rig.other.status = 200
    await rig.put("good", replication="PENDING")
    assert await rig.work() == {"replicated": 1}
    await rig.rules(ALL, Rule(id="new", bucket="copy", enabled=False))  # put again: tried again
    assert await rig.work() == {"replicated": 1}
    assert await rig.status("bad") == "COMPLETED"


async def test_a_destination_that_nobody_configured_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "AWAY_S", 0.0)
    await rig.rules(Rule(id="r", bucket="unknown"))
    await rig.put("k", replication="PENDING")
    assert await rig.work() == {}
    assert await rig.status("k") == "PENDING"


async def test_what_was_there_goes_only_if_a_rule_says_so(rig: Rig) -> None:
    await rig.put("old")
    await rig.objects.delete(V, b"old")
    await rig.rules(ALL)
    assert await rig.work() == {}
    await rig.rules(Rule(id="all", bucket="copy", markers=True, existing=True))
    assert await rig.work() == {"replicated": 1, "markers": 1}


async def test_a_feed_that_does_not_go_back_far_enough_is_made_up_for(rig: Rig) -> None:
    await rig.rules(ALL)
    await rig.put("first", replication="PENDING")
    await rig.work()
    await rig.put("k", replication="PENDING")
    await rig.objects.delete(V, b"other")
    namespace = rig.stage.namespace
    while await feed.trim(namespace, V, before_ns=2**62):
        pass
    assert await rig.work() == {"replicated": 1, "markers": 1}
    assert await rig.status("k") == "COMPLETED"


async def test_a_marker_that_was_made_before_the_first_look_is_sent(rig: Rig) -> None:
    await rig.objects.delete(V, b"before")
    await rig.rules(ALL, since_ns=time.time_ns())
    marker = await rig.objects.delete(V, b"after")
    assert (await rig.work())["markers"] >= 1
    assert ("DELETE", "/their/after", marker.version) in rig.other.asked


async def test_new_rules_forget_no_marker_that_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "AWAY_S", 0.0)
    await rig.rules(ALL)
    await rig.work()
    rig.other.status = 503
    marker = await rig.objects.delete(V, b"k")
    await rig.work()
    rig.other.asked.clear()
    rig.other.status = 200
    await rig.rules(ALL, Rule(id="new", bucket="copy", enabled=False))
    assert await rig.work() == {"markers": 1}
    assert rig.other.asked == [("DELETE", "/their/k", marker.version)]


async def test_each_destination_gets_what_its_first_rule_says(rig: Rig) -> None:
    await rig.rules(
        Rule(id="all", bucket="copy", priority=1),
        Rule(id="cold", bucket="copy", priority=2, prefix="cold/", storage_class="GLACIER"),
        Rule(id="none", bucket="copy", priority=3, enabled=False),
    )
    await rig.put("cold/k", replication="PENDING")
    await rig.put("k", replication="PENDING")
    assert await rig.work() == {"replicated": 2}
    assert len(rig.other.asked) == 2


async def test_a_destination_that_is_silent_holds_up_nobody_else(rig: Rig) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        keys = {"access_key": "k", "secret_key": Secret("s")}
        mute = Destination(bucket="mute", endpoint=f"http://127.0.0.1:{port}", **keys)
        there = f"http://127.0.0.1:{rig.other.port}"
        rig.service = Replicator(
            Config(destination=(mute, Destination(bucket="copy", endpoint=there, **keys)))
        )
        await rig.objects.create_volume("stuck", owner=ALICE)
        await rig.objects.set_versioning("stuck", "on")
        stuck = replication.pack(Replication((Rule(id="r", bucket="mute"),)))
        await rig.objects.set_document("stuck", replication.DOCUMENT, stuck)
        await rig.rules(ALL)
        context = ServiceContext(rig.stage.namespace, rig.stage.containers, Metrics())
        for volume in ("stuck", V):
            await rig.objects.put(
                volume, b"k", b"x", Attributes(replication="PENDING"), Digests(etag="e")
            )

        async with asyncio.timeout(60):
            while await rig.status("k") != "COMPLETED":
                assert not (await rig.service.work(context)).idle
        await rig.service.__aexit__(None, None, None)
    assert rig.service._running == {}
