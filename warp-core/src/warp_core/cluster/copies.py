"""Where copies of domains should be: which node is asked for room where too few are left."""

from __future__ import annotations

from collections import Counter

from warp_core.cluster.domains import Map

COPIES = 2  # of a domain, on as many nodes


def keepers(known: Map, number: int) -> frozenset[str]:
    """Return the nodes that keep a copy of a domain, those that left for good not among them."""
    return frozenset(kept.node for kept in known.domains[number].row.stores) - known.left


def next_keeper(known: Map, number: int) -> str:
    """Return the node that should keep another copy of a domain; "" if it has enough of them, or there is no such node.

    How many a domain has is its node's configuration's business, until a node left for good: then nobody else sees to it. Of the nodes
    that keep volumes of their own, and so have disks, it is the one with the fewest copies.
    """
    present = keepers(known, number)
    if not known.left or len(present) >= COPIES:
        return ""
    storing = {each.row.origin for each in known.domains.values()} & known.members.keys()
    copies = Counter(kept.node for each in known.domains.values() for kept in each.row.stores)
    copies.update(room.node for room in known.rooms.values())
    return min(storing - known.left - present, key=lambda node: (copies[node], node), default="")


def users(known: Map, node: str, export: str) -> frozenset[str]:
    """Return the nodes that may use a store which lies with a node: those that are, or may become, the home of what is in it."""
    found: set[str] = set()
    for number, each in known.domains.items():
        room = known.rooms.get(number)
        stores = {(kept.node, kept.export) for kept in each.row.stores}
        if (node, export) in stores or (
            room is not None and (room.node, room.export) == (node, export)
        ):
            found |= {each.row.holder, *keepers(known, number)}
    return frozenset(found) - {"", node}
