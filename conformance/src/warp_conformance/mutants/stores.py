"""Faulty stores."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import ClassVar

import pytest
from warp_core.errors import InvalidArgument, NoSpace, StoreFailed
from warp_core.interfaces.stores import BlobInfo, BlobStore, Buffer, Space, check_blob_name

from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_conformance.mutation import Faults
from warp_conformance.reference.stores import Blob, Medium, Plain

faults = Faults("stores")


class OnStore(BlobStoreKit):
    implementation: ClassVar[type[Plain]] = Plain

    @pytest.fixture
    def medium(self) -> Medium:
        return Medium()

    @pytest.fixture
    def subject(self, medium: Medium) -> BlobStore:
        return self.implementation(medium)

    @pytest.fixture
    def reopen(self, medium: Medium) -> Reopen:
        """Cut the power."""

        async def again() -> BlobStore:
            return self.implementation(medium)

        return again


@faults(OnStore, "BlobStore.put", "lost-write")
class LosesPuts(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        check_blob_name(name)


@faults(OnStore, "BlobStore.put", "early-acknowledgement")
class PutsLater(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        before = self.medium.blobs.get(name, Blob(bytearray()))
        await super().put(name, buffers, vital=vital)
        self.medium.blobs[name] = before


@faults(OnStore, "BlobStore.put", "swapped-buffers")
class SwapsBuffers(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        swapped = [*buffers[1::-1], *buffers[2:]] if len(buffers) > 1 else buffers
        await super().put(name, swapped, vital=vital)


@faults(OnStore, "BlobStore.put", "keeps-the-tail")
class KeepsTheTail(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        old = self.blobs.get(name)
        await super().put(name, buffers, vital=vital)
        if old is not None:
            self.blobs[name].data += old.data[len(self.blobs[name].data) :]


@faults(OnStore, "BlobStore.put", "partial-put-visible")
class ShowsHalves(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        if len(buffers) > 1:
            self.blobs[name] = Blob(bytearray(buffers[0]))
            for _ in range(3):
                await asyncio.sleep(0)
        await super().put(name, buffers, vital=vital)


@faults(OnStore, "BlobStore.put", "keeps-the-buffer")
class KeepsBuffers(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        await super().put(name, buffers, vital=vital)
        self.kept = {**getattr(self, "kept", {}), name: list(buffers)}

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        data = await super().read(name, offset=offset, length=length)
        kept = getattr(self, "kept", {}).get(name)
        return b"".join(kept)[offset : offset + length] if kept and self.blobs[name].whole else data


@faults(OnStore, "BlobStore.put", "replaces-nothing")
class KeepsTheFirst(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        if name not in self.blobs:
            await super().put(name, buffers, vital=vital)


@faults(OnStore, "BlobStore.put", "accepts-any-name")
class AcceptsAnyName(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        self.blobs[name] = Blob(bytearray().join(buffers))
        self.keep(name)


@faults(OnStore, "BlobStore.put", "spends-the-reserve")
class SpendsTheReserve(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        await super().put(name, buffers, vital=True)


@faults(OnStore, "BlobStore.put", "vital-refused")
class RefusesVital(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        await super().put(name, buffers)


@faults(OnStore, "BlobStore.put", "folder-hides-blob")
class FoldersHideBlobs(Plain):
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        await super().put(name, buffers, vital=vital)
        self.blobs.pop(name.rpartition("/")[0], None)


@faults(OnStore, "BlobStore.read", "ignored-offset")
class IgnoresOffsets(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        return await super().read(name, offset=0, length=length)


@faults(OnStore, "BlobStore.read", "ignored-length")
class IgnoresLengths(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        return await super().read(name, offset=offset, length=1 << 30)


@faults(OnStore, "BlobStore.read", "short-read")
class ReadsShort(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        return await super().read(name, offset=offset, length=min(length, 65_536))


@faults(OnStore, "BlobStore.read", "swapped-bytes")
class SwapsBytes(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        data = await super().read(name, offset=offset, length=length)
        return data[1::-1] + data[2:]


@faults(OnStore, "BlobStore.read", "wrong-error")
class BlamesTheDevice(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        if name not in self.blobs:
            raise StoreFailed(name)
        return await super().read(name, offset=offset, length=length)


@faults(OnStore, "BlobStore.read", "missing-is-empty")
class ReadsNothing(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        return await super().read(name, offset=offset, length=length) if name in self.blobs else b""


@faults(OnStore, "BlobStore.read", "padded-with-zeros")
class PadsReads(Plain):
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        return (await super().read(name, offset=offset, length=length)).ljust(length, b"\0")


@faults(OnStore, "BlobStore.read_into", "overruns")
class Overruns(Plain):
    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        count = await super().read_into(name, offset=offset, buffer=buffer)
        buffer[count:] = bytes(len(buffer) - count)
        return count


@faults(OnStore, "BlobStore.read_into", "counts-wishes")
class CountsWishes(Plain):
    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        await super().read_into(name, offset=offset, buffer=buffer)
        return len(buffer)


@faults(OnStore, "BlobStore.read_now", "stale-read")
class RemembersReads(Plain):
    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        seen = self.__dict__.setdefault("seen", {})
        if (name, offset, length) not in seen:
            seen[name, offset, length] = super().read_now(name, offset=offset, length=length)
        found: bytes | None = seen[name, offset, length]
        return found


@faults(OnStore, "BlobStore.read_now", "claims-what-it-lacks")
class NeverNow(Plain):
    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        return None


@faults(OnStore, "BlobStore.delete", "lost-delete")
class LosesDeletes(Plain):
    async def delete(self, name: str) -> None:
        self.find(name)


@faults(OnStore, "BlobStore.delete", "early-acknowledgement")
class DeletesLater(Plain):
    async def delete(self, name: str) -> None:
        kept = self.medium.blobs[name] if name in self.medium.blobs else Blob(bytearray())
        await super().delete(name)
        self.medium.blobs[name] = kept


@faults(OnStore, "BlobStore.delete", "silent-about-missing")
class DeletesNothing(Plain):
    async def delete(self, name: str) -> None:
        if name in self.blobs:
            await super().delete(name)


@faults(OnStore, "BlobStore.delete", "takes-the-folder-along")
class DeletesFolders(Plain):
    async def delete(self, name: str) -> None:
        await super().delete(name)
        for other in [other for other in self.blobs if other.startswith(name + "/")]:
            await super().delete(other)


@faults(OnStore, "BlobStore.list", "stale-list")
class ListsTheDead(Plain):
    async def delete(self, name: str) -> None:
        await super().delete(name)
        self.dead = [*getattr(self, "dead", []), BlobInfo(name, 0, 0)]

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        found = await super().list(prefix, after=after, limit=limit)
        known = {info.name for info in found}
        dead = [
            one for one in getattr(self, "dead", []) if one.name not in known and one.name > after
        ]
        return sorted([*found, *(one for one in dead if one.name.startswith(prefix))])[:limit]


@faults(OnStore, "BlobStore.list", "unsorted")
class ListsByArrival(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        names = [name for name in self.blobs if name.startswith(prefix) and name > after]
        return [await self.stat(name) for name in names[:limit]]


@faults(OnStore, "BlobStore.list", "folders-first")
class SortsByFolder(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        names = sorted(name.split("/") for name in self.blobs if name.startswith(prefix))
        found = ["/".join(parts) for parts in names if parts > after.split("/") or not after]
        return [await self.stat(name) for name in found[:limit]]


@faults(OnStore, "BlobStore.list", "ignored-prefix")
class IgnoresPrefixes(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        return await super().list("", after=after, limit=limit)


@faults(OnStore, "BlobStore.list", "page-overlaps")
class OverlapsPages(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        names = sorted(name for name in self.blobs if name.startswith(prefix) and name >= after)
        return [await self.stat(name) for name in names[:limit]]


@faults(OnStore, "BlobStore.list", "ignored-limit")
class IgnoresLimits(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        return await super().list(prefix, after=after, limit=limit + 1)


@faults(OnStore, "BlobStore.list", "wrong-size")
class ListsOtherSizes(Plain):
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        found = await super().list(prefix, after=after, limit=limit)
        return [BlobInfo(info.name, info.size + 1, info.allocated) for info in found]


@faults(OnStore, "BlobStore.create", "replaces")
class CreatesOver(Plain):
    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        self.blobs.pop(name, None)
        await super().create(name, reserve=reserve, recycle=recycle, vital=vital)


@faults(OnStore, "BlobStore.create", "old-bytes-show")
class ShowsOldBytes(Plain):
    async def delete(self, name: str) -> None:
        self.old = bytes(self.find(name).data)
        await super().delete(name)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        await super().create(name, reserve=reserve, recycle=recycle, vital=vital)
        old = getattr(self, "old", b"")[:reserve]
        self.blobs[name].data[: len(old)] = old


@faults(OnStore, "BlobStore.create", "reserves-nothing")
class ReservesNothing(Plain):
    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        await super().create(name, reserve=0, recycle=recycle, vital=vital)


@faults(OnStore, "BlobStore.create", "no-space-left-behind")
class LeavesRuins(Plain):
    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        try:
            await super().create(name, reserve=reserve, recycle=recycle, vital=vital)
        except NoSpace:
            await super().create(name, reserve=0, vital=True)
            raise


@faults(OnStore, "BlobStore.create", "promises-space")
class PromisesSpace(Plain):
    def admit(self, size: int, vital: bool) -> None:
        return


@faults(OnStore, "BlobStore.write", "ignored-offset")
class WritesAtZero(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        await super().write(name, offset=0, buffers=buffers, sync=sync)


@faults(OnStore, "BlobStore.write", "lost-buffer")
class WritesOneVector(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        await super().write(name, offset=offset, buffers=buffers[:1024], sync=sync)


@faults(OnStore, "BlobStore.write", "ignored-sync")
class ForgetsSync(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        await super().write(name, offset=offset, buffers=buffers)


@faults(OnStore, "BlobStore.write", "writes-to-sealed")
class WritesToSealed(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        self.find(name).whole = False
        await super().write(name, offset=offset, buffers=buffers, sync=sync)


@faults(OnStore, "BlobStore.write", "creates")
class WritesIntoBeing(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        self.blobs.setdefault(name, Blob(bytearray(), whole=False))
        await super().write(name, offset=offset, buffers=buffers, sync=sync)


@faults(OnStore, "BlobStore.write", "mixes-writers")
class MixesWriters(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        self.place = offset
        await asyncio.sleep(0)
        await super().write(name, offset=self.place, buffers=buffers, sync=sync)


@faults(OnStore, "BlobStore.write", "uses-the-buffer-later")
class WritesBehindTheBack(Plain):
    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        if self.find(name).whole:
            raise InvalidArgument(name)

        async def later() -> None:
            await asyncio.sleep(0.001)
            await Plain.write(self, name, offset=offset, buffers=buffers, sync=sync)

        await asyncio.shield(asyncio.create_task(later()))


@faults(OnStore, "BlobStore.sync", "early-acknowledgement")
class SyncsNothing(Plain):
    async def sync(self, name: str) -> None:
        self.find(name)


@faults(OnStore, "BlobStore.sync", "syncs-the-first-write")
class SyncsTheFront(Plain):
    def keep(self, name: str) -> None:
        old = self.medium.blobs.get(name)
        super().keep(name)
        if old is not None and not self.blobs[name].whole:
            kept = self.medium.blobs[name].data
            kept[1024:] = old.data[1024:]


@faults(OnStore, "BlobStore.seal", "does-not-cut")
class SealsUncut(Plain):
    async def seal(self, name: str, *, size: int) -> None:
        await super().seal(name, size=1 << 30)


@faults(OnStore, "BlobStore.seal", "forgotten-seal")
class ForgetsSeals(Plain):
    async def seal(self, name: str, *, size: int) -> None:
        await super().seal(name, size=size)
        self.medium.blobs[name].whole = False


@faults(OnStore, "BlobStore.seal", "extends")
class SealsTwice(Plain):
    async def seal(self, name: str, *, size: int) -> None:
        if self.find(name).whole:
            self.blobs[name].data.extend(b"x")
        await super().seal(name, size=size + 1)


@faults(OnStore, "BlobStore.punch", "punches-the-neighbours")
class PunchesTooMuch(Plain):
    async def punch(self, name: str, *, offset: int, length: int) -> None:
        await super().punch(name, offset=offset, length=length + 4096)


@faults(OnStore, "BlobStore.punch", "punches-nothing")
class PunchesNothing(Plain):
    async def punch(self, name: str, *, offset: int, length: int) -> None:
        self.find(name)


@faults(OnStore, "BlobStore.punch", "cuts")
class PunchesTheEndOff(Plain):
    async def punch(self, name: str, *, offset: int, length: int) -> None:
        await super().punch(name, offset=offset, length=length)
        data = self.find(name).data
        if offset + length >= len(data):
            del data[offset:]


@faults(OnStore, "BlobStore.space", "does-not-add-up")
class BoastsOfSpace(Plain):
    async def space(self) -> Space:
        return Space(self.capacity, self.capacity, self.reserve)


@faults(OnStore, "BlobStore.id", "changes")
class ForgetsWhoItIs(Plain):
    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self.id = secrets.token_hex(8)
