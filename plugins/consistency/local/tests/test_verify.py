"""What fsck finds, and what can be made anew."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import asynccontextmanager, suppress

import pytest
from warp_core.containers.journal import Journal
from warp_core.errors import Corrupt, NoSpace, StoreFailed
from warp_core.interfaces.consistency import Commit, Merge, Stamp, Write
from warp_local import image
from warp_local.config import Config
from warp_local.engine import Local
from warp_local.index import Index

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")

SEGMENT = 128 * 1024
IMAGE = 128 * 1024


@pytest.fixture
def stores(tmp_path):
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(simdisk.SimDisk(name, path=tmp_path / name))
    return made


def config(**options):
    return Config(**{"checkpoint_rows": 200, "image_after": IMAGE, **options})


@asynccontextmanager
async def opened(stores, **options):
    async with (
        Journal(stores, segment_size=SEGMENT) as journal,
        Local(config(**options), stores, journal) as local,
    ):
        yield local


async def started(stores, **options):
    journal = await Journal(stores, segment_size=SEGMENT).__aenter__()
    return await Local(config(**options), stores, journal).__aenter__()


async def killed(local, *, power=False):
    """End an engine as SIGKILL does, or a power cut."""
    journal = local._journal
    for task in [local._imager, local._checkpointer, journal._writer, *journal._maker.tasks]:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for index in local._indexes:
        index.close()
    if power:
        for copy in journal.copies:
            copy.store.cut(lambda name, offset, data: [])


async def imaged(local):
    """Wait until everything is in the index, and no image is due or being written."""
    await local.checkpoint()
    async with asyncio.timeout(30):
        while local._images.due(begins=local._begins):
            await asyncio.sleep(0.005)


async def mixed(local, count, seed):
    """Write, overwrite, delete, add to counters and stamp rows, many at a time."""
    rng = random.Random(seed)
    for start in range(0, count, 32):
        await asyncio.gather(
            *(
                local.commit(
                    Commit(
                        writes=[
                            Write(b"k%05d" % key, value)
                            for key, value in zip(
                                rng.sample(range(4000), 3),
                                (rng.randbytes(rng.randrange(300)), None, b"v" * 50),
                                strict=True,
                            )
                        ],
                        merges=[Merge(b"usage", add=(1, number))],
                        stamps=[Stamp(b"F", b"", b"event")],
                        request_id=rng.randbytes(16),
                    )
                )
                for number in range(start, min(start + 32, count))
            )
        )


async def content(local):
    view = local.view()
    found, start = [], b"\0"
    while True:
        page = await view.scan(start, b"\xff")
        found += page
        if len(page) < 1000:
            view.close()
            return found
        start = page[-1].key + b"\0"


def silent(progress):
    pass


async def examined(stores):
    async with Journal(stores, segment_size=SEGMENT) as journal:
        return await Local(config(), stores, journal).examine(silent)


async def rebuilt(stores):
    async with Journal(stores, segment_size=SEGMENT) as journal:
        return await Local(config(), stores, journal).rebuild(silent)


def deleted(folder, rng):
    shutil.rmtree(folder)


def truncated(folder, rng):
    with open(folder / "data.mdb", "r+b") as file:
        size = file.seek(0, 2)
        file.truncate(size // 3 // 4096 * 4096)


def flipped(folder, rng):
    """Flip a bit in every page, so that nothing of the tree can be trusted."""
    with open(folder / "data.mdb", "r+b") as file:
        size = file.seek(0, 2)
        for page in range(0, size, 4096):
            at = page + rng.randrange(4096)
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))


def blanked(folder, rng):
    with open(folder / "data.mdb", "r+b") as file:
        file.write(bytes(8192))


@pytest.mark.parametrize("damage", [deleted, truncated, flipped, blanked])
@pytest.mark.parametrize(("copies", "kill"), [(1, True), (2, False), (2, True)])
async def test_an_index_lost_on_every_copy_is_made_anew_exactly(stores, damage, kill, copies):
    stores = stores[:copies]
    local = await started(stores)
    await mixed(local, 1000, 1)
    await imaged(local)
    await mixed(local, 300, 2)
    expected, images = await content(local), local._images.written
    latest = local._rows.latest
    requests = dict(local._rows.requests)
    if kill:
        await killed(local)
    else:
        journal = local._journal
        await local.__aexit__(None, None, None)
        await journal.__aexit__(None, None, None)
    for store in stores:
        damage(store.path / "meta", random.Random(3))

    made = await rebuilt(stores)

    assert images > 0
    assert made["image"] > 0
    assert made["version"] == latest == 1300
    assert len(made["moved"]) == (0 if damage is deleted else copies)
    async with opened(stores) as local:
        assert await content(local) == expected
        assert dict(local._rows.requests) == requests
        await mixed(local, 100, 4)
    assert await examined(stores) == []


async def test_a_power_cut_after_every_image_leaves_what_is_needed(stores):
    expected = []
    for seed in range(4):
        local = await started(stores)
        assert await content(local) == expected
        await mixed(local, 700, seed)
        expected = await content(local)
        await killed(local, power=True)
        for store in stores:
            shutil.rmtree(store.path / "meta")
        await rebuilt(stores)


async def test_an_image_that_a_cut_tore_is_passed_over(stores):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        await imaged(local)
        expected = await content(local)
    newest = (await image.ends(stores[0]))[0]
    for store in stores:
        # The next image had got so far: parts, and no end.
        for number in range(3):
            name = image.part_name(newest.version + 7, number)
            await store.put(name, [image.pack_part(newest.version + 7, newest.lineage, number, [])])
        shutil.rmtree(store.path / "meta")

    made = await rebuilt(stores)

    assert made["image"] == newest.version
    async with opened(stores) as local:
        assert await content(local) == expected


async def test_every_step_of_an_image_may_be_the_last_one(stores):
    """A disk that fails at the n-th call while an image is written and the old one deleted."""
    stores = stores[:1]
    (store,) = stores
    expected = []
    for fail_at in range(1, 12):
        async with opened(stores, image_after=1 << 40) as local:
            await mixed(local, 60, fail_at)
            await local.checkpoint()
            expected = await content(local)
            calls = 0

            def step(what, blob, fail_at=fail_at):
                nonlocal calls
                if blob.startswith("index/"):
                    calls += 1
                    if calls >= fail_at:
                        raise StoreFailed("gone")

            store.step = step
            with suppress(StoreFailed):
                await local.image()
            store.step = lambda what, blob: None
        shutil.rmtree(store.path / "meta")
        await rebuilt(stores)
        async with opened(stores, image_after=1 << 40) as local:
            assert await content(local) == expected


async def test_a_damaged_part_is_read_from_the_other_copy(stores):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        await imaged(local)
        expected = await content(local)
    end = (await image.ends(stores[0]))[0]
    stores[0].blobs[image.part_name(end.version, 0)][200] ^= 4
    for store in stores:
        shutil.rmtree(store.path / "meta")

    found = await examined(stores)
    made = await rebuilt(stores)

    assert any("part 000000" in problem for problem in found)
    assert made["image"] == end.version
    async with opened(stores) as local:
        assert await content(local) == expected


async def test_without_a_whole_image_nothing_is_changed(stores):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        await imaged(local)
        await mixed(local, 600, 1)
        await imaged(local)
    end = (await image.ends(stores[0]))[0]
    for store in stores:
        store.blobs[image.part_name(end.version, 0)][200] ^= 4
        truncated(store.path / "meta", None)
    before = (stores[0].path / "meta" / "data.mdb").read_bytes()

    with pytest.raises(Corrupt, match="cannot be made anew"):
        await rebuilt(stores)

    assert (stores[0].path / "meta" / "data.mdb").read_bytes() == before
    assert not (stores[0].path / "meta.anew").exists()


@pytest.mark.parametrize("damage", [deleted, truncated, blanked])
async def test_a_start_without_any_index_names_what_to_run(stores, damage):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        await imaged(local)
    for store in stores:
        damage(store.path / "meta", None)

    with pytest.raises(Corrupt, match="warp fsck --rebuild"):
        async with opened(stores):
            pass


async def test_one_lost_copy_is_made_from_the_other(stores):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        expected = await content(local)
    truncated(stores[1].path / "meta", None)

    async with opened(stores) as local:
        assert await content(local) == expected
    assert await examined(stores) == []


async def test_log_and_images_stay_within_their_bounds(stores):
    async with opened(stores) as local:
        for seed in range(8):
            await mixed(local, 800, seed)
            await imaged(local)
        journal = local._journal
        size = max(end.size for end in local._images._newest.values())
        images = sum(len(data) for name, data in stores[0].blobs.items() if "index/" in name)
        log = sum(len(data) for name, data in stores[0].blobs.items() if name.startswith("c/"))

        assert local._images.written >= 3
        assert images <= 2 * size
        # Since the last image, while the next was written, and what segments are rounded to.
        assert log <= 2 * max(IMAGE, size) + 8 * SEGMENT
        assert local._images.bytes_written <= 2 * journal.bytes_written


async def test_a_full_disk_keeps_the_image_before_and_the_log(stores):
    async with opened(stores) as local:
        await mixed(local, 1500, 1)
        await imaged(local)
        end = local._images._newest["a"]

        async def full(name, buffers, *, vital=False):
            raise NoSpace("full")

        for store in stores:
            store.put = full
        await mixed(local, 600, 2)
        with pytest.raises(NoSpace):
            await local.image()
        expected = await content(local)
        for store in stores:
            del store.put
    for store in stores:
        shutil.rmtree(store.path / "meta")

    made = await rebuilt(stores)

    assert made["image"] == end.version
    async with opened(stores) as local:
        assert await content(local) == expected


async def test_a_healthy_engine_has_no_problems(stores):
    async with opened(stores) as local:
        await mixed(local, 50, 1)
    assert await examined(stores) == []
    async with opened(stores) as local:
        await mixed(local, 1500, 2)
        await imaged(local)
    assert await examined(stores) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"0007", 8, b"other"), "is not what version 8"),
        ((b"0007", 8, None), "is missing"),
        ((b"0001", 2, b"v"), "should not be there"),
        ((b"hot", 3, b"2"), "is not what version"),
        ((b"new", 1000, b"v"), "has version"),
    ],
)
async def test_a_changed_row_is_found(stores, change, message):
    async with opened(stores) as local:
        for number in range(50):
            rows = [Write(b"%04d" % number, b"v"), Write(b"hot", b"%d" % number)]
            await local.commit(Commit(writes=rows))
        await local.commit(Commit(writes=[Write(b"0001", None)]))
    index = Index(stores[1].path / "meta", 1 << 30)
    index.open()
    index.apply([change], (), index.state.version, index.state.position)
    index.close()

    found = await examined(stores)

    assert len(found) == 1
    assert message in found[0]
    assert str(stores[1].path) in found[0]


async def test_damage_of_one_copy_of_the_journal_is_named(stores):
    async with opened(stores) as local:
        await mixed(local, 50, 1)
    blob = max(name for name in stores[1].blobs if name.startswith("c/"))
    for data in (stores[1].blobs, stores[1].durable):
        data[blob][5000] ^= 1

    async with Journal(stores) as journal:
        found = [problem async for problem in journal.inspect()]

    assert len(found) == 1
    assert "damaged" in found[0]
    assert str(stores[1].path) in found[0]
    assert str(stores[0].path) not in found[0]


async def test_a_sound_index_that_knows_more_is_kept(stores):
    async with opened(stores) as local:
        await mixed(local, 100, 1)
    index = Index(stores[1].path / "meta", 1 << 30)
    index.open()
    index.apply([(b"x", 101, b"v")], (), 101, index.state.position)
    index.close()

    with pytest.raises(StoreFailed, match="version 101"):
        await rebuilt(stores)
