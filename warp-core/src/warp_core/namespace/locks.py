"""Byte-range locks with POSIX semantics, for all protocols: ranges of one owner merge and split, waiters are served fairly.

No I/O and no clock: the asyncio shell is `opens.py`. A waiter waits for two kinds of others:

    hard   owners that hold a conflicting lock
    soft   owners whose conflicting request has waited longer: fairness

A request that would close a circle of hard waits is refused (`Deadlock`). Fairness never makes a circle: a waiter does not queue
behind one that, directly or through others, waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from warp_core.errors import Busy, Deadlock, InvalidArgument, Locked

END = (
    1 << 64
)  # one past the last byte that any protocol can lock; "to the end of the file and beyond"
RANGES_MAX = 16_384  # lock ranges of one inode: each conflict test walks them
WAITERS_MAX = 1_024  # waiting requests of one inode: each release walks them


class Node(NamedTuple):
    """An inode of a volume: what locks, opens and leases hang on."""

    volume: int
    inode: int


class Owner(NamedTuple):
    """Who holds a lock, an open or a lease.

    `key` is the client's own name for it: a process, an open file description, an NFS lock-owner, an SMB lease key. `several`
    says that several threads may share the owner (open file descriptions do): such an owner may be blocked and active at once,
    so its waits are no proof of a deadlock, and as on Linux none is reported.
    """

    client: int
    key: bytes | int
    several: bool = False


class Range(NamedTuple):
    """A held lock over [start, end)."""

    owner: Owner
    start: int
    end: int
    exclusive: bool


class Waiter:
    """A request that waits. `granted` turns True when it holds its lock."""

    __slots__ = ("end", "exclusive", "granted", "node", "owner", "start")

    def __init__(self, node: Node, owner: Owner, start: int, end: int, exclusive: bool) -> None:
        self.node = node
        self.owner = owner
        self.start = start
        self.end = end
        self.exclusive = exclusive
        self.granted = False

    def __repr__(self) -> str:
        return f"Waiter({self.node}, {self.owner}, {self.start}, {self.end}, {self.exclusive})"


class _Piece(NamedTuple):
    start: int
    end: int
    exclusive: bool


class _Locks:
    """The locks of one inode: for each owner disjoint pieces in order, and the requests that wait, oldest first."""

    __slots__ = ("count", "held", "queue")

    def __init__(self) -> None:
        self.held: dict[Owner, list[_Piece]] = {}
        self.queue: list[Waiter] = []
        self.count = 0

    @property
    def full(self) -> bool:
        """Locking is refused at the limit (one change adds up to two ranges), unlocking never."""
        return self.count + 2 > RANGES_MAX

    def conflicts(self, owner: Owner, start: int, end: int, exclusive: bool) -> Iterator[Range]:
        for other, pieces in self.held.items():
            if other == owner:
                continue
            for piece in pieces:
                if piece.start >= end:
                    break
                if piece.end > start and (exclusive or piece.exclusive):
                    yield Range(other, *piece)

    def replace(self, owner: Owner, start: int, end: int, exclusive: bool | None) -> None:
        """Give [start, end) of the owner's locks this mode (None: unlock); neighbours of one mode merge."""
        old = self.held.get(owner, [])
        new: list[_Piece] = []
        for piece in old:
            if piece.start < start:
                new.append(_Piece(piece.start, min(piece.end, start), piece.exclusive))
            if piece.end > end:
                new.append(_Piece(max(piece.start, end), piece.end, piece.exclusive))
        if exclusive is not None:
            new.append(_Piece(start, end, exclusive))
        new.sort()
        merged: list[_Piece] = []
        for piece in new:
            if merged and merged[-1].end == piece.start and merged[-1].exclusive == piece.exclusive:
                merged[-1] = merged[-1]._replace(end=piece.end)
            else:
                merged.append(piece)
        self.count += len(merged) - len(old)
        if merged:
            self.held[owner] = merged
        else:
            self.held.pop(owner, None)


