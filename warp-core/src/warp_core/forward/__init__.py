"""Views of other nodes: verbs of Objects, Files and Blocks go to the home of their volume as requests over a transport.

One side has a `Line` and the views over it, the other a `Forwarder` with views of its own (docs/formats/forward.md). Neither knows
anything of clusters: who is whose home is decided above.
"""

from warp_core.forward.blocks import RemoteBlocks
from warp_core.forward.commands import RemoteCommands
from warp_core.forward.files import RemoteFiles
from warp_core.forward.held import Views
from warp_core.forward.line import Line
from warp_core.forward.objects import RemoteObjects
from warp_core.forward.serving import Forwarder

__all__ = [
    "Forwarder",
    "Line",
    "RemoteBlocks",
    "RemoteCommands",
    "RemoteFiles",
    "RemoteObjects",
    "Views",
]
