"""Names: making, listing, removing and renaming them, and several for one file."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    AlreadyExists,
    CrossesVolumes,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    PermissionDenied,
    StaleHandle,
)
from warp_core.namespace.opens import HERE, Owner
from warp_core.views.files import Caller, Ref, Rename

from warp_conformance.kits.files.stage import ALICE, BOTH, ME, NONE, FilesPart, FilesStage

ALICE_ROOT = Caller(uid=1000, gid=100, name="unix:1000", superuser=True)


class Names(FilesPart, kit=True):
    """Names: making, listing, removing and renaming them, and several for one file."""

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

    # Files without names, and what a rename leaves behind ------------------------------------------

    async def test_a_file_without_a_name_gets_one_or_goes(self, subject: FilesStage) -> None:
        files, root = subject.files, await self.root(subject)
        gone = await files.create_unnamed(root, 0o600, ALICE_ROOT, owner=ME, access=BOTH, deny=NONE)
        kept = await files.create_unnamed(root, 0o640, ALICE_ROOT, owner=ME, access=BOTH, deny=NONE)
        await gone.write(0, b"gone")
        await kept.write(0, b"kept")

        assert await self.names(subject) == []
        assert [(await each.info()).links for each in (gone, kept)] == [0, 0]
        info = await files.link(kept.ref, root, b"a")
        assert (info.links, info.mode, info.uid) == (1, 0o640, 1000)
        await gone.close()
        await kept.sync()
        await kept.close()

        await subject.crash()
        assert await self.content(subject, b"a") == b"kept"
        with pytest.raises(StaleHandle):
            await subject.files.getattr(gone.ref)

    async def test_a_rename_may_leave_a_whiteout(self, subject: FilesStage) -> None:
        files, root = subject.files, await self.root(subject)
        await (await self.make(subject, b"a", b"x")).close()
        await files.mkdir(root, b"d", 0o755)

        await files.rename(root, b"a", root, b"b", how=Rename.WHITEOUT)
        await files.rename(root, b"d", root, b"e", how=Rename.WHITEOUT | Rename.NOREPLACE)
        with pytest.raises(InvalidArgument):
            await files.rename(root, b"b", root, b"e", how=Rename.WHITEOUT | Rename.EXCHANGE)

        assert await self.names(subject) == [b"a", b"b", b"d", b"e"]
        for name in (b"a", b"d"):
            info = await files.lookup(root, name)
            assert (info.kind, info.device, info.mode) == ("character", (0, 0), 0)
        assert await self.content(subject, b"b") == b"x"
