"""Access control lists: what they allow, who may set them, what follows from them; and extended attributes by namespace."""

from __future__ import annotations

import asyncio
import errno
import itertools
import struct
from collections.abc import Awaitable, Iterable
from typing import Final

import pytest
from warp_core.errors import (
    AttributeNameInvalid,
    AttributeNotFound,
    AttributesFull,
    AttributeTooLarge,
    InvalidArgument,
    PermissionDenied,
    Unsupported,
    WarpError,
)
from warp_core.namespace.leases import Kind
from warp_core.namespace.opens import Owner
from warp_core.views.claims import Recalled
from warp_core.views.files import (
    ROOT,
    XATTR_MAX,
    XATTR_NAME_MAX,
    XATTRS_MAX,
    Caller,
    Ref,
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

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
NFS4: Final = b"system.nfs4_acl"
OTHER = Caller(uid=7, gid=7)
MEMBER = Caller(uid=8, gid=8, groups=frozenset({55, 56}))
EVERYTHING = Want.READ | Want.WRITE | Want.EXECUTE
_NO_ID: Final = 0xFFFF_FFFF


def posix(
    user: int,
    group: int,
    other: int,
    *,
    users: Iterable[tuple[int, int]] = (),
    groups: Iterable[tuple[int, int]] = (),
    mask: int | None = None,
) -> bytes:
    """Return a POSIX ACL as Linux has it in extended attributes."""
    entries = [
        (0x01, user, _NO_ID),
        *((0x02, digit, number) for number, digit in users),
        (0x04, group, _NO_ID),
        *((0x08, digit, number) for number, digit in groups),
        *([] if mask is None else [(0x10, mask, _NO_ID)]),
        (0x20, other, _NO_ID),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def nfs4(*entries: tuple[int, int, int, str]) -> bytes:
    """Return a list of NFSv4 (kind, flags, rights, who) as Linux's client has it."""
    found = struct.pack(">I", len(entries))
    for kind, flags, rights, who in entries:
        name = who.encode()
        found += struct.pack(">IIII", kind, flags, rights, len(name)) + name
        found += bytes(-len(name) % 4)
    return found


class AccessLists(FilesPart, kit=True):
    """Access control lists, and extended attributes by namespace."""

    async def of_alice(self, subject: FilesStage, name: bytes, mode: int) -> Ref:
        """Make a file that is Alice's."""
        root = await self.root(subject)
        await subject.files.setattr(root, SetInfo(mode=0o777))
        file, _ = await subject.files.create(
            root, name, mode, ALICE, owner=ME, access=BOTH, deny=NONE
        )
        await file.close()
        return file.ref

    async def may(self, subject: FilesStage, file: Ref, caller: Caller) -> int:
        """Return what a caller is told that it may, after seeing that opening says the same."""
        found = int(await subject.files.access(file, EVERYTHING, caller))
        for bit, access in ((4, READ), (2, WRITE)):
            try:
                handle = await subject.files.open(file, caller, owner=ME, access=access, deny=NONE)
            except PermissionDenied:
                assert not found & bit
            else:
                await handle.close()
                assert found & bit
        return found

    async def refused(self, attempt: Awaitable[object], code: int) -> None:
        """See that something is refused with an errno."""
        with pytest.raises(WarpError) as refusal:
            await attempt
        assert refusal.value.errno == code, refusal.value

    # POSIX ACLs -----------------------------------------------------------------------------------

    async def test_a_posix_acl_says_who_may(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o640)
        value = posix(6, 4, 0, users=[(BOB.uid, 6)], groups=[(55, 4), (56, 2)], mask=6)

        await files.set_xattr(file, ACCESS, value, ALICE)

        assert (await files.getattr(file)).mode == 0o660, "the group's digit is the mask"
        assert await files.xattr(file, ACCESS, OTHER) == value
        assert (await files.xattrs(file))[ACCESS] == value
        assert await self.may(subject, file, ALICE) == 6
        assert await self.may(subject, file, BOB) == 6
        assert await self.may(subject, file, OTHER) == 0
        assert await files.access(file, Want.READ, MEMBER) == Want.READ
        assert await files.access(file, Want.WRITE, MEMBER) == Want.WRITE
        together = await files.access(file, Want.READ | Want.WRITE, MEMBER)
        assert together != Want.READ | Want.WRITE, "no entry of one group allows both"
        await subject.crash()
        again = (await subject.files.walk(subject.volume, b"a")).ref
        assert await subject.files.xattr(again, ACCESS) == value

    async def test_chmod_sets_the_mask_of_a_posix_acl(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o640)
        await files.set_xattr(file, ACCESS, posix(6, 4, 0, users=[(BOB.uid, 6)], mask=6), ALICE)

        await files.setattr(file, SetInfo(mode=0o604), ALICE)
        assert await self.may(subject, file, BOB) == 0
        assert await files.xattr(file, ACCESS) == posix(6, 4, 4, users=[(BOB.uid, 6)], mask=0)
        await files.setattr(file, SetInfo(mode=0o664), ALICE)
        assert await self.may(subject, file, BOB) == 6

    async def test_a_posix_acl_that_a_mode_says_is_none(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o600)
        await files.set_xattr(file, ACCESS, posix(6, 4, 0, users=[(BOB.uid, 6)], mask=7), ALICE)
        assert (await files.getattr(file)).mode == 0o670

        await files.set_xattr(file, ACCESS, posix(7, 5, 1), ALICE)

        assert (await files.getattr(file)).mode == 0o751
        assert ACCESS not in await files.xattrs(file)
        with pytest.raises(AttributeNotFound):
            await files.xattr(file, ACCESS)
        assert await files.access(file, EVERYTHING, OTHER) == Want.EXECUTE

    async def test_taking_a_posix_acl_away_gives_the_group_no_more(
        self, subject: FilesStage
    ) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o600)
        await files.set_xattr(file, ACCESS, posix(6, 4, 0, users=[(BOB.uid, 7)], mask=7), ALICE)

        await files.set_xattr(file, ACCESS, None, ALICE)

        assert (await files.getattr(file)).mode == 0o640
        assert await files.access(file, EVERYTHING, BOB) == Want.READ

    async def test_what_is_no_posix_acl_changes_nothing(self, subject: FilesStage) -> None:
        file = await self.of_alice(subject, b"a", 0o640)
        for value in (b"", b"\2\0\0\0\1", posix(6, 4, 0, users=[(5, 6)]), posix(9, 4, 0)):
            with pytest.raises(InvalidArgument):
                await subject.files.set_xattr(file, ACCESS, value, ALICE)
        assert (await subject.files.getattr(file)).mode == 0o640

    async def test_default_acls_are_handed_down(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        above = (await files.mkdir(root, b"d", 0o750, ALICE)).ref
        default = posix(7, 5, 5, users=[(BOB.uid, 7)], mask=7)
        await files.set_xattr(above, DEFAULT, default, ALICE)
        alice = Caller(uid=ALICE.uid, gid=ALICE.gid, umask=0o077)

        file, _ = await files.create(above, b"f", 0o666, alice, owner=ME, access=BOTH, deny=NONE)
        below = await files.mkdir(above, b"e", 0o777, alice)
        plain = await files.mkdir(root, b"p", 0o777, alice)

        assert (await file.info()).mode == 0o664, "the mode limits, the umask does not count"
        assert await files.xattr(file.ref, ACCESS) == posix(6, 5, 4, users=[(BOB.uid, 7)], mask=6)
        assert await files.access(file.ref, EVERYTHING, BOB) == Want.READ | Want.WRITE
        assert DEFAULT not in await files.xattrs(file.ref)
        assert below.mode == 0o775
        assert await files.xattr(below.ref, DEFAULT) == default
        assert plain.mode == 0o700
        assert (await files.getattr(above)).mode == 0o750, "it says nothing about the directory"
        await files.set_xattr(above, DEFAULT, None, ALICE)
        assert (await files.mkdir(above, b"g", 0o777, alice)).mode == 0o700

    async def test_default_acls_are_of_directories(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o640)
        link = await files.symlink(await self.root(subject), b"l", b"a", ALICE)

        await self.refused(files.set_xattr(file, DEFAULT, posix(7, 5, 5), ALICE), errno.EACCES)
        for name in (ACCESS, NFS4):
            with pytest.raises(Unsupported):
                await files.set_xattr(link.ref, name, posix(7, 5, 5), ALICE)

    # Lists of NFSv4 -------------------------------------------------------------------------------

    async def test_the_first_entry_that_names_a_right_decides_it(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o600)
        value = nfs4(
            (1, 0, 0x6, str(BOB.uid)),  # deny writing
            (0, 0x40, 0x7, "100"),  # a group that Bob is in: read and write
            (0, 0, 0x27, "OWNER@"),
            (0, 0, 0x1, "account:ada"),
        )

        await files.set_xattr(file, NFS4, value, ALICE)

        assert await files.xattr(file, NFS4) == value
        assert await self.may(subject, file, BOB) == 4
        assert await self.may(subject, file, OTHER) == 0
        assert await self.may(subject, file, Caller(uid=9, gid=9, name="account:ada")) == 4
        assert await self.may(subject, file, Caller(uid=9, gid=100)) == 6
        assert (await files.getattr(file)).mode == 0o700
        await files.setattr(file, SetInfo(mode=0o440), ALICE)
        assert await self.may(subject, file, ALICE) == 4
        assert await self.may(subject, file, Caller(uid=9, gid=100)) == 4

    async def test_what_may_only_be_appended_to_keeps_what_it_has(
        self, subject: FilesStage
    ) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o600)
        await files.set_xattr(
            file, NFS4, nfs4((0, 0, 0x7, "OWNER@"), (0, 0, 0x5, "EVERYONE@")), ALICE
        )

        handle = await files.open(file, OTHER, owner=ME, access=BOTH, deny=NONE)
        await handle.append(b"one")
        await handle.write(3, b"two")

        for attempt in (handle.write(0, b"x"), handle.truncate(0), handle.punch(0, 1)):
            with pytest.raises(PermissionDenied):
                await attempt
        assert bytes(await handle.read(0, 10)) == b"onetwo"
        await handle.close()
        with pytest.raises(PermissionDenied):
            await files.open(file, OTHER, owner=ME, access=WRITE, deny=NONE, truncate=True)

    async def test_entries_are_inherited(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        above = (await files.mkdir(root, b"d", 0o700, ALICE)).ref
        await files.set_xattr(
            above,
            NFS4,
            nfs4(
                (0, 0, 0x1F01FF, "OWNER@"),
                (0, 0x3, 0x67, "OWNER@"),
                (0, 0x9, 0x1, str(BOB.uid)),  # files only, not the directory itself
                (1, 0x6, 0x20, "EVERYONE@"),  # directories, one level
            ),
            ALICE,
        )

        file, _ = await files.create(above, b"f", 0o666, ALICE, owner=ME, access=BOTH, deny=NONE)
        below = (await files.mkdir(above, b"e", 0o777, ALICE)).ref
        deep, _ = await files.create(below, b"f", 0o666, ALICE, owner=ME, access=BOTH, deny=NONE)

        assert await files.access(file.ref, EVERYTHING, BOB) == Want.READ
        assert await files.access(deep.ref, EVERYTHING, BOB) == Want.READ
        assert await files.access(above, EVERYTHING, BOB) == Want(0)
        assert (await file.info()).mode == 0o600

    async def test_deleting_is_a_right_of_the_entry_or_of_its_directory(
        self, subject: FilesStage
    ) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        above = (await files.mkdir(root, b"d", 0o755, ALICE)).ref
        for name in (b"a", b"b"):
            file, _ = await files.create(
                above, name, 0o644, ALICE, owner=ME, access=BOTH, deny=NONE
            )
            await file.close()
        a = (await files.lookup(above, b"a")).ref
        await files.set_xattr(
            a, NFS4, nfs4((0, 0, 0x7, "OWNER@"), (0, 0, 0x10000, str(BOB.uid))), ALICE
        )

        await self.refused(files.unlink(above, b"b", BOB), errno.EACCES)
        await files.unlink(above, b"a", BOB)
        await files.set_xattr(
            above,
            NFS4,
            nfs4((0, 0, 0x1F01FF, "OWNER@"), (0, 0, 0x22, str(BOB.uid)), (0, 0, 0x21, "EVERYONE@")),
            ALICE,
        )
        made, _ = await files.create(above, b"c", 0o644, BOB, owner=ME, access=BOTH, deny=NONE)
        await made.close()
        await self.refused(files.mkdir(above, b"e", 0o755, BOB), errno.EACCES)
        await self.refused(files.unlink(above, b"b", BOB), errno.EACCES)

    # Who may change what --------------------------------------------------------------------------

    async def test_what_is_the_owners_alone_is_another_error_than_what_nobody_allowed(
        self, subject: FilesStage
    ) -> None:
        files = subject.files
        root = await self.root(subject)
        file = await self.of_alice(subject, b"a", 0o644)
        private = (await files.mkdir(root, b"p", 0o700, ALICE)).ref
        await files.setattr(root, SetInfo(mode=0o1777))
        acl = posix(6, 4, 4, users=[(BOB.uid, 6)], mask=6)

        for attempt, code in (
            (files.setattr(file, SetInfo(mode=0o666), BOB), errno.EPERM),
            (files.setattr(file, SetInfo(uid=BOB.uid), BOB), errno.EPERM),
            (files.setattr(file, SetInfo(uid=ALICE.uid), BOB), errno.EPERM),
            (files.setattr(file, SetInfo(uid=BOB.uid), ALICE), errno.EPERM),
            (files.setattr(file, SetInfo(gid=12345), ALICE), errno.EPERM),
            (files.setattr(file, SetInfo(modified_ns=5), BOB), errno.EPERM),
            (files.setattr(file, SetInfo(size=0), BOB), errno.EACCES),
            (files.set_xattr(file, ACCESS, acl, BOB), errno.EPERM),
            (files.set_xattr(file, NFS4, None, BOB), errno.EPERM),
            (files.unlink(root, b"a", BOB), errno.EPERM),  # sticky
            (files.rename(root, b"a", root, b"b", BOB), errno.EPERM),
            (files.link(private, root, b"l", BOB), errno.EPERM),
            (files.mknod(root, b"n", "block", 0o600, BOB), errno.EPERM),
            (files.lookup(private, b"x", BOB), errno.EACCES),
            (files.mkdir(private, b"x", 0o700, BOB), errno.EACCES),
            (files.open(file, BOB, owner=ME, access=WRITE, deny=NONE), errno.EACCES),
        ):
            await self.refused(attempt, code)

    async def test_a_directory_that_moves_is_written(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        await files.setattr(root, SetInfo(mode=0o777))
        await files.mkdir(root, b"d", 0o755, ALICE)
        target = (await files.mkdir(root, b"e", 0o777, ALICE)).ref

        await files.rename(root, b"d", root, b"f", BOB)
        await self.refused(files.rename(root, b"f", target, b"f", BOB), errno.EACCES)

    async def test_writing_and_giving_away_take_set_id_bits(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o666)

        async def mode_after(mode: int, change: SetInfo | None, caller: Caller) -> int:
            await files.setattr(file, SetInfo(mode=mode))
            if change is not None:
                return (await files.setattr(file, change, caller)).mode
            handle = await files.open(file, caller, owner=ME, access=BOTH, deny=NONE)
            await handle.write(0, b"x")
            await handle.close()
            return (await files.getattr(file)).mode

        assert await mode_after(0o6777, None, OTHER) == 0o777
        assert await mode_after(0o6767, None, ALICE) == 0o2767, "not executable by its group"
        assert await mode_after(0o6767, None, OTHER) == 0o767
        assert await mode_after(0o6777, None, ROOT) == 0o6777
        assert await mode_after(0o6777, SetInfo(size=0), OTHER) == 0o777
        assert await mode_after(0o6777, SetInfo(size=0), ROOT) == 0o6777
        assert await mode_after(0o6777, SetInfo(uid=ALICE.uid), ROOT) == 0o777
        assert await mode_after(0o6777, SetInfo(gid=ALICE.gid), ALICE) == 0o777
        assert await mode_after(0o777, SetInfo(mode=0o2777), ALICE) == 0o2777
        await files.setattr(file, SetInfo(gid=77))
        assert await mode_after(0o777, SetInfo(mode=0o6777), ALICE) == 0o4777, "no member"

    # Extended attributes --------------------------------------------------------------------------

    async def test_attributes_have_namespaces(self, subject: FilesStage) -> None:
        files = subject.files
        root = await self.root(subject)
        file = await self.of_alice(subject, b"a", 0o644)
        sticky = (await files.mkdir(root, b"d", 0o1777, ALICE)).ref
        link = (await files.symlink(root, b"l", b"a", ALICE)).ref
        fifo = (await files.mknod(root, b"f", "fifo", 0o666, ALICE)).ref

        await files.set_xattr(file, b"trusted.t", b"1")
        await files.set_xattr(file, b"security.s", b"2")
        await files.set_xattr(file, b"user.u", b"3", ALICE)
        await files.set_xattr(link, b"trusted.t", b"1")
        await files.set_xattr(sticky, b"user.u", b"3", ALICE)

        for attempt, code in (
            (files.set_xattr(file, b"user.u", b"", BOB), errno.EACCES),
            (files.set_xattr(file, b"trusted.t", b"", ALICE), errno.EPERM),
            (files.set_xattr(file, b"security.s", b"", ALICE), errno.EPERM),
            (files.set_xattr(sticky, b"user.v", b"", BOB), errno.EPERM),
            (files.set_xattr(link, b"user.u", b""), errno.EPERM),
            (files.set_xattr(fifo, b"user.u", b"", ALICE), errno.EPERM),
            (files.set_xattr(file, b"system.what", b""), errno.EOPNOTSUPP),
            (files.set_xattr(file, b"what", b""), errno.EOPNOTSUPP),
            (files.xattr(file, b"trusted.t", ALICE), errno.ENODATA),
            (files.xattr(file, b"user.none"), errno.ENODATA),
            (files.set_xattr(file, b"user.none", None), errno.ENODATA),
            (files.set_xattr(file, b"user.none", b"", must="replace"), errno.ENODATA),
        ):
            await self.refused(attempt, code)
        assert dict(await files.xattrs(file, ALICE)) == {b"security.s": b"2", b"user.u": b"3"}
        assert len(await files.xattrs(file, ROOT)) == 3
        await files.setattr(file, SetInfo(mode=0o600), ALICE)
        assert dict(await files.xattrs(file, BOB)) == {b"security.s": b"2"}
        with pytest.raises(PermissionDenied):
            await files.xattr(file, b"user.u", BOB)

    async def test_attributes_have_limits(self, subject: FilesStage) -> None:
        files = subject.files
        file = await self.of_alice(subject, b"a", 0o644)
        longest = b"user." + b"n" * (XATTR_NAME_MAX - 5)
        await files.set_xattr(file, longest, b"x", ALICE)
        for name, size, error in (
            (longest + b"n", 1, AttributeNameInvalid),
            (b"", 1, AttributeNameInvalid),
            (b"user.a", XATTR_MAX + 1, AttributeTooLarge),
            (b"user.a", XATTRS_MAX, AttributesFull),
        ):
            with pytest.raises(error):
                await files.set_xattr(file, name, bytes(size), ALICE)
        many = [(number, 4) for number in range(2000, 2600)]
        for value in (posix(7, 7, 7, users=many, mask=7), nfs4(*[(0, 0, 1, "x" * 200)] * 200)):
            name = NFS4 if value[0] == 0 else ACCESS
            with pytest.raises((InvalidArgument, AttributesFull)):
                await files.set_xattr(file, name, value, ALICE)
        assert dict(await files.xattrs(file)) == {longest: b"x"}

    async def test_lists_names_and_links_call_leases_back(self, subject: FilesStage) -> None:
        files, claims = subject.files, subject.files.claims
        root = await self.root(subject)
        file = await self.of_alice(subject, b"a", 0o644)
        directory = (await files.mkdir(root, b"d", 0o755)).ref
        told: list[Recalled] = []
        answers: list[asyncio.Task[None]] = []

        def tell(recalled: Recalled) -> None:
            told.append(recalled)
            where = file if recalled.inode == file.inode else directory
            answers.append(asyncio.create_task(claims.give_back(where, holder)))

        holder = Owner(await claims.add_client("holder", tell=tell), 0)
        count = itertools.count()
        for change in (
            lambda: files.set_xattr(file, b"user.a", b"1"),
            lambda: files.set_xattr(file, ACCESS, posix(6, 4, 4, users=[(5, 4)], mask=4)),
            lambda: files.link(file, root, b"l%d" % next(count)),
            lambda: files.rmdir(root, b"d"),
        ):
            await asyncio.gather(*answers)
            told.clear()
            for where in (file, directory):
                await claims.lease(where, holder, Kind.READ | Kind.HANDLE, beside_writers=True)
            await change()
            assert told, "it was told of a change"
        await asyncio.gather(*answers)
