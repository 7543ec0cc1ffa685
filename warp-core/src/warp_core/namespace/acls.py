"""Access control lists as NFSv4 has them (RFC 8881, section 6): the one form in which an inode says who may do what.

The mode, POSIX ACLs and others are translations of it. An inode keeps a list only where it says more than its mode, in two forms:

- as it was set: entries in their order, the first that decides a right has decided it;
- `masked`, as POSIX sets it: only the entries for users and groups are kept. What the owner, everybody else, and entries for
  users and groups at most may, are the three digits of the mode, so that chmod changes no list. One entry for a group has to allow
  everything that is asked for: those of several groups do not add up (POSIX.1e, 23.1.5).

`canonical` writes out either as entries of NFSv4, and `decide` is the only place that judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from warp_core.errors import InvalidArgument, NewerFormat
from warp_core.namespace.principals import number_of, uid_of_name
from warp_core.views.files import Caller

FORMAT: Final = 1
ENTRIES_MAX: Final = 500  # Linux asks mounts for lists of at most a page, 511 entries
WHO_MAX: Final = 256  # bytes of a principal's name
BYTES_MAX: Final = 16 * 1024  # of a list in its inode's row, beside the extended attributes

ALLOW, DENY, AUDIT, ALARM = range(4)  # kinds; the last two are kept and do nothing

OWNER: Final = "OWNER@"
GROUP: Final = "GROUP@"
EVERYONE: Final = "EVERYONE@"

# Flags (RFC 8881, 6.2.1.4)
FILE_INHERIT: Final = 0x01
DIRECTORY_INHERIT: Final = 0x02
NO_PROPAGATE: Final = 0x04
INHERIT_ONLY: Final = 0x08
FOR_GROUP: Final = 0x40  # `who` is a group
INHERITED: Final = 0x80
FLAGS: Final = 0xFF
INHERITING: Final = FILE_INHERIT | DIRECTORY_INHERIT

# Rights (RFC 8881, 6.2.1.3); those of directories have a name of their own and the same bit
READ_DATA: Final = 0x1  # list a directory
WRITE_DATA: Final = 0x2
ADD_FILE: Final = WRITE_DATA
APPEND_DATA: Final = 0x4
ADD_SUBDIRECTORY: Final = APPEND_DATA
READ_NAMED: Final = 0x8
WRITE_NAMED: Final = 0x10
EXECUTE: Final = 0x20  # search a directory
DELETE_CHILD: Final = 0x40
READ_ATTRIBUTES: Final = 0x80
WRITE_ATTRIBUTES: Final = 0x100
DELETE: Final = 0x10000
READ_ACL: Final = 0x20000
WRITE_ACL: Final = 0x40000
WRITE_OWNER: Final = 0x80000
SYNCHRONIZE: Final = 0x100000
RIGHTS: Final = 0x1F07FF  # all there are, the two of retention among them

ANYONES: Final = READ_ATTRIBUTES | READ_ACL | SYNCHRONIZE  # of everybody, where the mode says all
OWNERS: Final = READ_ACL | WRITE_ACL | READ_ATTRIBUTES | WRITE_ATTRIBUTES  # that no list takes away


class Ace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry. `who` is a number (a user's, or a group's with FOR_GROUP), one of the three special names, or a principal's name."""

    kind: int
    flags: int
    rights: int
    who: int | str


