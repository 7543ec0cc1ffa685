"""The folder of a store: made once, recognised again, refused with a sentence when it is not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from warp_core.errors import AlreadyRunning, ConfigError, Corrupt, NewerFormat
from warp_disk import Config, Disk


async def opened(folder: Path, path: str = "s") -> str:
    async with Disk(Config(path=path), folder) as store:
        return store.id


async def test_a_store_keeps_its_identity_and_two_have_different_ones(tmp_path: Path) -> None:
    first = await opened(tmp_path)

    assert await opened(tmp_path) == first
    assert await opened(tmp_path, "other") != first
    assert json.loads((tmp_path / "s" / "store.json").read_text()) == {
        "format": 1,
        "id": first,
        "kind": "disk",
    }


async def test_absolute_paths_stand_alone(tmp_path: Path) -> None:
    await opened(Path("/nonexistent"), str(tmp_path / "absolute"))

    assert (tmp_path / "absolute" / "store.json").exists()


async def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")

    with pytest.raises(ConfigError, match=r"thesis\.tex.*empty folder"):
        await opened(tmp_path)
    assert os.listdir(tmp_path / "s") == ["thesis.tex"]


async def test_a_fresh_file_system_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "s" / "lost+found").mkdir(parents=True)

    store = await opened(tmp_path)

    assert json.loads((tmp_path / "s" / "store.json").read_text())["id"] == store
    assert (tmp_path / "s" / "lost+found").is_dir()


async def test_a_second_server_is_refused(tmp_path: Path) -> None:
    async with Disk(Config(path="s"), tmp_path):
        with pytest.raises(AlreadyRunning, match="another server uses the store"):
            await opened(tmp_path)
    await opened(tmp_path)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    await opened(tmp_path)
    (tmp_path / "s" / "store.json").write_text('{"format": 2, "id": "x", "kind": "disk"}')

    with pytest.raises(NewerFormat, match=r"format 2.*up to 1"):
        await opened(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1}', '{"format": "1", "id": "x"}', '{"format": 1, "id": ""}'],
)
async def test_a_damaged_superblock_is_reported(tmp_path: Path, text: str) -> None:
    await opened(tmp_path)
    (tmp_path / "s" / "store.json").write_text(text)

    with pytest.raises(Corrupt, match="damaged"):
        await opened(tmp_path)


async def test_a_place_that_cannot_hold_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be used"):
        await opened(tmp_path, "file/s")
    with pytest.raises(ConfigError, match="cannot be used"):
        await opened(tmp_path, "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o500)

    with pytest.raises(ConfigError, match="let this user write"):
        await opened(tmp_path)


async def test_a_cut_off_first_start_is_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "s" / "blobs").mkdir(parents=True)
    (tmp_path / "s" / "lock").write_text("")

    store = await opened(tmp_path)

    assert await opened(tmp_path) == store


async def test_what_was_on_its_way_is_dropped_at_the_next_start(tmp_path: Path) -> None:
    await opened(tmp_path)
    (tmp_path / "s" / "incoming" / "7").write_bytes(b"half a blob")

    await opened(tmp_path)

    assert os.listdir(tmp_path / "s" / "incoming") == []
