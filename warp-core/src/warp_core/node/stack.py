"""A stack: what a node puts on top of one set of stores, from the journal up to the views. In a cluster there is one per domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp_core.containers import Containers
    from warp_core.containers.journal import Journal
    from warp_core.interfaces.consistency import MetaStore
    from warp_core.namespace.namespace import Namespace
    from warp_core.namespace.snapshots import Snapshots
    from warp_core.views import Blocks, Files, Objects


@dataclass(frozen=True, slots=True)
class Stack:
    """One, open. In a cluster the views refuse every verb from the moment on at which another node may be the home (`Unavailable`)."""

    number: int  # of its domain; 0 where there is no cluster
    journal: Journal
    containers: Containers
    metastore: MetaStore  # in a cluster: the domain's part of it, guarded
    namespace: Namespace
    objects: Objects
    files: Files
    blocks: Blocks
    snapshots: Snapshots
