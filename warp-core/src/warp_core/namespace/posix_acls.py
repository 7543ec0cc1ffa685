"""POSIX ACLs: Linux's form of them in extended attributes, and what they mean as entries of NFSv4, both ways.

`system.posix_acl_access` and `system.posix_acl_default` are, little endian (Linux, `include/uapi/linux/posix_acl_xattr.h`)

    u32 version, 2     then for each entry     u16 tag     u16 permissions     u32 number

A POSIX ACL is kept exactly (`acls`: the masked form). The other way there may be no POSIX ACL that says the same as a list of NFSv4:
`view` is then the widest that allows nobody more, for clients that check themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from warp_core.errors import InvalidArgument
from warp_core.namespace.acls import (
    ALLOW,
    DENY,
    ENTRIES_MAX,
    EVERYONE,
    FOR_GROUP,
    GROUP,
    INHERIT_ONLY,
    INHERITING,
    NO_PROPAGATE,
    OWNER,
    Ace,
    Acl,
    bits_of,
    kept,
    rights_of,
)
from warp_core.namespace.principals import number_of

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2
_NO_ID: Final = 0xFFFF_FFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class PosixAcl(msgspec.Struct, frozen=True):
    """A POSIX ACL; permissions are digits of a mode. Without named entries it may have no mask, and then it is a mode."""

    user: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()  # number, permissions
    groups: tuple[tuple[int, int], ...] = ()
    mask: int | None = None

    @property
    def mode(self) -> int:
        """The nine bits of a mode that it shows as."""
        return self.user << 6 | (self.group if self.mask is None else self.mask) << 3 | self.other


def parse(value: bytes) -> PosixAcl | None:
    """Return the ACL in an extended attribute; None if it has no entries, which means that there is to be none.

    Raises:
        InvalidArgument: It is none that Linux takes; says why.
    """
    if len(value) < _HEAD.size or _HEAD.unpack_from(value)[0] != _VERSION:
        raise InvalidArgument(f"a POSIX ACL begins with version {_VERSION}")
    if (len(value) - _HEAD.size) % _ENTRY.size:
        raise InvalidArgument(f"{len(value)} bytes are no whole entries of a POSIX ACL")
    if (len(value) - _HEAD.size) // _ENTRY.size > ENTRIES_MAX:
        raise InvalidArgument(f"a POSIX ACL of {len(value)} bytes, ENTRIES_MAX {ENTRIES_MAX}")
    single: dict[int, int] = {}
    users: dict[int, int] = {}
    groups: dict[int, int] = {}
    before = 0
    for tag, permissions, number in _ENTRY.iter_unpack(value[_HEAD.size :]):
        named = {_USER: users, _GROUP: groups}.get(tag)
        if permissions > 7 or tag < before:
            raise InvalidArgument(f"entry {tag:#x} of a POSIX ACL is out of order or not rwx")
        if named is None:
            if tag not in (_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER) or tag in single:
                raise InvalidArgument(f"entry {tag:#x} of a POSIX ACL is unknown or there twice")
            single[tag] = permissions
        else:
            if number == _NO_ID or number in named:
                raise InvalidArgument(f"an entry of a POSIX ACL for {number}, or two for it")
            named[number] = permissions
        before = tag
    if not before:
        return None
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= single.keys():
        raise InvalidArgument("a POSIX ACL has entries for owner, group and others")
    if (users or groups) and _MASK not in single:
        raise InvalidArgument("a POSIX ACL with named entries has a mask")
    return PosixAcl(
        single[_USER_OBJ],
        single[_GROUP_OBJ],
        single[_OTHER],
        tuple(users.items()),
        tuple(groups.items()),
        single.get(_MASK),
    )


def pack(acl: PosixAcl) -> bytes:
    """Return an ACL as an extended attribute."""
    entries = [(_USER_OBJ, acl.user, _NO_ID)]
    entries += [(_USER, permissions, number) for number, permissions in acl.users]
    entries.append((_GROUP_OBJ, acl.group, _NO_ID))
    entries += [(_GROUP, permissions, number) for number, permissions in acl.groups]
    if acl.mask is not None:
        entries.append((_MASK, acl.mask, _NO_ID))
    entries.append((_OTHER, acl.other, _NO_ID))
    return _HEAD.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


# To entries of NFSv4 ------------------------------------------------------------------------------


def with_access(old: Acl | None, posix: PosixAcl, *, directory: bool) -> Acl | None:
    """Return an inode's list with this POSIX ACL; the inode's mode has to become `posix.mode`."""
    old = old or Acl()
    defaults = old.defaults
    if not old.masked:  # entries that were handed down as well as in force go on being handed down
        defaults += tuple(
            entry
            if entry.flags & INHERIT_ONLY
            else msgspec.structs.replace(entry, flags=entry.flags | INHERIT_ONLY)
            for entry in old.entries
            if entry.flags & INHERITING
        )
    return kept(
        Acl(
            masked=posix.mask is not None,
            entries=_named(posix, directory=directory),
            defaults=defaults,
            default_mode=old.default_mode,
        )
    )


def with_default(old: Acl | None, posix: PosixAcl | None) -> Acl | None:
    """Return a directory's list with this default ACL, or with none."""
    old = old or Acl()
    entries = old.entries
    if not old.masked:  # two ways to hand down would contradict each other
        entries = tuple(
            msgspec.structs.replace(entry, flags=entry.flags & ~(INHERITING | NO_PROPAGATE))
            for entry in entries
            if not entry.flags & INHERIT_ONLY
        )
    return kept(
        Acl(
            masked=old.masked,
            entries=entries,
            defaults=() if posix is None else _named(posix, directory=True),
            default_mode=-1 if posix is None else posix.mode,
        )
    )


