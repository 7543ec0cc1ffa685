"""Who may do what in a tree of files, by POSIX.1-2017, POSIX.1e and Linux's manual pages: no lists of NFSv4, nothing shared with core.

Every verb takes the caller and returns 0 or the errno that it fails with; what it changes is in `nodes`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from warp_core.views.files import Caller

SUID, SGID, STICKY = 0o4000, 0o2000, 0o1000
READ, WRITE, SEARCH = 4, 2, 1


@dataclass(slots=True)
class List:
    """A POSIX ACL. Without a mask it has no named entries."""

    user: int
    group: int
    other: int
    users: dict[int, int] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    mask: int | None = None


@dataclass(slots=True)
class Node:
    """A file or directory. Of an extended list `acl.user`, `mask` and `other` are the mode's digits."""

    directory: bool
    uid: int
    gid: int
    mode: int
    acl: List | None = None
    default: List | None = None
    children: dict[bytes, Node] = field(default_factory=dict)

    def may(self, caller: Caller, want: int) -> bool:
        """Say whether the caller may all of `want`."""
        if caller.superuser:
            return self.directory or not want & SEARCH or bool(self.mode & 0o111)
        groups = caller.groups | {caller.gid}
        user, group, other = self.mode >> 6 & 7, self.mode >> 3 & 7, self.mode & 7
        if caller.uid == self.uid:
            return want & ~user == 0
        if self.acl is None:
            return want & ~(group if self.gid in groups else other) == 0
        if caller.uid in self.acl.users:
            return want & ~(self.acl.users[caller.uid] & group) == 0
        mine = [digit for gid, digit in self.acl.groups.items() if gid in groups]
        if self.gid in groups:
            mine.append(self.acl.group)
        if mine:
            return any(want & ~(digit & group) == 0 for digit in mine)
        return want & ~other == 0

    def shown(self) -> List | None:
        """Return the extended ACL that getfacl shows."""
        if self.acl is None:
            return None
        found = self.acl
        return List(
            self.mode >> 6 & 7,
            found.group,
            self.mode & 7,
            found.users,
            found.groups,
            self.mode >> 3 & 7,
        )


