"""Extended attributes of an inode, and its access control list, which is set and read as some of them.

| namespace | on | read by | set by |
| --- | --- | --- | --- |
| `user.` | files and directories | who may read the file | who may write it; of a sticky directory the owner |
| `trusted.` | all | the superuser | the superuser |
| `security.` | all | everybody | the superuser |
| `system.posix_acl_access`, `_default`, `system.nfs4_acl` | all but symbolic links | everybody | the owner, and who has WRITE_ACL |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from warp_core.errors import (
    AlreadyExists,
    AttributeNameInvalid,
    AttributeNotFound,
    AttributesFull,
    AttributeTooLarge,
    NotPermitted,
    PermissionDenied,
    Unsupported,
)
from warp_core.namespace import access as permission
from warp_core.namespace import acls, nfs_acls, object_words, posix_acls
from warp_core.namespace.inodes import Inode
from warp_core.namespace.rows import DIRECTORY, FILE, SYMLINK, encode
from warp_core.views.files import (
    XATTR_MAX,
    XATTR_NAME_MAX,
    XATTRS_MAX,
    Caller,
    Want,
)

Must = Literal["", "create", "replace"]

LISTS: Final = frozenset((posix_acls.ACCESS, posix_acls.DEFAULT, nfs_acls.NFS4))
_USER, _TRUSTED, _SECURITY = b"user.", b"trusted.", b"security."


def visible(inode: Inode, caller: Caller) -> Mapping[bytes, bytes]:
    """Return what a caller may read, lists only where they say more than the mode."""
    found: dict[bytes, bytes] = {}
    if inode.xattrs:
        hidden = [] if caller.superuser else [_TRUSTED]
        if permission.best(inode, Want.READ, caller) != Want.READ:
            hidden.append(_USER)
        found = {
            name: value
            for name, value in inode.xattrs.items()
            if not name.startswith(tuple(hidden) or (b"\0",))
        }
    if inode.acl is not None:
        for name in sorted(LISTS):
            value = None if name == nfs_acls.NFS4 and not _as_set(inode) else _list(inode, name)
            if value is not None:
                found[name] = value
    return found


def value_of(inode: Inode, name: bytes, caller: Caller) -> bytes:
    """Return one attribute.

    Raises:
        AttributeNotFound, AttributeNameInvalid, PermissionDenied
    """
    check_name(name)
    value = _list(inode, name) if name in LISTS else inode.xattrs.get(name)
    if value is None or (name.startswith(_TRUSTED) and not caller.superuser):
        raise AttributeNotFound(f"no attribute {name!r}")
    if name.startswith(_USER):
        permission.demand(inode, Want.READ, caller, "getxattr")
    return value


def check_name(name: bytes) -> None:
    """Refuse what is no name of an attribute.

    Raises:
        AttributeNameInvalid
    """
    if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name:
        raise AttributeNameInvalid(f"attribute name of {len(name)} bytes, 1 to {XATTR_NAME_MAX}")


def changed(
    inode: Inode, name: bytes, value: bytes | None, caller: Caller, *, must: Must = ""
) -> Inode:
    """Return an inode with an attribute set, or removed (None); times are the caller's.

    Raises:
        AlreadyExists, AttributeNotFound, AttributeTooLarge, AttributesFull
        InvalidArgument, NotPermitted, PermissionDenied, Unsupported
    """
    if name in LISTS:
        return _with_list(inode, name, value, caller, must)
    _demand_setting(inode, name, caller)
    if value is not None and len(value) > XATTR_MAX:
        raise AttributeTooLarge(f"value of {len(value)} bytes > XATTR_MAX {XATTR_MAX}")
    attributes = dict(inode.xattrs)
    _demand_state(name in attributes, name, value, must)
    if value is None:
        del attributes[name]
    else:
        attributes[name] = value
    total = sum(len(key) + len(each) for key, each in attributes.items())
    if total > XATTRS_MAX:
        raise AttributesFull(f"attributes of {total} bytes > XATTRS_MAX {XATTRS_MAX}")
    return msgspec.structs.replace(inode, xattrs=attributes)


def _demand_state(there: bool, name: bytes, value: bytes | None, must: Must) -> None:
    if there and must == "create":
        raise AlreadyExists(f"attribute {name!r} is there")
    if not there and (must == "replace" or value is None):
        raise AttributeNotFound(f"no attribute {name!r}")


def _demand_setting(inode: Inode, name: bytes, caller: Caller) -> None:
    if name.startswith((_TRUSTED, _SECURITY)):
        if not caller.superuser:
            raise NotPermitted(f"{name!r} is the superuser's to set")
    elif object_words.is_word(name):
        raise NotPermitted(f"{name!r} is what S3 says of the file, and is changed there")
    elif not name.startswith(_USER):
        raise Unsupported(f"{name!r} is in none of the namespaces user, trusted, security")
    elif inode.kind not in (FILE, DIRECTORY):
        raise NotPermitted("attributes of users are of files and directories")
    else:
        # As Linux: otherwise everybody could fill the inode of /tmp.
        if inode.kind == DIRECTORY and inode.mode & permission.STICKY:
            permission.demand_owner(inode, caller, "setxattr")
        permission.demand(inode, Want.WRITE, caller, "setxattr")


# Lists --------------------------------------------------------------------------------------------


def _as_set(inode: Inode) -> bool:
    """Say whether an inode's list has entries that POSIX ACLs have not."""
    acl = inode.acl
    return acl is not None and (
        bool(acl.entries and not acl.masked) or bool(acl.defaults and acl.default_mode < 0)
    )


