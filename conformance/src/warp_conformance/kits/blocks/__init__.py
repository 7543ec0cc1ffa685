"""The kit for the Blocks view, in parts."""

from __future__ import annotations

from warp_conformance.kits.blocks.at_once import AtOnce
from warp_conformance.kits.blocks.content import Content
from warp_conformance.kits.blocks.disks import Disks
from warp_conformance.kits.blocks.reservations import Reservations
from warp_conformance.kits.blocks.stage import BlocksStage

__all__ = ["BlocksKit", "BlocksStage"]


class BlocksKit(Content, AtOnce, Disks, Reservations, kit=True):
    """What a Blocks view promises. `subject` is a BlocksStage."""
