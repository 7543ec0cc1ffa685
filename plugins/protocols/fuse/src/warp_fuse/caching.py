"""What the kernel may answer from memory: a lease for each file it does so with, called back by whoever changes it.

A lease is asked for when the kernel is told of a file. While it holds, names, attributes and pages are good for as long as the
configuration says. When it is recalled, over whichever protocol the change comes, the kernel is told to let go first, and the
change waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from warp_core.errors import WarpError
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner
from warp_core.views.claims import Claims, Recalled

from warp_fuse import wire
from warp_fuse.nodes import Node, Nodes

WANTED: Final = Kind.READ | Kind.HANDLE  # HANDLE keeps names: renames and removals call it back


class Cache:
    """The leases of one mount."""

    def __init__(
        self,
        claims: Claims,
        nodes: Nodes,
        notify: Callable[[bytes], Awaitable[None]],
        *,
        seconds: float,
        wait_s: float,
    ) -> None:
        """Begin without leases.

        Args:
            notify: Sends a notification to the kernel and returns when it has acted on it.
            seconds: For how long what is leased is good.
            wait_s: A name is not waited for longer: whoever recalls it may, in the kernel, hold the lock of its directory.
        """
        self.owner = Owner(0, b"")
        self._claims = claims
        self._nodes = nodes
        self._notify = notify
        self._seconds = seconds
        self._wait_s = wait_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, name: str, gone: Callable[[], None] | None = None) -> None:
        """Become a client of the volume's home; `gone` is called when all that was lent is lost with the way there."""
        client = await self._claims.add_client(name, tell=self._told, gone=gone)
        self.owner = Owner(client, b"mount", several=True)

    async def lost(self) -> None:
        """Have the kernel drop everything: nobody would tell us what others change.

        What is still being dropped is leased by nobody, so the kernel keeps nothing new of it.
        """
        nodes = [node for node in self._nodes if node.kinds or node.names]
        for node in nodes:
            node.kinds = Kind.NONE
            node.leaving += 1
        before = self.owner.client
        for node in nodes:
            try:
                await self._drop(node, WANTED)
            finally:
                node.leaving -= 1
        with contextlib.suppress(WarpError):
            await self._claims.drop_client(before)

    async def end(self) -> None:
        """Give everything back."""
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(WarpError):
            await self._claims.drop_client(self.owner.client)

    async def hold(self, node: Node) -> bool:
        """Ask for a lease on a node that has none; say whether it is new, so that what was read before may be stale."""
        if node.ref.snapshot or node.kinds == WANTED or node.leaving or not self._seconds:
            return False
        before = node.kinds
        kinds = await self._claims.lease(node.ref, self.owner, WANTED, beside_writers=True)
        if node.leaving:  # recalled while it was on its way to us
            return False
        node.kinds = kinds
        return kinds != before

    def has(self, node: Node) -> bool:
        """Say whether all that the kernel may know of a node is leased."""
        return node.kinds == WANTED and not node.leaving

    def fills(self, node: Node) -> None:
        """Note that the kernel gets pages of a file with the answer that is sent next, without waiting for anything before."""
        node.filled = True
        if not (node.ref.snapshot or node.leaving or node.kinds & Kind.READ):
            self.stale(node)  # nobody would tell us when they become wrong

    def attributes_s(self, node: Node) -> float:
        """Return for how long a node's attributes are good."""
        if node.ref.snapshot:
            return self._seconds
        return self._seconds if node.kinds & Kind.READ else 0.0

    def name_s(self, node: Node) -> float:
        """Return for how long a name leads to a node."""
        return self._seconds if node.ref.snapshot or node.kinds & Kind.HANDLE else 0.0

    def forgotten(self, node: Node) -> None:
        """Give a lease back, the kernel having forgotten the file."""
        if node.kinds:
            node.kinds = Kind.NONE
            self._start(self._give_back(node))

    def stale(self, node: Node) -> None:
        """Let the kernel look at a file again, which it has other ideas of."""
        self._start(self._notify(wire.forget_inode(node.number)))

    def _told(self, recalled: Recalled) -> None:
        """Hear of a lease that is called back or revoked; must not wait."""
        node = self._nodes.find(recalled.inode)
        if node is None:
            return  # being given back already
        gone = recalled.wanted if recalled.kinds else WANTED
        node.kinds &= ~gone
        node.leaving += 1
        self._start(self._let_go(node, gone, answer=bool(recalled.kinds)))

    async def _let_go(self, node: Node, gone: Kind, *, answer: bool) -> None:
        try:
            await self._drop(node, gone)
        finally:
            node.leaving -= 1
        if answer:
            await self._give_back(node)

    async def _drop(self, node: Node, gone: Kind) -> None:
        """Return when the kernel has dropped what it has of a file, but for what it gets from now on."""
        names = list(node.names) if gone & Kind.HANDLE else []
        node.names.difference_update(names)
        if names:
            waiting = [
                asyncio.ensure_future(self._notify(wire.forget_name(*name))) for name in names
            ]
            await asyncio.wait(waiting, timeout=self._wait_s)
        # The kernel waits for pages that are being read, so reads go on being answered meanwhile. What they bring is of
        # before the change, and has to go as well.
        while True:
            node.filled = False
            told = asyncio.ensure_future(self._notify(wire.forget_inode(node.number)))
            while not (await asyncio.wait([told], timeout=self._wait_s))[0]:
                # It waits for pages that are being written, and that write may be waiting for a lease of whoever recalls ours.
                # The notification stays: those pages go when the write is answered.
                if node.writing:
                    return
            if not node.filled:
                return

    async def _give_back(self, node: Node) -> None:
        with contextlib.suppress(WarpError):
            await self._claims.give_back(node.ref, self.owner, node.kinds)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
