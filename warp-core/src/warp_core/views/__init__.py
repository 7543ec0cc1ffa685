"""The three views of the namespace: what protocols speak to."""

from warp_core.views.blocks import Blocks
from warp_core.views.files import Files
from warp_core.views.objects import Objects

__all__ = ["Blocks", "Files", "Objects"]
