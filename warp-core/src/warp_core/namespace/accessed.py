"""When files were last read, as far as their rows do not tell it yet.

Reads note a time in memory, by Linux's relatime: where the time of access is not newer than the last change, or a day old. Rows get
it now and then, many in one transaction; a crash loses what they did not get. Files without a row of their own (born over S3, and
never set apart) do not get one for having been read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from warp_core.namespace.inodes import Inode
from warp_core.namespace.locks import Node

NOTED_MAX: Final = 65_536  # files; beyond, what was noted first is forgotten
DAY_NS: Final = 86_400 * 10**9


class Accessed:
    """Times of access by inode."""

    __slots__ = ("_due", "_times")

    def __init__(self) -> None:
        """Begin without any."""
        self._times: OrderedDict[Node, int] = OrderedDict()
        self._due: OrderedDict[Node, None] = OrderedDict()  # what rows have not been told

    def of(self, node: Node, inode: Inode) -> int:
        """Return when a file was last read; the inode is as its row says."""
        return self._times.get(node, inode.accessed_ns)

    def note(self, node: Node, inode: Inode, now_ns: int, modified_ns: int = 0) -> None:
        """Note that a file was read, if that is worth it; `modified_ns` may know of a later change than its row."""
        accessed_ns = self._times.get(node, inode.accessed_ns)
        changed_ns = max(inode.modified_ns, inode.changed_ns, modified_ns)
        if changed_ns < accessed_ns and now_ns - accessed_ns < DAY_NS:
            return
        self._times[node] = now_ns
        self._times.move_to_end(node)
        self._due[node] = None
        if len(self._times) > NOTED_MAX:
            gone, _ = self._times.popitem(last=False)
            self._due.pop(gone, None)

    def take(self, count: int) -> list[tuple[Node, int]]:
        """Return so many that rows are to be told now, each once."""
        nodes = [self._due.popitem(last=False)[0] for _ in range(min(count, len(self._due)))]
        return [(node, self._times[node]) for node in nodes]

    def told(self, node: Node, accessed_ns: int) -> None:
        """Forget what a row says now."""
        if self._times.get(node) == accessed_ns:
            self.forget(node)

    def forget(self, node: Node) -> None:
        """Forget a file: it is gone, or its time was set."""
        self._times.pop(node, None)
        self._due.pop(node, None)

    def forget_volume(self, volume: int) -> None:
        """Forget all files of a volume."""
        for node in [node for node in self._times if node.volume == volume]:
            self.forget(node)
