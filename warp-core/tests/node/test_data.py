"""Opening a node's data: in order, as configured, and again with what was there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from warp_core.config import Settings
from warp_core.config.load import load
from warp_core.containers import NOBODY, Owner
from warp_core.containers.journal import Journal
from warp_core.errors import StoreFailed, Unavailable
from warp_core.interfaces.consistency import Commit, Write
from warp_core.node.data import data_policy, open_data
from warp_core.node.data_directory import DataDirectory
from warp_core.plugins import Plugins


def settings(tmp_path: Path, text: str) -> tuple[Settings, Plugins]:
    file = tmp_path / "warp.toml"
    file.write_text(f"[node]\ndata = 'd'\n[protocols.s3]\n{text}")
    plugins = Plugins()
    return load(file, catalog=plugins, environ={}), plugins


def stores(count: int, *, first: int = 0) -> str:
    return "".join(f"[[store]]\npath = 's{number}'\n" for number in range(first, first + count))


async def write(opened: tuple[Settings, Plugins], key: bytes) -> None:
    async with open_data(*opened) as data:
        policy = data_policy(data.settings.policies["default"])
        chunk = data.containers.append(b"payload", owner=Owner(1, 2, 3), policy=policy)
        await data.containers.sync()
        await data.metastore.commit(Commit(writes=[Write(key, b"value")]))
        assert bytes(await data.containers.read(chunk)) == b"payload"
    assert NOBODY is not None


async def keys(opened: tuple[Settings, Plugins]) -> list[bytes]:
    async with open_data(*opened) as data:
        return [row.key for row in await data.metastore.view().scan(b"k", b"l")]


async def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    await write(settings(tmp_path, ""), b"k1")
    await write(settings(tmp_path, ""), b"k2")

    assert await keys(settings(tmp_path, "")) == [b"k1", b"k2"]


async def test_metadata_stays_on_its_stores_when_the_configuration_is_reordered(
    tmp_path: Path,
) -> None:
    await write(settings(tmp_path, stores(2)), b"k1")

    swapped = stores(1, first=1) + stores(1)
    assert await keys(settings(tmp_path, swapped)) == [b"k1"]
    with pytest.raises(Unavailable, match=r"none of the stores .*\(s0\): mount their disks"):
        await keys(settings(tmp_path, stores(1, first=1)))


async def test_one_of_two_metadata_copies_is_enough_and_a_third_is_filled(tmp_path: Path) -> None:
    two = "[metadata]\ncopies = 2\n"
    await write(settings(tmp_path, two + stores(2)), b"k1")

    assert await keys(settings(tmp_path, two + stores(2, first=1))) == [b"k1"]
    await write(settings(tmp_path, two + stores(2, first=1)), b"k2")
    assert await keys(settings(tmp_path, stores(1, first=2))) == [b"k1", b"k2"]


async def fill_a_segment(opened: tuple[Settings, Plugins]) -> tuple[int, bool]:
    """Write until the journal goes on in other segments; return the first and whether it is kept for a replay."""
    async with open_data(*opened) as data:
        policy = data_policy(data.settings.policies["default"])
        first = data.containers.journal_end()
        seen = {first}
        while len(seen) < 4:  # the last ones may not be sealed yet
            await data.containers.room(500_000)
            data.containers.append(bytes(500_000), owner=Owner(1, 2, 3), policy=policy)
            await data.containers.sync()
            seen.add(data.containers.journal_end())
        return first, data.journal.needed(first)


@pytest.mark.parametrize(("engine", "kept"), [("local", True), ("memory", False)])
async def test_only_an_engine_that_commits_through_the_journal_holds_back_its_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, kept: bool
) -> None:
    monkeypatch.setattr("warp_core.node.data.Journal", partial(Journal, segment_size=4 << 20))
    opened = settings(tmp_path, f"[metadata]\nengine = '{engine}'\n")

    assert (await fill_a_segment(opened))[1] is kept


async def test_data_of_one_engine_is_refused_with_another(tmp_path: Path) -> None:
    await write(settings(tmp_path, ""), b"k1")

    with pytest.raises(StoreFailed, match='is in the engine "local": say engine = "local"'):
        await keys(settings(tmp_path, "[metadata]\nengine = 'memory'\n"))
    assert await keys(settings(tmp_path, "")) == [b"k1"]


async def test_data_is_refused_with_other_metadata_of_the_same_engine(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as directory:
        directory.keep_metadata_in("engine", "one")
    with DataDirectory(tmp_path / "d") as directory:
        directory.keep_metadata_in("engine", "one")
        with pytest.raises(StoreFailed, match=r"other metadata \(two\)"):
            directory.keep_metadata_in("engine", "two")
        with pytest.raises(StoreFailed, match="other metadata"):
            directory.keep_metadata_in("engine", "")


async def test_data_of_before_engines_had_identities_get_one(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as directory:
        directory.keep_metadata_in("engine", "")
        directory.keep_metadata_in("engine", "one")

        assert directory.marker.identity == "one"
