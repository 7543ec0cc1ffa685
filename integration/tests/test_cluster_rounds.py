"""Two nodes and a witness, on hosts of their own: whatever happens to one of them, nothing that was promised is lost.

Each round something happens to one node, under load: S3 clients that compete for keys of both nodes' volumes over both nodes, whose
histories have to be linearizable, and NBD clients of a disk of each node, one over its home and one over the other. Others
write what is never written again, and all of it has to be there rounds later.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from warp_integration.histories import Histories
from warp_integration.kept import KeptObjects
from warp_integration.nbd import export
from warp_integration.trio import FAKETIME, STORING, WITNESS, Fault, Trio, faults
from warp_integration.verified import VerifiedDisk

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("WARP_TEST_ROUNDS", "200"))
BACK_S = 10.0  # within which service is back, on a machine that is not busy with other things
HANG_S = 120.0  # later it would never be, also on a machine that does ten other things
BEFORE_S = 1.0  # load before something happens
DISK = "16MiB"
BLOCKS = 64  # of a disk that are written again and again; the others once
READ_BACK = 10  # rounds until a part of what all rounds before wrote is read
SAMPLE = 1000  # objects of a bucket

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]


@pytest.fixture
def trio(request: pytest.FixtureRequest, warp_serve: None, tmp_path: Path) -> Iterator[Trio]:
    with Trio(tmp_path, lease_s=request.param) as trio:
        trio.form()
        yield trio


class Load:
    """Clients of both nodes' volumes and disks, and what they saw."""

    def __init__(self, trio: Trio, seed: int) -> None:
        self.trio = trio
        self._rng = random.Random(seed)
        self.names = trio.here
        following = (*self.names[1:], self.names[0])
        # Each disk over one node: one of a over a, one of a over b, and so on.
        self.disks = {
            (disk, over): VerifiedDisk(self._rng.getrandbits(32), blocks=BLOCKS, kept=4096 - BLOCKS)
            for disk, other in zip(self.names, following, strict=True)
            for over in (disk, other)
        }
        self.kept = [KeptObjects(f"of-{name}", self._rng.getrandbits(32)) for name in self.names]

    def prepare(self) -> None:
        """Make a bucket and two disks at each node."""
        for name in self.names:
            histories = Histories(0, bucket=f"of-{name}")
            asyncio.run(histories.prepare(self.trio.nodes[name].s3))
        for disk, over in self.disks:
            self._create(disk, over)

    def _create(self, disk: str, over: str) -> None:
        """Make a disk, as soon as its home can be reached: that of a busy machine moves."""
        name = f"of-{disk}/over-{over}"
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                self.trio.at(disk, "disk", "create", name, "--size", DISK)
                return
            except AssertionError as error:
                if "exists" in str(error):  # an attempt without an answer made it
                    return
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def prepare_more(self) -> None:
        """Likewise after a node joined: what is missing."""
        for name in self.names:
            histories = Histories(0, bucket=f"of-{name}")
            with suppress(AssertionError):  # it is there
                asyncio.run(histories.prepare(self.trio.nodes[name].s3))
        for disk, over in self.disks:
            with suppress(AssertionError):
                self.trio.at(disk, "disk", "delete", f"of-{disk}/over-{over}")
            self._create(disk, over)
        for kept in self.kept:
            kept.start_at(1_000_000)

    def uri(self, disk: str, over: str) -> str:
        return export(self.trio.nodes[over].endpoints["nbd"], f"of-{disk}/over-{over}")

    def round(self, number: int, fault: Fault, during_s: float) -> dict[str, float]:
        """Load, let something happen and end, and judge everything; return times."""
        trio, node = self.trio, fault.node
        survivor = next(each for each in self.names if each != node)
        histories = [
            Histories(self._rng.getrandbits(32), bucket=f"of-{name}", prefix=f"r{number}-")
            for name in self.names
        ]
        buckets = [f"of-{name}" for name in self.names]
        over = threading.Event()
        clients = [
            threading.Thread(target=disk.run, args=(self.uri(*key),))
            for key, disk in self.disks.items()
        ]
        clients += [threading.Thread(target=self._asking, args=(each, over)) for each in histories]
        clients += [threading.Thread(target=self._keeping, args=(each, over)) for each in self.kept]
        before = [len(each.acknowledged) for each in self.kept]
        times = {"load": os.getloadavg()[0]}
        for client in clients:
            client.start()
        try:
            time.sleep(BEFORE_S)
            began = time.monotonic()
            fault.begin()
            if fault.apart:
                # Each node may go on with its own, or, where etcd's leader is the other, that one with all.
                times["back"] = trio.until_served(self.names, buckets, HANG_S)
            else:
                times["back"] = trio.until_served([survivor], buckets, HANG_S)
            time.sleep(max(0.0, began + during_s - time.monotonic()))
            fault.end()
            times["back after"] = max(
                trio.until_served([name], buckets, HANG_S) for name in self.names
            )
        finally:
            over.set()
            for disk in self.disks.values():
                disk.stop()
            for client in clients:
                client.join()
        times["healed"] = trio.until_healthy(90)
        self._judge(number, fault, histories)
        for kept, since in zip(self.kept, before, strict=True):
            self.read_back(f"round {number}, {fault.node} {fault.name}", kept, since=since)
        return times

    def _asking(self, histories: Histories, over: threading.Event) -> None:
        async def asking() -> None:
            endpoints = [self.trio.nodes[name].s3 for name in self.names]
            while not over.is_set():
                await histories.run(lambda: endpoints, clients=3, seconds=0.5, pause_s=0.02)

        asyncio.run(asking())

    def _keeping(self, kept: KeptObjects, over: threading.Event) -> None:
        def endpoints() -> list[str]:
            return [self.trio.nodes[name].s3 for name in self.names]

        asyncio.run(kept.write(endpoints, over.is_set, pause_s=0.1))

    def read_back(
        self, where: str, kept: KeptObjects, *, since: int = 0, sample: int | None = None
    ) -> None:
        """Read objects that have to be there."""
        endpoints = [self.trio.nodes[name].s3 for name in self.names]
        missing = asyncio.run(kept.missing(endpoints, since=since, sample=sample))
        assert not missing, f"{where}: {len(missing)} acknowledged objects: {missing[:20]}"

    def read_all_back(self, where: str, *, sample: int | None = None) -> None:
        """Read what any round wrote to stay."""
        for kept in self.kept:
            self.read_back(where, kept, sample=sample)
        for (disk, over), client in self.disks.items():
            missing = client.kept.missing(self.uri(disk, over))
            assert not missing, f"{where}: disk of {disk} over {over}: {missing[:20]}"

    @property
    def acknowledged(self) -> int:
        """How many objects and blocks that stay were acknowledged so far."""
        blocks = [each.kept.acknowledged for each in self.disks.values()]
        return sum(map(len, [*blocks, *(each.acknowledged for each in self.kept)]))

    def _judge(self, number: int, fault: Fault, histories: list[Histories]) -> None:
        where = f"round {number}, {fault.node} {fault.name}"
        for each in histories:
            # What is there now has to fit as well.
            endpoints = [self.trio.nodes[name].s3 for name in self.names]
            asyncio.run(each.run(lambda e=endpoints: e, clients=2, seconds=0.3))  # type: ignore[misc]
            for key, verdict in each.verdicts().items():
                assert verdict.linearizable, f"{where}: {key}: {verdict}"
        for (disk, over), client in self.disks.items():
            client.judge(self.uri(disk, over))
            assert not client.findings, f"{where}: disk of {disk} over {over}: {client.findings}"


