"""The short way of PUT and DELETE writes what the transaction writes, and leaves to it what it does not know."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.containers import Containers, StoreSlot
from warp_core.errors import Ambiguous, NotFound, PreconditionFailed, Unavailable
from warp_core.interfaces.auth import Principal
from warp_core.metadata import Transaction
from warp_core.namespace import keys
from warp_core.namespace.direct import Direct, NotHere
from warp_core.namespace.leases import Kind
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Opens, Owner
from warp_core.namespace.paths import resolve
from warp_core.namespace.rows import VolumeRow
from warp_core.namespace.tree import ViewSource
from warp_core.views.objects import ALWAYS, Attributes, Condition, Digests
from warp_core.views.origin import Origin
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore

NOW = 1_700_000_000_000_000_000
KEYS = (b"a", b"d/a", b"d/b", b"d/e/f/a", b"d/e/g", b"x" * 450, b"d/")


class Never(Direct):
    """Leaves everything to the transaction."""

    async def put(self, *_: Any) -> Any:
        raise NotHere

    async def delete(self, *_: Any) -> Any:
        raise NotHere


class Counted(Direct):
    """Counts what it did."""

    done = 0

    async def put(self, *arguments: Any) -> Any:
        made = await super().put(*arguments)
        self.done += 1
        return made

    async def delete(self, *arguments: Any) -> None:
        await super().delete(*arguments)
        self.done += 1


@asynccontextmanager
async def made(way: type[Direct]) -> AsyncIterator[NamespaceObjects]:
    clock = itertools.count(NOW, 1_000_000)
    async with (
        MemoryMeta() as meta,
        MemoryStore() as store,
        Containers(
            [StoreSlot("m", store)],
            codec=lambda _: Fixed(10_000),
            now_ns=lambda: NOW,
            container_size=1 << 20,
        ) as containers,
    ):
        times: dict[str, int] = {"now": next(clock)}
        opens = Opens(asyncio.get_running_loop().time, recall_s=0.01)
        namespace = Namespace(meta, containers, opens=opens, clock_ns=lambda: times["now"])
        objects = NamespaceObjects(namespace)
        objects._direct = way(namespace)
        await objects.create_volume("v", owner=Principal(name="alice"))
        objects.pass_time = lambda: times.update(now=next(clock))  # type: ignore[attr-defined]
        yield objects


HOW = Origin("account:bob", "10.0.0.1", "R1")


async def rows_of(objects: NamespaceObjects) -> list[tuple[bytes, bytes, int]]:
    view = objects._namespace.store.view()
    try:
        return [tuple(row) for row in await view.scan(b"\0", b"\xff")]
    finally:
        view.close()


async def put(
    objects: NamespaceObjects, key: bytes, size: int, condition: Condition = ALWAYS
) -> None:
    digests = Digests(etag=f"e{size}", checksums={"CRC32": "AAAA"})
    await objects.put(
        "v",
        key,
        bytes(size),
        Attributes(headers={"content-type": "a/b"}, owner="alice"),
        digests,
        condition=condition,
        origin=HOW,
    )


async def snapshot(objects: NamespaceObjects) -> None:
    async def change(row: VolumeRow, _: Transaction) -> VolumeRow:
        return msgspec.structs.replace(row, epoch=row.epoch + 1, newest=row.epoch + 1)

    await objects._namespace.volumes.update("v", change)


async def carry_out(objects: NamespaceObjects, step: tuple[Any, ...]) -> str:
    """Do one step; return how it ended."""
    objects.pass_time()  # type: ignore[attr-defined]
    verb, key, *rest = step
    try:
        if verb == "put":
            await put(objects, key, *rest)
        elif verb == "delete":
            return str(await objects.delete("v", key, condition=rest[0], origin=HOW))
        elif verb == "stream":
            writer = await objects.writer("v", key, Attributes(owner="alice"))
            await writer.write(bytes(35_000))
            await writer.commit(Digests(etag="streamed"))
        elif verb == "copy":
            await objects.copy("v", key, "v", rest[0])
        elif verb == "tags":
            await objects.set_tags("v", key, {"a": "b"}, origin=HOW)
        elif verb == "versioning":
            await objects.set_versioning("v", rest[0])
        else:
            await snapshot(objects)
    except (NotFound, PreconditionFailed) as error:
        return repr(error)
    return ""


one = st.sampled_from(KEYS)
conditions = st.sampled_from(
    [ALWAYS, ALWAYS, ALWAYS, Condition(absent=True), Condition(etag="e0"), Condition(etag="*")]
)
common = st.one_of(
    st.tuples(st.just("put"), one, st.sampled_from([0, 5, 3000]), conditions),
    st.tuples(st.just("delete"), one, conditions),
)
steps = st.one_of(
    common,
    common,
    common,
    st.tuples(st.just("copy"), one, one),
    st.tuples(st.just("stream"), one),
    st.tuples(st.just("tags"), one),
    st.tuples(st.just("versioning"), one, st.sampled_from(["on", "suspended"])),
    st.tuples(st.just("snapshot"), one),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=25))
def test_both_ways_leave_the_same_rows(sequence: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        nonces = [
            mock.patch(f"warp_core.namespace.{module}.new_nonce", return_value=7)
            for module in ("versions", "object_changes")
        ]
        async with made(Direct) as short, made(Never) as long:
            with nonces[0], nonces[1]:
                for step in sequence:
                    assert await carry_out(short, step) == await carry_out(long, step)
                    assert await rows_of(short) == await rows_of(long)

    asyncio.run(run())


async def test_what_is_common_goes_the_short_way() -> None:
    async with made(Counted) as objects:
        for n in range(20):
            await put(objects, b"d/%02d" % n, 5000)
        await put(objects, b"d/00", 3)
        for n in range(10):
            await objects.delete("v", b"d/%02d" % n)

        # The first PUT makes the directory, and the first DELETE learns what the directory has.
        assert isinstance(objects._direct, Counted)
        assert objects._direct.done >= 19 + 1 + 9 - 2


@pytest.mark.parametrize("lost", [False, True])
async def test_a_commit_that_the_engine_is_not_sure_of_is_found_out(lost: bool) -> None:
    async with made(Counted) as objects:
        await put(objects, b"d/a", 5000)
        store = objects._namespace.store
        commit = store.commit
        calls = 0

        async def doubtful(asked: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                if not lost:
                    await commit(asked)
                raise Ambiguous("who knows")
            return await commit(asked)

        store.commit = doubtful  # type: ignore[method-assign]
        await put(objects, b"d/b", 5000)

        assert (await objects.head("v", b"d/b")).size == 5000
        assert calls == 1 + lost
        assert (await objects._namespace.usage("v")).objects == 2


async def test_an_engine_that_is_away_for_a_moment_is_asked_again() -> None:
    async with made(Counted) as objects:
        await put(objects, b"a", 5000)
        store = objects._namespace.store
        commit = store.commit
        calls = 0

        async def away(asked: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise Unavailable("in a moment")
            return await commit(asked)

        store.commit = away  # type: ignore[method-assign]
        await objects.delete("v", b"a")

        assert calls == 2
        with pytest.raises(NotFound):
            await objects.head("v", b"a")


@pytest.mark.parametrize("verb", ["put", "delete"])
@pytest.mark.parametrize("held", ["object", "directory"])
async def test_whoever_holds_an_object_or_its_directory_is_asked_first(
    verb: str, held: str
) -> None:
    async with made(Counted) as objects:
        for n in range(20):
            await put(objects, b"d/%02d" % n, 5000)
        for n in range(10):
            await objects.delete("v", b"d/%02d" % n)
        namespace = objects._namespace
        volume, opens = namespace.volumes.known("v"), namespace.opens
        assert volume is not None
        assert opens is not None
        assert isinstance(objects._direct, Counted)
        before = objects._direct.done
        key = b"d/15" if held == "object" else b"d/"
        view = namespace.store.view()
        path = await resolve(
            volume.rows(ViewSource(view)), keys.steps(key)[: 2 if held == "object" else 1]
        )
        view.close()
        me = Owner(opens.add_client("reader", tell=lambda _: None), b"me")
        assert opens.lease(volume.number, path.names[-1].inode, me, Kind.READ)

        await carry_out(
            objects, (verb, b"d/15", 7, ALWAYS) if verb == "put" else (verb, b"d/15", ALWAYS)
        )

        assert objects._direct.done == before
        assert not opens.leased(volume.number, path.names[-1].inode, me)


async def test_parallel_changes_of_one_key_all_succeed() -> None:
    async with made(Counted) as objects:
        async with asyncio.TaskGroup() as group:
            for n in range(30):
                group.create_task(put(objects, b"d/a", 3000 + n))
        info = await objects.head("v", b"d/a")
        usage = await objects._namespace.usage("v")

        assert (usage.objects, usage.bytes) == (1, info.size)


async def test_deletes_in_a_directory_that_nobody_looked_into_go_the_short_way_up_to_the_last() -> (
    None
):
    async with made(Counted) as objects:
        for n in range(3):
            await put(objects, b"d/%d" % n, 3000)
        counted = objects._direct
        assert isinstance(counted, Counted)
        before = counted.done
        for n in range(3):
            await objects.delete("v", b"d/%d" % n)

        assert counted.done == before + 2  # the last takes the directory with it
        assert not (await objects.list("v")).entries


async def test_parallel_deletes_of_a_whole_directory_leave_nothing() -> None:
    async with made(Counted) as objects:
        for n in range(40):
            await put(objects, b"d/%02d" % n, 3000)
        async with asyncio.TaskGroup() as group:
            for n in range(40):
                group.create_task(objects.delete("v", b"d/%02d" % n))
        found = objects._namespace.volumes.known("v")
        assert found is not None
        view = objects._namespace.store.view()
        left = await view.scan(found.prefix + b"D", found.prefix + b"E")
        view.close()

        assert not left
        assert (await objects._namespace.usage("v")).objects == 0
