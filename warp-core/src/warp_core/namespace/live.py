"""Contents of files while somebody uses them: one instance a file, brought into its rows when nobody does, or now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Protocol

import msgspec

from warp_core.containers import Pin
from warp_core.containers.keyring import Hold
from warp_core.errors import (
    NotFound,
    StaleHandle,
    VolumeNotFound,
    WarpError,
)
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.accessed import Accessed
from warp_core.namespace.allowance import Allowance
from warp_core.namespace.changes import Change
from warp_core.namespace.contents import Content
from warp_core.namespace.filelog import ChangeRecord
from warp_core.namespace.inode_rows import inode_row
from warp_core.namespace.inodes import Inode, Position
from warp_core.namespace.layers import Log as ContentLog
from warp_core.namespace.layers import load_layers
from warp_core.namespace.ledgers import VolumeLedger
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.opens import Node
from warp_core.namespace.pending import Above, Pending
from warp_core.namespace.rows import Seal, encode
from warp_core.namespace.tree import Volume

TOLD_AT_ONCE: Final = 24  # inodes whose rows one transaction tells when they were last read
TOGETHER: Final = 8  # files that a snapshot has say what they are side by side
RESTLESS: Final = (
    6  # passes, a minute by default, after which a file that is always written is folded as well
)


class Log(ContentLog, Protocol):
    """The containers, as files use them: `filelog.FileLog`."""

    def end(self) -> Position:
        """Return a position behind every record appended so far; the next one may lie just there."""

    def last(self) -> Position:
        """Return a position that no record appended so far lies behind, and every later one does."""

    def pin(self) -> Pin:
        """Keep everything readable that is alive now."""

    def pending(self, since: Position) -> AsyncIterator[ChangeRecord]:
        """Yield the payload records of earlier runs from a position on, in order."""

    async def space(self) -> tuple[int, int]:
        """Return total and free bytes of the stores."""


class Lives:
    """Contents of files of all volumes of a node, each as long as somebody uses it."""

    def __init__(self, namespace: Namespace, log: Log) -> None:
        """Begin without any."""
        assert namespace.opens is not None
        self.namespace = namespace
        self.log = log
        self.opens = namespace.opens
        self._contents: dict[tuple[int, int], _Live] = {}
        self._loading: dict[tuple[int, int], asyncio.Lock] = {}
        self.pending = Pending()
        self.accessed = Accessed()
        self.on_forget: list[Callable[[int], None]] = []  # told which volume
        self._done: Position = (0, 0)  # as the last checkpoint noted it

    def above(self, volume: Volume) -> Above:
        """Return what the rows of a volume do not tell yet although somebody is shown it: ask before reading them."""
        return self.pending.of(volume)

    def live(self, volume: int, inode: int) -> Content | None:
        """Return a file's content if somebody uses it now."""
        found = self._contents.get((volume, inode))
        return found.content if found else None

    @asynccontextmanager
    async def content(
        self, name: str, volume: int, number: int, inode: Inode
    ) -> AsyncIterator[Content]:
        """Lend a file's content for the block: one instance for all who use it."""
        content = await self.take(name, volume, number, inode)
        try:
            yield content
        finally:
            await self.give(volume, number)

    async def take(self, name: str, volume: int, number: int, inode: Inode) -> Content:
        """Return a file's content, loading it for the first; `give` it back."""
        node = (volume, number)
        lock = self._loading.setdefault(node, asyncio.Lock())
        async with lock:
            found = self._contents.get(node)
            if found is None:
                ledger = VolumeLedger(self.namespace, name, volume)
                above = self.above(await self.namespace.volumes.get(name))
                layers = await load_layers(ledger, self.log, inode.revision, above)
                content = Content(ledger, self.log, number, inode, layers, self.pending)
                holds = await self._opened(layers.seals)
                content.seal = holds[0].word if holds else ""
                content.allowance = Allowance(
                    self.namespace.quotas,
                    self.namespace.volumes,
                    name,
                    inode.size,
                    lambda: content.inode,
                )
                found = self._contents[node] = _Live(content, holds)
            found.users += 1
        return found.content

    async def _opened(self, seals: Sequence[Seal]) -> list[Hold]:
        """Return holds on the keys of sealed content; raises as `Sealer.open`."""
        holds: list[Hold] = []
        try:
            for seal in seals:
                hold = await self.namespace.sealer.open(seal)
                holds.append(hold)
        except BaseException:
            for hold in holds:
                hold.release()
            raise
        return holds

    async def give(self, volume: int, number: int) -> None:
        """Give a content back; the last one brings the rows up to date."""
        node = (volume, number)
        found = self._contents.get(node)
        if found is None:
            return  # forgotten
        if found.users == 1 and found.content.dirty and not found.dropped:
            try:
                await found.content.fold()
            except (StaleHandle, NotFound, VolumeNotFound):
                found.dropped = True  # its volume is gone
            if found.users == 1:
                found.content.leave()
        found.users -= 1
        if found.users == 0 and (found.dropped or not found.content.dirty):
            del self._contents[node]
            self._loading.pop(node, None)
            found.let_go()

    async def settle(self, volume: int, inode: int) -> None:
        """Bring a file's rows up to date, for who reads them: a GET, a copy, a snapshot of it."""
        found = self._contents.get((volume, inode))
        if found is not None and found.content.dirty and not found.dropped:
            await found.content.fold()

    @asynccontextmanager
    async def quiet(self, volume: int) -> AsyncIterator[None]:
        """Have the rows of all files of a volume say what they are, and changes wait inside the block: for a snapshot."""
        contents = self._of_volume(volume)
        for content in contents:
            await content.prepare()
        try:
            async with AsyncExitStack() as stack:
                for content in contents:
                    await stack.enter_async_context(content.still())
                waiting = [content for content in contents if content.dirty]
                for first in range(0, len(waiting), TOGETHER):
                    some = waiting[first : first + TOGETHER]
                    done = await asyncio.gather(
                        *(content.conclude() for content in some), return_exceptions=True
                    )
                    for error in filter(None, done):
                        raise error
                yield
        finally:
            for content in contents:
                content.fold_later()

    def _of_volume(self, volume: int) -> list[Content]:
        return [
            live.content
            for node, live in sorted(self._contents.items(), key=lambda item: item[0])
            if node[0] == volume and not live.dropped
        ]

    async def settle_all(self, volume: int) -> None:
        """Bring the rows of all files of a volume up to date, for who compares it as it is now."""
        for content in self._of_volume(volume):
            if content.dirty:
                await content.fold()

    async def catch_up(self, volume: int) -> None:
        """Bring into the rows what snapshots and clones of a volume's files are shown already."""
        for content in self._of_volume(volume):
            if content.marks:
                await content.catch_up()

    async def checkpoint(self) -> None:
        """Bring all rows up to date, and note how far: a restart replays the journal from there."""
        end = self.log.end()
        if end == self._done:
            return
        for live in list(self._contents.values()):
            if live.content.dirty and not live.dropped:
                await live.content.fold()

        async def body(tx: Transaction) -> None:
            tx.put(keys.FILES_DONE, msgspec.msgpack.encode(end))

        await transact(self.namespace.store, body)
        self._done = end

    async def rest(self) -> None:
        """Bring the rows of files up to date that nobody has changed since the last call, and of others now and then.

        What a file dropped comes back only then, and a snapshot finds less to do.
        """
        for live in list(self._contents.values()):
            content = live.content
            if not content.dirty or live.dropped:
                continue
            live.passed += 1
            if live.seen_ns == content.modified_ns or live.passed >= RESTLESS:
                live.passed = 0
                with suppress(WarpError):  # whoever needs the rows hears why
                    await content.fold()
            live.seen_ns = content.modified_ns
        await self._tell_accessed()

    async def _tell_accessed(self) -> None:
        """Have rows tell when their files were last read."""
        names: dict[int, str] = {}
        while some := self.accessed.take(TOLD_AT_ONCE):
            names = names or {
                volume.number: volume.row.name for volume in await self.namespace.volumes.all()
            }
            for volume in {node.volume for node, _ in some} & names.keys():
                with suppress(WarpError):  # then they are as they were
                    await self._tell_some(
                        names[volume], [each for each in some if each[0].volume == volume]
                    )

    async def _tell_some(self, name: str, some: Sequence[tuple[Node, int]]) -> None:
        async def body(change: Change) -> list[tuple[Node, int]]:
            change.judged = False
            told = []
            for node, accessed_ns in some:
                inode = await inode_row(change.rows, node.inode)
                if inode is None or self.accessed.of(node, inode) != accessed_ns:
                    continue  # born over S3, or gone; or it was read again, or its time was set
                inode = msgspec.structs.replace(inode, born=change.epoch, accessed_ns=accessed_ns)
                await change.rows.put(keys.inode_key(node.inode), encode(inode))
                told.append((node, accessed_ns))
            return told

        for node, accessed_ns in await self.namespace.change(name, body):
            live = self.live(*node)
            if live is not None:
                live.inode = msgspec.structs.replace(live.inode, accessed_ns=accessed_ns)
            self.accessed.told(node, accessed_ns)

    def abandon(self) -> None:
        """Write nothing any more, whoever closes what: this node is no longer the volume's home."""
        for live in self._contents.values():
            live.dropped = True

    def forget(self, volume: int) -> None:
        """Drop what memory has of a volume's files, and what was not yet in their rows: handles are stale."""
        for node in [node for node in self._contents if node[0] == volume]:
            live = self._contents.pop(node)
            self._loading.pop(node, None)
            live.dropped = live.content.gone = True
            live.let_go()
        self.pending.forget(volume)
        self.accessed.forget_volume(volume)
        for listener in self.on_forget:
            listener(volume)

    async def dirty(self) -> list[Content]:
        """Return the contents that rows do not tell yet."""
        return [live.content for live in self._contents.values() if live.content.dirty]


class _Live:
    __slots__ = ("content", "dropped", "holds", "passed", "seen_ns", "users")

    def __init__(self, content: Content, holds: Sequence[Hold] = ()) -> None:
        self.content = content
        self.holds = holds  # on the keys that it is sealed with
        self.users = 0
        self.dropped = False  # its rows are gone: nothing is folded any more
        self.seen_ns = 0  # its last change, as `rest` saw it
        self.passed = 0  # calls of `rest` since its last fold

    def let_go(self) -> None:
        """Release the keys, and what was reserved."""
        for hold in self.holds:
            hold.release()
        if self.content.allowance is not None:
            self.content.allowance.release()
