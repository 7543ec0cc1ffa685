"""Three storing nodes and a witness: one is lost for good and removed, and what it left with one copy gets a second one elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from warp_integration.histories import Histories
from warp_integration.kept import KeptObjects
from warp_integration.trio import WITNESS, Trio

LATE_S = 120.0  # a hang would last longer
OBJECTS = 60  # in each bucket, of all sizes

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve"), pytest.mark.slow]


def until(condition: Callable[[], bool], said: Callable[[], object]) -> None:
    deadline = time.monotonic() + LATE_S
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.5)


def copies(trio: Trio, at: str) -> dict[str, set[str]]:
    """Return by the node that made it where everything of a domain is."""
    domains: list[dict[str, object]] = trio.describe(at)["domains"]  # type: ignore[assignment]
    return {
        str(each["origin"]): {copy["node"] for copy in each["copies"] if copy["whole"]}  # type: ignore[attr-defined]
        for each in domains
    }


def remove(trio: Trio, name: str, at: str) -> dict[str, object]:
    """Remove a node as soon as the others have taken over what was at home there."""
    deadline = time.monotonic() + LATE_S
    while True:
        try:
            return trio.at(at, "node", "remove", name)
        except (AssertionError, subprocess.TimeoutExpired):
            assert time.monotonic() < deadline
            time.sleep(0.5)


async def written(objects: KeptObjects, bucket: str, endpoint: str) -> None:
    """Make a bucket and put objects into it."""
    await Histories(0, bucket=bucket).prepare(endpoint)
    await objects.write(lambda: [endpoint], lambda: len(objects.acknowledged) >= OBJECTS, pause_s=0)


@pytest.mark.timeout(1800)
def test_what_a_removed_node_leaves_with_one_copy_gets_another(tmp_path: Path) -> None:
    with Trio(tmp_path, lease_s=4.0, storing=("a", "b", "c"), later=("c",)) as trio:
        trio.form()
        trio.join("c", "b")
        trio.until_healthy(LATE_S)
        assert copies(trio, "a") == {"a": {"a", "b"}, "b": {"a", "b"}, "c": {"b", "c"}}
        buckets = {name: f"of-{name}" for name in "abc"}
        kept = [KeptObjects(bucket, seed) for seed, bucket in enumerate(buckets.values())]
        for name, objects in zip(buckets, kept, strict=True):
            asyncio.run(written(objects, buckets[name], trio.nodes[name].s3))

        trio.nodes["b"].kill()
        removed = remove(trio, "b", "a")
        assert removed["one_copy"] == [0, 1, 2]
        assert sorted(removed["new_copies"]) == ["0", "1", "2"]  # type: ignore[call-overload]
        both = {"a", "c"}
        until(
            lambda: copies(trio, "a") == {"a": both, "b": both, "c": both},
            lambda: (trio.describe("a"), trio.nodes["a"].log_tail(), trio.nodes["c"].log_tail()),
        )
        assert not trio.describe("c")["problems"]
        rooms = tomllib.loads((tmp_path / "c.toml").read_text())["export"]
        assert {"domain-0", "domain-1"} <= {each["name"] for each in rooms}

        # They are true copies, and a restart finds them.
        assert trio.nodes["c"].terminate() == 0, trio.nodes["c"].log_tail()
        trio.nodes["c"].start()
        until(
            lambda: copies(trio, "c") == {"a": both, "b": both, "c": both},
            lambda: (trio.describe("c"), trio.nodes["c"].log_tail()),
        )
        trio.nodes["a"].kill()
        trio.until_served(["c"], list(buckets.values()), LATE_S)
        for objects in kept:
            missing = asyncio.run(objects.missing([trio.nodes["c"].s3]))
            assert not missing, f"{len(missing)} acknowledged objects: {missing[:20]}"
        assert trio.nodes[WITNESS].running
