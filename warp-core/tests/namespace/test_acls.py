"""Access control lists: what they decide, and that no translation of them lets anybody do more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, settings
from hypothesis import given as given_of
from warp_core.errors import InvalidArgument, NewerFormat
from warp_core.namespace import access, acls, attributes, nfs_acls, posix_acls
from warp_core.namespace.acls import ALLOW, DENY, EVERYONE, FOR_GROUP, GROUP, OWNER, Ace, Acl
from warp_core.namespace.inodes import Inode
from warp_core.namespace.posix_acls import PosixAcl
from warp_core.namespace.rows import DIRECTORY, FILE, encode
from warp_core.views.files import Caller, Want

UID, GID = 1, 10  # of the inode
NAMED = "account:ada"
NAMED_UID = access.acls.uid_of_name(NAMED)
CALLERS = [
    Caller(uid=uid, gid=gid, groups=frozenset(groups), name=name)
    for uid, name in ((UID, ""), (2, ""), (3, ""), (4, NAMED), (NAMED_UID, NAMED))
    for gid, groups in (
        (99, ()),
        (GID, ()),
        (11, ()),
        (99, (GID, 12)),
        (12, (11,)),
        (11, (GID, 12)),
    )
]
WANTS = [Want(bits) for bits in range(1, 8)]


def given(*drawn: st.SearchStrategy[object]):
    """Draw 30 times: each time all of CALLERS ask for everything."""
    return lambda test: settings(max_examples=30, deadline=None)(given_of(*drawn)(test))


digits = st.integers(0, 7)
modes = st.integers(0, 0o777)


# What the standards say, word for word and slowly ------------------------------------------------


def by_mode(mode: int, caller: Caller, want: int) -> bool:
    """POSIX.1-2017, 4.5."""
    groups = {caller.gid} | caller.groups
    digit = mode >> 6 if caller.uid == UID else mode >> 3 if GID in groups else mode
    return want & ~digit & 7 == 0


def by_posix(acl: PosixAcl, caller: Caller, want: int) -> bool:
    """POSIX.1e draft 17, 23.1.5."""
    mask = 7 if acl.mask is None else acl.mask
    groups = {caller.gid} | caller.groups
    if caller.uid == UID:
        return want & ~acl.user == 0
    for number, digit in acl.users:
        if caller.uid == number:
            return want & ~(digit & mask) == 0
    matching = [digit for number, digit in ((GID, acl.group), *acl.groups) if number in groups]
    if matching:
        return any(want & ~(digit & mask) == 0 for digit in matching)
    return want & ~acl.other == 0


def by_linux(mode: int, acl: PosixAcl | None, caller: Caller, want: int) -> bool:
    """Linux's acl_permission_check: as a mount that serves this mode and this ACL is judged by the kernel."""
    if caller.uid == UID:
        return want & ~(mode >> 6) & 7 == 0
    if acl is not None and mode & 0o070:
        shown = msgspec.structs.replace(acl, user=mode >> 6 & 7)
        return by_posix(shown, caller, want)
    return by_mode(mode, caller, want)


def by_nfs(entries: tuple[Ace, ...], caller: Caller, right: int) -> bool:
    """RFC 8881, 6.2.1: of one bit the first entry that has it and is about the caller."""
    groups = {caller.gid} | caller.groups
    for entry in entries:
        if entry.kind not in (ALLOW, DENY) or entry.flags & acls.INHERIT_ONLY:
            continue
        who = entry.who
        about = (
            who == EVERYONE
            or (who == OWNER and caller.uid == UID)
            or (who == GROUP and GID in groups)
            or (isinstance(who, int) and (who in groups if entry.flags & FOR_GROUP else who == caller.uid))
            or (who == NAMED and (caller.name == NAMED or caller.uid == NAMED_UID))
        )  # fmt: skip
        if about and entry.rights & right:
            return entry.kind == ALLOW
    return False


# Drawn ------------------------------------------------------------------------------------------------


@st.composite
def posix_lists(draw: st.DrawFn) -> PosixAcl:
    users = draw(st.dictionaries(st.sampled_from([1, 2, 3]), digits, max_size=3))
    groups = draw(st.dictionaries(st.sampled_from([10, 11, 12]), digits, max_size=3))
    mask = draw(digits if users or groups else st.none() | digits)
    return PosixAcl(
        draw(digits),
        draw(digits),
        draw(digits),
        tuple(users.items()),
        tuple(groups.items()),
        mask,
    )


