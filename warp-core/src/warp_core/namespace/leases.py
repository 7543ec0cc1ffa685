"""Leases: the right to cache an inode, lent to one client and called back before anybody changes what it caches.

One kind of lease for all protocols, as flags. NFS's read delegation is READ | HANDLE, its write delegation all three; SMB's R, RH, RW,
RWH are the flags themselves, its level II oplock is READ, its batch oplock all three; FUSE's cached attributes and pages are READ.

    READ     may answer reads from its cache: recalled before others change data or attributes
    WRITE    may keep written data and attributes to itself: recalled before others read or write them
    HANDLE   may keep the file open after the application closed it: recalled before rename, unlink and conflicting opens

A recalled holder gives back what was asked for (`acknowledge`) or loses the whole lease at the deadline (`expire`).

             grant                 recall                      acknowledge(keep)
    (none) ─────────▶ held(kinds) ─────────▶ held, some wanted ─────────────────▶ held(keep), or none
                                                    │ expire: deadline passed
                                                    └──────────▶ none, revoked
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag

from warp_core.errors import InvalidArgument
from warp_core.namespace.locks import Node, Owner

RECALL_S = 35.0  # Windows breaks oplocks for 35 s, NFSv4.1 clients have their lease time of 30 s
LEASES_MAX = 1_024  # holders on one inode: a recall calls each of them


class Kind(IntFlag):
    """What a lease allows; the module's head says what recalls each."""

    NONE = 0
    READ = 1
    WRITE = 2
    HANDLE = 4


ALL = Kind.READ | Kind.WRITE | Kind.HANDLE
FOR_READ = Kind.WRITE  # what another's read recalls
FOR_WRITE = (
    Kind.READ | Kind.WRITE
)  # what another's write, truncation or change of attributes recalls
FOR_NAMES = ALL  # what rename, unlink and replacement by an S3 PUT recall


class Lease:
    """One owner's lease on one inode. `wanted` are the kinds that were recalled and not yet given back."""

    __slots__ = ("deadline", "kinds", "node", "owner", "wanted")

    def __init__(self, node: Node, owner: Owner, kinds: Kind) -> None:
        self.node = node
        self.owner = owner
        self.kinds = kinds
        self.wanted = Kind.NONE
        self.deadline = 0.0  # monotonic seconds; meaningful while something is wanted

    def __repr__(self) -> str:
        return f"Lease({self.node}, {self.owner}, {self.kinds!r}, wanted={self.wanted!r})"


