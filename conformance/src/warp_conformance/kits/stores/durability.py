"""Space, and what is left after a crash."""

from __future__ import annotations

import pytest
from warp_core.errors import InvalidArgument, NoSpace
from warp_core.interfaces.stores import BlobStore

from warp_conformance.difference import same
from warp_conformance.kit import requires
from warp_conformance.kits.stores.stage import NAMES, SMALL_STORE, BlobStorePart, Reopen, names


class Durability(BlobStorePart, kit=True):
    """Space, and what is left after a crash."""

    # Space ----------------------------------------------------------------------------------------

    async def test_space_adds_up(self, subject: BlobStore) -> None:
        space = await subject.space()

        assert space.free >= 0
        assert space.reserve >= 0
        assert space.free + space.reserve <= space.total

    @requires(grow=True)
    async def test_what_does_not_fit_is_refused_and_leaves_nothing(
        self, subject: BlobStore
    ) -> None:
        await subject.put("a", [b"kept"])
        space = await subject.space()
        for recycle in (False, True):
            with pytest.raises(NoSpace):
                await subject.create("g", reserve=space.total + (1 << 20), recycle=recycle)

        assert await names(subject) == ["a"]
        assert await subject.read("a", offset=0, length=9) == b"kept"
        await subject.put("b", [b"fits"])
        assert await subject.read("b", offset=0, length=9) == b"fits"

    @requires(grow=True)
    async def test_the_reserve_is_for_vital_writes_only(self, subject: BlobStore) -> None:
        space = await subject.space()
        if space.total > SMALL_STORE:
            pytest.skip(f"a store of {space.total} bytes is not filled")
        await subject.put("a", [b"x" * 1_000])
        await subject.create("most", reserve=(await subject.space()).free)

        with pytest.raises(NoSpace):
            await subject.put("b", [b"y" * 5_000])
        with pytest.raises(NoSpace):
            await subject.create("c", reserve=5_000)
        with pytest.raises(NoSpace):
            await subject.write(
                "most", offset=(await subject.stat("most")).size, buffers=[b"z" * 5_000]
            )
        await subject.put("vital", [b"v" * 5_000], vital=True)
        await subject.create("vital-too", reserve=5_000, vital=True)
        await subject.write("most", offset=0, buffers=[b"w"], sync=True)
        assert await subject.read("a", offset=0, length=1_000) == b"x" * 1_000
        await subject.delete("most")
        await subject.put("b", [b"y" * 5_000])

    # Durability -----------------------------------------------------------------------------------

    @requires(durable=True)
    async def test_what_was_put_and_deleted_stays_so(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        for name in NAMES:
            await subject.put(name, [b"old " + name.encode()])
        await subject.put("a", [b"new"])
        await subject.delete("a/b")
        identity = subject.id
        after = await reopen()

        assert await names(after) == [name for name in NAMES if name != "a/b"]
        assert await after.read("a", offset=0, length=99) == b"new"
        assert await after.read("ba", offset=0, length=99) == b"old ba"
        assert after.id == identity

    @requires(durable=True, grow=True)
    async def test_what_was_synced_stays(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.create("h", reserve=50_000)
        await subject.create("empty", reserve=3_000)
        await subject.write("g", offset=100, buffers=[b"one"])
        await subject.write("g", offset=40_000, buffers=[b"two"])
        await subject.sync("g")
        await subject.write("h", offset=7, buffers=[b"three"], sync=True)
        await subject.write("h", offset=60_000, buffers=[b"grown"], sync=True)
        after = await reopen()

        assert await after.read("g", offset=100, length=3) == b"one"
        assert await after.read("g", offset=40_000, length=3) == b"two"
        assert await after.read("h", offset=7, length=5) == b"three"
        assert await after.read("h", offset=60_000, length=9) == b"grown"
        assert same(await after.read("empty", offset=0, length=9_999), bytes(3_000))

    @requires(durable=True, grow=True)
    async def test_what_was_sealed_stays_sealed(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.write("g", offset=0, buffers=[b"x" * 20_000], sync=True)
        await subject.seal("g", size=20_000)
        after = await reopen()

        assert same(await after.read("g", offset=0, length=99_999), b"x" * 20_000)
        with pytest.raises(InvalidArgument):
            await after.write("g", offset=0, buffers=[b"y"])

    @requires(durable=True, grow=True)
    async def test_a_growing_blob_goes_on_growing(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.write("g", offset=0, buffers=[b"x"], sync=True)
        after = await reopen()
        await after.write("g", offset=1, buffers=[b"y"], sync=True)

        assert await (await reopen()).read("g", offset=0, length=3) == b"xy\0"

    @requires(durable=True, grow=True)
    async def test_deleted_growing_blobs_stay_deleted(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        for recycle in (False, True):
            await subject.create(f"g-{recycle}".lower(), reserve=10_000, recycle=recycle)
            await subject.delete(f"g-{recycle}".lower())

        assert await (await reopen()).list() == []

    @requires(local_path=True)
    async def test_there_is_a_folder_beside_the_blobs(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        assert subject.path is not None
        (subject.path / "meta").mkdir()
        (subject.path / "meta" / "index").write_bytes(b"an engine's own")
        await subject.put("meta/index", [b"a blob"])
        after = await reopen()

        assert await names(after) == ["meta/index"]
        assert after.path is not None
        assert (after.path / "meta" / "index").read_bytes() == b"an engine's own"