def without_access(old: Acl | None, mode: int, *, directory: bool) -> tuple[Acl | None, int]:
    """Return list and mode when the access ACL is taken away: the group keeps what it could do, no more."""
    posix = access(old, mode, directory=directory)
    if old is None or posix is None:
        return old, mode
    group = posix.group if posix.mask is None else posix.group & posix.mask
    plain = PosixAcl(posix.user, group, posix.other)
    return with_access(old, plain, directory=directory), mode & ~0o777 | plain.mode


def _named(posix: PosixAcl, *, directory: bool) -> tuple[Ace, ...]:
    """Return the entries for users and groups, which the mask limits."""
    if posix.mask is None:
        return ()

    def ace(bits: int, flags: int, who: int | str) -> Ace:
        return Ace(ALLOW, flags, rights_of(bits, directory=directory), who)

    return (
        *(ace(bits, 0, number) for number, bits in posix.users),
        ace(posix.group, FOR_GROUP, GROUP),
        *(ace(bits, FOR_GROUP, number) for number, bits in posix.groups),
    )


# And back -----------------------------------------------------------------------------------------


def access(acl: Acl | None, mode: int, *, directory: bool) -> PosixAcl | None:
    """Return the POSIX ACL that says exactly what an inode's list and mode do; None if there is none."""
    if acl is not None and acl.entries and not acl.masked:
        return None
    if acl is None or not acl.masked:
        return PosixAcl(mode >> 6 & 7, mode >> 3 & 7, mode & 7)
    return _posix(acl.entries, mode, directory=directory)


def default(acl: Acl | None) -> PosixAcl | None:
    """Return a directory's default ACL; None if it has none, or hands down what no POSIX ACL says."""
    if acl is None or acl.default_mode < 0:
        return None
    mode = acl.default_mode
    if not acl.defaults:
        return PosixAcl(mode >> 6 & 7, mode >> 3 & 7, mode & 7)
    return _posix(acl.defaults, mode, directory=True)


def _posix(entries: Sequence[Ace], mode: int, *, directory: bool) -> PosixAcl:
    users, groups, group = [], [], 0
    for entry in entries:
        bits = bits_of(entry.rights, directory=directory)
        if isinstance(entry.who, str):
            group = bits
        elif entry.flags & FOR_GROUP:
            groups.append((entry.who, bits))
        else:
            users.append((entry.who, bits))
    return PosixAcl(mode >> 6 & 7, group, mode & 7, tuple(users), tuple(groups), mode >> 3 & 7)


_Applies = Callable[[Ace], bool | None]  # None: to some of those who are meant


def view(entries: Sequence[Ace], *, uid: int, gid: int, directory: bool) -> PosixAcl:
    """Return the widest POSIX ACL by which nobody may more than a list of NFSv4 allows.

    Somebody's groups are not known where a POSIX entry for a user decides, nor his other groups where one for a group does. So
    each entry gets what the list allows to all whom it may be about.

    Args:
        uid: The inode's owner.
        gid: Its group.
    """
    users = {who for who in _numbers(entries, group=False) if who != uid}
    groups = {who for who in _numbers(entries, group=True) if who != gid}

    def least(applies: _Applies) -> int:
        allowed = denied = 0
        for entry in entries:
            if entry.kind > DENY or entry.flags & INHERIT_ONLY:
                continue
            meant = True if entry.who == EVERYONE else applies(entry)
            if entry.kind == ALLOW:
                allowed |= entry.rights & ~denied if meant else 0
            elif meant is not False:
                denied |= entry.rights & ~allowed
        return bits_of(allowed, directory=directory)

    def of_user(number: int, *, owner: bool) -> _Applies:
        def applies(entry: Ace) -> bool | None:
            if entry.who == OWNER:
                return owner
            if entry.flags & FOR_GROUP:
                return None
            if isinstance(entry.who, int):
                return entry.who == number
            return True if number_of(entry.who, "unix:") == number else None

        return applies

    def of_group(number: int | None) -> _Applies:
        def applies(entry: Ace) -> bool | None:
            if entry.who == OWNER:
                return False
            if not entry.flags & FOR_GROUP:  # users with entries are judged by theirs
                return False if isinstance(entry.who, int) else None
            if number is None:
                return False
            if entry.who == GROUP:
                return True if number == gid else None
            who = entry.who if isinstance(entry.who, int) else number_of(entry.who, "unix-group:")
            return True if who == number else None

        return applies

    owned = least(of_user(uid, owner=True))
    named = tuple((who, least(of_user(who, owner=False))) for who in sorted(users))
    group = least(of_group(gid))
    named_groups = tuple((who, least(of_group(who))) for who in sorted(groups))
    other = least(of_group(None))
    if not named and not named_groups:
        return PosixAcl(owned, group, other)
    mask = group
    for _, bits in (*named, *named_groups):
        mask |= bits
    # Linux does not look at the ACL of a file whose mode gives the group nothing, and takes those who are named for others.
    return PosixAcl(owned, group, other if mask else 0, named, named_groups, mask)


def _numbers(entries: Sequence[Ace], *, group: bool) -> set[int]:
    found = set()
    for entry in entries:
        if bool(entry.flags & FOR_GROUP) != group or entry.flags & INHERIT_ONLY:
            continue
        if entry.kind > DENY or entry.who in (OWNER, GROUP, EVERYONE):
            continue
        who = entry.who
        prefix = "unix-group:" if group else "unix:"
        found.add(who if isinstance(who, int) else number_of(who, prefix))
    return found