rights = st.sampled_from(
    [*(acls.rights_of(d, directory=False) for d in range(8)), acls.WRITE_DATA, acls.DELETE_CHILD,
     acls.APPEND_DATA, acls.rights_of(7, directory=True), acls.DELETE, acls.RIGHTS]
)  # fmt: skip
whos: st.SearchStrategy[tuple[int | str, int]] = st.sampled_from(
    [(OWNER, 0), (GROUP, FOR_GROUP), (EVERYONE, 0), (1, 0), (2, 0), (3, 0), (10, FOR_GROUP),
     (11, FOR_GROUP), (12, FOR_GROUP), (NAMED, 0)]
)  # fmt: skip


@st.composite
def entries_of(draw: st.DrawFn, *, inheriting: bool = False) -> tuple[Ace, ...]:
    found = []
    for who, flags in draw(st.lists(whos, min_size=1, max_size=6)):
        more = draw(st.sampled_from([0, 0, 1, 2, 3, 9, 11, 7])) if inheriting else 0
        kind = draw(st.sampled_from([ALLOW, ALLOW, DENY, DENY, acls.AUDIT]))
        found.append(Ace(kind, flags | more, draw(rights), who))
    return tuple(found)


def inode_of(acl: Acl | None, mode: int, *, directory: bool = False) -> Inode:
    return Inode(0, DIRECTORY if directory else FILE, mode, uid=UID, gid=GID, acl=acl)


def with_posix(posix: PosixAcl, *, directory: bool = False) -> Inode:
    acl = posix_acls.with_access(None, posix, directory=directory)
    return inode_of(acl, posix.mode, directory=directory)


def with_entries(entries: tuple[Ace, ...], *, directory: bool = False) -> Inode:
    value = nfs_acls.pack(entries)
    return attributes.changed(
        inode_of(None, 0o777, directory=directory),
        nfs_acls.NFS4,
        value,
        Caller(uid=0, gid=0, superuser=True),
    )


# Judging ------------------------------------------------------------------------------------------


@given(modes, st.booleans())
def test_a_mode_decides_what_its_canonical_list_decides(mode: int, directory: bool) -> None:
    inode = inode_of(None, mode, directory=directory)
    for caller, want in itertools.product(CALLERS, WANTS):
        expected = by_mode(mode, caller, int(want))
        assert (want & ~access.allowed(inode, caller) == Want(0)) == expected
        listed = acls.decide(
            acls.canonical(None, mode, directory),
            acls.rights_of(int(want), directory=directory),
            caller,
            owner=caller.uid == UID,
            member=GID in caller.groups or caller.gid == GID,
        )
        assert listed == expected


@given(posix_lists(), st.booleans())
def test_a_posix_acl_decides_what_the_standard_says(posix: PosixAcl, directory: bool) -> None:
    inode = with_posix(posix, directory=directory)
    for caller, want in itertools.product(CALLERS, WANTS):
        expected = by_posix(posix, caller, int(want))
        assert (
            access.permits(inode, acls.rights_of(int(want), directory=directory), caller)
            == expected
        )
        assert (access.best(inode, want, caller) == want) == expected


@given(entries_of(inheriting=True))
def test_a_list_decides_each_right_by_the_first_entry_that_names_it(
    entries: tuple[Ace, ...],
) -> None:
    inode = with_entries(entries, directory=True)
    for caller in CALLERS:
        for right in (1 << bit for bit in range(21) if acls.RIGHTS >> bit & 1):
            expected = by_nfs(entries, caller, right)
            if caller.uid == UID and right & acls.OWNERS:
                expected = True
            if (
                inode.acl is None or not inode.acl.entries
            ):  # it said no more than a mode, and became one
                right &= acls.rights_of(7, directory=True)
                if not right:
                    continue
            assert access.permits(inode, right, caller) == expected


# Translating --------------------------------------------------------------------------------------


@given(posix_lists(), st.booleans())
def test_a_posix_acl_comes_back(posix: PosixAcl, directory: bool) -> None:
    inode = with_posix(posix, directory=directory)
    assert posix_acls.access(inode.acl, inode.mode, directory=directory) == posix
    assert posix_acls.parse(posix_acls.pack(posix)) == posix
    assert posix_acls.default(posix_acls.with_default(None, posix)) == posix
    assert (inode.acl is None) == (posix.mask is None)  # what a mode says costs nothing


