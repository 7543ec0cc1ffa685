"""The stage: how classes that exist only in memory (adoptions of installed plugins, mutants) get collected by pytest."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path

import pytest

STAGE = Path(__file__).with_name("test_adopted.py")

Classes = dict[str, type]

staged = pytest.StashKey[Classes]()


class Stage(pytest.Module):
    """Collects what was put into `config.stash[staged]`, in the place of a file."""

    def _getobj(self) -> types.ModuleType:
        module = types.ModuleType("warp_conformance.test_adopted", "Adopted kits.")
        classes: Classes = self.config.stash.get(staged, {})
        vars(module).update(classes)
        return module


class Staging:
    """The pytest plugin that puts classes on the stage of one run."""

    def __init__(self, classes: Mapping[str, type]) -> None:
        self._classes = dict(classes)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Stage the classes."""
        config.stash[staged] = self._classes
