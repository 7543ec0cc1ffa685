"""Stores of other nodes: what they export, and how it is used here as if it were a disk.

One side has an `Exporter`, the other a `PeerStore`; between them go requests and replies as messages of a transport
(docs/formats/peers.md). A store is exported to named nodes, and used by one.
"""

from warp_core.peers.exporter import Exporter, Offer
from warp_core.peers.gate import Gate
from warp_core.peers.place import PeerPlace
from warp_core.peers.store import PeerStore

__all__ = ["Exporter", "Gate", "Offer", "PeerPlace", "PeerStore"]