@given(entries_of(inheriting=True))
def test_a_list_of_nfs_comes_back(entries: tuple[Ace, ...]) -> None:
    inode = with_entries(entries, directory=True)
    assert tuple(nfs_acls.parse(nfs_acls.pack(entries))) == entries
    if inode.acl is not None and inode.acl.entries:
        assert attributes.all_entries(inode) == entries
    assert msgspec.msgpack.decode(encode(inode), type=Inode) == inode


READ, ALL = acls.READ_DATA, acls.RIGHTS
HARD = {  # lists of which no POSIX ACL says the same
    "a group is kept out, and with it the owner who is in it": (
        Ace(DENY, FOR_GROUP, READ, 11), Ace(ALLOW, 0, READ, OWNER), Ace(ALLOW, 0, READ, EVERYONE),
    ),
    "a group that a named user may be in is kept out": (
        Ace(DENY, FOR_GROUP, READ, 12), Ace(ALLOW, 0, READ, 2), Ace(ALLOW, 0, ALL, OWNER),
    ),
    "somebody is kept out and the mode gives the group nothing": (
        Ace(DENY, FOR_GROUP, ALL, GROUP), Ace(DENY, 0, ALL, 2), Ace(ALLOW, 0, READ, EVERYONE),
    ),
    "a principal without a number is kept out": (
        Ace(DENY, 0, ALL, NAMED), Ace(ALLOW, 0, READ, EVERYONE),
    ),
    "one of two groups gives what the other takes": (
        Ace(ALLOW, FOR_GROUP, READ, 11), Ace(DENY, FOR_GROUP, ALL, 12), Ace(ALLOW, 0, READ, EVERYONE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("entries", HARD.values(), ids=HARD)
@pytest.mark.parametrize("directory", [False, True])
def test_what_no_posix_acl_says_is_shown_narrower(
    entries: tuple[Ace, ...], directory: bool
) -> None:
    shows_nobody_more(entries, directory)


@given(entries_of(), st.booleans())
def test_a_client_that_checks_itself_allows_nobody_more(
    entries: tuple[Ace, ...], directory: bool
) -> None:
    shows_nobody_more(entries, directory)


def shows_nobody_more(entries: tuple[Ace, ...], directory: bool) -> None:
    inode = with_entries(entries, directory=directory)
    shown = inode.mode if (mode := attributes.checked_mode(inode)) is None else mode
    value = attributes.visible(inode, CALLERS[0]).get(posix_acls.ACCESS)
    posix = posix_acls.parse(value) if value is not None else None
    assert posix is None or posix.mode == shown & 0o777
    for caller, want in itertools.product(CALLERS, WANTS):
        if by_linux(shown, posix, caller, int(want)):
            assert access.permits(inode, acls.rights_of(int(want), directory=directory), caller)


@given(posix_lists())
def test_linux_judges_a_posix_acl_as_core_does(posix: PosixAcl) -> None:
    """But for its shortcut: a mask of nothing makes it take those who are named for others."""
    inode = with_posix(posix)
    value = attributes.visible(inode, CALLERS[0]).get(posix_acls.ACCESS)
    shown = posix_acls.parse(value) if value is not None else None
    for caller, want in itertools.product(CALLERS, WANTS):
        here = access.permits(inode, acls.rights_of(int(want), directory=False), caller)
        if posix.mask != 0:
            assert by_linux(inode.mode, shown, caller, int(want)) == here


@given(posix_lists(), modes)
def test_chmod_of_a_posix_acl_sets_owner_mask_and_others(posix: PosixAcl, mode: int) -> None:
    inode = with_posix(posix)
    acl = acls.chmod(inode.acl, inode.mode, mode, directory=False)
    after = posix_acls.access(acl, mode, directory=False)
    assert after is not None
    assert (after.users, after.groups) == (posix.users, posix.groups)
    assert after.mode == mode
    assert after.group == (posix.group if posix.mask is not None else mode >> 3 & 7)


@given(entries_of(inheriting=True), modes)
def test_after_chmod_nobody_may_more_than_the_mode(entries: tuple[Ace, ...], mode: int) -> None:
    inode = with_entries(entries, directory=True)
    acl = acls.chmod(inode.acl, inode.mode, mode, directory=True)
    after = msgspec.structs.replace(inode, acl=acl, mode=mode)
    assert acls.mode_of(acls.canonical(acl, mode, True), directory=True) == mode
    if inode.mode == mode:
        return
    for caller, want in itertools.product(CALLERS, WANTS):
        if access.permits(after, acls.rights_of(int(want), directory=True), caller):
            most = mode >> 6 & 7 if caller.uid == UID else (mode >> 3 | mode) & 7
            assert int(want) & ~most == 0


@given(posix_lists(), modes, st.booleans(), modes)
def test_what_is_made_gets_the_default_acl_and_never_more_than_was_asked_for(
    default: PosixAcl, mode: int, directory: bool, umask: int
) -> None:
    above = posix_acls.with_default(None, default)
    acl, made = acls.inherited(above, mode, umask, directory=directory)
    found = posix_acls.access(acl, made, directory=directory)
    assert found is not None
    # Linux, posix_acl_create_masq: owner, mask (or group) and others are limited, named entries stay.
    assert found.user == default.user & mode >> 6
    assert found.other == default.other & mode & 7
    assert (found.users, found.groups) == (default.users, default.groups)
    if default.mask is None:
        assert found.group == default.group & mode >> 3 & 7
    else:
        assert found.mask == default.mask & mode >> 3 & 7
        assert found.group == default.group
    assert posix_acls.default(acl) == (default if directory else None)


@example((Ace(0, 66, 32, "GROUP@"), Ace(0, 0, 0, "OWNER@")), 0o010, True)
@example((Ace(0, 1, 32, UID),), 0o010, False)
@given(entries_of(inheriting=True), modes, st.booleans())
def test_what_inherits_a_list_gets_no_more_than_was_asked_for(
    entries: tuple[Ace, ...], mode: int, directory: bool
) -> None:
    above = with_entries(entries, directory=True).acl
    acl, made = acls.inherited(above, mode, 0o022, directory=directory)
    assert made & ~mode == 0
    inode = inode_of(acl, made, directory=directory)
    assert acls.mode_of(acls.canonical(acl, made, directory), directory=directory) == made
    bit = acls.DIRECTORY_INHERIT if directory else acls.FILE_INHERIT
    if not any(entry.flags & bit for entry in entries):
        assert made == mode & ~0o022
        assert acl is None or not acl.entries
    elif acl is not None and acl.entries:
        for caller, want in itertools.product(CALLERS, WANTS):
            if access.permits(inode, acls.rights_of(int(want), directory=directory), caller):
                most = mode >> 6 & 7 if caller.uid == UID else (mode >> 3 | mode) & 7
                assert int(want) & ~most == 0
    for entry in attributes.all_entries(inode):
        assert directory or not entry.flags & acls.INHERITING


@given(entries_of(inheriting=True), posix_lists())
def test_setting_one_kind_of_list_keeps_what_the_other_hands_down(
    entries: tuple[Ace, ...], posix: PosixAcl
) -> None:
    inode = with_entries(entries, directory=True)
    with_both = posix_acls.with_access(inode.acl, posix, directory=True)
    for directory in (True, False):
        before = acls.inherited(inode.acl, 0o777, 0, directory=directory)
        assert acls.inherited(with_both, 0o777, 0, directory=directory) == before
    inode = msgspec.structs.replace(inode, acl=posix_acls.with_default(inode.acl, posix))
    assert posix_acls.default(inode.acl) == posix
    for caller, right in itertools.product(CALLERS, (acls.READ_DATA, acls.DELETE_CHILD)):
        if inode.acl is not None and inode.acl.entries:
            assert access.permits(inode, right, caller) == by_nfs(entries, caller, right)


@given(posix_lists())
def test_taking_the_acl_away_gives_nobody_more_but_those_who_were_kept_out_by_name(
    posix: PosixAcl,
) -> None:
    inode = with_posix(posix)
    acl, mode = posix_acls.without_access(inode.acl, inode.mode, directory=False)
    assert acl is None
    mask = 7 if posix.mask is None else posix.mask
    assert mode == posix.user << 6 | (posix.group & mask) << 3 | posix.other


# Bytes --------------------------------------------------------------------------------------------

# setfacl -m u:2:rw,g:11:r on a file of mode 640, as Linux's ext4 shows it.
CAPTURED = bytes.fromhex(
    "02000000 01000600ffffffff 0200060002000000 04000400ffffffff 080004000b000000 10000600ffffffff"
    "20000000ffffffff"
)


def test_the_form_is_linuxs() -> None:
    acl = PosixAcl(6, 4, 0, ((2, 6),), ((11, 4),), 6)
    assert posix_acls.parse(CAPTURED) == acl
    assert posix_acls.pack(acl) == CAPTURED


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: CAPTURED[:20] + tail))
def test_what_is_no_posix_acl_is_refused(value: bytes) -> None:
    try:
        acl = posix_acls.parse(value)
    except InvalidArgument:
        return
    assert acl is None or len(posix_acls.pack(acl)) == len(value)


@given(st.binary(max_size=60))
def test_what_is_no_list_of_nfs_is_refused(value: bytes) -> None:
    try:
        entries = nfs_acls.parse(value)
    except InvalidArgument:
        return
    assert tuple(nfs_acls.parse(nfs_acls.pack(entries))) == tuple(entries)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        CAPTURED[4:],
        CAPTURED[:-8],  # without others
        CAPTURED.replace(bytes.fromhex("10000600ffffffff"), b""),  # named, and no mask
        CAPTURED[:12] + CAPTURED[12:20] * 2 + CAPTURED[20:],  # a user twice
        CAPTURED + CAPTURED[-8:],
        CAPTURED[:4] + bytes.fromhex("01000900ffffffff") + CAPTURED[12:],
        CAPTURED[:4] + CAPTURED[12:20] + CAPTURED[4:12] + CAPTURED[20:],  # out of order
    ],
)
def test_a_posix_acl_that_linux_refuses_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgument):
        posix_acls.parse(value)


