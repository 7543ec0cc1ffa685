"""Faulty Blocks views: the namespace's own, with one thing wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import msgspec
import pytest
from warp_core.errors import AlreadyExists, PreconditionFailed
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.blocks import NamespaceBlocks
from warp_core.namespace.disks import NamespaceDisk
from warp_core.namespace.filelog import FileLog
from warp_core.views.blocks import Disk, DiskInfo, Reservation, ReservationInfo, Run, Status

from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.node import Stage

faults = Faults("blocks")


class OnBlocks(BlocksKit):
    implementation: ClassVar[type[Stage]] = Stage

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Stage]:
        async with self.implementation() as stage:
            yield stage


def with_disk(disk: type[NamespaceDisk]) -> type[NamespaceBlocks]:
    """Return a view whose open disks are others."""
    return type("View", (NamespaceBlocks,), {"disk": disk})


@faults(OnBlocks, "Disk.read", "stale-read")
class ReadsOnce(Stage):
    class Connection(NamespaceDisk):
        async def read(self, offset: int, length: int) -> Buffer:
            known = self.__dict__.setdefault("known", {})
            if (offset, length) not in known:
                known[offset, length] = await super().read(offset, length)
            found: Buffer = known[offset, length]
            return found

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read", "short-read")
class CutsLargeReads(Stage):
    class Connection(NamespaceDisk):
        async def read(self, offset: int, length: int) -> Buffer:
            return (await super().read(offset, length))[: 4 << 20]

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read", "past-the-end")
class ReadsPastTheEnd(Stage):
    class Connection(NamespaceDisk):
        async def read(self, offset: int, length: int) -> Buffer:
            if offset < 0 or offset + length > self.size:
                return bytes(length)
            return await super().read(offset, length)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write", "lost-write")
class LosesWrites(Stage):
    class Connection(NamespaceDisk):
        async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            self._range(offset, len(data))
            self._may_write()

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write", "ignores-fua")
class IgnoresFua(Stage):
    class Connection(NamespaceDisk):
        async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            await super().write(offset, data)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write", "wrong-place")
class RoundsOffsets(Stage):
    class Connection(NamespaceDisk):
        async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            self._range(offset, len(data))
            await super().write(offset // 4096 * 4096, data, fua=fua)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write", "tears-large-writes")
class TearsLargeWrites(Stage):
    class Connection(NamespaceDisk):
        async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
            await super().write(offset, bytes(data)[: 2 << 20], fua=fua)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write", "writable-read-only")
class WritesReadOnly(Stage):
    class View(NamespaceBlocks):
        async def open(
            self,
            volume: str,
            path: bytes,
            *,
            initiator: str,
            read_only: bool = False,
            snapshot: str = "",
        ) -> Disk:
            return await super().open(volume, path, initiator=initiator)

    blocks_view = View


@faults(OnBlocks, "Disk.read_runs", "leaves-out-holes")
class TellsOnlyData(Stage):
    class Connection(NamespaceDisk):
        async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
            return [run for run in await super().read_runs(offset, length) if run[2] is not None]

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read_runs", "ignores-reservations")
class ReadsRunsOfOthers(Stage):
    class Connection(NamespaceDisk):
        async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
            self._range(offset, length)
            return await self._file.read_runs(offset, length)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read_now", "stale-read")
class ReadsAtOnceOnce(Stage):
    class Connection(NamespaceDisk):
        def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
            known = self.__dict__.setdefault("known", {})
            if (offset, length) not in known:
                known[offset, length] = super().read_now(offset, length)
            found: Sequence[Run] | None = known[offset, length]
            return found

        def write_now(self, offset: int, data: Buffer) -> bool:
            self.read_now(offset, len(data))
            return super().write_now(offset, data)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read_now", "past-the-end")
class ReadsAtOncePastTheEnd(Stage):
    class Connection(NamespaceDisk):
        def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
            if offset < 0 or offset + length > self.size:
                return [(offset, length, None)]
            return super().read_now(offset, length)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.read_now", "ignores-reservations")
class ReadsAtOnceWhatIsReserved(Stage):
    class Connection(NamespaceDisk):
        def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
            self._range(offset, length)
            return self._file.read_runs_now(offset, length)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write_now", "lost-write")
class LosesWritesAtOnce(Stage):
    class Connection(NamespaceDisk):
        def write_now(self, offset: int, data: Buffer) -> bool:
            self._range(offset, len(data))
            self._may_write()
            return True

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write_now", "early-acknowledgement")
class WritesAtOnceLater(Stage):
    class Connection(NamespaceDisk):
        def write_now(self, offset: int, data: Buffer) -> bool:
            self._range(offset, len(data))
            self._may_write()
            asyncio.get_running_loop().call_soon(self._file.write_now, offset, data)
            return True

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write_now", "ignores-reservations")
class WritesAtOnceWhatIsReserved(Stage):
    class Connection(NamespaceDisk):
        def write_now(self, offset: int, data: Buffer) -> bool:
            self._range(offset, len(data))
            return self._file.write_now(offset, data)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.write_now", "between-compare-and-write")
class WritesBetween(Stage):
    class Connection(NamespaceDisk):
        def write_now(self, offset: int, data: Buffer) -> bool:
            self._range(offset, len(data))
            self._may_write()
            return self._file.write_now(offset, data)

        async def compare_and_write(
            self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
        ) -> None:
            async with self._shared.exclusive:
                if bytes(await self._file.read(offset, len(expected))) != bytes(expected):
                    raise PreconditionFailed("it differs", condition="0")
                await asyncio.sleep(0)
                await self._file.write(offset, data)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.flush", "early-acknowledgement")
class FlushesNothing(Stage):
    class Connection(NamespaceDisk):
        async def flush(self) -> None:
            return

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "FileLog.flush", "early-acknowledgement")
class NeverSyncs(Stage):
    class Log(FileLog):
        async def flush(self) -> None:
            return

    file_log = Log


@faults(OnBlocks, "Disk.trim", "does-nothing")
class TrimsNothing(Stage):
    class Connection(NamespaceDisk):
        async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
            self._range(offset, length, large=True)
            self._may_write()

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.trim", "keeps-space")
class TrimsByWriting(Stage):
    class Connection(NamespaceDisk):
        async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
            await super().zero(offset, length, fua=fua, may_trim=False)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.zero", "gives-space-back")
class AlwaysTrims(Stage):
    class Connection(NamespaceDisk):
        async def zero(
            self, offset: int, length: int, *, fua: bool = False, may_trim: bool = True
        ) -> None:
            await super().zero(offset, length, fua=fua)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.zero", "ignores-fua")
class ZerosLater(Stage):
    class Connection(NamespaceDisk):
        async def zero(
            self, offset: int, length: int, *, fua: bool = False, may_trim: bool = True
        ) -> None:
            await super().zero(offset, length, may_trim=may_trim)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.status", "everything-is-data")
class SeesNoHoles(Stage):
    class Connection(NamespaceDisk):
        async def status(self, offset: int, length: int, *, limit: int = 1024) -> Sequence[Status]:
            self._range(offset, length, large=True)
            return [Status(offset, length, hole=False)]

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.status", "inverted")
class Inverts(Stage):
    class Connection(NamespaceDisk):
        async def status(self, offset: int, length: int, *, limit: int = 1024) -> Sequence[Status]:
            found = await super().status(offset, length, limit=limit)
            return [run._replace(hole=not run.hole) for run in found]

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.compare_and_write", "not-atomic")
class ComparesThenWrites(Stage):
    class Connection(NamespaceDisk):
        async def compare_and_write(
            self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
        ) -> None:
            await super().compare_and_write(offset, expected, expected)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await self.write(offset, data, fua=fua)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.compare_and_write", "never-differs")
class NeverCompares(Stage):
    class Connection(NamespaceDisk):
        async def compare_and_write(
            self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
        ) -> None:
            try:
                await super().compare_and_write(offset, expected, data, fua=fua)
            except PreconditionFailed:
                await self.write(offset, data, fua=fua)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.compare_and_write", "no-place")
class HidesThePlace(Stage):
    class Connection(NamespaceDisk):
        async def compare_and_write(
            self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
        ) -> None:
            try:
                await super().compare_and_write(offset, expected, data, fua=fua)
            except PreconditionFailed:
                raise PreconditionFailed("it differs", condition="0") from None

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.resizes", "tells-nobody")
class TellsNobody(Stage):
    class Connection(NamespaceDisk):
        async def resizes(self) -> AsyncIterator[int]:
            return
            yield

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Blocks.resize", "old-data-come-back")
class KeepsTheTail(Stage):
    class View(NamespaceBlocks):
        async def resize(self, volume: str, path: bytes, size: int) -> DiskInfo:
            disk = await self.open(volume, path, initiator="resize")
            tail = bytes(await disk.read(disk.size - 512, 512))
            kept: dict[int, bytes] = self.__dict__.setdefault("kept", {})
            kept[disk.size] = tail
            info = await super().resize(volume, path, size)
            if size in kept:
                await disk.write(size - 512, kept[size])
            await disk.close()
            return info

    blocks_view = View


@faults(OnBlocks, "Blocks.create", "any-size")
class RoundsSizes(Stage):
    class View(NamespaceBlocks):
        async def create(self, volume: str, path: bytes, *, size: int | None) -> DiskInfo:
            rounded = None if size is None else max(512, size // 512 * 512)
            return await super().create(volume, path, size=rounded)

    blocks_view = View


@faults(OnBlocks, "Blocks.create", "replaces")
class Replaces(Stage):
    class View(NamespaceBlocks):
        async def create(self, volume: str, path: bytes, *, size: int | None) -> DiskInfo:
            try:
                return await super().create(volume, path, size=size)
            except AlreadyExists:
                return await self.show(volume, path)

    blocks_view = View


@faults(OnBlocks, "Blocks.disks", "new-serial")
class ChangesSerials(Stage):
    class View(NamespaceBlocks):
        async def show(self, volume: str, path: bytes, *, snapshot: str = "") -> DiskInfo:
            self.shown = getattr(self, "shown", 0) + 1
            info = await super().show(volume, path, snapshot=snapshot)
            return msgspec.structs.replace(info, serial=f"{id(self) + self.shown:016x}")

    blocks_view = View


@faults(OnBlocks, "Blocks.delete", "under-its-users")
class DeletesOpenDisks(Stage):
    class View(NamespaceBlocks):
        async def delete(self, volume: str, path: bytes) -> None:
            parent = await self._files.lookup_parent(volume, path)
            await self._files.unlink(parent, path.rpartition(b"/")[2])

    blocks_view = View


@faults(OnBlocks, "Blocks.clone", "ignores-the-snapshot")
class ClonesNow(Stage):
    class View(NamespaceBlocks):
        async def clone(
            self, volume: str, path: bytes, target: bytes, *, snapshot: str = ""
        ) -> DiskInfo:
            return await super().clone(volume, path, target)

    blocks_view = View


@faults(OnBlocks, "Blocks.delete_snapshot", "keeps-it")
class KeepsSnapshots(Stage):
    class View(NamespaceBlocks):
        async def delete_snapshot(self, volume: str, path: bytes, snapshot: str) -> None:
            return

    blocks_view = View


@faults(OnBlocks, "Disk.reserve", "only-remembered")
class KeepsNobodyOut(Stage):
    class Connection(NamespaceDisk):
        def _may_write(self) -> None:
            return

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.reserve", "lets-others-read")
class AllMayRead(Stage):
    class Connection(NamespaceDisk):
        def _may_read(self) -> None:
            return

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.register", "any-key")
class TakesAnyKey(Stage):
    class Connection(NamespaceDisk):
        async def reserve(self, key: int, kind: Reservation) -> None:
            await self.register(key)
            await super().reserve(key, kind)

        async def release(self, key: int, kind: Reservation) -> None:
            await self.register(key)
            await super().release(key, kind)

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.preempt", "leaves-the-registration")
class PreemptsHalf(Stage):
    class Connection(NamespaceDisk):
        async def preempt(self, key: int, victim: int, kind: Reservation) -> None:
            before = await self.reservations()
            await super().preempt(key, victim, kind)

            await self._update(lambda row: msgspec.structs.replace(row, keys=dict(before.keys)))

    blocks_view = with_disk(Connection)


@faults(OnBlocks, "Disk.reservations", "forgotten-at-restart")
class ForgetsReservations(Stage):
    async def crash(self) -> None:
        for info in await self.blocks.disks(self.volume):
            disk = await self.blocks.open(self.volume, info.path, initiator="restart")
            assert isinstance(disk, NamespaceDisk)
            await disk._update(lambda row: msgspec.structs.replace(row, keys={}, kind=0, holder=""))
        await super().crash()


@faults(OnBlocks, "Disk.reservations", "generation-stands")
class StandsStill(Stage):
    class Connection(NamespaceDisk):
        async def reservations(self) -> ReservationInfo:
            return (await super().reservations())._replace(generation=0)

    blocks_view = with_disk(Connection)
