"""The kit for the Files view, in parts."""

from __future__ import annotations

from warp_conformance.kits.files.access import AccessLists
from warp_conformance.kits.files.attributes import Attributes
from warp_conformance.kits.files.content import Content
from warp_conformance.kits.files.names import Names
from warp_conformance.kits.files.sharing import Sharing
from warp_conformance.kits.files.stage import FilesStage

__all__ = ["FilesKit", "FilesStage"]


class FilesKit(Content, Names, Attributes, AccessLists, Sharing, kit=True):
    """What the Files view promises. `subject` is a FilesStage."""