def _list(inode: Inode, name: bytes) -> bytes | None:
    directory, mode = inode.kind == DIRECTORY, inode.mode & 0o777
    if inode.kind == SYMLINK:
        return None
    if name == nfs_acls.NFS4:
        return nfs_acls.pack(all_entries(inode))
    if name == posix_acls.DEFAULT:
        posix = posix_acls.default(inode.acl)
    elif inode.acl is None or not inode.acl.entries:
        posix = None  # the mode says it
    else:
        posix = posix_acls.access(inode.acl, mode, directory=directory) or seen(inode)
        if posix.mask is None:
            posix = None
    return None if posix is None else posix_acls.pack(posix)


def all_entries(inode: Inode) -> tuple[acls.Ace, ...]:
    """Return everything that an inode's list says, what it hands down included."""
    directory, acl = inode.kind == DIRECTORY, inode.acl
    entries = acls.canonical(acl, inode.mode & 0o777, directory)
    if acl is None:
        return entries
    if acl.default_mode < 0:
        return entries + acl.defaults
    masked = acls.Acl(masked=bool(acl.defaults), entries=acl.defaults)
    flags = acls.INHERITING | acls.INHERIT_ONLY
    return entries + tuple(
        msgspec.structs.replace(entry, flags=entry.flags | flags)
        for entry in acls.canonical(masked, acl.default_mode, True)
    )


def seen(inode: Inode) -> posix_acls.PosixAcl:
    """Return the POSIX ACL for clients that check access themselves where the list is of NFSv4."""
    return posix_acls.view(
        acls.canonical(inode.acl, inode.mode & 0o777, inode.kind == DIRECTORY),
        uid=inode.uid,
        gid=inode.gid,
        directory=inode.kind == DIRECTORY,
    )


def checked_mode(inode: Inode) -> int | None:
    """Return the mode for those clients, where it is another than the inode's."""
    if inode.acl is None or inode.acl.masked or not inode.acl.entries:
        return None
    return inode.mode & 0o7000 | seen(inode).mode


def _with_list(inode: Inode, name: bytes, value: bytes | None, caller: Caller, must: Must) -> Inode:
    directory, mode, acl = inode.kind == DIRECTORY, inode.mode, inode.acl
    if inode.kind == SYMLINK:
        raise Unsupported("a symbolic link has no access control list")
    permission.demand_owner(inode, caller, "setxattr", acls.WRITE_ACL)
    if must:
        _demand_state(_list(inode, name) is not None, name, value, must)
    if name == nfs_acls.NFS4:
        acl, mode = _set_nfs(inode, value)
    else:
        posix = posix_acls.parse(value) if value is not None else None
        if name == posix_acls.DEFAULT:
            if not directory and posix is not None:
                raise PermissionDenied("only a directory has a default ACL")
            acl = posix_acls.with_default(acl, posix) if directory else acl
        elif posix is None:
            acl, mode = posix_acls.without_access(acl, mode, directory=directory)
        else:
            acl = posix_acls.with_access(acl, posix, directory=directory)
            mode = mode & ~0o777 | posix.mode
    sets = value is not None and name != posix_acls.DEFAULT
    if sets and not permission.may_set_group_id(inode, caller):
        mode &= ~permission.SETGID
    if acl is not None and len(encode(acl)) > acls.BYTES_MAX:
        raise AttributesFull(f"an access control list of more than {acls.BYTES_MAX} bytes")
    return msgspec.structs.replace(inode, mode=mode, acl=acl)


def _set_nfs(inode: Inode, value: bytes | None) -> tuple[acls.Acl | None, int]:
    directory = inode.kind == DIRECTORY
    if value is None:  # what is left is the mode
        return None, inode.mode
    entries = acls.check(nfs_acls.parse(value), directory=directory)
    in_force = [entry for entry in entries if not entry.flags & acls.INHERIT_ONLY]
    mode = inode.mode & ~0o777 | acls.mode_of(in_force, directory=directory)
    if not in_force:  # nobody may anything, which an empty list would not say here
        return acls.kept(acls.Acl(defaults=entries)), mode
    return acls.adopt(acls.Acl(entries=entries), directory=directory), mode
