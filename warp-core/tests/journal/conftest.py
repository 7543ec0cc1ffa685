"""The simulated disk, for the tests beside this file."""

from __future__ import annotations

import types

import pytest

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")


@pytest.fixture
def sim() -> types.ModuleType:
    """The module with the disk, the power cut and the arithmetic of sectors."""
    return simdisk