def rounds(trio: Trio, count: int, seed: int, *, names: tuple[str, ...] = ()) -> None:
    rng = random.Random(seed)
    load = Load(trio, seed)
    load.prepare()
    took: dict[str, list[float]] = {}
    for number in range(count):
        node = rng.choice((*STORING, *STORING, WITNESS))
        possible = faults(trio, node, rng)
        if names:
            node = STORING[number % 2]
            possible = [each for each in faults(trio, node, rng) if each.name in names[number]]
        fault = rng.choice(possible)
        during_s = trio.lease_s * rng.uniform(0.5, 3.0)
        times = load.round(number, fault, during_s)
        took.setdefault(f"{'witness ' if node == WITNESS else ''}{fault.name}", []).append(
            times["back"]
        )
        said = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
        print(
            f"round {number}: {node} {fault.name} for {during_s:.1f} s: {said},"
            f" {load.acknowledged} kept",
            flush=True,
        )
        if number % READ_BACK == READ_BACK - 1:
            load.read_all_back(f"after round {number}", sample=SAMPLE)
    load.read_all_back("at the end")
    for name, values in sorted(took.items()):
        late = sum(value > BACK_S for value in values)
        print(
            f"{name}: {len(values)} times, back after {max(values):.1f} s at most, {late} later than {BACK_S} s"
        )
    counts: Counter[str] = sum((each.counts for each in load.disks.values()), Counter())
    longest = max(each.longest_s for each in load.disks.values())
    print(f"disks: {dict(counts)}, longest wait {longest:.1f} s")
    assert counts["flush"] > 10 * count


@pytest.mark.parametrize("trio", [2.0], indirect=True)
def test_a_node_that_hears_nobody_loses_nothing(trio: Trio) -> None:
    rounds(trio, 1, SEED, names=("deaf",))


@pytest.mark.slow
@pytest.mark.parametrize("trio", [4.0], indirect=True)  # what it is by default
def test_whatever_happens_nothing_is_lost(trio: Trio) -> None:
    if not FAKETIME.exists():
        pytest.skip("missing: faketime (package faketime)")
    rounds(trio, ROUNDS, SEED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_three_storing_nodes_any_may_fail_and_one_may_join_under_load(tmp_path: Path) -> None:
    """What each node makes lies on two of the three; a third node that a fault does not concern goes on."""
    with Trio(tmp_path, lease_s=4.0, storing=("a", "b", "c"), later=("c",)) as trio:
        trio.form()
        load = Load(trio, SEED)
        load.prepare()
        joining = Fault("joined", WITNESS, lambda: trio.join("c", "b"), lambda: None)
        took = {"joined": load.round(0, joining, 1.0)}
        described = trio.describe("a")
        domains: list[dict[str, list[dict[str, str]]]] = described["domains"]  # type: ignore[assignment]
        copies = [{copy["node"] for copy in each["copies"]} for each in domains]
        assert copies == [{"a", "b"}, {"b", "a"}, {"c", "b"}]

        load = Load(trio, SEED + 1)
        load.prepare_more()
        rng = random.Random(SEED)
        for number, (node, name) in enumerate(
            (("b", "killed"), ("c", "cut off"), ("a", "stopped"), ("b", "deaf"), ("c", "killed")),
            start=1,
        ):
            fault = next(each for each in faults(trio, node, rng) if each.name == name)
            took[f"{node} {name}"] = load.round(number, fault, 6.0)
            print(f"{node} {name}: {took[f'{node} {name}']}", flush=True)
        load.read_all_back("at the end")
