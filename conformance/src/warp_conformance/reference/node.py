"""A node's namespace with all views over the reference engines; a power cut leaves what was durable."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import ClassVar, Self

from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.errors import Unsupported
from warp_core.interfaces.codecs import Codec
from warp_core.namespace.apart import Inodes
from warp_core.namespace.blocks import NamespaceBlocks
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.opens import Opens

from warp_conformance.reference.consistency import Plain as PlainMeta
from warp_conformance.reference.data_plane import Fixed
from warp_conformance.reference.stores import Medium
from warp_conformance.reference.stores import Plain as PlainStore

SEGMENT = 8 * 1024 * 1024


class Store(PlainStore):
    """A store with room for disks."""

    capacity = 512 * 1024 * 1024
    reserve = 1024 * 1024


def codec(name: str) -> Codec:
    """Offer the default chunker, and no other codec."""
    if name != "fixed:8MiB":
        raise Unsupported(f"codec {name!r}")
    return Fixed(8 * 1024 * 1024)


class Stage:
    """The subject of FilesKit and BlocksKit. Its parts are class attributes, so that a mutant takes the place of one."""

    volume = "v"
    files_view: ClassVar[type[NamespaceFiles]] = NamespaceFiles
    blocks_view: ClassVar[type[NamespaceBlocks]] = NamespaceBlocks
    inode_table: ClassVar[type[Inodes]] = Inodes
    file_log: ClassVar[type[FileLog]] = FileLog
    opens_table: ClassVar[type[Opens]] = Opens

    def __init__(self) -> None:
        self.meta = PlainMeta()
        self.medium = Medium()

    async def __aenter__(self) -> Self:
        await self.meta.__aenter__()
        await self._begin()
        await self.namespace.volumes.create(self.volume, owner="kit")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.files.settle_collections()
        await self.containers.__aexit__(None, None, None)
        await self.journal.__aexit__(None, None, None)
        await self.meta.__aexit__(None, None, None)

    async def _begin(self) -> None:
        store = await Store(self.medium).__aenter__()
        self.journal = await Journal([store], segment_size=SEGMENT).__aenter__()
        self.containers = await Containers(
            [StoreSlot("only", store)], codec=codec, journal=self.journal
        ).__aenter__()
        self.opens = self.opens_table(asyncio.get_running_loop().time, recall_s=0.05)
        self.namespace = Namespace(self.meta, self.containers, opens=self.opens)
        self.inodes = self.inode_table(
            self.namespace, self.file_log(self.journal, self.containers, [store])
        )
        self.files = self.files_view(self.namespace, self.inodes)
        self.blocks = self.blocks_view(self.files)
        await self.inodes.recover()

    async def crash(self) -> None:
        """Cut the power: blobs are as they were last synced, rows as last committed."""
        self.inodes.abandon()
        writer = self.journal._writer
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await self._begin()
