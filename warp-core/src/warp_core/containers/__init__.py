"""Containers: append-only logs of framed, checksummed records on several stores; the data plane of a node."""

from warp_core.containers.data_plane import Containers
from warp_core.containers.format import NOBODY, Chunk, Kind, Owner
from warp_core.containers.policy import DataPolicy, StoreSlot
from warp_core.containers.reclaim import Pin, Refers
from warp_core.containers.writer import ChunkWriter

__all__ = [
    "NOBODY",
    "Chunk",
    "ChunkWriter",
    "Containers",
    "DataPolicy",
    "Kind",
    "Owner",
    "Pin",
    "Refers",
    "StoreSlot",
]
