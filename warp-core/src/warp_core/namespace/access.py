"""Who may do what to an inode: the one place that judges, for every protocol, from the canonical list (`acls`).

An inode without a list has its mode judged, which amounts to the same (a property test shows it) and costs nothing more.
Two refusals are told apart, as POSIX has them: `PermissionDenied` (EACCES) where list or mode do not allow it, `NotPermitted` (EPERM)
where it is the owner's or the superuser's alone, whatever they say.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.errors import NotPermitted, PermissionDenied
from warp_core.namespace import acls
from warp_core.namespace.acls import canonical, decide
from warp_core.namespace.inodes import Inode
from warp_core.namespace.rows import DIRECTORY
from warp_core.views.files import Caller, SetInfo, Want

STICKY = 0o1000
SETGID = 0o2000
SETUID = 0o4000
GROUP_EXECUTE: Final = 0o010


def allowed(inode: Inode, caller: Caller) -> Want:
    """Return everything that a caller may: read, write, execute or search, all at once."""
    everything = Want.READ | Want.WRITE | Want.EXECUTE
    if caller.superuser:
        return everything if _executable(inode) else Want.READ | Want.WRITE
    if inode.acl is None:
        return Want(_digit(inode, caller))
    return best(inode, everything, caller)


def best(inode: Inode, want: Want, caller: Caller) -> Want:
    """Return the part of `want` that a caller may at once: reading before writing before executing where it may not all."""
    found = Want(0)
    if caller.superuser or inode.acl is None:
        return want & allowed(inode, caller)
    for each in (Want.READ, Want.WRITE, Want.EXECUTE):
        if want & each and permits(inode, _rights(inode, found | each), caller):
            found |= each
    return found


def permits(inode: Inode, rights: int, caller: Caller) -> bool:
    """Say whether a caller has all these rights of `acls`; an owner has some whatever the list says."""
    if caller.superuser:
        return not rights & acls.EXECUTE or _executable(inode)
    owner = caller.uid == inode.uid
    if owner:
        rights &= ~acls.OWNERS
    return decide(
        canonical(inode.acl, inode.mode & 0o777, inode.kind == DIRECTORY),
        rights,
        caller,
        owner=owner,
        member=_member(caller, inode.gid),
        together=inode.acl is not None and inode.acl.masked,
    )


def demand(inode: Inode, want: Want, caller: Caller, what: str) -> None:
    """Check that a caller may read, write, or execute or search.

    Raises:
        PermissionDenied: Not all of `want`.
    """
    if caller.superuser:
        return
    if inode.acl is None:
        if want.value & ~_digit(inode, caller):
            raise PermissionDenied(
                f"{what}: mode {inode.mode & 0o7777:04o} of {inode.uid}:{inode.gid}"
            )
    elif not permits(inode, _rights(inode, want), caller):
        raise PermissionDenied(f"{what}: the access control list of {inode.uid}:{inode.gid}")


def appends_only(inode: Inode, want: Want, caller: Caller) -> bool:
    """Say whether a caller who wants to write may do so at the end of the file alone, which only a list of NFSv4 says."""
    if not want & Want.WRITE or caller.superuser or inode.acl is None or inode.acl.masked:
        return False
    return not permits(inode, acls.WRITE_DATA, caller) and permits(inode, acls.APPEND_DATA, caller)


def demand_entry(
    directory: Inode, caller: Caller, what: str, *, subdirectory: bool = False
) -> None:
    """Check that a caller may give a directory another entry.

    Raises:
        PermissionDenied
    """
    if directory.acl is None or directory.acl.masked:
        demand(directory, Want.WRITE | Want.EXECUTE, caller, what)
        return
    right = acls.ADD_SUBDIRECTORY if subdirectory else acls.ADD_FILE
    if not caller.superuser and not permits(directory, right | acls.EXECUTE, caller):
        raise PermissionDenied(f"{what}: the directory's access control list")


def demand_removal(directory: Inode, entry: Inode, caller: Caller, what: str) -> None:
    """Check that a caller may remove or rename an entry of a directory (RFC 8881, 6.2.1.3.2).

    Raises:
        PermissionDenied: Neither the directory allows it, nor the entry's own list.
        NotPermitted: The directory is sticky and neither it nor the entry is the caller's.
    """
    if caller.superuser:
        return
    listed = entry.acl is not None and bool(entry.acl.entries) and not entry.acl.masked
    if listed and permits(entry, acls.DELETE, caller) and permits(directory, acls.EXECUTE, caller):
        return
    if directory.acl is None:
        demand(directory, Want.WRITE | Want.EXECUTE, caller, what)
    elif not permits(directory, acls.DELETE_CHILD | acls.EXECUTE, caller):
        raise PermissionDenied(f"{what}: the directory's access control list")
    if directory.mode & STICKY and caller.uid not in (directory.uid, entry.uid):
        raise NotPermitted(f"{what}: the directory is sticky, the entry another's")


def demand_owner(inode: Inode, caller: Caller, what: str, right: int = 0) -> None:
    """Check that a caller is the owner, or has this right by the list.

    Raises:
        NotPermitted
    """
    if caller.superuser or caller.uid == inode.uid:
        return
    if right and inode.acl is not None and permits(inode, right, caller):
        return
    raise NotPermitted(f"{what}: the file belongs to {inode.uid}:{inode.gid}")


def demand_change(inode: Inode, change: SetInfo, caller: Caller, what: str) -> SetInfo:
    """Check a change of attributes and return what it really sets: POSIX and Linux clear set-id bits.

    Raises:
        PermissionDenied: The size, without the right to write.
        NotPermitted: Anything else that is not the caller's to change.
    """
    mode = change.mode
    if mode is not None:
        demand_owner(inode, caller, what, acls.WRITE_ACL)
        gid = inode.gid if change.gid is None else change.gid
        if not caller.superuser and not _member(caller, gid):
            mode &= ~SETGID
    if change.uid is not None or change.gid is not None:
        _demand_giving(inode, change, caller, what)
        if mode is None and inode.kind != DIRECTORY:
            mode = without_set_ids(inode, caller)
    chosen = (change.accessed_ns, change.modified_ns, change.born_ns, change.attributes)
    if any(value is not None for value in chosen):
        demand_owner(inode, caller, what, acls.WRITE_ATTRIBUTES)
    if change.size is not None:
        demand(inode, Want.WRITE, caller, what)
        if mode is None and not caller.superuser:
            mode = without_set_ids(inode, caller)
    return change if mode == change.mode else msgspec.structs.replace(change, mode=mode)


def _demand_giving(inode: Inode, change: SetInfo, caller: Caller, what: str) -> None:
    """Check a change of owner or group; who has WRITE_OWNER may take, not give."""
    if caller.superuser:
        return
    owner = caller.uid == inode.uid
    if not owner and (inode.acl is None or not permits(inode, acls.WRITE_OWNER, caller)):
        raise NotPermitted(f"{what}: the file belongs to {inode.uid}:{inode.gid}")
    if change.uid is not None and change.uid not in (inode.uid, caller.uid):
        raise NotPermitted(f"{what}: only the superuser gives files away")
    if change.gid is not None and change.gid != inode.gid and not _member(caller, change.gid):
        raise NotPermitted(f"{what}: only to one of the owner's own groups")


def without_set_ids(inode: Inode, caller: Caller) -> int | None:
    """Return the mode without set-id bits that a change by this caller clears; None if there are none.

    The set-group-id bit of a file that its group cannot execute marks nothing of the kind (mandatory locks, once): it stays for
    members of the group, as on Linux.
    """
    mode = inode.mode & 0o7777
    clears = SETUID
    if mode & GROUP_EXECUTE or not (caller.superuser or _member(caller, inode.gid)):
        clears |= SETGID
    return mode & ~clears if mode & clears else None


def may_set_group_id(inode: Inode, caller: Caller) -> bool:
    """Say whether a caller's change of the mode keeps the set-group-id bit."""
    return caller.superuser or _member(caller, inode.gid)


