"""Faulty Files views: the namespace's own, with one thing wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from warp_core.containers import Chunk
from warp_core.errors import PermissionDenied, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import keys
from warp_core.namespace.apart import Inodes
from warp_core.namespace.changes import Change
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.leases import ALL, Kind
from warp_core.namespace.openfiles import NamespaceFile
from warp_core.namespace.opens import Access, Node, Opens, Owner
from warp_core.namespace.rows import Name
from warp_core.views.files import (
    ROOT,
    Caller,
    DirEntry,
    FileInfo,
    OpenFile,
    Ref,
    Rename,
    SetInfo,
    Want,
)

from warp_conformance.kits.files import FilesKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.node import Stage

faults = Faults("files")


class OnFiles(FilesKit):
    implementation: ClassVar[type[Stage]] = Stage

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Stage]:
        async with self.implementation() as stage:
            yield stage


def with_handle(handle: type[NamespaceFile]) -> type[NamespaceFiles]:
    """Return a view whose handles are others."""
    return type("Files", (NamespaceFiles,), {"handle": handle})


# Handles ------------------------------------------------------------------------------------------


@faults(OnFiles, "OpenFile.write", "lost-write")
class LosesWrites(Stage):
    class Handle(NamespaceFile):
        async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
            return len(data)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.write", "never-synchronous")
class IgnoresSync(Stage):
    class Handle(NamespaceFile):
        async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
            return await super().write(offset, data)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.write", "keeps-the-buffer")
class KeepsBuffers(Stage):
    class Handle(NamespaceFile):
        async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
            kept = self.__dict__.setdefault("kept", [])
            kept.append((offset, data))
            return await super().write(offset, data, sync=sync)

        async def read(self, offset: int, length: int) -> Buffer:
            for place, data in self.__dict__.pop("kept", []):
                await super().write(place, data)
            return await super().read(offset, length)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.write", "off-by-a-window")
class WrapsWindows(Stage):
    class Handle(NamespaceFile):
        async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
            await super().write(offset, bytes(data)[: (1 << 20) - offset % (1 << 20)], sync=sync)
            return len(data)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.append", "overlapping-appends")
class OverlapsAppends(Stage):
    class Handle(NamespaceFile):
        async def append(self, data: Buffer, *, sync: bool = False) -> int:
            import asyncio

            offset = self.size
            await asyncio.sleep(0)
            await self.write(offset, data, sync=sync)
            return offset

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.read", "padded-end")
class PadsTheEnd(Stage):
    class Handle(NamespaceFile):
        async def read(self, offset: int, length: int) -> Buffer:
            found = bytes(await super().read(offset, length))
            return found.ljust(min(length, 64), b"\0") if found else found

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.read", "ignores-access")
class ReadsAnyway(Stage):
    class Handle(NamespaceFile):
        def _check(self, access: Access) -> None:
            try:
                super()._check(access)
            except PermissionDenied:
                return

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.truncate", "data-come-back")
class Resurrects(Stage):
    class Handle(NamespaceFile):
        async def truncate(self, size: int) -> None:
            if size < self.size:
                self.cut = bytes(await self.content.read(size, self.size - size))
                await super().truncate(size)
                return
            old = self.size
            await super().truncate(size)
            cut = getattr(self, "cut", b"")[: size - old]
            if cut:
                self.content.write(old, cut)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.punch", "shifted-hole")
class ShiftsHoles(Stage):
    class Handle(NamespaceFile):
        async def punch(self, offset: int, length: int) -> None:
            await super().punch(offset + 1, length)

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.punch", "zeros-take-space")
class WritesZeros(Stage):
    class Handle(NamespaceFile):
        async def punch(self, offset: int, length: int) -> None:
            await self.write(offset, bytes(length))

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.seek", "everything-is-data")
class SeesNoHoles(Stage):
    class Handle(NamespaceFile):
        async def seek(self, offset: int, what: Literal["data", "hole"]) -> int:
            found = await super().seek(offset, what)
            return offset if what == "data" else self.size if found > offset else found

    files_view = with_handle(Handle)


@faults(OnFiles, "OpenFile.sync", "early-acknowledgement")
class SyncsNothing(Stage):
    class Log(FileLog):
        async def flush(self) -> None:
            return

    file_log = Log


@faults(OnFiles, "OpenFile.close", "handle-lives-on")
class NeverCloses(Stage):
    class Handle(NamespaceFile):
        async def close(self) -> None:
            return

    files_view = with_handle(Handle)


# Content ------------------------------------------------------------------------------------------


@faults(OnFiles, "Inodes.recover", "forgets-the-journal")
class NoReplay(Stage):
    class Log(FileLog):
        async def pending(self, since: tuple[int, int]) -> AsyncIterator[Any]:
            return
            yield

    file_log = Log


@faults(OnFiles, "Inodes.recover", "replay-out-of-order")
class ReplaysBackwards(Stage):
    class Log(FileLog):
        async def pending(self, since: tuple[int, int]) -> AsyncIterator[Any]:
            records = [record async for record in super().pending(since)]
            for record in records[-1:] + records[:-1]:
                yield record

    file_log = Log


@faults(OnFiles, "Inodes.recover", "orphans-stay")
class KeepsOrphans(Stage):
    class Table(Inodes):
        async def collect(self, name: str, node: Node) -> bool:
            async def body(change: Change) -> None:
                await change.rows.delete(keys.orphan_key(node.inode))

            await self.namespace.change(name, body)
            return False

    inode_table = Table


@faults(OnFiles, "Inodes.unlinked", "open-file-dies")
class DropsOpenFiles(Stage):
    class Table(Inodes):
        async def unlinked(self, change: Change, name: Name, holder: bytes) -> Name:
            version = await super().unlinked(change, name, holder)
            live = self.live(change.rows.volume.number, name.inode)
            if live is not None:
                live.truncate(0)
            return version

    inode_table = Table


@faults(OnFiles, "FileLog.read", "stale-cache")
class ReadsOldChunks(Stage):
    class Log(FileLog):
        def read_now(self, chunk: Chunk, *, offset: int, length: int) -> Buffer | None:
            known = self.__dict__.setdefault("known", {})
            key = (offset, length)
            if key not in known:
                known[key] = super().read_now(chunk, offset=offset, length=length)
            found: Buffer | None = known[key]
            return found

    file_log = Log


# Names --------------------------------------------------------------------------------------------


@faults(OnFiles, "Files.create", "exclusive-is-not")
class NeverExclusive(Stage):
    class View(NamespaceFiles):
        async def create(
            self, directory: Ref, name: bytes, mode: int, caller: Caller = ROOT, **rest: Any
        ) -> tuple[OpenFile, bool]:
            rest["exclusive"] = False
            return await super().create(directory, name, mode, caller, **rest)

    files_view = View


@faults(OnFiles, "Files.create", "never-truncates")
class NeverTruncates(Stage):
    class View(NamespaceFiles):
        async def create(
            self, directory: Ref, name: bytes, mode: int, caller: Caller = ROOT, **rest: Any
        ) -> tuple[OpenFile, bool]:
            rest["truncate"] = False
            return await super().create(directory, name, mode, caller, **rest)

    files_view = View


@faults(OnFiles, "Files.readdir", "skips-the-last")
class SkipsEntries(Stage):
    class View(NamespaceFiles):
        async def readdir(
            self, directory: Ref, *, cookie: int = 0, limit: int = 1000, caller: Caller = ROOT
        ) -> tuple[Sequence[DirEntry], bool]:
            page, last = await super().readdir(directory, cookie=cookie, limit=limit, caller=caller)
            kept = page[:-1] if len(page) > 1 and not last else page
            return (*kept[:2], *kept[3:]) if len(kept) > 3 else kept, last

    files_view = View


@faults(OnFiles, "Files.readdir", "cookies-are-positions")
class CountsEntries(Stage):
    class View(NamespaceFiles):
        async def readdir(
            self, directory: Ref, *, cookie: int = 0, limit: int = 1000, caller: Caller = ROOT
        ) -> tuple[Sequence[DirEntry], bool]:
            everything, _ = await super().readdir(directory, limit=100_000)
            page = [
                msgspec.structs.replace(entry, cookie=at + 1) for at, entry in enumerate(everything)
            ]
            return page[cookie : cookie + limit], cookie + limit >= len(page)

    files_view = View


@faults(OnFiles, "Files.rmdir", "removes-full-directories")
class RemovesFull(Stage):
    class View(NamespaceFiles):
        async def rmdir(
            self, directory: Ref, name: bytes, caller: Caller = ROOT, *, by: Owner | None = None
        ) -> None:
            info = await self.lookup(directory, name, caller)
            if info.kind == "directory":
                for entry in (await self.readdir(info.ref))[0]:
                    await self.unlink(info.ref, entry.name)
            await super().rmdir(directory, name, caller, by=by)

    files_view = View


@faults(OnFiles, "Files.rename", "not-atomic")
class RenamesByLink(Stage):
    class View(NamespaceFiles):
        async def rename(
            self,
            source: Ref,
            source_name: bytes,
            target: Ref,
            target_name: bytes,
            caller: Caller = ROOT,
            *,
            how: Rename = Rename.REPLACE,
            by: Owner | None = None,
        ) -> None:
            await super().rename(source, source_name, target, target_name, caller, by=by)

    files_view = View


@faults(OnFiles, "Files.rename", "circle")
class AllowsCircles(Stage):
    class View(NamespaceFiles):
        async def _no_circle(self, *_: object) -> None:
            return

    files_view = View


@faults(OnFiles, "Files.rename", "between-volumes")
class CrossesVolumesSilently(Stage):
    class View(NamespaceFiles):
        async def rename(
            self,
            source: Ref,
            source_name: bytes,
            target: Ref,
            target_name: bytes,
            caller: Caller = ROOT,
            *,
            how: Rename = Rename.REPLACE,
            by: Owner | None = None,
        ) -> None:
            target = target._replace(volume=source.volume)
            await super().rename(source, source_name, target, target_name, caller, how=how, by=by)

    files_view = View


@faults(OnFiles, "Files.link", "copies-instead")
class CopiesLinks(Stage):
    class View(NamespaceFiles):
        async def link(
            self,
            file: Ref,
            directory: Ref,
            name: bytes,
            caller: Caller = ROOT,
            *,
            by: Owner | None = None,
        ) -> FileInfo:
            info = await self.getattr(file)
            if info.kind == "directory":
                raise PermissionDenied("directories have one name")
            return await self.clone(file, directory, name, caller)

    files_view = View


@faults(OnFiles, "Files.clone", "shares-for-ever")
class LinksClones(Stage):
    class View(NamespaceFiles):
        async def clone(
            self,
            file: Ref,
            directory: Ref,
            name: bytes,
            caller: Caller = ROOT,
            *,
            replace: bool = False,
            mode: int | None = None,
        ) -> FileInfo:
            return await self.link(file, directory, name, caller)

    files_view = View


@faults(OnFiles, "Files.symlink", "normalised-target")
class NormalisesTargets(Stage):
    class View(NamespaceFiles):
        async def readlink(self, file: Ref) -> bytes:
            found = await super().readlink(file)
            return found.decode(errors="replace").encode()

    files_view = View


# Attributes and others ----------------------------------------------------------------------------


@faults(OnFiles, "Files.setattr", "forgets-set-id")
class MasksMode(Stage):
    class View(NamespaceFiles):
        async def setattr(
            self, file: Ref, change: SetInfo, caller: Caller = ROOT, *, by: Owner | None = None
        ) -> FileInfo:
            if change.mode is not None:
                change = msgspec.structs.replace(change, mode=change.mode & 0o777)
            return await super().setattr(file, change, caller, by=by)

    files_view = View


@faults(OnFiles, "Files.setattr", "anybody-may")
class ChangesForAll(Stage):
    class View(NamespaceFiles):
        async def setattr(
            self, file: Ref, change: SetInfo, caller: Caller = ROOT, *, by: Owner | None = None
        ) -> FileInfo:
            return await super().setattr(file, change, ROOT, by=by)

    files_view = View


@faults(OnFiles, "Files.open", "anybody-may")
class OpensForAll(Stage):
    class View(NamespaceFiles):
        async def open(self, file: Ref, caller: Caller = ROOT, **rest: Any) -> OpenFile:
            return await super().open(file, ROOT, **rest)

    files_view = View


@faults(OnFiles, "Files.access", "says-yes")
class SaysYes(Stage):
    class View(NamespaceFiles):
        async def access(self, file: Ref, want: Want, caller: Caller) -> Want:
            return want

    files_view = View


@faults(OnFiles, "Files.set_xattr", "replaces-all")
class DropsAttributes(Stage):
    class View(NamespaceFiles):
        async def xattrs(self, file: Ref, caller: Caller = ROOT) -> Mapping[bytes, bytes]:
            found = await super().xattrs(file, caller)
            return dict(list(found.items())[-1:])

    files_view = View


class Setting(NamespaceFiles):
    """Sets attributes otherwise."""

    async def set_xattr(
        self,
        file: Ref,
        name: bytes,
        value: bytes | None,
        caller: Caller = ROOT,
        *,
        must: Literal["", "create", "replace"] = "",
        by: Owner | None = None,
    ) -> None:
        caller, value = self.meant(name, caller, value)
        await super().set_xattr(file, name, value, caller, must=must, by=by)

    def meant(
        self, name: bytes, caller: Caller, value: bytes | None
    ) -> tuple[Caller, bytes | None]:
        raise NotImplementedError


@faults(OnFiles, "Files.set_xattr", "lists-by-anybody")
class SetsForAll(Stage):
    class View(Setting):
        def meant(
            self, name: bytes, caller: Caller, value: bytes | None
        ) -> tuple[Caller, bytes | None]:
            return (ROOT if name.startswith(b"system.") else caller), value

    files_view = View


@faults(OnFiles, "Files.set_xattr", "drops-the-mask")
class Unmasks(Stage):
    class View(Setting):
        def meant(
            self, name: bytes, caller: Caller, value: bytes | None
        ) -> tuple[Caller, bytes | None]:
            if name == b"system.posix_acl_access" and value is not None:
                value = value.replace(bytes.fromhex("10000600"), bytes.fromhex("10000700"))
            return caller, value

    files_view = View


@faults(OnFiles, "Files.set_xattr", "everybody's-namespace")
class TrustsAll(Stage):
    class View(Setting):
        def meant(
            self, name: bytes, caller: Caller, value: bytes | None
        ) -> tuple[Caller, bytes | None]:
            return (ROOT if name.startswith(b"trusted.") else caller), value

    files_view = View


@faults(OnFiles, "Files.xattr", "read-by-anybody")
class ShowsAll(Stage):
    class View(NamespaceFiles):
        async def xattr(self, file: Ref, name: bytes, caller: Caller = ROOT) -> bytes:
            return await super().xattr(file, name, ROOT)

    files_view = View


@faults(OnFiles, "Files.mkdir", "ignores-the-default")
class InheritsNothing(Stage):
    class View(NamespaceFiles):
        async def mkdir(
            self, directory: Ref, name: bytes, mode: int, caller: Caller = ROOT, **rest: Any
        ) -> FileInfo:
            info = await super().mkdir(directory, name, mode, caller, **rest)
            await self.set_xattr(info.ref, b"system.nfs4_acl", None)
            return info

    files_view = View


@faults(OnFiles, "OpenFile.write", "keeps-set-id")
class KeepsSetIds(Stage):
    class Handle(NamespaceFile):
        async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
            self._clears = None
            return await super().write(offset, data, sync=sync)

    files_view = with_handle(Handle)


@faults(OnFiles, "Files.statfs", "forgets-deletes")
class OnlyGrows(Stage):
    class View(NamespaceFiles):
        async def statfs(self, volume: str) -> Any:
            found = await super().statfs(volume)
            most = max(found.used, getattr(self, "most", 0))
            self.most = most
            return msgspec.structs.replace(found, used=most)

    files_view = View


@faults(OnFiles, "Opens.open", "ignores-share-modes")
class SharesAll(Stage):
    class Table(Opens):
        async def open(self, volume: int, inode: int, owner: Owner, access: Access,
                       deny: Access = Access.NONE, *, reclaim: bool = False) -> Any:  # fmt: skip
            return await super().open(volume, inode, owner, access, Access.NONE, reclaim=reclaim)

    opens_table = Table


@faults(OnFiles, "Opens.lock", "ignores-others")
class LocksAnything(Stage):
    class Table(Opens):
        async def lock(self, *args: Any, **rest: Any) -> None:
            try:
                await super().lock(*args, **rest)
            except WarpError:
                return

    opens_table = Table


@faults(OnFiles, "Opens.recall", "does-not-ask")
class NeverRecalls(Stage):
    class Table(Opens):
        async def _recall(self, node: Node, kinds: Kind, by: Owner | None) -> None:
            return

        async def recall(
            self, volume: int, inode: int, kinds: Kind = ALL, *, by: Owner | None = None
        ) -> None:
            return

    opens_table = Table
