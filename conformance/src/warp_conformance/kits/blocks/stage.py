"""What the parts of the kit for Blocks share: the subject, and ways to open and read disks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, Protocol

import pytest
from warp_core.views.blocks import Blocks, Disk

from warp_conformance.kit import Kit

KIB, MIB = 1024, 1024 * 1024
SIZE = 8 * MIB


class BlocksStage(Protocol):
    """The subject: a view with an empty volume, that can lose what was not durable."""

    blocks: Blocks
    volume: str

    async def crash(self) -> None:
        """Begin anew with what was durable; `blocks` is another one then. Open disks are gone."""


class BlocksPart(Kit):
    """What every part of the kit stands on: a Blocks view, and a disk of it."""

    time_limit_s: ClassVar[float] = 30.0

    @pytest.fixture
    async def disk(self, subject: BlocksStage) -> AsyncIterator[Disk]:
        """Yield a new disk, open."""
        await subject.blocks.create(subject.volume, b"disks/a", size=SIZE)
        disk = await self.open(subject)
        yield disk
        await disk.close()

    async def open(
        self, subject: BlocksStage, path: bytes = b"disks/a", initiator: str = "one"
    ) -> Disk:
        """Open a disk for an initiator."""
        return await subject.blocks.open(subject.volume, path, initiator=initiator)

    async def all(self, disk: Disk) -> bytes:
        """Return a disk's whole content."""
        return b"".join(
            [
                bytes(await disk.read(at, min(MIB, disk.size - at)))
                for at in range(0, disk.size, MIB)
            ]
        )