class AccessModel:
    """A tree below a root of mode 777 that is root's."""

    def __init__(self) -> None:
        self.root = Node(True, 0, 0, 0o777)

    def find(self, path: bytes, caller: Caller) -> Node | int:
        """Return what a path leads to, or an errno."""
        node = self.root
        for name in filter(None, path.split(b"/")):
            if not node.directory:
                return errno.ENOTDIR
            if not node.may(caller, SEARCH):
                return errno.EACCES
            if name not in node.children:
                return errno.ENOENT
            node = node.children[name]
        return node

    def _place(self, path: bytes, caller: Caller) -> tuple[Node, bytes] | int:
        above, _, name = path.rpartition(b"/")
        found = self.find(above, caller)
        if isinstance(found, int):
            return found
        return (found, name) if found.directory else errno.ENOTDIR

    def make(self, path: bytes, mode: int, caller: Caller, *, directory: bool) -> int:
        """Make a file (O_EXCL) or a directory."""
        place = self._place(path, caller)
        if isinstance(place, int):
            return place
        above, name = place
        if not above.may(caller, SEARCH):
            return errno.EACCES
        if name in above.children:
            return errno.EEXIST
        if not above.may(caller, WRITE | SEARCH):
            return errno.EACCES
        gid = above.gid if above.mode & SGID else caller.gid
        member = caller.superuser or gid in caller.groups | {caller.gid}
        if directory:
            mode |= above.mode & SGID
        elif mode & SGID and mode & 0o010 and above.mode & SGID and not member:
            mode &= ~SGID
        made = Node(directory, caller.uid, gid, mode)
        default = above.default
        if default is None:
            made.mode &= ~(caller.umask & 0o777)
        else:
            group = default.group if default.mask is None else default.mask
            made.mode &= ~0o777 | default.user << 6 | group << 3 | default.other
            if default.mask is not None:
                made.acl = default
            if directory:
                made.default = default
        above.children[name] = made
        return 0

    def remove(self, path: bytes, caller: Caller, *, directory: bool) -> int:
        """Remove a file, or an empty directory."""
        place = self._place(path, caller)
        if isinstance(place, int):
            return place
        above, name = place
        if (refused := self._may_remove(above, name, caller)) != 0:
            return refused
        node = above.children[name]
        if node.directory != directory:
            return errno.EISDIR if node.directory else errno.ENOTDIR
        if node.children:
            return errno.ENOTEMPTY
        del above.children[name]
        return 0

    def _may_remove(self, above: Node, name: bytes, caller: Caller) -> int:
        if not above.may(caller, SEARCH):
            return errno.EACCES
        if name not in above.children:
            return errno.ENOENT
        if not above.may(caller, WRITE | SEARCH):
            return errno.EACCES
        owners = {above.uid, above.children[name].uid}
        if above.mode & STICKY and not caller.superuser and caller.uid not in owners:
            return errno.EPERM
        return 0

    def rename(self, source: bytes, target: bytes, caller: Caller) -> int:
        """Rename to a name that is free, not below itself."""
        from_place, to_place = self._place(source, caller), self._place(target, caller)
        for place in (from_place, to_place):
            if isinstance(place, int):
                return place
        assert not isinstance(from_place, int)
        assert not isinstance(to_place, int)
        (above, name), (below, new) = from_place, to_place
        if not below.may(caller, SEARCH):
            return errno.EACCES
        if (refused := self._may_remove(above, name, caller)) != 0:
            return refused
        node = above.children[name]
        if not below.may(caller, WRITE | SEARCH):
            return errno.EACCES
        if node.directory and above is not below and not node.may(caller, WRITE):
            return errno.EACCES
        del above.children[name]
        below.children[new] = node
        return 0

    def open(self, path: bytes, want: int, caller: Caller) -> int:
        """Open a file that is there; writing to it as well where `want` says so."""
        node = self.find(path, caller)
        if isinstance(node, int):
            return node
        if node.directory:
            return errno.EISDIR
        if not node.may(caller, want):
            return errno.EACCES
        if want & WRITE and not caller.superuser:
            self._clear(node, caller)
        return 0

    def _clear(self, node: Node, caller: Caller) -> None:
        member = caller.superuser or node.gid in caller.groups | {caller.gid}
        node.mode &= ~SUID
        if node.mode & 0o010 or not member:
            node.mode &= ~SGID

    def chmod(self, path: bytes, mode: int, caller: Caller) -> int:
        """Set the mode."""
        node = self.find(path, caller)
        if isinstance(node, int):
            return node
        if not caller.superuser and caller.uid != node.uid:
            return errno.EPERM
        if not caller.superuser and node.gid not in caller.groups | {caller.gid}:
            mode &= ~SGID
        node.mode = mode
        return 0

    def chown(self, path: bytes, uid: int | None, gid: int | None, caller: Caller) -> int:
        """Set owner, group, or both."""
        node = self.find(path, caller)
        if isinstance(node, int):
            return node
        if not caller.superuser:
            mine = caller.groups | {caller.gid, node.gid}
            if caller.uid != node.uid or uid not in (None, node.uid):
                return errno.EPERM
            if gid is not None and gid not in mine:
                return errno.EPERM
        if not node.directory:
            self._clear(node, caller)
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        return 0

    def set_list(self, path: bytes, acl: List | None, caller: Caller, *, default: bool) -> int:
        """Set an ACL, or take it away."""
        node = self.find(path, caller)
        if isinstance(node, int):
            return node
        if not caller.superuser and caller.uid != node.uid:
            return errno.EPERM
        if default:
            if not node.directory:
                return errno.EACCES if acl is not None else 0
            node.default = acl
            return 0
        if acl is None:
            if node.acl is None:
                return 0
            group = node.acl.group & node.mode >> 3 & 7
            acl = List(node.mode >> 6 & 7, group, node.mode & 7)
        group = acl.group if acl.mask is None else acl.mask
        node.mode = node.mode & ~0o777 | acl.user << 6 | group << 3 | acl.other
        if not caller.superuser and node.gid not in caller.groups | {caller.gid}:
            node.mode &= ~SGID
        node.acl = acl if acl.mask is not None else None
        return 0
