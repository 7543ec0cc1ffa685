"""What fsck finds, and what can be made anew."""

from __future__ import annotations

import shutil

import pytest
from warp_core.containers.journal import Journal
from warp_core.errors import ConfigError
from warp_core.interfaces.consistency import Commit, Row, Write
from warp_local.config import Config
from warp_local.engine import Local
from warp_local.index import Index
from warp_local.verify import rebuild, rows_from_log, verify

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")


@pytest.fixture
def stores(tmp_path):
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(simdisk.SimDisk(name, path=tmp_path / name))
    return made


async def write(stores, count, *, base=0):
    async with Journal(stores) as journal, Local(Config(), stores, journal) as local:
        for number in range(base, base + count):
            await local.commit(
                Commit(writes=[Write(b"%04d" % number, b"v"), Write(b"hot", b"%d" % number)])
            )
        await local.commit(Commit(writes=[Write(b"0001", None)]))


def opened(stores):
    indexes = [Index(store.path / "meta", 1 << 30) for store in stores]
    for index in indexes:
        index.open()
    return indexes


async def problems(stores):
    indexes = opened(stores)
    async with Journal(stores) as journal:
        found = await verify(indexes, journal)
    for index in indexes:
        index.close()
    return found


async def test_a_healthy_index_has_no_problems(stores):
    await write(stores, 50)
    await write(stores, 50, base=50)

    assert await problems(stores) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"0007", 8, b"other"), "not what version"),
        ((b"0007", 8, None), "is missing"),
        ((b"0001", 2, b"v"), "was deleted"),
        ((b"hot", 3, b"2"), "not what version"),
        ((b"new", 1000, b"v"), "has version"),
    ],
)
async def test_a_changed_row_is_found(stores, change, message):
    await write(stores, 50)
    indexes = opened(stores)
    second = indexes[1]
    second.apply([change], (), second.state.version, second.state.position)
    for index in indexes:
        index.close()

    found = await problems(stores)

    assert any("differ" in problem for problem in found)
    assert any(message in problem for problem in found)


async def test_damage_of_one_copy_of_the_journal_is_named(stores):
    await write(stores, 50)
    blob = max(name for name in stores[1].blobs if name.startswith("c/"))
    for image in (stores[1].blobs, stores[1].durable):
        image[blob][5000] ^= 1

    async with Journal(stores) as journal:
        found = [problem async for problem in journal.inspect()]
        assert len(found) == 1
        assert "damaged" in found[0]
        assert str(stores[1].path) in found[0]
        assert str(stores[0].path) not in found[0]


async def test_an_index_is_made_anew_from_rows(stores):
    await write(stores, 50)
    async with Journal(stores) as journal:
        rows = await rows_from_log(journal)
    with pytest.raises(ConfigError, match="move it away"):
        rebuild(Config(), stores, rows.values())
    for store in stores:
        shutil.rmtree(store.path / "meta")

    version = rebuild(Config(), stores, rows.values())

    assert version == 50
    async with Journal(stores) as journal, Local(Config(), stores, journal) as local:
        found = await local.view().scan(b"0", b"1")
        assert [row.key for row in found] == [b"%04d" % n for n in range(50) if n != 1]
        assert all(isinstance(row, Row) for row in found)
        assert await local.commit(Commit(writes=[Write(b"more", b"v")])) > version
