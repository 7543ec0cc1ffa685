"""What a verb reads and writes does not grow with the volume, counted in rows; `benchmarks/namespace.py` measures the time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from warp_core.containers import Containers, StoreSlot
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.consistency import Commit, View
from warp_core.namespace.listing import FIRST_STEP
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore

DATA = b"x" * 2000
SMALL, LARGE = 40, 8000


@dataclass(slots=True)
class Count:
    """What the engine was asked for."""

    gets: int = 0
    scans: int = 0
    rows: int = 0
    checks: int = 0
    changes: int = 0


class CountingView(View):
    def __init__(self, view: View, count: Count) -> None:
        self._view = view
        self._count = count
        self.version = view.version

    async def get(self, key):
        self._count.gets += 1
        return await self._view.get(key)

    def get_now(self, key):
        self._count.gets += 1
        return self._view.get_now(key)

    async def scan(self, start, end, *, limit=1000, reverse=False):
        found = await self._view.scan(start, end, limit=limit, reverse=reverse)
        self._count.scans += 1
        self._count.rows += len(found)
        return found

    def close(self) -> None:
        self._view.close()


class Counting(MemoryMeta):
    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def view(self) -> View:
        return CountingView(super().view(), self.count)

    async def commit(self, commit: Commit) -> int:
        self.count.checks += len(commit.checks)
        self.count.changes += len(commit.writes) + len(commit.merges) + len(commit.stamps)
        return await super().commit(commit)


async def put(objects: NamespaceObjects, key: bytes) -> None:
    await objects.put("v", key, DATA, Attributes(), Digests(etag="e"))


async def cost(objects: NamespaceObjects, meta: Counting, verb: str, round_: int = 0) -> Count:
    meta.count = Count()
    if verb == "get":
        reader = await objects.open("v", b"dir/sub/000020")
        await reader.read(0, 2000)
        reader.close()
    elif verb == "head":
        await objects.head("v", b"dir/sub/000020")
    elif verb == "put":
        await put(objects, b"dir/sub/000020+%d" % round_)
    elif verb == "overwrite":
        await put(objects, b"dir/sub/000020")
    elif verb == "delete":
        await objects.delete("v", b"dir/sub/000020+%d" % round_)
    elif verb == "list":
        page = await objects.list("v", prefix=b"dir/", after=b"dir/sub/000005", limit=20)
        assert len(page.entries) == 20
    elif verb == "list prefixes":
        page = await objects.list("v", delimiter=b"/")
        assert (len(page.entries), page.prefixes) == (0, [b"dir/"])
    done, meta.count = meta.count, Count()
    return done


VERBS = ["get", "head", "put", "overwrite", "delete", "list", "list prefixes"]


@pytest.mark.parametrize("versioning", ["off", "on"])
async def test_no_verb_reads_or_writes_more_rows_in_a_larger_volume(versioning) -> None:
    async with (
        Counting() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=lambda name: Fixed(8 << 20)) as containers,
    ):
        objects = NamespaceObjects(Namespace(meta, containers))
        await objects.create_volume("v", owner=Principal("a"))
        if versioning == "on":
            await objects.set_versioning("v", "on")
        for number in range(SMALL):
            await put(objects, b"dir/sub/%06d" % number)
        for verb in VERBS:  # the first version below a directory makes rows that keep its id
            await cost(objects, meta, verb)
        small = {verb: await cost(objects, meta, verb, 1) for verb in VERBS}
        for number in range(SMALL, LARGE):
            await put(objects, b"dir/sub/%06d" % number)
        large = {verb: await cost(objects, meta, verb, 2) for verb in VERBS}

        assert large == small
        assert small["get"].gets <= 4
        assert small["put"].changes <= 6


async def test_a_listing_beside_markers_reads_no_more_than_without() -> None:
    async with (
        Counting() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=lambda name: Fixed(8 << 20)) as containers,
    ):
        objects = NamespaceObjects(Namespace(meta, containers))
        await objects.create_volume("v", owner=Principal("a"))
        await objects.set_versioning("v", "on")
        for number in range(0, 50, 2):
            await put(objects, b"dir/sub/%06d" % number)
        without = await cost(objects, meta, "list")
        for number in range(3000):
            await objects.delete("v", b"dir/sub/%06d+" % (number % 50))
            await objects.delete("v", b"gone/%06d" % number)

        assert await cost(objects, meta, "list") == without
        meta.count = Count()
        assert (await objects.list("v", delimiter=b"/")).prefixes == [b"dir/"]
        assert meta.count.rows <= 2


async def test_a_page_that_needs_one_of_many_directories_reads_few_of_the_others() -> None:
    async with (
        Counting() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=lambda name: Fixed(8 << 20)) as containers,
    ):
        objects = NamespaceObjects(Namespace(meta, containers))
        await objects.create_volume("v", owner=Principal("a"))

        async def rows(**place) -> int:
            meta.count = Count()
            page = await objects.list("v", limit=100, **place)
            assert len(page.entries) == 100
            return meta.count.rows

        for number in range(101):
            await put(objects, b"000/%06d" % number)
        alone = await rows()
        for number in range(1, 1500):
            await put(objects, b"%03d/object" % number)

        assert await rows() <= alone + FIRST_STEP
        assert await rows(after=b"000/000050") <= 51 + 2 * (50 + FIRST_STEP)
        assert await rows(after=b"700/") <= 100 + 2 * (100 + FIRST_STEP)