def made_mode(mode: int, above: Inode, caller: Caller, *, directory: bool) -> int:
    """Return the mode of a new entry: the set-group-id bit is a member's to give, a directory takes its directory's."""
    if directory:
        return mode | above.mode & SETGID
    if (
        above.mode & SETGID
        and mode & SETGID
        and mode & GROUP_EXECUTE
        and not caller.superuser
        and not _member(caller, above.gid)
    ):
        return mode & ~SETGID
    return mode


def _executable(inode: Inode) -> bool:
    """Say whether the superuser may execute it: somebody may; directories can always be searched."""
    if inode.kind == DIRECTORY or inode.mode & 0o111:
        return True
    return inode.acl is not None and any(
        entry.kind == acls.ALLOW and entry.rights & acls.EXECUTE
        for entry in canonical(inode.acl, inode.mode & 0o777, False)
    )


def _digit(inode: Inode, caller: Caller) -> int:
    """Return the digit of the mode about a caller: the first class that fits, even if a later one allows more (POSIX.1-2017, 4.5)."""
    if caller.uid == inode.uid:
        return inode.mode >> 6 & 7
    if caller.gid == inode.gid or inode.gid in caller.groups:
        return inode.mode >> 3 & 7
    return inode.mode & 7


def _rights(inode: Inode, want: Want) -> int:
    return acls.rights_of(want.value & 7, directory=inode.kind == DIRECTORY) & ~acls.DELETE_CHILD


def _member(caller: Caller, gid: int) -> bool:
    return gid == caller.gid or gid in caller.groups
