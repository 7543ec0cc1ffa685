"""What the kernel remembers of a mount: its nodes, by number, each as often as it was told of it."""

from __future__ import annotations

from collections.abc import Iterator

from warp_core.namespace.leases import Kind
from warp_core.views.files import ROOT_INODE, FileInfo, FileKind, Ref

from warp_fuse import wire

SNAPSHOTS_FROM = 1 << 63  # inodes of the live volume are their own numbers, and stay far below


class Node:
    """A file that the kernel knows.

    Attributes:
        number: Its number in this mount.
        ref: Where it was last found.
        lookups: How often the kernel was told of it, less how often it said that it forgot.
        kinds: What our lease on it allows.
        names: (directory's number, name) that the kernel may have kept.
        leaving: How many recalls of its lease are being obeyed.
        filled: The kernel got pages since it was last told to drop them.
        known: What was last known of a directory: it may be used after it is gone.
        unsynced: Something was written since the last sync.
        failed: It may be lost, and nobody was told yet.
        writing: How many writes of the kernel's are being answered: it keeps their pages locked meanwhile.
    """

    __slots__ = (
        "failed",
        "filled",
        "kind",
        "kinds",
        "known",
        "leaving",
        "lookups",
        "names",
        "number",
        "ref",
        "unsynced",
        "writing",
    )

    def __init__(self, number: int, ref: Ref, kind: FileKind) -> None:
        self.number = number
        self.ref = ref
        self.kind = kind
        self.lookups = 0
        self.kinds = Kind.NONE
        self.names: set[tuple[int, bytes]] = set()
        self.leaving = 0
        self.filled = False
        self.known: FileInfo | None = None
        self.unsynced = False
        self.failed = False
        self.writing = 0


class Nodes:
    """The table; the root is always in it."""

    def __init__(self, root: Ref) -> None:
        self._by_number: dict[int, Node] = {}
        self._snapshots: dict[tuple[str, int], int] = {}
        self._next = SNAPSHOTS_FROM
        self.told(root, "directory")
        assert root.inode == ROOT_INODE == wire.ROOT

    def __len__(self) -> int:
        return len(self._by_number)

    def __getitem__(self, number: int) -> Node:
        """Return a node.

        Raises:
            KeyError: The kernel was never told of it, or forgot it.
        """
        return self._by_number[number]

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._by_number.values()))

    def find(self, inode: int) -> Node | None:
        """Return the node of an inode of the live volume."""
        return self._by_number.get(inode)

    def known(self, ref: Ref) -> Node | None:
        """Return the node of a file, if the kernel knows it."""
        if not ref.snapshot:
            return self._by_number.get(ref.inode)
        number = self._snapshots.get((ref.snapshot, ref.inode))
        return None if number is None else self._by_number.get(number)

    def number_of(self, ref: Ref) -> int:
        """Return the number of a file, the same as long as the kernel remembers it."""
        if not ref.snapshot:
            return ref.inode
        key = (ref.snapshot, ref.inode)
        number = self._snapshots.get(key)
        if number is None:
            number = self._snapshots[key] = self._next
            self._next += 1
        return number

    def told(self, ref: Ref, kind: FileKind) -> Node:
        """Note that the kernel is told of a file, and return its node."""
        number = self.number_of(ref)
        node = self._by_number.get(number)
        if node is None:
            node = self._by_number[number] = Node(number, ref, kind)
        else:
            node.ref = ref
        node.lookups += 1
        return node

    def forgotten(self, number: int, times: int) -> Node | None:
        """Note that the kernel forgot a file so often; return its node when that was the last."""
        node = self._by_number.get(number)
        if node is None or number == wire.ROOT:
            return None
        node.lookups -= times
        if node.lookups > 0:
            return None
        del self._by_number[number]
        if node.ref.snapshot:
            self._snapshots.pop((node.ref.snapshot, node.ref.inode), None)
        return node
