"""The kit for the Files view."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar, Protocol

import pytest
from warp_core.errors import (
    AlreadyExists,
    CrossesVolumes,
    Deadlock,
    InvalidArgument,
    IsADirectory,
    Locked,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    OutOfRange,
    PermissionDenied,
    StaleHandle,
    TooLarge,
)
from warp_core.namespace.leases import ALL, FOR_WRITE
from warp_core.namespace.opens import END, HERE, Access, Owner
from warp_core.views.claims import Recalled
from warp_core.views.files import (
    ROOT,
    XATTRS_MAX,
    Caller,
    Files,
    OpenFile,
    Ref,
    Rename,
    SetInfo,
    Want,
)

from warp_conformance.difference import same
from warp_conformance.kit import Kit

READ, WRITE, NONE = Access.READ, Access.WRITE, Access.NONE
BOTH = READ | WRITE
ME, YOU = Owner(HERE, b"me"), Owner(HERE, b"you")
ALICE = Caller(uid=1000, gid=100, name="unix:1000")
BOB = Caller(uid=1001, gid=101, groups=frozenset({100}), name="unix:1001")
KIB, MIB = 1024, 1024 * 1024


class FilesStage(Protocol):
    """The subject: a view with an empty volume, that can lose what was not durable."""

    files: Files
    volume: str

    async def crash(self) -> None:
        """Begin anew with what was durable; `files` is another one then. Handles are gone."""


class FilesKit(Kit, kit=True):
    """Tests of a Files view. `subject` is a FilesStage."""

    time_limit_s: ClassVar[float] = 30.0

    async def root(self, subject: FilesStage) -> Ref:
        """Return the root directory."""
        return await subject.files.root(subject.volume)

    async def make(
        self, subject: FilesStage, name: bytes, data: bytes = b"", *, owner: Owner = ME
    ) -> OpenFile:
        """Make a file in the root and leave it open."""
        file, _ = await subject.files.create(
            await self.root(subject), name, 0o644, owner=owner, access=BOTH, deny=NONE
        )
        if data:
            await file.write(0, data)
        return file

    async def content(self, subject: FilesStage, path: bytes) -> bytes:
        """Return the whole content of a file."""
        info = await subject.files.walk(subject.volume, path)
        file = await subject.files.open(info.ref, owner=YOU, access=READ, deny=NONE)
        try:
            found = b""
            while part := bytes(await file.read(len(found), MIB)):
                found += part
            return found
        finally:
            await file.close()

    async def names(self, subject: FilesStage, path: bytes = b"", limit: int = 3) -> list[bytes]:
        """Return a directory's names, sorted, read in small pages."""
        info = await subject.files.walk(subject.volume, path)
        found: list[bytes] = []
        cookie = 0
        while True:
            page, last = await subject.files.readdir(info.ref, cookie=cookie, limit=limit)
            found += [entry.name for entry in page]
            if last:
                return sorted(found)
            cookie = page[-1].cookie

    # Reading and writing --------------------------------------------------------------------------

    async def test_what_is_written_is_read_by_every_handle(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"hello")
        other = await subject.files.open(file.ref, owner=YOU, access=READ, deny=NONE)

        await file.write(5, b" world")

        assert bytes(await other.read(0, 100)) == b"hello world"
        assert other.size == 11
        assert (await subject.files.getattr(file.ref)).size == 11

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

    # Names ----------------------------------------------------------------------------------------

    async def test_exclusive_creation_finds_what_is_there(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await (await self.make(subject, b"a", b"x")).close()

        with pytest.raises(AlreadyExists):
            await subject.files.create(
                root, b"a", 0o644, owner=ME, access=BOTH, deny=NONE, exclusive=True
            )
        file, made = await subject.files.create(root, b"a", 0o600, owner=ME, access=BOTH, deny=NONE)

        assert not made
        assert bytes(await file.read(0, 5)) == b"x"
        assert (await file.info()).mode == 0o644

    async def test_one_of_many_exclusive_creators_wins(self, subject: FilesStage) -> None:
        root = await self.root(subject)

        async def attempt(n: int) -> bool:
            try:
                await subject.files.create(
                    root, b"a", 0o644, owner=Owner(HERE, n), access=BOTH, deny=NONE, exclusive=True
                )
            except AlreadyExists:
                return False
            return True

        assert sum(await asyncio.gather(*(attempt(n) for n in range(8)))) == 1

    async def test_creation_may_truncate(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await (await self.make(subject, b"a", b"content")).close()

        file, made = await subject.files.create(
            root, b"a", 0o644, owner=ME, access=BOTH, deny=NONE, truncate=True
        )

        assert not made
        assert file.size == 0

    async def test_directories_nest_and_list(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        directory = await subject.files.mkdir(root, b"d", 0o755)
        inner = await subject.files.mkdir(directory.ref, b"e", 0o750)
        for n in range(10):
            await subject.files.symlink(inner.ref, b"n%d" % n, b"t")

        assert directory.kind == "directory"
        assert await self.names(subject) == [b"d"]
        assert await self.names(subject, b"d/e") == [b"n%d" % n for n in range(10)]
        assert (await subject.files.parent(inner.ref)).inode == directory.ref.inode
        assert (await subject.files.parent(directory.ref)).inode == root.inode
        with pytest.raises(AlreadyExists):
            await subject.files.mkdir(root, b"d", 0o755)

    async def test_cookies_stay_valid_while_entries_come_and_go(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        for n in range(20):
            await subject.files.symlink(root, b"stays%d" % n, b"t")
            await subject.files.symlink(root, b"goes%d" % n, b"t")
        seen: list[bytes] = []
        cookie, last = 0, False
        while not last:
            page, last = await subject.files.readdir(root, cookie=cookie, limit=4)
            seen += [entry.name for entry in page]
            for entry in page:
                if entry.name.startswith(b"goes"):
                    await subject.files.unlink(root, entry.name)
                    await subject.files.symlink(root, b"new-" + entry.name, b"t")
            if page:
                cookie = page[-1].cookie

        stays = [name for name in seen if name.startswith(b"stays")]
        assert sorted(stays) == sorted(b"stays%d" % n for n in range(20))

    async def test_a_cookie_survives_a_crash(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        names = {b"f%d" % n for n in range(12)}
        for name in names:
            await subject.files.symlink(root, name, b"t")
        page, _ = await subject.files.readdir(root, limit=5)
        first = {entry.name for entry in page}
        await subject.files.unlink(root, page[-1].name)

        await subject.crash()

        rest, last = await subject.files.readdir(await self.root(subject), cookie=page[-1].cookie)
        assert last
        assert {entry.name for entry in rest} == names - first

    async def test_only_empty_directories_are_removed(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        directory = await subject.files.mkdir(root, b"d", 0o755)
        await subject.files.symlink(directory.ref, b"x", b"t")

        with pytest.raises(NotEmpty):
            await subject.files.rmdir(root, b"d")
        with pytest.raises(IsADirectory):
            await subject.files.unlink(root, b"d")
        with pytest.raises(NotADirectory):
            await subject.files.rmdir(directory.ref, b"x")
        await subject.files.unlink(directory.ref, b"x")
        assert await self.names(subject) == [b"d"]
        await subject.files.rmdir(root, b"d")

        with pytest.raises(StaleHandle):
            await subject.files.getattr(directory.ref)
        with pytest.raises(NotFound):
            await subject.files.lookup(root, b"d")

    @pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 256])
    async def test_what_is_no_name_is_refused(self, subject: FilesStage, name: bytes) -> None:
        root = await self.root(subject)

        with pytest.raises((InvalidArgument, NameTooLong)):
            await subject.files.mkdir(root, name, 0o755)

    async def test_long_and_odd_names_work(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        odd = [b"x" * 255, b"x" * 200, b"x" * 199, b"\xff\xfe", b" ", b"...", b"a\nb", "é".encode()]
        for name in odd:
            await subject.files.mkdir(root, name, 0o755)

        assert await self.names(subject) == sorted(odd)
        for name in odd:
            await subject.files.rmdir(root, name)
        assert await self.names(subject) == []

    async def test_an_open_file_outlives_its_last_name(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"before")

        await subject.files.unlink(root, b"a")
        await file.write(6, b" after")

        assert bytes(await file.read(0, 100)) == b"before after"
        assert (await file.info()).links == 0
        assert await self.names(subject) == []
        other = await self.make(subject, b"a", b"new")
        assert bytes(await other.read(0, 100)) == b"new"
        assert bytes(await file.read(0, 100)) == b"before after"
        await file.close()

    async def test_a_file_without_a_name_is_gone_after_a_crash(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * 5000)
        await file.sync()
        await subject.files.unlink(root, b"a")

        await subject.crash()

        with pytest.raises(StaleHandle):
            await subject.files.getattr(file.ref)
        usage = await subject.files.statfs(subject.volume)
        assert (usage.files, usage.used) == (0, 0)

    async def test_a_file_without_a_name_is_gone_after_its_last_close(
        self, subject: FilesStage
    ) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * 5000)
        await subject.files.unlink(root, b"a")
        await file.close()
        for _ in range(100):
            await asyncio.sleep(0)

        with pytest.raises(StaleHandle):
            await subject.files.getattr(file.ref)
        assert (await subject.files.statfs(subject.volume)).used == 0

    # Rename ---------------------------------------------------------------------------------------

    async def test_rename_replaces_a_file_that_somebody_reads(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        old = await self.make(subject, b"a", b"old")
        new = await self.make(subject, b"b", b"new")

        await subject.files.rename(root, b"b", root, b"a")

        assert await self.names(subject) == [b"a"]
        assert await self.content(subject, b"a") == b"new"
        assert bytes(await old.read(0, 10)) == b"old"
        await new.write(3, b"er")
        assert await self.content(subject, b"a") == b"newer"

    async def test_rename_keeps_the_inode(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x")
        directory = await subject.files.mkdir(root, b"d", 0o755)

        await subject.files.rename(root, b"a", directory.ref, b"b")

        assert (await subject.files.walk(subject.volume, b"d/b")).ref.inode == file.ref.inode
        assert (await subject.files.getattr(file.ref)).size == 1
        with pytest.raises(NotFound):
            await subject.files.lookup(root, b"a")

    async def test_rename_may_refuse_to_replace(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await self.make(subject, b"a", b"1")
        await self.make(subject, b"b", b"2")

        with pytest.raises(AlreadyExists):
            await subject.files.rename(root, b"a", root, b"b", how=Rename.NOREPLACE)
        await subject.files.rename(root, b"a", root, b"c", how=Rename.NOREPLACE)

        assert await self.names(subject) == [b"b", b"c"]
        assert await self.content(subject, b"b") == b"2"

    async def test_rename_may_exchange(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await self.make(subject, b"a", b"1")
        directory = await subject.files.mkdir(root, b"d", 0o755)
        await subject.files.symlink(directory.ref, b"inside", b"t")

        await subject.files.rename(root, b"a", root, b"d", how=Rename.EXCHANGE)

        assert await self.content(subject, b"d") == b"1"
        assert await self.names(subject, b"a") == [b"inside"]
        with pytest.raises(NotFound):
            await subject.files.rename(root, b"a", root, b"nothing", how=Rename.EXCHANGE)

    async def test_rename_of_two_names_of_one_file_does_nothing(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"1")
        await subject.files.link(file.ref, root, b"b")

        await subject.files.rename(root, b"a", root, b"b")

        assert await self.names(subject) == [b"a", b"b"]

    async def test_directories_move_with_what_they_hold(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        one = await subject.files.mkdir(root, b"one", 0o755)
        two = await subject.files.mkdir(root, b"two", 0o755)
        inner = await subject.files.mkdir(one.ref, b"inner", 0o755)
        await subject.files.symlink(inner.ref, b"x", b"t")

        await subject.files.rename(one.ref, b"inner", two.ref, b"moved")

        assert await self.names(subject, b"two/moved") == [b"x"]
        assert await self.names(subject, b"one") == []
        assert (await subject.files.parent(inner.ref)).inode == two.ref.inode
        with pytest.raises(InvalidArgument):
            await subject.files.rename(root, b"two", inner.ref, b"below-itself")

    async def test_rename_respects_kinds(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await self.make(subject, b"file")
        full = await subject.files.mkdir(root, b"full", 0o755)
        await subject.files.symlink(full.ref, b"x", b"t")
        await subject.files.mkdir(root, b"empty", 0o755)
        await subject.files.mkdir(root, b"other", 0o755)

        with pytest.raises(IsADirectory):
            await subject.files.rename(root, b"file", root, b"empty")
        with pytest.raises(NotADirectory):
            await subject.files.rename(root, b"empty", root, b"file")
        with pytest.raises(NotEmpty):
            await subject.files.rename(root, b"other", root, b"full")
        with pytest.raises(NotFound):
            await subject.files.rename(root, b"nothing", root, b"x")
        await subject.files.rename(root, b"other", root, b"empty")

        assert await self.names(subject) == [b"empty", b"file", b"full"]

    async def test_rename_stays_in_its_volume(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await self.make(subject, b"a")

        with pytest.raises(CrossesVolumes):
            await subject.files.rename(root, b"a", Ref("elsewhere", root.inode), b"a")

    # Links ----------------------------------------------------------------------------------------

    async def test_hard_links_share_content_and_count(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"one")

        linked = await subject.files.link(file.ref, root, b"b")
        await file.write(0, b"two")

        assert linked.ref.inode == file.ref.inode
        assert linked.links == 2
        assert await self.content(subject, b"b") == b"two"
        await subject.files.unlink(root, b"a")
        assert (await subject.files.lookup(root, b"b")).links == 1
        assert await self.content(subject, b"b") == b"two"
        with pytest.raises(AlreadyExists):
            await subject.files.link(file.ref, root, b"b")

    async def test_directories_have_one_name(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        directory = await subject.files.mkdir(root, b"d", 0o755)

        with pytest.raises(PermissionDenied):
            await subject.files.link(directory.ref, root, b"e")

    async def test_symbolic_links_say_where_they_point(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        target = b"/some/where/\xff"
        link = await subject.files.symlink(root, b"l", target)
        file = await self.make(subject, b"f")

        assert await subject.files.readlink(link.ref) == target
        assert (link.kind, link.size) == ("symlink", len(target))
        with pytest.raises(InvalidArgument):
            await subject.files.readlink(file.ref)

    async def test_special_files_keep_kind_and_device(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        await subject.files.mknod(root, b"pipe", "fifo", 0o600)
        await subject.files.mknod(root, b"null", "character", 0o666, device=(1, 3))

        assert (await subject.files.lookup(root, b"pipe")).kind == "fifo"
        null = await subject.files.lookup(root, b"null")
        assert (null.kind, null.device) == ("character", (1, 3))
        with pytest.raises(PermissionDenied):
            await subject.files.mknod(root, b"disk", "block", 0o600, ALICE, device=(8, 0))

    # Attributes -----------------------------------------------------------------------------------

    async def test_attributes_are_kept(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"x")
        change = SetInfo(
            mode=0o4711, uid=5, gid=6, modified_ns=10**18, accessed_ns=3, born_ns=4, attributes=0x22
        )

        info = await subject.files.setattr(file.ref, change)

        assert (info.mode, info.uid, info.gid) == (0o4711, 5, 6)
        assert (info.modified_ns, info.accessed_ns, info.born_ns) == (10**18, 3, 4)
        assert info.attributes == 0x22
        await file.close()
        await subject.crash()
        again = await subject.files.walk(subject.volume, b"a")
        assert (again.mode, again.modified_ns) == (0o4711, 10**18)

    async def test_setting_the_size_truncates(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a", b"0123456789")

        info = await subject.files.setattr(file.ref, SetInfo(size=3))

        assert info.size == 3
        assert bytes(await file.read(0, 10)) == b"012"

    async def test_change_grows_and_times_move(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a")
        first = await file.info()
        above = await subject.files.getattr(root)

        await file.write(0, b"x")
        second = await file.info()
        await subject.files.setattr(file.ref, SetInfo(mode=0o600))
        third = await file.info()
        await subject.files.mkdir(root, b"d", 0o755)

        assert first.change < second.change < third.change
        assert second.modified_ns > first.modified_ns
        assert third.modified_ns == second.modified_ns
        assert third.changed_ns > second.changed_ns
        assert (await subject.files.getattr(root)).modified_ns > above.modified_ns

    async def test_extended_attributes(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        files = subject.files
        await files.set_xattr(file.ref, b"user.a", b"1")
        await files.set_xattr(file.ref, b"user.b", b"\0\xff")
        await files.set_xattr(file.ref, b"user.a", b"2", must="replace")

        assert dict(await files.xattrs(file.ref)) == {b"user.a": b"2", b"user.b": b"\0\xff"}
        with pytest.raises(AlreadyExists):
            await files.set_xattr(file.ref, b"user.a", b"3", must="create")
        with pytest.raises(NotFound):
            await files.set_xattr(file.ref, b"user.c", b"3", must="replace")
        with pytest.raises(TooLarge):
            await files.set_xattr(file.ref, b"user.d", bytes(XATTRS_MAX))
        await files.set_xattr(file.ref, b"user.a", None)
        with pytest.raises(NotFound):
            await files.set_xattr(file.ref, b"user.a", None)
        assert dict(await files.xattrs(file.ref)) == {b"user.b": b"\0\xff"}

    # Permissions ----------------------------------------------------------------------------------

    async def test_mode_bits_decide_who_opens(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        file, _ = await files.create(root, b"a", 0o640, ALICE, owner=ME, access=BOTH, deny=NONE)
        other = Caller(uid=7, gid=7)

        await files.open(file.ref, ALICE, owner=ME, access=BOTH, deny=NONE)
        await files.open(file.ref, BOB, owner=ME, access=READ, deny=NONE)
        with pytest.raises(PermissionDenied):
            await files.open(file.ref, BOB, owner=ME, access=WRITE, deny=NONE)
        with pytest.raises(PermissionDenied):
            await files.open(file.ref, other, owner=ME, access=READ, deny=NONE)
        everything = Want.READ | Want.WRITE | Want.EXECUTE
        assert await files.access(file.ref, everything, BOB) == Want.READ
        assert await files.access(file.ref, everything, other) == Want(0)
        assert await files.access(file.ref, everything, ROOT) == Want.READ | Want.WRITE

    async def test_directories_guard_their_names(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o755))
        await self.make(subject, b"a")

        for attempt in (
            files.mkdir(root, b"d", 0o755, ALICE),
            files.unlink(root, b"a", ALICE),
            files.rename(root, b"a", root, b"b", ALICE),
            files.symlink(root, b"l", b"t", ALICE),
        ):
            with pytest.raises(PermissionDenied):
                await attempt
        await files.setattr(root, SetInfo(mode=0o1777))
        await files.mkdir(root, b"alices", 0o700, ALICE)
        with pytest.raises(PermissionDenied):  # sticky
            await files.rmdir(root, b"alices", BOB)
        with pytest.raises(PermissionDenied):
            await files.lookup((await files.lookup(root, b"alices")).ref, b"x", BOB)

    async def test_only_the_owner_changes_attributes(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        file, _ = await files.create(root, b"a", 0o666, ALICE, owner=ME, access=BOTH, deny=NONE)

        await files.setattr(file.ref, SetInfo(size=5), BOB)
        with pytest.raises(PermissionDenied):
            await files.setattr(file.ref, SetInfo(mode=0o777), BOB)
        with pytest.raises(PermissionDenied):
            await files.setattr(file.ref, SetInfo(uid=BOB.uid), ALICE)
        with pytest.raises(PermissionDenied):
            await files.setattr(file.ref, SetInfo(gid=12345), ALICE)
        info = await files.setattr(file.ref, SetInfo(mode=0o600), ALICE)
        assert info.mode == 0o600

    async def test_new_files_belong_to_who_makes_them(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        info = await files.mkdir(root, b"d", 0o2775, ALICE)
        inner = await files.mkdir(info.ref, b"e", 0o755, Caller(uid=1000, gid=999))

        assert (info.uid, info.gid) == (ALICE.uid, ALICE.gid)
        assert inner.gid == ALICE.gid, "set-group-id directories hand their group down"

    # Others ---------------------------------------------------------------------------------------

    async def test_share_modes_refuse_opens(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        await file.close()
        files = subject.files
        held = await files.open(file.ref, owner=ME, access=READ, deny=WRITE | Access.DELETE)

        with pytest.raises(Locked):
            await files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)
        with pytest.raises(Locked):
            await files.unlink(await self.root(subject), b"a")
        with pytest.raises(Locked):
            await files.rename(await self.root(subject), b"a", await self.root(subject), b"b")
        await files.open(file.ref, owner=YOU, access=READ, deny=NONE)
        await held.close()
        await files.unlink(await self.root(subject), b"a")

    async def test_byte_range_locks_exclude_and_wait(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        claims, ref = subject.files.claims, file.ref
        await claims.lock(ref, ME, 0, 100, exclusive=True)

        with pytest.raises(Locked):
            await claims.lock(ref, YOU, 50, 60, exclusive=False)
        found = await claims.test_lock(ref, YOU, 50, 60, exclusive=False)
        assert found is not None
        assert (found.owner, found.start, found.end, found.exclusive) == (ME, 0, 100, True)
        assert await claims.test_lock(ref, YOU, 100, END, exclusive=True) is None
        await claims.lock(ref, YOU, 100, END, exclusive=True)
        waiting = asyncio.create_task(claims.lock(ref, YOU, 0, 10, exclusive=True, wait=True))
        await asyncio.sleep(0)
        with pytest.raises(Deadlock):
            await claims.lock(ref, ME, 200, 210, exclusive=True, wait=True)
        assert not waiting.done()
        await claims.unlock(ref, ME, 0, 10)
        await waiting

    async def test_a_lock_that_nobody_waits_for_any_more_is_not_taken(
        self, subject: FilesStage
    ) -> None:
        ref = (await self.make(subject, b"a")).ref
        claims = subject.files.claims
        await claims.lock(ref, ME, 0, 100, exclusive=True)
        waiting = asyncio.create_task(claims.lock(ref, YOU, 0, 10, exclusive=True, wait=True))
        await claims.test_lock(ref, YOU, 0, 10, exclusive=True)

        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await claims.unlock_all(ref, ME)

        assert waiting.cancelled()
        assert await claims.test_lock(ref, ME, 0, 100, exclusive=True) is None

    async def test_a_client_that_is_dropped_holds_nothing(self, subject: FilesStage) -> None:
        ref = (await self.make(subject, b"a")).ref
        claims = subject.files.claims
        client = await claims.add_client("one", ttl_s=60.0)
        other = await claims.add_client("two")
        await claims.lock(ref, Owner(client, b"p"), 5, 6, exclusive=False)
        await claims.renew(client)
        with pytest.raises(Locked):
            await claims.lock(ref, Owner(other, b"p"), 0, END, exclusive=True)

        await claims.drop_client(client)

        await claims.lock(ref, Owner(other, b"p"), 0, END, exclusive=True)
        with pytest.raises(StaleHandle):
            await claims.renew(client)
        with pytest.raises(StaleHandle):
            await claims.lock(ref, Owner(client, b"p"), 0, 1, exclusive=False)

    async def test_a_change_calls_leases_back(self, subject: FilesStage) -> None:
        files, claims = subject.files, subject.files.claims
        file = await self.make(subject, b"a", b"x", owner=ME)
        told: list[Recalled] = []
        answers: list[asyncio.Task[None]] = []
        await file.close()

        def tell(recalled: Recalled) -> None:
            told.append(recalled)
            answers.append(asyncio.create_task(claims.give_back(file.ref, holder)))

        holder = Owner(await claims.add_client("holder", tell=tell), 0)
        root = await self.root(subject)

        async def lend() -> None:
            await asyncio.gather(*answers)
            told.clear()
            assert await claims.lease(file.ref, holder, ALL) == ALL

        await lend()
        writer = await files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)
        assert [(each.volume, each.inode, each.owner) for each in told] == [
            (subject.volume, file.ref.inode, holder)
        ], "opening for writing"
        assert told[0].wanted == FOR_WRITE
        await writer.close()
        await lend()
        await files.setattr(file.ref, SetInfo(mode=0o600))
        assert told, "setattr"
        await lend()
        await files.rename(root, b"a", root, b"b")
        assert told, "rename"
        await lend()
        await files.unlink(root, b"b")
        assert told, "unlink"
        await asyncio.gather(*answers)

    async def test_clones_share_until_they_are_written(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * (MIB + 100))

        clone = await subject.files.clone(file.ref, root, b"b")
        await file.write(0, b"A")
        other = await subject.files.open(clone.ref, owner=YOU, access=BOTH, deny=NONE)
        await other.write(MIB, b"B")

        assert (await self.content(subject, b"a"))[:2] == b"Ax"
        assert (await self.content(subject, b"a"))[MIB : MIB + 2] == b"xx"
        assert (await self.content(subject, b"b"))[:2] == b"xx"
        assert (await self.content(subject, b"b"))[MIB : MIB + 2] == b"Bx"
        await file.close()
        await subject.files.unlink(root, b"a")
        assert same(await self.content(subject, b"b"), b"x" * MIB + b"B" + b"x" * 99)

    async def test_usage_follows_what_is_there(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * 5000)
        await file.close()
        before = await subject.files.statfs(subject.volume)
        await subject.files.unlink(root, b"a")
        after = await subject.files.statfs(subject.volume)

        assert (before.files, before.used) == (1, 5000)
        assert (after.files, after.used) == (0, 0)
