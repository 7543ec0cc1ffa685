"""Members that nodes run: a cluster grows from one to three, and goes on with two of them."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from warp_conformance.ports import free_ports
from warp_core.certificates import issue, make_authority
from warp_core.errors import Ambiguous, Conflict, NotFound, Unavailable, Unsupported
from warp_core.interfaces.consistency import Commit, Write
from warp_etcd import member
from warp_etcd.config import Config
from warp_etcd.engine import Etcd

pytestmark = [
    pytest.mark.skipif(
        shutil.which("etcd") is None,
        reason="the program etcd is missing: install the package etcd-server",
    ),
    pytest.mark.timeout(90),
]


def certify(folder: Path) -> None:
    make_authority(folder / "authority")
    for node in "abc":
        issue(folder / "authority", node, folder / node / "tls", hosts=["127.0.0.1"])


async def commit(store: Etcd, key: bytes) -> None:
    for _ in range(100):
        try:
            await store.commit(Commit(writes=[Write(key, b"v")], request_id=key.ljust(16)))
            return
        except (Unavailable, Ambiguous):
            await asyncio.sleep(0.1)
    raise AssertionError("it does not come back")


async def test_a_cluster_grows_to_three_and_goes_on_with_two(tmp_path: Path) -> None:
    certify(tmp_path)
    places = dict(zip("abc", (f"127.0.0.1:{port}" for port in free_ports(3)), strict=True))
    quick = {"timeout": 2.0}
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(
            Etcd(Config(listen=places["a"], **quick), tmp_path / "a")
        )
        assert a.capabilities.shared
        await commit(a, b"one")

        others: dict[str, AsyncExitStack] = {}
        stores = {"a": a}
        for node in "bc":
            options = await a.invite(node, places[node])
            await commit(a, b"before " + node.encode())  # who is invited is not waited for
            others[node] = AsyncExitStack()
            stack.push_async_callback(others[node].aclose)
            store = Etcd(Config(**options, **quick), tmp_path / node)
            stores[node] = await others[node].enter_async_context(store)
            assert await store.view().get(b"one") is not None

        assert [each.state for each in await a.members()] == ["voting"] * 3
        assert {each.address for each in await a.members()} == set(places.values())
        with pytest.raises(Conflict, match="already"):
            await a.invite("b", places["b"])
        await others["c"].aclose()
        await commit(stores["b"], b"two of three")
        await others["b"].aclose()
        with pytest.raises((Unavailable, Ambiguous)):
            await a.commit(Commit(writes=[Write(b"k", b"v")]))
        with pytest.raises(Unavailable):
            await a.view().get(b"one")


async def test_an_invitation_that_nobody_follows_is_taken_back(tmp_path: Path) -> None:
    certify(tmp_path)
    places = [f"127.0.0.1:{port}" for port in free_ports(3)]
    async with Etcd(Config(listen=places[0]), tmp_path / "a") as a:
        await a.invite("b", places[1])

        with pytest.raises(Unavailable, match="start that node first"):
            await a.invite("c", places[2])
        again = await a.invite("b", places[1])

        assert again["members"] == {"warp": places[0], "b": places[1]}
        assert [each.state for each in await a.members()].count("learning") == 1
        with pytest.raises(NotFound):
            await a.expel("b")  # it has no name before its first start
        await commit(a, b"goes on")


async def test_a_lone_member_becomes_one_of_several(tmp_path: Path) -> None:
    certify(tmp_path)
    place = f"127.0.0.1:{free_ports(1)[0]}"
    async with Etcd(Config(), tmp_path / "a") as alone:
        await commit(alone, b"k")
        with pytest.raises(Unsupported, match="listen"):
            await alone.invite("b", place)

    async with Etcd(Config(listen=place), tmp_path / "a") as a:
        assert await a.view().get(b"k") is not None
        assert [tuple(each) for each in await a.members()] == [("warp", place, "voting")]


async def test_a_member_that_finds_no_majority_says_whom_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    log = SimpleNamespace(info=lambda *_, **__: None, warning=lambda event, **_: told.append(event))
    monkeypatch.setattr(member, "log", log)
    certify(tmp_path)
    places = [f"127.0.0.1:{port}" for port in free_ports(2)]
    first = Config(listen=places[0])
    async with Etcd(first, tmp_path / "a") as a:
        options = await a.invite("b", places[1])
        async with Etcd(Config(**options), tmp_path / "b") as b:
            while [each.state for each in await b.members()] != ["voting"] * 2:
                await asyncio.sleep(0.1)
            await commit(b, b"k")
    monkeypatch.setattr(member, "MAJORITY_WITHIN_S", 1.0)
    monkeypatch.setattr(member, "TOLD_S", 0.3)
    with pytest.raises(Unavailable, match=f"majority of its members .* warp at {places[0]}"):
        async with Etcd(Config(**options), tmp_path / "b"):
            pass
    assert "does not answer yet" in " ".join(told)
    # The one that was there first has no list of the others.
    assert "majority of its members: start the other" in member.Member(first, tmp_path)._missed()

    monkeypatch.undo()
    async with asyncio.TaskGroup() as group:  # the one that is there first waits for the other

        async def opened(config: Config, name: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            async with Etcd(config, tmp_path / name) as store:
                assert await store.view().get(b"k") is not None
                await both.wait()

        both = asyncio.Barrier(2)
        group.create_task(opened(Config(**options), "b", 0.0))
        group.create_task(opened(first, "a", 1.0))