class Acl(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an inode says beyond its mode.

    Attributes:
        masked: `entries` allow users and groups what the mode's group digit limits, and the mode says the rest.
        entries: The list; empty: the mode says all.
        defaults: Entries that new entries of this directory get and that mean nothing for itself.
        default_mode: Of a POSIX default ACL, the three digits that `defaults` are masked by; -1: `defaults` are as they were set.
    """

    format: int = FORMAT
    masked: bool = False
    entries: tuple[Ace, ...] = ()
    defaults: tuple[Ace, ...] = ()
    default_mode: int = -1


NO_ACL: Final = Acl()


def kept(acl: Acl) -> Acl | None:
    """Return a list as an inode keeps it: None where it says nothing."""
    return None if acl == NO_ACL else acl


def rights_of(bits: int, *, directory: bool) -> int:
    """Return the rights that one digit of a mode stands for."""
    rights = READ_DATA if bits & 4 else 0
    if bits & 2:
        rights |= WRITE_DATA | APPEND_DATA | (DELETE_CHILD if directory else 0)
    return rights | (EXECUTE if bits & 1 else 0)


def bits_of(rights: int, *, directory: bool) -> int:
    """Return the digit of a mode whose rights are all among these."""
    write = WRITE_DATA | APPEND_DATA | (DELETE_CHILD if directory else 0)
    return (
        (4 if rights & READ_DATA else 0)
        | (2 if rights & write == write else 0)
        | (1 if rights & EXECUTE else 0)
    )


@lru_cache(maxsize=4096)  # lists are few, and shared by what inherits them
def canonical(acl: Acl | None, mode: int, directory: bool) -> tuple[Ace, ...]:
    """Return the entries that decide about an inode.

    Raises:
        NewerFormat: The list was written by a later release.
    """
    if acl is not None:
        if acl.format > FORMAT:
            raise NewerFormat(f"an access control list of format {acl.format} > {FORMAT}")
        if acl.entries and not acl.masked:
            return acl.entries
    user, group, other = (rights_of(mode >> shift & 7, directory=directory) for shift in (6, 3, 0))
    every = rights_of(7, directory=directory)
    entries = [Ace(ALLOW, 0, user | OWNERS, OWNER), Ace(DENY, 0, every & ~user, OWNER)]
    if acl is None or not acl.masked:
        entries.append(Ace(ALLOW, FOR_GROUP, group, GROUP))
        entries.append(Ace(DENY, FOR_GROUP, every & ~group, GROUP))
    else:
        limited = [Ace(ALLOW, e.flags, e.rights & group, e.who) for e in acl.entries]
        for entry in limited:
            if not entry.flags & FOR_GROUP:
                entries.append(entry)
                entries.append(Ace(DENY, 0, every & ~entry.rights, entry.who))
        groups = [entry for entry in limited if entry.flags & FOR_GROUP]
        entries += groups
        entries += [Ace(DENY, entry.flags, every, entry.who) for entry in groups]
    entries.append(Ace(ALLOW, 0, other | ANYONES, EVERYONE))
    return tuple(entries)


def applies(entry: Ace, caller: Caller, *, owner: bool, member: bool) -> bool:
    """Say whether an entry is about a caller who is the inode's owner, or a member of its group."""
    who = entry.who
    if isinstance(who, int):
        if entry.flags & FOR_GROUP:
            return who == caller.gid or who in caller.groups
        return who == caller.uid
    if who == EVERYONE:
        return True
    if who == OWNER:
        return owner
    if who == GROUP:
        return member
    if entry.flags & FOR_GROUP:
        number = number_of(who, "unix-group:")
        return number == caller.gid or number in caller.groups
    return who == caller.name or uid_of_name(who) == caller.uid


def decide(
    entries: Iterable[Ace],
    wanted: int,
    caller: Caller,
    *,
    owner: bool,
    member: bool,
    together: bool = False,
) -> bool:
    """Say whether a list allows a caller all of `wanted`. The first entry that names a right decides it; without one it is refused.

    Args:
        together: An entry for a group allows all that is still wanted, or nothing.
    """
    for entry in entries:
        if not wanted:
            return True
        if entry.kind > DENY or entry.flags & INHERIT_ONLY or not wanted & entry.rights:
            continue
        if not applies(entry, caller, owner=owner, member=member):
            continue
        if entry.kind == DENY:
            return False
        if not together or not entry.flags & FOR_GROUP or not wanted & ~entry.rights:
            wanted &= ~entry.rights
    return not wanted


def mode_of(entries: Sequence[Ace], *, directory: bool) -> int:
    """Return the nine bits of the mode that a list amounts to (RFC 8881, 6.3.2)."""
    mode = 0
    for special in (OWNER, GROUP, EVERYONE):
        allowed = denied = 0
        for entry in entries:
            if entry.flags & INHERIT_ONLY or entry.who not in (special, EVERYONE):
                continue
            if entry.kind == ALLOW:
                allowed |= entry.rights & ~denied
            elif entry.kind == DENY:
                denied |= entry.rights & ~allowed
        mode = mode << 3 | bits_of(allowed, directory=directory)
    return mode


def chmod(acl: Acl | None, old: int, mode: int, *, directory: bool) -> Acl | None:
    """Return the list of an inode whose mode is set: nobody may more by it than the new mode says (RFC 8881, 6.4.1).

    Args:
        old: The mode before.
    """
    if acl is None or acl.masked or not acl.entries or (old ^ mode) & 0o777 == 0:
        return acl
    return _limited(acl, mode, mode >> 3 & 7, directory=directory)


def _limited(acl: Acl, mode: int, most: int, *, directory: bool) -> Acl | None:
    """Return a list that amounts to a mode, and gives those whom it names at most the rights of a digit."""
    every = rights_of(7, directory=directory)
    beyond = every & ~rights_of(most, directory=directory)
    user, group, other = (rights_of(mode >> shift & 7, directory=directory) for shift in (6, 3, 0))
    named: list[Ace] = []
    handed_down = list(acl.defaults)
    for entry in acl.entries:
        if entry.flags & INHERIT_ONLY:
            named.append(entry)
            continue
        if entry.flags & INHERITING:  # what it hands down stays as it is
            handed_down.append(msgspec.structs.replace(entry, flags=entry.flags | INHERIT_ONLY))
        flags = entry.flags & ~(INHERITING | NO_PROPAGATE)
        if entry.who in (OWNER, GROUP, EVERYONE):
            rights = entry.rights & ~every
        elif entry.kind == ALLOW:
            rights = entry.rights & ~beyond
        else:
            rights = entry.rights
        if rights:
            named.append(Ace(entry.kind, flags, rights, entry.who))
    first = [Ace(ALLOW, 0, user, OWNER), Ace(DENY, 0, every & ~user, OWNER)]
    last = [
        Ace(ALLOW, FOR_GROUP, group, GROUP),
        Ace(DENY, FOR_GROUP, every & ~group, GROUP),
        Ace(ALLOW, 0, other, EVERYONE),
    ]
    entries = tuple(entry for entry in (*first, *named, *last) if entry.rights)
    return adopt(
        Acl(entries=entries, defaults=tuple(handed_down), default_mode=acl.default_mode),
        directory=directory,
    )


def adopt(acl: Acl, *, directory: bool) -> Acl | None:
    """Return a list as an inode keeps it: without entries that the mode says as well."""
    if acl.entries and not acl.masked and _is_plain(acl.entries, directory):
        acl = msgspec.structs.replace(acl, entries=())
    return kept(acl)


def _is_plain(entries: Sequence[Ace], directory: bool) -> bool:
    """Say whether a list decides everything as the mode does that it amounts to."""
    if any(e.who not in (OWNER, GROUP, EVERYONE) or e.kind > DENY for e in entries):
        return False
    if any(e.flags & (INHERITING | INHERIT_ONLY | INHERITED) for e in entries):
        return False
    plain = canonical(None, mode_of(entries, directory=directory), directory)
    somebody = Caller(uid=0, gid=0)
    return all(
        decide(entries, right, somebody, owner=owner, member=member)
        == decide(plain, right, somebody, owner=owner, member=member)
        for right in (1 << bit for bit in range(RIGHTS.bit_length()) if RIGHTS >> bit & 1)
        for owner in (True, False)
        for member in (True, False)
        if not (owner and right & OWNERS)
    )


def check(entries: Sequence[Ace], *, directory: bool) -> tuple[Ace, ...]:
    """Return entries that somebody gave, each in the one way to say it.

    Raises:
        InvalidArgument: They are none; says what is wrong.
    """
    if len(entries) > ENTRIES_MAX:
        raise InvalidArgument(f"{len(entries)} entries > ENTRIES_MAX {ENTRIES_MAX}")
    return tuple(_checked(entry, directory) for entry in entries)


def _checked(entry: Ace, directory: bool) -> Ace:
    flags, who = entry.flags, entry.who
    if not ALLOW <= entry.kind <= ALARM:
        raise InvalidArgument(f"an entry of kind {entry.kind}, there are 0 to {ALARM}")
    if flags & ~FLAGS or entry.rights & ~RIGHTS:
        raise InvalidArgument(f"an entry with flags {flags:#x} and rights {entry.rights:#x}")
    if flags & (INHERITING | INHERIT_ONLY | NO_PROPAGATE) and not directory:
        raise InvalidArgument("only a directory has entries that are inherited")
    if flags & INHERIT_ONLY and not flags & INHERITING:
        raise InvalidArgument("an entry that is inherited only, by neither files nor directories")
    if isinstance(who, str):
        if not who or len(who.encode()) > WHO_MAX:
            raise InvalidArgument(f"an entry for a name of {len(who)} letters, 1 to {WHO_MAX}")
        if who in (OWNER, EVERYONE):
            flags &= ~FOR_GROUP
        elif who == GROUP:
            flags |= FOR_GROUP
        elif who.endswith("@"):  # denied to whom nobody knows would be allowed to all
            raise InvalidArgument(f"entries for {who} have no meaning here")
        else:
            who = _number(who, group=bool(flags & FOR_GROUP))
    elif not 0 <= who < (1 << 32) - 1:
        raise InvalidArgument(f"an entry for the number {who}")
    return Ace(entry.kind, flags, entry.rights, who)


def _number(who: str, *, group: bool) -> int | str:
    """Return the number that a name stands for wherever it is used, else the name."""
    digits = who.removeprefix("unix-group:" if group else "unix:")
    if digits.isascii() and digits.isdecimal() and int(digits) < (1 << 32) - 1:
        return int(digits)
    return who


def inherited(
    above: Acl | None, mode: int, umask: int, *, directory: bool
) -> tuple[Acl | None, int]:
    """Return list and mode of a new entry of a directory: never more than the mode that its maker asked for.

    Args:
        above: The directory's list.
        mode: As asked for, with the bits that `umask` takes away where nothing is inherited.
        directory: The new entry is one.
    """
    if above is None:
        return None, mode & ~(umask & 0o777)
    if above.default_mode >= 0:  # as Linux: the default ACL takes the place of the umask
        masked = bool(above.defaults)
        acl = Acl(
            masked=masked,
            entries=above.defaults if masked else (),
            defaults=above.defaults if directory else (),
            default_mode=above.default_mode if directory else -1,
        )
        return kept(acl), mode & ~0o777 | mode & above.default_mode
    entries = [
        handed
        for entry in (*above.entries, *above.defaults)
        if not above.masked or entry.flags & INHERITING
        if (handed := _handed(entry, directory=directory)) is not None
    ]
    if not entries:
        return None, mode & ~(umask & 0o777)
    if all(entry.flags & INHERIT_ONLY for entry in entries):
        return Acl(defaults=tuple(entries)), mode & ~(umask & 0o777)
    amounts = mode_of(entries, directory=directory)
    asked, mode = mode >> 3 & 7, mode & (amounts | ~0o777)
    made = Acl(entries=tuple(entries))
    # A mode gives its owner nothing by the group, and to who is named in a list no more than to the group.
    every = rights_of(7, directory=directory)
    owners = every & ~rights_of(amounts >> 6 & 7, directory=directory)
    others = every & ~rights_of(asked, directory=directory)
    if mode & 0o777 == amounts and not any(
        entry.kind == ALLOW
        and (
            (entry.rights & owners and entry.who != OWNER)
            or (entry.rights & others and entry.who not in (OWNER, GROUP, EVERYONE))
        )
        for entry in entries
    ):
        return made, mode
    return _limited(made, mode, asked, directory=directory), mode


def _handed(entry: Ace, *, directory: bool) -> Ace | None:
    """Return what a new entry gets of one of its directory's entries (RFC 8881, 6.4.3)."""
    flags = entry.flags & ~(INHERITING | NO_PROPAGATE | INHERIT_ONLY) | INHERITED
    if not directory:
        return (
            Ace(entry.kind, flags, entry.rights, entry.who) if entry.flags & FILE_INHERIT else None
        )
    if not entry.flags & INHERITING:
        return None
    if entry.flags & NO_PROPAGATE:
        return (
            Ace(entry.kind, flags, entry.rights, entry.who)
            if entry.flags & DIRECTORY_INHERIT
            else None
        )
    flags |= entry.flags & INHERITING
    if not entry.flags & DIRECTORY_INHERIT:
        flags |= INHERIT_ONLY
    return Ace(entry.kind, flags, entry.rights, entry.who)
