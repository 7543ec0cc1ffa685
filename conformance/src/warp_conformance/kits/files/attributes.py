"""What is known of a file, and who may do what."""

from __future__ import annotations

import pytest
from warp_core.errors import AlreadyExists, NotFound, PermissionDenied, TooLarge
from warp_core.views.files import (
    ROOT,
    TIME_MAX,
    TIME_MIN,
    XATTRS_MAX,
    Caller,
    SetInfo,
    Want,
)

from warp_conformance.kits.files.stage import (
    ALICE,
    BOB,
    BOTH,
    ME,
    NONE,
    READ,
    WRITE,
    FilesPart,
    FilesStage,
)


class Attributes(FilesPart, kit=True):
    """What is known of a file, and who may do what."""

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

    async def test_a_directory_keeps_the_time_it_was_given_until_an_entry_comes(
        self, subject: FilesStage
    ) -> None:
        directory = (await subject.files.mkdir(await self.root(subject), b"d", 0o755)).ref
        await subject.files.symlink(directory, b"x", b"t")

        past = await subject.files.setattr(directory, SetInfo(modified_ns=-5))
        future = await subject.files.setattr(directory, SetInfo(modified_ns=10**19))
        await subject.files.setattr(directory, SetInfo(mode=0o700))
        kept = await subject.files.getattr(directory)
        await subject.files.unlink(directory, b"x")
        after = await subject.files.getattr(directory)

        assert (past.modified_ns, future.modified_ns, kept.modified_ns) == (-5, 10**19, 10**19)
        assert past.changed_ns < kept.changed_ns < after.changed_ns
        assert after.modified_ns == after.changed_ns

    async def test_times_beyond_what_is_kept_are_cut(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")

        info = await subject.files.setattr(
            file.ref, SetInfo(modified_ns=10**30, accessed_ns=-(10**30))
        )

        assert (info.modified_ns, info.accessed_ns) == (TIME_MAX, TIME_MIN)

    async def test_directories_are_links_of_the_one_above(self, subject: FilesStage) -> None:
        files, root = subject.files, await self.root(subject)
        for name in (b"a", b"b", b"c" * 255):
            await files.mkdir(root, name, 0o755)
        await files.symlink(root, b"no", b"t")

        async def links(path: bytes) -> int:
            return (await files.walk(subject.volume, path)).links

        assert [await links(b""), await links(b"a")] == [5, 2]
        inner = await files.walk(subject.volume, b"a")
        await files.rename(root, b"c" * 255, inner.ref, b"d" * 255)
        await files.rmdir(root, b"b")

        assert [await links(b""), await links(b"a")] == [3, 3]
        await subject.crash()
        files = subject.files
        assert [await links(b""), await links(b"a")] == [3, 3]

    async def test_a_read_moves_the_time_of_access_that_is_not_newer_than_the_change(
        self, subject: FilesStage
    ) -> None:
        file = await self.make(subject, b"a", b"x")
        await subject.files.setattr(file.ref, SetInfo(accessed_ns=7))

        before = (await file.info()).accessed_ns
        await file.read(0, 1)
        first = (await file.info()).accessed_ns
        await file.read(0, 1)

        assert before == 7
        assert first > (await file.info()).changed_ns
        assert (await file.info()).accessed_ns == first
        chosen = await subject.files.setattr(file.ref, SetInfo(accessed_ns=9))
        assert chosen.accessed_ns == 9

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