@pytest.mark.parametrize(
    "entry",
    [
        Ace(4, 0, 1, OWNER),
        Ace(ALLOW, 0x100, 1, OWNER),
        Ace(ALLOW, 0, 1 << 30, OWNER),
        Ace(ALLOW, acls.FILE_INHERIT, 1, OWNER),
        Ace(ALLOW, 0, 1, ""),
        Ace(DENY, 0, 1, "AUTHENTICATED@"),
        Ace(ALLOW, 0, 1, (1 << 32) - 1),
        Ace(ALLOW, 0, 1, "x" * 300),
    ],
)
def test_an_entry_without_a_meaning_is_refused(entry: Ace) -> None:
    with pytest.raises(InvalidArgument):
        acls.check([entry], directory=False)


def test_names_that_are_numbers_become_numbers() -> None:
    entries = [Ace(ALLOW, 0, 1, "unix:5"), Ace(ALLOW, FOR_GROUP, 1, "unix-group:6")]
    assert [entry.who for entry in acls.check(entries, directory=False)] == [5, 6]


def test_a_list_of_a_later_release_opens_nothing() -> None:
    with pytest.raises(NewerFormat):
        access.permits(inode_of(Acl(format=2), 0o777), acls.READ_DATA, CALLERS[0])


def test_a_row_without_a_list_is_read_as_before() -> None:
    inode = inode_of(None, 0o640)
    old = [getattr(inode, name) for name in Inode.__struct_fields__[:-1]]
    assert msgspec.msgpack.decode(encode(old), type=Inode) == inode


