"""Members that die, hang, or run out of space, under load: nothing acknowledged is lost, nothing is applied twice, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from warp_core.errors import Ambiguous, NoSpace, Unavailable
from warp_core.interfaces.consistency import SCAN_MAX, VALUE_MAX, Commit, Merge, Write
from warp_core.metadata import counters
from warp_core.metrics import Metrics
from warp_etcd import engine
from warp_etcd.client import COMPACT, STATUS
from warp_etcd.config import Config
from warp_etcd.engine import Etcd
from warp_etcd.space import Space
from warp_etcd.wire import etcd_pb2 as pb

NewCluster = Callable[..., Any]


def config(servers: Any, **options: Any) -> Config:
    return Config(endpoints=tuple(server.endpoint for server in servers), **options)


class Load:
    """Clients that write rows and count them, until stopped; they clear unclear answers up as transactions do."""

    def __init__(self, nodes: list[Etcd]) -> None:
        self.nodes = nodes
        self.acked: dict[bytes, int] = {}
        self.failed: set[bytes] = set()  # neither known to be applied nor not
        self.gap_s = 0.0
        self._stop = False
        self._last_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._last_s = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._client(node, b"k%d-%d/" % (at, name)))
            for at, node in enumerate(self.nodes)
            for name in range(4)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _client(self, node: Etcd, prefix: bytes) -> None:
        number = 0
        while not self._stop:
            number += 1
            key = prefix + b"%06d" % number
            commit = Commit(
                writes=[Write(key, b"v")],
                merges=[Merge(b"n", add=(1,))],
                request_id=os.urandom(16),
            )
            try:
                version: int | None = await node.commit(commit)
            except Unavailable:
                continue
            except Ambiguous:
                version = await self._resolve(node, commit.request_id)
                if version is None:
                    self.failed.add(key)
                    continue
            if version is not None:
                self.acked[key] = version
                now = time.monotonic()
                self.gap_s = max(self.gap_s, now - self._last_s)
                self._last_s = now

    async def _resolve(self, node: Etcd, request_id: bytes) -> int | None:
        for _ in range(50):
            try:
                return await node.outcome(request_id)
            except (Unavailable, Ambiguous):
                await asyncio.sleep(0.1)
        return None

    async def check(self, store: Etcd) -> None:
        """Compare with what is there."""
        rows: dict[bytes, int] = {}
        view = store.view()
        start = b"k"
        while True:
            page = await view.scan(start, b"l")
            rows |= {row.key: row.version for row in page}
            if len(page) < SCAN_MAX:
                break
            start = page[-1].key + b"\0"
        total = await view.get(b"n")
        wrong = [key for key, version in self.acked.items() if rows.get(key) != version]
        extra = set(rows) - set(self.acked) - self.failed

        assert self.acked
        assert not wrong, f"{len(wrong)} of {len(self.acked)} acknowledged rows are lost or changed"
        assert not extra, f"{len(extra)} rows were said not to be applied"
        assert counters(total and total[0], 1) == (len(rows),)
        assert len(set(rows.values())) == len(rows)


async def leader_of(servers: Any) -> Any:
    """Return the server that leads."""
    async with Etcd(config(servers, prefix="probe/"), Path("/nonexistent")) as store:
        for _ in range(100):
            answers = await store._client.each(STATUS, pb.StatusRequest())
            for server, answer in zip(servers, answers, strict=True):
                if isinstance(answer, pb.StatusResponse) and (
                    answer.leader == answer.header.member_id
                ):
                    return server
            await asyncio.sleep(0.05)
    raise AssertionError("nobody leads")


async def test_a_member_that_is_killed_and_started_again_loses_nothing(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(1)  # with syncs
    async with Etcd(config(servers), tmp_path) as store:
        load = Load([store])
        async with load:
            for _ in range(3):
                await asyncio.sleep(0.3)
                servers[0].kill()
                await asyncio.sleep(0.1)
                servers[0].start()
            await asyncio.sleep(1.0)

        await load.check(store)
    async with Etcd(config(servers), tmp_path) as again:
        await load.check(again)


async def test_a_leader_that_is_killed_loses_nothing_and_is_replaced_within_seconds(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(3, "--unsafe-no-fsync")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Etcd(config(servers), tmp_path)) for _ in range(2)]
        load = Load(nodes)
        async with load:
            await asyncio.sleep(0.5)
            leader = await leader_of(servers)
            leader.kill()
            await asyncio.sleep(3.0)
            leader.start()
            await asyncio.sleep(1.0)

        assert load.gap_s < 8.0
        for node in nodes:
            await load.check(node)


async def test_a_leader_that_hangs_is_replaced(new_cluster: NewCluster, tmp_path: Path) -> None:
    servers = new_cluster(3, "--unsafe-no-fsync")
    leader = await leader_of(servers)
    others = [server for server in servers if server is not leader]
    async with Etcd(config([leader, *others]), tmp_path) as store:
        load = Load([store])
        async with load:
            await asyncio.sleep(0.3)
            leader.signal(signal.SIGSTOP)
            await asyncio.sleep(4.0)
            leader.signal(signal.SIGCONT)
            await asyncio.sleep(0.5)

        assert load.gap_s < 8.0
        await load.check(store)


async def test_a_member_that_hangs_is_waited_for_until_the_deadline_and_not_longer(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(1, "--unsafe-no-fsync")
    async with Etcd(config(servers, timeout=0.5), tmp_path) as store:
        await store.commit(Commit(writes=[Write(b"k", b"v")]))
        servers[0].signal(signal.SIGSTOP)
        requests = [os.urandom(16) for _ in range(5)]
        began = time.monotonic()
        results = await asyncio.gather(
            *(
                store.commit(Commit(merges=[Merge(b"n", add=(1,))], request_id=request))
                for request in requests
            ),
            return_exceptions=True,
        )
        with pytest.raises(Unavailable):
            await store.view().get(b"k")
        took_s = time.monotonic() - began
        servers[0].signal(signal.SIGCONT)

        assert all(isinstance(result, Ambiguous | Unavailable) for result in results)
        assert took_s < 30.0
        told = [await store.outcome(request) for request in requests]
        row = await store.view().get(b"n")
        assert counters(row and row[0], 1) == (sum(version is not None for version in told),)


async def test_without_a_majority_everything_is_refused_and_nothing_hangs(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(3, "--unsafe-no-fsync")
    async with Etcd(config(servers, timeout=1.0), tmp_path) as store:
        await store.commit(Commit(writes=[Write(b"k", b"v")]))
        lease = await store.lease("home", "a", 30.0)
        for server in servers[1:]:
            server.kill()
        began = time.monotonic()
        with pytest.raises((Unavailable, Ambiguous)):
            await store.commit(Commit(writes=[Write(b"k", b"w")]))
        with pytest.raises(Unavailable):
            await store.view().get(b"k")
        with pytest.raises(Unavailable):
            await store.lease("other", "a", 1.0)
        with pytest.raises(Unavailable):
            await store.renew(lease)
        assert time.monotonic() - began < 30.0

        for server in servers[1:]:
            server.start()
        for _ in range(100):
            try:
                await store.commit(Commit(writes=[Write(b"k", b"x")]))
                break
            except (Unavailable, Ambiguous):
                await asyncio.sleep(0.1)
        row = await store.view().get(b"k")
        assert row is not None
        assert row[0] == b"x"
        await store.renew(lease)


async def test_a_cluster_that_is_not_there_is_named_in_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "START_S", 0.3)
    nobody = Config(endpoints=("http://127.0.0.1:1",), timeout=0.3)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"etcd at 127\.0\.0\.1:1 does not answer"):
        async with Etcd(nobody, tmp_path):
            pass


async def test_a_watch_goes_on_after_its_member_was_killed(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(1, "--unsafe-no-fsync")
    async with Etcd(config(servers), tmp_path) as store:
        since = await store.commit(Commit())
        changes = store.watch(b"k", since)
        seen = []
        for number in range(12):
            key = b"k%02d" % number
            await store.commit(Commit(writes=[Write(key, b"v")]))
            seen.append((await anext(changes)).key)
            if number == 4:
                servers[0].kill()
                servers[0].start()
            if number == 8:  # compacted while nobody listens: nothing was missed
                revision, _, _ = await store._reader.moment()
                await store._client.call(COMPACT, pb.CompactionRequest(revision=revision))
                servers[0].kill()
                servers[0].start()

        assert seen == [b"k%02d" % number for number in range(12)]


async def test_a_full_database_refuses_what_sets_rows(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    servers = new_cluster(1, "--unsafe-no-fsync", f"--quota-backend-bytes={16 << 20}")
    async with Etcd(config(servers), tmp_path) as store:
        await store.commit(Commit(writes=[Write(b"k", b"v")]))
        with pytest.raises(NoSpace, match="quota-backend-bytes"):
            await fill(store, 60)

        row = await store.view().get(b"k")
        assert row is not None
        assert row[0] == b"v"


async def fill(store: Etcd, commits: int, *, rows: int = 1000) -> None:
    """Write a MiB with each commit, to `rows` times 15 rows in turn."""
    for number in range(commits):
        names = [b"%d/%d" % (number % rows, at) for at in range(15)]
        await store.commit(Commit(writes=[Write(name, bytes(VALUE_MAX)) for name in names]))


async def test_near_the_quota_deletes_have_room(
    one_member: Any, prefix: str, tmp_path: Path
) -> None:
    async with Etcd(config(one_member, prefix=prefix), tmp_path) as store:
        await store.commit(Commit(writes=[Write(b"k", b"v")]))
        await Space(store._client, store._committer, 1000, own=False, metrics=Metrics()).look()
        with pytest.raises(NoSpace):
            await store.commit(Commit(writes=[Write(b"k", b"w")]))
        await store.commit(Commit(writes=[Write(b"k", None)], merges=[Merge(b"n", add=(-1,))]))
        assert await store.view().get(b"k") is None

        await Space(store._client, store._committer, 1 << 40, own=False, metrics=Metrics()).look()
        await store.commit(Commit(writes=[Write(b"k", b"w")]))


async def test_a_member_of_ours_that_is_full_of_old_versions_is_mended(
    new_cluster: NewCluster, tmp_path: Path
) -> None:
    quota = 16 << 20
    servers = new_cluster(1, "--unsafe-no-fsync", f"--quota-backend-bytes={quota}")
    async with Etcd(config(servers), tmp_path) as store:
        with pytest.raises(NoSpace):
            await fill(store, 60, rows=1)
        revision, _, _ = await store._reader.moment()
        await store._client.call(COMPACT, pb.CompactionRequest(revision=revision, physical=True))
        space = Space(store._client, store._committer, quota, own=True, metrics=Metrics())
        await space.look()

        await store.commit(Commit(writes=[Write(b"k", b"v")]))


async def test_callers_that_give_up_leave_the_rest_alone(
    one_member: Any, prefix: str, tmp_path: Path
) -> None:
    chance = random.Random(3)
    async with Etcd(config(one_member, prefix=prefix), tmp_path) as store:
        tasks = [
            asyncio.create_task(
                store.commit(
                    Commit(writes=[Write(b"k%d" % i, b"v")], merges=[Merge(b"n", add=(1,))])
                )
            )
            for i in range(60)
        ]
        for task in chance.sample(tasks, 30):
            await asyncio.sleep(0)
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        rows = await store.view().scan(b"k", b"l")
        total = await store.view().get(b"n")

        assert sum(isinstance(result, int) for result in done) <= len(rows)
        assert counters(total and total[0], 1) == (len(rows),)
