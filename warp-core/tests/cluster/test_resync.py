"""Making a store fit that was away."""

from __future__ import annotations

from collections import Counter

import pytest
from warp_core.cluster.resync import AT_ONCE, resync
from warp_core.config.types import Size
from warp_core.containers import format as fmt
from warp_core.containers.segments import seal
from warp_core.errors import StoreFailed
from warp_store_memory import Config, Memory


class Counted(Memory):
    """A store in memory that counts what it is asked."""

    def __init__(self):
        super().__init__(Config(capacity=Size(1 << 30)))
        self.asked = Counter()
        self.broken = ""

    async def read(self, name, *, offset, length):
        self.asked[name] += 1
        if name == self.broken:
            raise StoreFailed("EIO")
        return await super().read(name, offset=offset, length=length)


async def container(store, number, *, sealed=True, body=b"x" * 100):
    name = fmt.blob_name(number)
    await store.create(name, reserve=64 << 10)
    await store.write(name, offset=fmt.PAGE, buffers=[body])
    if sealed:
        size = fmt.PAGE + len(body)
        await seal(store, number, size=size, copies=2, created_ns=1)
    return name


@pytest.fixture
async def pair():
    async with Counted() as source, Counted() as target:
        yield source, target


async def names(store):
    return {info.name for info in await store.list("c/", limit=1000)}


async def test_what_is_not_the_sources_goes_and_what_is_sealed_alike_stays(pair):
    source, target = pair
    alike = {await container(store, number) for number in range(1, 50) for store in pair}
    for number, (ours, theirs) in enumerate(
        (({"body": b"y" * 99}, {}), ({"sealed": False}, {}), ({}, None)), start=100
    ):
        await container(target, number, **ours)
        if theirs is not None:
            await container(source, number, **theirs)

    done = await resync(source, target, last=True)

    assert done.deleted == 3
    assert await names(target) == alike


async def test_what_was_found_alike_is_not_read_again(pair):
    source, target = pair
    for number in range(1, 3 * AT_ONCE):
        for store in pair:
            await container(store, number)
    gone = await container(target, 500)
    written = await container(source, 501, sealed=False)
    await container(target, 501, sealed=False)
    same = set()

    await resync(source, target, last=False, same=same)
    assert len(same) == 3 * AT_ONCE - 1
    assert written in await names(target)  # it may be sealed alike by and by
    assert gone not in await names(target)
    for store in pair:
        store.asked.clear()
    await source.delete(fmt.blob_name(7))  # by compaction
    await resync(source, target, last=True, same=same)

    assert set(source.asked) | set(target.asked) <= {written}
    assert await names(target) == await names(source) - {written}


async def test_a_store_that_fails_meanwhile_is_told_by_its_error(pair):
    source, target = pair
    for number in range(1, 3 * AT_ONCE):
        for store in pair:
            await container(store, number)
    target.broken = fmt.blob_name(20)

    with pytest.raises(StoreFailed, match="EIO"):
        await resync(source, target, last=True)
