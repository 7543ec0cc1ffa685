"""Content of files: read and written in place, and what is left of it after a crash."""

from __future__ import annotations

import asyncio
import random

import pytest
from warp_core.errors import InvalidArgument, OutOfRange, PermissionDenied, StaleHandle
from warp_core.namespace.opens import HERE, Owner

from warp_conformance.difference import same
from warp_conformance.kits.files.stage import (
    KIB,
    MIB,
    NONE,
    READ,
    WRITE,
    YOU,
    FilesPart,
    FilesStage,
)


class Content(FilesPart, kit=True):
    """Content of files: read and written in place, and what is left of it after a crash."""

    # Reading and writing --------------------------------------------------------------------------

    async def test_what_is_written_is_read_by_every_handle(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"hello")
        other = await subject.files.open(file.ref, owner=YOU, access=READ, deny=NONE)

        await file.write(5, b" world")

        assert bytes(await other.read(0, 100)) == b"hello world"
        assert other.size == 11
        assert (await subject.files.getattr(file.ref)).size == 11

    async def test_a_range_is_copied_between_files_and_within_one(
        self, subject: FilesStage
    ) -> None:
        source = await self.make(subject, b"a", random.Random(1).randbytes(3 * MIB))
        content = bytearray(await source.read(0, 3 * MIB))
        target = await self.make(subject, b"b", b"0123456789")

        assert await target.copy_from(source, offset=100, length=2 * MIB, at=5) == 2 * MIB
        assert await target.copy_from(source, offset=3 * MIB - 2, length=50, at=0) == 2
        assert await target.copy_from(source, offset=3 * MIB, length=50, at=0) == 0
        assert await source.copy_from(source, offset=0, length=KIB, at=KIB) == KIB
        with pytest.raises(InvalidArgument):
            await source.copy_from(source, offset=0, length=KIB, at=KIB - 1)

        expected = bytes(content[-2:]) + b"234" + bytes(content[100 : 100 + 2 * MIB])
        assert same(await self.content(subject, b"b"), expected)
        content[KIB : 2 * KIB] = content[:KIB]
        assert same(await self.content(subject, b"a"), bytes(content))

    async def test_what_is_allocated_already_counts_as_a_change(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"0123456789")
        times = [(await file.info()).modified_ns]
        for call in (
            file.allocate(0, 5),
            file.allocate(100, 5, keep_size=True),
            file.punch(50, 5),
        ):
            await call
            times.append((await file.info()).modified_ns)

        assert times == sorted(set(times))
        assert file.size == 10

    async def test_reads_are_short_at_the_end_only(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"0123456789")

        assert bytes(await file.read(8, 100)) == b"89"
        assert bytes(await file.read(10, 5)) == b""
        assert bytes(await file.read(99, 5)) == b""
        assert bytes(await file.read(3, 4)) == b"3456"

    async def test_a_write_behind_the_end_leaves_a_hole_of_zeros(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x")

        await file.write(3 * MIB + 5, b"y")

        assert file.size == 3 * MIB + 6
        assert bytes(await file.read(MIB - 2, 5)) == bytes(5)
        assert bytes(await file.read(3 * MIB + 3, 9)) == b"\0\0y"
        assert (await file.info()).allocated < 3 * MIB

    async def test_data_survive_closing(self, subject: FilesStage) -> None:
        data = random.Random(1).randbytes(MIB + 4321)
        file = await self.make(subject, b"a")
        for start in range(0, len(data), 300 * KIB):
            await file.write(start, data[start : start + 300 * KIB])
        await file.close()

        assert same(await self.content(subject, b"a"), data)

    async def test_overwriting_changes_only_its_range(self, subject: FilesStage) -> None:
        data = bytearray(random.Random(2).randbytes(2 * MIB + 100))
        file = await self.make(subject, b"a", bytes(data))
        rand = random.Random(3)
        for _ in range(30):
            offset = rand.randrange(len(data))
            new = rand.randbytes(rand.choice([1, 17, 4096, 70_000]))[: len(data) - offset]
            data[offset : offset + len(new)] = new
            await file.write(offset, new)
        await file.close()

        assert same(await self.content(subject, b"a"), bytes(data))

    async def test_the_callers_buffer_may_be_reused(self, subject: FilesStage) -> None:
        buffer = bytearray(b"first")
        file = await self.make(subject, b"a")

        await file.write(0, buffer)
        buffer[:] = b"XXXXX"

        assert bytes(await file.read(0, 5)) == b"first"

    async def test_appends_of_several_handles_never_overlap(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        handles = [
            await subject.files.open(file.ref, owner=Owner(HERE, n), access=WRITE, deny=NONE)
            for n in range(4)
        ]

        places = await asyncio.gather(
            *(handle.append(bytes([n + 1]) * 100) for n, handle in enumerate(handles * 5))
        )

        assert sorted(places) == [100 * n for n in range(20)]
        whole = bytes(await file.read(0, 3000))
        assert all(len(set(whole[at : at + 100])) == 1 for at in range(0, 2000, 100))

    async def test_truncation_cuts_for_good(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"0123456789")

        await file.truncate(4)
        await file.truncate(8)

        assert bytes(await file.read(0, 20)) == b"0123\0\0\0\0"
        await file.close()
        assert await self.content(subject, b"a") == b"0123\0\0\0\0"

    async def test_punching_makes_a_hole_and_keeps_the_size(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x" * (2 * MIB))
        await file.sync()

        await file.punch(100, MIB)

        assert file.size == 2 * MIB
        assert bytes(await file.read(99, 3)) == b"x\0\0"
        assert bytes(await file.read(MIB + 99, 2)) == b"\0x"
        await file.close()
        assert (await subject.files.getattr(file.ref)).allocated <= MIB + 4096

    async def test_seek_tells_data_from_holes(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        await file.write(2 * MIB, b"x" * MIB)
        await file.truncate(5 * MIB)

        assert await file.seek(0, "data") == 2 * MIB
        assert await file.seek(0, "hole") == 0
        assert await file.seek(2 * MIB, "hole") == 3 * MIB
        assert await file.seek(2 * MIB + 5, "data") == 2 * MIB + 5
        with pytest.raises(OutOfRange):
            await file.seek(3 * MIB, "data")
        with pytest.raises(OutOfRange):
            await file.seek(5 * MIB, "hole")

    async def test_allocate_extends_unless_told_not_to(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x")

        await file.allocate(0, 100, keep_size=True)
        assert file.size == 1
        await file.allocate(50, 50)

        assert file.size == 100
        assert bytes(await file.read(0, 3)) == b"x\0\0"

    async def test_handles_do_what_they_were_opened_for(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x")
        reader = await subject.files.open(file.ref, owner=YOU, access=READ, deny=NONE)
        writer = await subject.files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)

        with pytest.raises(PermissionDenied):
            await reader.write(0, b"y")
        with pytest.raises(PermissionDenied):
            await writer.read(0, 1)
        await reader.close()
        with pytest.raises(StaleHandle):
            await reader.read(0, 1)

    # Durability -----------------------------------------------------------------------------------

    async def test_synced_data_survive_a_crash(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x" * 100)
        await file.write(MIB + 8 * KIB, b"y" * 4096)
        await file.sync()

        await subject.crash()

        assert same(
            await self.content(subject, b"a"), b"x" * 100 + bytes(MIB + 8 * KIB - 100) + b"y" * 4096
        )

    async def test_a_synchronous_write_survives_a_crash(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        await file.write(0, b"kept", sync=True)

        await subject.crash()

        assert await self.content(subject, b"a") == b"kept"

    async def test_a_sync_covers_what_others_wrote(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        other = await subject.files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)
        await other.write(0, b"kept")
        await file.sync()

        await subject.crash()

        assert await self.content(subject, b"a") == b"kept"

    async def test_truncation_and_holes_survive_a_crash(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x" * 1000)
        await file.sync()
        await file.truncate(500)
        await file.punch(100, 50)
        await file.sync()

        await subject.crash()

        assert await self.content(subject, b"a") == b"x" * 100 + bytes(50) + b"x" * 350

    async def test_a_crash_loses_a_tail_and_never_mixes(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        await file.write(0, b"1" * 100, sync=True)
        for round_ in (b"2", b"3", b"4"):
            await file.write(0, round_ * 100)

        await subject.crash()

        found = await self.content(subject, b"a")
        assert found in {digit * 100 for digit in (b"1", b"2", b"3", b"4")}

    async def test_names_survive_a_crash(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        directory = await subject.files.mkdir(root, b"d", 0o755)
        file = await self.make(subject, b"a", b"x")
        await file.sync()
        await subject.files.rename(root, b"a", directory.ref, b"b")

        await subject.crash()

        assert await self.names(subject) == [b"d"]
        assert await self.content(subject, b"d/b") == b"x"
