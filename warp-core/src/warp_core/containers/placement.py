"""Placement: container → group → stores in order of preference, spread over failure domains.

The map lists every store that ever belonged to the node, in versions; it changes when stores join, not when one is missing. A group's
order is rendezvous hashing: a store that joins takes its share from all others, and nothing else moves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property

import msgspec
from xxhash import xxh3_64_intdigest

GROUPS = 128  # many more than stores, so that shares are even; few enough that the table is small


class Member(msgspec.Struct, frozen=True):
    """A store of the map."""

    id: str
    name: str
    domain: str = ""


class ClusterMap(msgspec.Struct, frozen=True, dict=True):
    """Who is there. `version` grows with every change."""

    version: int = 0
    members: tuple[Member, ...] = ()
    places: tuple[str, ...] = ()  # names of places; the first has number 1, and keeps it for ever

    def joined(self, present: Sequence[Member], places: Sequence[str] = ()) -> ClusterMap:
        """Return the map with these members and places added or renamed; itself if nothing changes."""
        known = {member.id: member for member in self.members}
        known.update((member.id, member) for member in present)
        members = tuple(sorted(known.values(), key=lambda member: member.id))
        named = (*self.places, *(name for name in places if name not in self.places))
        if members == self.members and named == self.places:
            return self
        return ClusterMap(self.version + 1, members, named)

    def order(self, container: int) -> tuple[str, ...]:
        """Return all store ids in the order in which a container's copies want to lie on them."""
        group = xxh3_64_intdigest(struct.pack("<Q", container)) % GROUPS
        return self._orders[group]

    @cached_property
    def _orders(self) -> list[tuple[str, ...]]:
        return [
            _spread(sorted(self.members, key=lambda m: _weight(group, m.id)))
            for group in range(GROUPS)
        ]


def _weight(group: int, store: str) -> int:
    return xxh3_64_intdigest(f"{group}/{store}".encode())


def _spread(members: list[Member]) -> tuple[str, ...]:
    """Reorder so that each failure domain appears once before any appears twice."""
    chosen: list[str] = []
    left = members
    while left:
        used: set[str] = set()
        later: list[Member] = []
        for member in left:
            domain = member.domain or member.id
            if domain in used:
                later.append(member)
            else:
                used.add(domain)
                chosen.append(member.id)
        left = later
    return tuple(chosen)


def pack_map(cluster_map: ClusterMap) -> bytes:
    """Return the stored form, JSON so that a person can read it."""
    return msgspec.json.encode({"format": 1, "map": cluster_map})


def unpack_map(data: bytes) -> ClusterMap | None:
    """Read the stored form; None if it is damaged or of another release."""

    class _Stored(msgspec.Struct):
        format: int
        map: ClusterMap

    try:
        stored = msgspec.json.decode(data, type=_Stored)
    except msgspec.DecodeError:
        return None
    return stored.map if stored.format == 1 else None