def _conflict(one: Waiter, other: Waiter) -> bool:
    return (
        one.owner != other.owner
        and one.start < other.end
        and other.start < one.end
        and (one.exclusive or other.exclusive)
    )


class LockTable:
    """Locks of all inodes. Methods that may let waiters go return those, already granted, oldest first."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], _Locks] = {}
        self._waiting: dict[Owner, list[Waiter]] = {}

    def test(
        self, node: Node, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """Return the first range that a lock of this owner would conflict with, or None."""
        _check(start, end)
        locks = self.nodes.get(node)
        if locks is None:
            return None
        return min(locks.conflicts(owner, start, end, exclusive), key=_start, default=None)

    def lock(
        self, node: Node, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> list[Waiter]:
        """Lock [start, end) now, replacing what the owner holds of it; a weaker mode may let others go.

        Does not queue behind waiters: as on Linux, a request that does not want to wait sees holders only.

        Raises:
            Locked: Another owner holds a conflicting range; nothing changed.
            Busy: The inode has RANGES_MAX ranges.
        """
        conflict = self.test(node, owner, start, end, exclusive=exclusive)
        if conflict is not None:
            raise Locked(f"bytes {conflict.start} to {conflict.end} are locked by {conflict.owner}")
        locks = self._locks(node)
        if locks.full:
            raise Busy(f"{RANGES_MAX} lock ranges on one inode")
        locks.replace(owner, start, end, exclusive)
        return self._pump(node, locks)

    def wait(
        self, node: Node, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> tuple[Waiter, list[Waiter]]:
        """Lock [start, end), or queue for it: then `granted` is False.

        Returns:
            The request, and the others that could go by it (a downgrade lets them).

        Raises:
            Deadlock: Those it would wait for wait for its owner.
            Busy: WAITERS_MAX requests wait for the inode, or it has RANGES_MAX ranges.
        """
        _check(start, end)
        waiter = Waiter(node, owner, start, end, exclusive)
        locks = self._locks(node)
        if locks.full:
            raise Busy(f"{RANGES_MAX} lock ranges on one inode")
        if not owner.several and self._closes_circle(locks, waiter):
            self._forget(node, locks)
            raise Deadlock(
                f"waiting for bytes {start} to {end} of inode {node.inode} would never end"
            )
        if len(locks.queue) >= WAITERS_MAX:
            raise Busy(f"{WAITERS_MAX} requests wait for locks of inode {node.inode}")
        locks.queue.append(waiter)
        self._waiting.setdefault(owner, []).append(waiter)
        released = self._pump(node, locks)
        if not waiter.granted and self._reaches(owner, owner, soft=True):
            # The circle has soft waits only: those behind which nobody need queue may go now.
            for other in list(self.nodes):
                released += self._pump(Node(*other), self.nodes[other])
        return waiter, [each for each in released if each is not waiter]

    def unlock(self, node: Node, owner: Owner, start: int, end: int) -> list[Waiter]:
        """Unlock what the owner holds of [start, end), which may split ranges."""
        _check(start, end)
        locks = self.nodes.get(node)
        if locks is None or owner not in locks.held:
            return []
        locks.replace(owner, start, end, None)
        return self._pump(node, locks)

    def release(self, node: Node, owner: Owner) -> list[Waiter]:
        """Drop everything the owner holds and waits for on the inode; dropped requests stay ungranted."""
        locks = self.nodes.get(node)
        if locks is None:
            return []
        for waiter in [each for each in locks.queue if each.owner == owner]:
            self._drop(waiter)
        if owner in locks.held:
            locks.replace(owner, 0, END, None)
        return self._pump(node, locks)

    def cancel(self, waiter: Waiter) -> list[Waiter]:
        """Withdraw a request that waits; harmless when it does not wait any more."""
        locks = self.nodes.get(waiter.node)
        if locks is None or waiter not in locks.queue:
            return []
        self._drop(waiter)
        return self._pump(waiter.node, locks)

    def held(self, node: Node) -> list[Range]:
        """Return every range held on the inode, by start."""
        locks = self.nodes.get(node)
        if locks is None:
            return []
        ranges = [Range(o, *piece) for o, pieces in locks.held.items() for piece in pieces]
        return sorted(ranges, key=_start)

    def waiting(self, node: Node) -> list[Waiter]:
        """Return the requests that wait for the inode, oldest first."""
        locks = self.nodes.get(node)
        return list(locks.queue) if locks else []

    # ----------------------------------------------------------------------------------------------

    def _locks(self, node: Node) -> _Locks:
        locks = self.nodes.get(node)
        if locks is None:
            locks = self.nodes[node] = _Locks()
        return locks

    def _pump(self, node: Node, locks: _Locks) -> list[Waiter]:
        """Grant whoever can go, oldest first, until nobody can."""
        released: list[Waiter] = []
        again = bool(locks.queue)
        while again:
            again = False
            for waiter in list(locks.queue):
                if self._can_go(locks, waiter):
                    locks.replace(waiter.owner, waiter.start, waiter.end, waiter.exclusive)
                    self._unqueue(locks, waiter)
                    waiter.granted = True
                    released.append(waiter)
                    again = True  # a granted downgrade may free an older waiter
        self._forget(node, locks)
        return released

    def _can_go(self, locks: _Locks, waiter: Waiter) -> bool:
        if locks.full:
            return False
        if next(locks.conflicts(waiter.owner, waiter.start, waiter.end, waiter.exclusive), None):
            return False
        for older in locks.queue:
            if older is waiter:
                break
            if _conflict(older, waiter) and not self._reaches(older.owner, waiter.owner, soft=True):
                return False
        return True

    def _closes_circle(self, locks: _Locks, waiter: Waiter) -> bool:
        blockers = {
            range_.owner
            for range_ in locks.conflicts(waiter.owner, waiter.start, waiter.end, waiter.exclusive)
        }
        return any(
            self._reaches(blocker, waiter.owner, soft=False)
            for blocker in blockers
            if not blocker.several
        )

    def _reaches(self, source: Owner, target: Owner, *, soft: bool) -> bool:
        """Say whether `source` waits for `target`, directly or through others."""
        seen: set[Owner] = set()
        todo = [source]
        while todo:
            for other in self._waits_for(todo.pop(), soft=soft):
                if other == target:
                    return True
                if other not in seen and (soft or not other.several):
                    seen.add(other)
                    todo.append(other)
        return False

    def _waits_for(self, owner: Owner, *, soft: bool) -> Iterator[Owner]:
        for waiter in self._waiting.get(owner, ()):
            locks = self.nodes[waiter.node]
            for held in locks.conflicts(owner, waiter.start, waiter.end, waiter.exclusive):
                yield held.owner
            if soft:
                for older in locks.queue:
                    if older is waiter:
                        break
                    if _conflict(older, waiter):
                        yield older.owner

    def _drop(self, waiter: Waiter) -> None:
        locks = self.nodes.get(waiter.node)
        if locks is not None and waiter in locks.queue:
            self._unqueue(locks, waiter)
            self._forget(waiter.node, locks)

    def _unqueue(self, locks: _Locks, waiter: Waiter) -> None:
        locks.queue.remove(waiter)
        mine = self._waiting[waiter.owner]
        mine.remove(waiter)
        if not mine:
            del self._waiting[waiter.owner]

    def _forget(self, node: Node, locks: _Locks) -> None:
        if not locks.held and not locks.queue:
            self.nodes.pop(node, None)


def _start(held: Range) -> int:
    return held.start


def _check(start: int, end: int) -> None:
    if not 0 <= start < end <= END:
        raise InvalidArgument(f"lock range {start} to {end} is empty or outside 0 to {END}")