@dataclass
class Removal:
    """A case of deleting an entry."""

    directory: int  # rights that others have there
    entry: int  # rights that others have to the file
    sticky: bool
    works: bool


@pytest.mark.parametrize(
    "case",
    [
        Removal(acls.DELETE_CHILD | acls.EXECUTE, 0, False, True),
        Removal(acls.WRITE_DATA | acls.EXECUTE, 0, False, False),
        Removal(acls.EXECUTE, acls.DELETE, False, True),
        Removal(0, acls.DELETE, False, False),
        Removal(acls.DELETE_CHILD | acls.EXECUTE, 0, True, False),
        Removal(acls.DELETE_CHILD | acls.EXECUTE, acls.DELETE, True, True),
    ],
)
def test_deleting_needs_a_right_on_the_entry_or_on_its_directory(case: Removal) -> None:
    above = with_entries((Ace(ALLOW, 0, case.directory, 2),), directory=True)
    above = msgspec.structs.replace(above, mode=above.mode | (0o1000 if case.sticky else 0))
    entry = with_entries((Ace(ALLOW, 0, case.entry, 2),))
    try:
        access.demand_removal(above, entry, Caller(uid=2, gid=99), "unlink")
    except access.PermissionDenied:
        assert not case.works
    else:
        assert case.works
