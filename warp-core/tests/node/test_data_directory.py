"""The data directory: one owner, one format, one sentence for each thing that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_core.config import Part
from warp_core.contexts import StoreContext
from warp_core.errors import AlreadyRunning, Corrupt, NewerFormat, StoreFailed
from warp_core.interfaces.stores import BlobStore
from warp_core.metrics import Metrics
from warp_core.node import superblocks
from warp_core.node.data_directory import MARKER, DataDirectory, Known, is_data
from warp_core.node.root_key import root_key
from warp_core.node.superblocks import place
from warp_core.plugins import Plugins
from warp_core.registry import NoConfig


def test_a_node_keeps_its_identity(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "d") as first:
        node = first.node
        assert first.fresh
    with DataDirectory(tmp_path / "d") as again:
        assert again.node == node
        assert not again.fresh
    assert is_data(tmp_path / "d")
    assert oct((tmp_path / "d").stat().st_mode)[-3:] == "700"


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from warp_core.node.data_directory import DataDirectory\n"
        "try:\n    DataDirectory(Path(sys.argv[1])).__enter__()\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    with DataDirectory(tmp_path):
        told = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)

    assert told.startswith("AlreadyRunning")
    assert f"in use by process {os.getpid()}: stop that server" in told
    with DataDirectory(tmp_path):
        pass


def test_newer_data_is_refused(tmp_path: Path) -> None:
    marker = {"format": 99, "release": "2031.1", "node": "x", "shape": "unknown"}
    (tmp_path / MARKER).write_text(json.dumps(marker))

    with pytest.raises(NewerFormat, match=r"written by warp 2031\.1 in format 99.*upgrade warp"):
        DataDirectory(tmp_path).__enter__()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', '{"format": 1}', "\udcff"])
def test_a_damaged_marker_is_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(Corrupt, match=r"node\.json is damaged"):
        DataDirectory(tmp_path).__enter__()


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(StoreFailed, match=r"holds other files \(thesis\.tex\)"):
        DataDirectory(tmp_path).__enter__()
    assert not is_data(tmp_path)


def test_a_place_that_cannot_be_used_gets_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailed, match="choose another with --data"):
        DataDirectory(tmp_path / "file" / "deeper").__enter__()
    with pytest.raises(StoreFailed, match="it is a file"):
        DataDirectory(tmp_path / "file").__enter__()
    with pytest.raises(StoreFailed, match="cannot be used"):
        DataDirectory(Path("/proc/1/nowhere")).__enter__()


def test_the_root_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    access, secret = root_key(tmp_path, None)

    assert root_key(tmp_path, None) == (access, secret)
    assert oct((tmp_path / "root.key").stat().st_mode)[-3:] == "600"
    assert access.isalnum()
    assert len(access) == 20
    assert len(secret) == 40
    sourced = f"set -a; . {tmp_path}/root.key; env"
    assert f"WARP_SECRET_KEY={secret}\n" in subprocess.check_output(
        ["sh", "-c", sourced], text=True
    )


def test_a_given_root_key_is_used_and_not_written(tmp_path: Path) -> None:
    assert root_key(tmp_path, ("root", "long-secret")) == ("root", "long-secret")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "WARP_ACCESS_KEY=a\n", "hello", "\xff"])
def test_a_damaged_root_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "root.key").write_text(text, encoding="latin-1")

    with pytest.raises(Corrupt, match="delete it to get a new key"):
        root_key(tmp_path, None)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[tuple[Part, BlobStore]]]:
    entry = Plugins().registries["stores"].get("memory")
    found = []
    for index in range(2):
        store = entry.build(entry.config(), StoreContext(tmp_path, Metrics()))
        await store.__aenter__()
        found.append((Part("stores", f"memory{index}", NoConfig(), f"store[{index}]"), store))
    yield found
    for _, store in found:
        await store.__aexit__(None, None, None)


async def test_stores_are_known_by_identity_not_by_place(
    tmp_path: Path, stores: list[tuple[Part, BlobStore]]
) -> None:
    with DataDirectory(tmp_path) as directory:
        await superblocks.identify(directory, stores)
        swapped = [(stores[0][0], stores[1][1]), (stores[1][0], stores[0][1])]
        slots = await superblocks.identify(directory, swapped)

    assert [slot.store for slot in slots] == [stores[1][1], stores[0][1]]


async def test_an_emptied_store_is_taken_for_an_unmounted_disk(
    tmp_path: Path, stores: list[tuple[Part, BlobStore]]
) -> None:
    with DataDirectory(tmp_path) as directory:
        (slot,) = await superblocks.identify(directory, stores[:1])
        directory.remember({"0123": Known("memory", place(stores[0][0]))})
        await slot.store.delete(superblocks.NAME)

        with pytest.raises(StoreFailed, match=r"store\[0\] \(memory0\) is empty, but held"):
            await superblocks.identify(directory, stores[:1])
        await superblocks.identify(directory, stores[:1], replace=True)

        assert "0123" not in directory.marker.stores


async def test_anothers_store_and_the_same_store_twice_are_refused(
    tmp_path: Path, stores: list[tuple[Part, BlobStore]]
) -> None:
    with DataDirectory(tmp_path / "a") as directory:
        await superblocks.identify(directory, stores[:1])
        with pytest.raises(AlreadyRunning, match="the same store"):
            await superblocks.identify(directory, [stores[0], (stores[1][0], stores[0][1])])
    with (
        DataDirectory(tmp_path / "b") as other,
        pytest.raises(StoreFailed, match="belongs to another node"),
    ):
        await superblocks.identify(other, stores[:1])


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"junk", Corrupt), (b'{"format":9,"node":"x"}', NewerFormat)],
)
async def test_a_superblock_that_cannot_be_used_is_named(
    tmp_path: Path, stores: list[tuple[Part, BlobStore]], content: bytes, error: type[Exception]
) -> None:
    await stores[1][1].put(superblocks.NAME, [content])
    with DataDirectory(tmp_path) as directory, pytest.raises(error, match=r"store\[1\]"):
        await superblocks.identify(directory, stores)
