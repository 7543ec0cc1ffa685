"""The random sequences of warp-core's tests, on the `local` engine, its journal and a disk; a crash goes on with a copy of the folder.

`pytest -m slow integration/tests/test_sequences.py` tries WARP_TEST_SEED (1) for WARP_TEST_SECONDS (60) of processor time.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_conformance.sequences import search
from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_disk.config import Config as DiskConfig
from warp_disk.store import Disk
from warp_local.config import Config
from warp_local.engine import Local

NAMESPACE_TESTS = Path(__file__).parents[2] / "warp-core" / "tests" / "namespace"
SEGMENT = 8 * 1024 * 1024
SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
SECONDS = float(os.environ.get("WARP_TEST_SECONDS", "60"))

pytestmark = pytest.mark.workspace


_spec = importlib.util.spec_from_file_location(
    "namespace_sequences", NAMESPACE_TESTS / "test_sequences.py"
)
assert _spec is not None
assert _spec.loader is not None
sequences = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sequences)
stage = sys.modules["files_stage"]  # imported by its name in turn


class StageOnDisk(stage.Stage):
    """`files` and what is below it, as a node has it."""

    root: Path  # of all folders

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        self.open = AsyncExitStack()

    async def __aenter__(self) -> StageOnDisk:
        await self._begin()
        await self.namespace.volumes.create(self.volume, owner="me")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.files.settle_collections()
        await self.open.aclose()
        shutil.rmtree(self.folder)

    async def _open(self) -> None:
        enter = self.open.enter_async_context
        self.blobs = await enter(Disk(DiskConfig(), self.folder))
        self.journal = await enter(Journal([self.blobs], segment_size=SEGMENT))
        slots = [StoreSlot("d", self.blobs)]
        self.containers = await enter(Containers(slots, codec=stage.codec, journal=self.journal))
        self.meta = await enter(Local(Config(), [self.blobs], self.journal))

    async def crash(self) -> None:
        """Go on with what the folder has now; what runs still ends with the old one, which nobody sees again."""
        for live in self.inodes._contents.values():
            live.dropped = True  # handles of the old world write nothing into the new one
        old, self.folder = self.folder, Path(tempfile.mkdtemp(dir=self.root))
        shutil.copytree(old, self.folder, dirs_exist_ok=True)
        before, self.open = self.open, AsyncExitStack()
        await before.aclose()
        shutil.rmtree(old)
        await self._begin()


@pytest.fixture(autouse=True)
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "Stage", StageOnDisk)
    monkeypatch.setattr(StageOnDisk, "root", tmp_path, raising=False)


@pytest.mark.parametrize(
    "name", [each for each, steps in sequences.KEPT.items() if ("crash", {}) in steps]
)
def test_a_node_and_the_model_agree_where_they_did_not(name: str) -> None:
    sequences.attempt(sequences.KEPT[name])


@pytest.mark.parametrize(
    ("length", "budget_s"), [(60, 5.0), pytest.param(150, SECONDS, marks=pytest.mark.slow)]
)
def test_a_node_and_the_model_agree(length: int, budget_s: float) -> None:
    found = search(sequences.VERBS, sequences.attempt, seed=SEED, length=length, budget_s=budget_s)

    assert found is None, str(found)
