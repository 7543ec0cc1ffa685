"""Who may do what by mode bits, as POSIX has it. The one place to change when NFSv4 ACLs become canonical."""

from __future__ import annotations

from warp_core.errors import PermissionDenied
from warp_core.namespace.inodes import Inode
from warp_core.namespace.rows import DIRECTORY
from warp_core.views.files import Caller, SetInfo, Want

STICKY = 0o1000
SETGID = 0o2000
SETUID = 0o4000


def allowed(inode: Inode, caller: Caller) -> Want:
    """Return everything that the mode allows the caller.

    The first class that fits decides, even if a later one would allow more (POSIX.1-2017, 4.5).
    """
    everything = Want.READ | Want.WRITE | Want.EXECUTE
    if caller.superuser:
        # Executing needs an execute bit somewhere; directories can always be searched.
        if inode.kind == DIRECTORY or inode.mode & 0o111:
            return everything
        return Want.READ | Want.WRITE
    if caller.uid == inode.uid:
        bits = inode.mode >> 6
    elif caller.gid == inode.gid or inode.gid in caller.groups:
        bits = inode.mode >> 3
    else:
        bits = inode.mode
    return Want(bits & 7)


def demand(inode: Inode, want: Want, caller: Caller, what: str) -> None:
    """Check mode bits.

    Raises:
        PermissionDenied: They do not allow all of `want`.
    """
    if not caller.superuser and want & ~allowed(inode, caller):
        raise PermissionDenied(f"{what}: mode {inode.mode & 0o7777:04o} of {inode.uid}:{inode.gid}")


def demand_removal(directory: Inode, entry: Inode, caller: Caller, what: str) -> None:
    """Check that the caller may remove or rename an entry of a directory.

    Raises:
        PermissionDenied: No write permission; or the directory is sticky and neither it nor the entry is the caller's.
    """
    demand(directory, Want.WRITE | Want.EXECUTE, caller, what)
    if (
        directory.mode & STICKY
        and not caller.superuser
        and caller.uid not in (directory.uid, entry.uid)
    ):
        raise PermissionDenied(f"{what}: the directory is sticky, the entry another's")


def demand_change(inode: Inode, change: SetInfo, caller: Caller, what: str) -> SetInfo:
    """Check a change of attributes and return what it really sets (POSIX clears set-id bits).

    Raises:
        PermissionDenied
    """
    if caller.superuser:
        return change
    owner = caller.uid == inode.uid
    if change.mode is not None:
        if not owner:
            raise PermissionDenied(f"{what}: only the owner changes the mode")
        if change.mode & SETGID and not _member(caller, inode.gid):
            change = _replaced(change, change.mode & ~SETGID)
    if change.uid is not None and change.uid != inode.uid:
        raise PermissionDenied(f"{what}: only the superuser gives files away")
    if change.gid is not None and change.gid != inode.gid:
        if not owner or not _member(caller, change.gid):
            raise PermissionDenied(f"{what}: only the owner changes the group, to one of its own")
        if change.mode is None and inode.kind != DIRECTORY:
            change = _replaced(change, inode.mode & ~(SETUID | SETGID) & 0o7777)
    chosen = (change.accessed_ns, change.modified_ns, change.born_ns, change.attributes)
    if not owner and any(value is not None for value in chosen):
        raise PermissionDenied(f"{what}: only the owner sets times and attributes")
    if change.size is not None:
        demand(inode, Want.WRITE, caller, what)
    return change


def _member(caller: Caller, gid: int) -> bool:
    return gid == caller.gid or gid in caller.groups


def _replaced(change: SetInfo, mode: int) -> SetInfo:
    return SetInfo(
        mode=mode,
        uid=change.uid,
        gid=change.gid,
        size=change.size,
        accessed_ns=change.accessed_ns,
        modified_ns=change.modified_ns,
        born_ns=change.born_ns,
        attributes=change.attributes,
    )
