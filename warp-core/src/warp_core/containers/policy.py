"""What a volume wants of its data, and the stores that there are to keep it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from warp_core.errors import InvalidArgument, Unsupported
from warp_core.interfaces.stores import BlobStore

COPIES_MAX = 8  # more copies than this protect against nothing that they do not also cause


class DataPolicy(msgspec.Struct, frozen=True):
    """How payloads are cut, filtered and kept. The words are those of `[policy.NAME]` in `warp.toml`."""

    redundancy: str = "none"  # or "replica:N"
    chunker: str = "fixed:8MiB"
    filters: tuple[str, ...] = ()
    verify: Literal["always", "scrub"] = "always"
    place: str = ""  # of a `Place`; empty: the stores that no place has

    @property
    def copies(self) -> int:
        """Copies of each container.

        Raises:
            InvalidArgument: Not "none" or "replica:N" with N from 1 to COPIES_MAX.
            Unsupported: Erasure codes.
        """
        return copies_of(self.redundancy)


def copies_of(redundancy: str) -> int:
    """Return how many copies a redundancy keeps; raises as `DataPolicy.copies`."""
    if redundancy == "none":
        return 1
    kind, _, count = redundancy.partition(":")
    if kind == "replica" and count.isdecimal() and 1 <= int(count) <= COPIES_MAX:
        return int(count)
    if kind == "rs":
        raise Unsupported(
            f'redundancy "{redundancy}": no erasure codec is installed; use "none" or "replica:N"'
        )
    raise InvalidArgument(
        f'redundancy "{redundancy}" is not "none" or "replica:N" with N from 1 to {COPIES_MAX}'
    )


@dataclass(frozen=True, slots=True)
class StoreSlot:
    """A store of this node, entered. `domain` names what may fail as a whole (a shelf, a host): copies avoid to share one."""

    name: str
    store: BlobStore
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Stores that keep what a storage class puts there, and nothing else."""

    name: str  # of the class
    slots: tuple[StoreSlot, ...]
    copies: int = 1  # of each container, on as many of these stores

    @property
    def grows(self) -> bool:
        """Whether containers can be written there; else they come when they are sealed."""
        return all(slot.store.capabilities.grow for slot in self.slots)