class LeaseTable:
    """Leases of all inodes, without I/O: `now` is monotonic seconds."""

    def __init__(self, *, recall_s: float = RECALL_S) -> None:
        self.recall_s = recall_s
        self.nodes: dict[tuple[int, int], dict[Owner, Lease]] = {}
        self._recalled: set[Lease] = set()
        self._changes: dict[tuple[int, int], list[tuple[Owner | None, Kind]]] = {}

    def get(self, node: Node, owner: Owner) -> Lease | None:
        """Return the owner's lease on the inode."""
        return self.nodes.get(node, {}).get(owner)

    def on(self, node: Node) -> list[Lease]:
        """Return all leases on the inode, oldest first."""
        return list(self.nodes.get(node, {}).values())

    def grant(self, node: Node, owner: Owner, kinds: Kind) -> Kind:
        """Lend as much of `kinds` as others' leases and changes under way allow; nothing is recalled for it.

        An owner's lease only grows by this. While something of it is recalled it does not grow.

        Returns:
            What the owner's lease allows now; NONE: no lease.
        """
        holders = self.nodes.get(node, {})
        mine = holders.get(owner)
        have = mine.kinds if mine else Kind.NONE
        if mine is not None and mine.wanted:
            return have
        kinds &= ~have
        for other in holders.values():
            if other is not mine:
                # A writer is alone; beside readers there are only readers.
                kinds &= ~ALL if other.kinds & Kind.WRITE else ~Kind.WRITE
        for by, changing in self._changes.get(node, ()):
            if by != owner:
                kinds &= ~changing
        if kinds & Kind.WRITE and not (kinds | have) & Kind.READ:
            kinds &= ~Kind.WRITE  # who may write back must be able to read what it wrote
        if not kinds:
            return have
        if mine is None:
            if len(holders) >= LEASES_MAX:
                return Kind.NONE
            mine = self.nodes.setdefault(node, {})[owner] = Lease(node, owner, Kind.NONE)
        mine.kinds |= kinds
        return mine.kinds

    def recall(self, node: Node, kinds: Kind, *, by: Owner | None, now: float) -> list[Lease]:
        """Ask every other owner to give back these kinds.

        Returns:
            The leases whose holders have to be told now: those of which nothing so far unasked is wanted are left out. The
            deadline of a lease is that of its first recall, so that repeating does not prolong it.
        """
        told = []
        for lease in self.nodes.get(node, {}).values():
            wanted = lease.kinds & kinds
            if lease.owner == by or not wanted & ~lease.wanted:
                continue
            if not lease.wanted:
                lease.deadline = now + self.recall_s
                self._recalled.add(lease)
            lease.wanted |= wanted
            told.append(lease)
        return told

    def conflicts(self, node: Node, kinds: Kind, *, by: Owner | None) -> bool:
        """Say whether another owner holds any of these kinds."""
        holders = self.nodes.get(node)
        if holders is None:
            return False
        return any(lease.owner != by and lease.kinds & kinds for lease in holders.values())

    def acknowledge(self, node: Node, owner: Owner, keep: Kind) -> Kind:
        """Reduce the owner's lease to `keep` (NONE gives it back); gives back more than was recalled if the owner likes.

        Returns:
            The kinds still wanted of it: not NONE when it kept what was recalled.

        Raises:
            InvalidArgument: `keep` is more than it has.
        """
        lease = self.get(node, owner)
        if lease is None:
            if keep:
                raise InvalidArgument(f"{owner} has no lease on inode {node.inode}")
            return Kind.NONE
        if keep & ~lease.kinds:
            raise InvalidArgument(
                f"{owner} has {lease.kinds!r} on inode {node.inode}, not {keep!r}"
            )
        lease.kinds = keep
        lease.wanted &= keep
        if not lease.wanted:
            self._recalled.discard(lease)
        if not keep:
            self._remove(lease)
        return lease.wanted

    def expire(self, now: float) -> list[Lease]:
        """Revoke the leases whose deadline has come and return them; their `kinds` still tell what was lost."""
        overdue = [lease for lease in self._recalled if lease.deadline <= now]
        for lease in sorted(overdue, key=lambda each: each.deadline):
            self._remove(lease)
        return overdue

    def drop(self, node: Node, owner: Owner) -> bool:
        """Remove an owner's lease, because its client is gone; say whether there was one."""
        lease = self.get(node, owner)
        if lease is None:
            return False
        self._remove(lease)
        return True

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a recalled lease."""
        return min((lease.deadline for lease in self._recalled), default=None)

    # Changes under way ----------------------------------------------------------------------------

    def begin(self, node: Node, kinds: Kind, *, by: Owner | None) -> None:
        """Grant nobody else these kinds until `end`: a change of the inode is under way."""
        self._changes.setdefault(node, []).append((by, kinds))

    def end(self, node: Node, kinds: Kind, *, by: Owner | None) -> None:
        """End what `begin` began with the same arguments."""
        changes = self._changes[node]
        changes.remove((by, kinds))
        if not changes:
            del self._changes[node]

    # ----------------------------------------------------------------------------------------------

    def all(self) -> Iterator[Lease]:
        """Yield every lease."""
        for holders in self.nodes.values():
            yield from holders.values()

    def _remove(self, lease: Lease) -> None:
        self._recalled.discard(lease)
        holders = self.nodes[lease.node]
        del holders[lease.owner]
        if not holders:
            del self.nodes[lease.node]
