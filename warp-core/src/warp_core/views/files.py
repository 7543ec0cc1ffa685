"""Files: the POSIX-shaped view of a volume: inodes, directories, open files, locks and leases.

A file is named by a `Ref`: its inode, and where it was found. Names are bytes without slash and zero; `.` and `..` are the protocol's
business (`parent` answers the latter). Every verb takes the `Caller` on whose behalf it acts, and checks mode bits for it; the first
one that POSIX would refuse is refused with the error whose errno POSIX says.

Durability: `OpenFile.sync`, a write with `sync=True`, and every verb that changes names or attributes are durable when they return.
What was written and not synced is seen by everybody at once; a crash may lose it, and never mixes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from warp_core.errors import InvalidArgument
from warp_core.views.claims import Claims, LocalClaims

if TYPE_CHECKING:
    from warp_core.interfaces.stores import Buffer
    from warp_core.namespace.opens import Access, Opens, Owner

NAME_MAX = 255  # bytes of a name, as Linux has it; longer S3 keys exist for S3 only
TARGET_MAX = 4095  # bytes of a symbolic link, PATH_MAX without its zero
LINKS_MAX = 65_000  # names of one file, as ext4 has it
XATTR_NAME_MAX = 255
XATTR_MAX = 64 * 1024  # bytes of one value, as Linux has it; fewer fit (XATTRS_MAX)
XATTRS_MAX = 32 * 1024  # bytes of names and values on one inode: they lie in its row
FILE_SIZE_MAX = 1 << 60  # bytes; what protocols with signed 64-bit offsets can name, with room
COPY_AT_ONCE = 1024 * 1024  # bytes read before they are written: what protocols move at a time
TIME_MIN, TIME_MAX = -(1 << 63), (1 << 64) - 1  # nanoseconds: 1677 to 2554
IO_MAX = 8 * 1024 * 1024  # bytes of one read or write; protocols ask for 1 MiB

FileKind = Literal["file", "directory", "symlink", "fifo", "socket", "block", "character"]
ROOT_INODE = 1


class Ref(NamedTuple):
    """A file, and where it was found. The place is a hint that finds files which nothing but their name knows (born over S3)."""

    volume: str
    inode: int
    directory: int = 0
    name: bytes = b""
    snapshot: str = ""  # not empty: as that snapshot has it, read only


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf: numbers as POSIX has them (`namespace.principals` makes them of a Principal)."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    name: str = ""  # canonical principal; becomes the owner that S3 shows
    superuser: bool = False  # passes all checks but those for executing
    umask: int = 0  # bits that what it makes does not get, where a directory hands no ACL down


ROOT = Caller(uid=0, gid=0, name="unix:0", superuser=True)


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What stat tells. Times are nanoseconds since 1970."""

    ref: Ref
    kind: FileKind
    size: int
    mode: int  # permission bits, 0o7777
    uid: int
    gid: int
    links: int
    allocated: int  # bytes that lie in chunks; holes do not count
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    born_ns: int
    change: int  # grows with every change of content or attributes
    device: tuple[int, int] = (0, 0)
    disk: bool = False  # marked as a disk: fixed size
    attributes: int = 0  # DOS attributes (MS-FSCC 2.6), kept as they are
    # Of a file whose access control list says what mode and POSIX ACL cannot: the mode for clients that check access by those.
    checked_mode: int | None = None


class SetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What setattr changes; None leaves a value."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    accessed_ns: int | None = None
    modified_ns: int | None = None
    born_ns: int | None = None
    attributes: int | None = None

    def __post_init__(self) -> None:
        """Cut times that are beyond what is kept, as Linux does."""
        for name in ("accessed_ns", "modified_ns", "born_ns"):
            time_ns = getattr(self, name)
            if time_ns is not None and not TIME_MIN <= time_ns <= TIME_MAX:
                msgspec.structs.force_setattr(self, name, min(max(time_ns, TIME_MIN), TIME_MAX))


class DirEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One name of a directory. `cookie` resumes after it, also after it is gone and after a restart."""

    name: bytes
    ref: Ref
    kind: FileKind
    cookie: int


class SpaceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What statfs tells, of the volume and the stores under it."""

    total: int
    free: int
    used: int  # bytes of the volume's files
    files: int


class Want(IntFlag):
    """What `access` is asked about; the values are access(2)'s."""

    EXECUTE = 1
    WRITE = 2
    READ = 4


class Rename(IntFlag):
    """How to rename; the values are renameat2(2)'s."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2
    WHITEOUT = 4  # leaves a character device 0:0 at the old name, as overlay file systems want


class OpenFile:
    """An open file. It works until `close`, also after its last name is gone or another file has its name."""

    ref: Ref
    access: Access
    owner: Owner

    @property
    def size(self) -> int:
        """The file's size now."""
        raise NotImplementedError

    async def read(self, offset: int, length: int) -> Buffer:
        """Return verified bytes, at most IO_MAX; short only at the end of the file. Holes read as zeros.

        Raises:
            PermissionDenied: Not open for reading.
            Corrupt: No good copy is left of some frame.
        """
        raise NotImplementedError

    def read_runs_now(
        self, offset: int, length: int
    ) -> list[tuple[int, int, Buffer | None]] | None:
        """Return (offset, length, bytes) of each run, back to back, holes without bytes, if nobody and nothing has to be waited for.

        The range is inside the file. Else None: then `read`.

        Raises:
            PermissionDenied, Corrupt: As `read`.
        """
        return None

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Write like `write` if nobody and nothing has to be waited for, and say whether it was done.

        Raises:
            PermissionDenied, TooLarge, NoSpace, QuotaExceeded: As `write`.
        """
        return False

    async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
        """Write at a place and return the number of bytes: all of them. `data` may be reused on return.

        Everybody reads it from now on; it is durable after `sync`.

        Raises:
            PermissionDenied: Not open for writing.
            TooLarge: Beyond FILE_SIZE_MAX, or the size of a disk.
            NoSpace, QuotaExceeded: A first part of it may have been written.
        """
        raise NotImplementedError

    async def append(self, data: Buffer, *, sync: bool = False) -> int:
        """Write at the end, whoever else does so; return the offset."""
        raise NotImplementedError

    async def sync(self) -> None:
        """Make all that was written to this file, through any open, durable: fsync, COMMIT, FLUSH.

        Raises:
            StoreFailed: It may not be. The error is told to every open of the file once.
        """
        raise NotImplementedError

    async def copy_from(self, source: OpenFile, *, offset: int, length: int, at: int) -> int:
        """Copy a range of another open file, or of this one, and return its length: less at the end of the source.

        Raises:
            PermissionDenied: `source` is not open for reading, or this one not for writing.
            InvalidArgument: The ranges are of one file and overlap.
            TooLarge, NoSpace, QuotaExceeded: A first part of it may have been copied.
        """
        if source.ref.inode == self.ref.inode and abs(at - offset) < length:
            raise InvalidArgument(f"ranges of {length} bytes at {offset} and {at} overlap")
        done = 0
        while done < length:
            data = await source.read(offset + done, min(COPY_AT_ONCE, length - done))
            if not len(data):
                break
            done += await self.write(at + done, data)
        return done

    async def truncate(self, size: int) -> None:
        """Cut the file, or extend it by a hole."""
        raise NotImplementedError

    async def allocate(self, offset: int, length: int, *, keep_size: bool = False) -> None:
        """Make sure that the file is at least so long (unless `keep_size`) and that the stores have room for the range now.

        Raises:
            NoSpace: They have not.
        """
        raise NotImplementedError

    async def punch(self, offset: int, length: int) -> None:
        """Make a hole: the range reads as zeros and its space is freed. The size stays."""
        raise NotImplementedError

    async def seek(self, offset: int, what: Literal["data", "hole"]) -> int:
        """Return where the next data, or hole, begins at or after `offset`; the end of the file is a hole.

        Raises:
            OutOfRange: Nothing of that kind follows (ENXIO).
        """
        raise NotImplementedError

    async def info(self) -> FileInfo:
        """Return what stat tells."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close; harmless when repeated. What was written stays written, and is durable after a sync only."""
        raise NotImplementedError


class Files:
    """The view. One instance serves every volume; all calls are safe to make concurrently.

    Locks, leases and clients are `claims`. Where the volumes' home is this process, `opens` is the table behind them that all
    protocols share, and its volumes are numbers: `number`.
    """

    opens: Opens

    @cached_property
    def claims(self) -> Claims:
        """What clients hold from call to call."""
        return LocalClaims(self)

    @property
    def ordered(self) -> Files:
        """The same view whose changes of names and attributes are acknowledged before they are durable, as local file systems do it.

        They become durable in the order in which they were acknowledged, together with what was written, soon after or with
        the next sync of any file. Who was promised durability (S3) is told of none before. A view that cannot do that is its own.
        """
        return self

    async def number(self, volume: str) -> int:
        """Return the number under which `opens` knows a volume.

        Raises:
            VolumeNotFound
        """
        raise NotImplementedError

    async def root(self, volume: str, *, snapshot: str = "") -> Ref:
        """Return the root directory of a volume, or of a snapshot of it.

        Raises:
            VolumeNotFound, NotFound
        """
        raise NotImplementedError

    # Names ----------------------------------------------------------------------------------------

    async def lookup(self, directory: Ref, name: bytes, caller: Caller = ROOT) -> FileInfo:
        """Find a name. In the root directory, `.snapshots` leads to the volume's snapshots.

        Raises:
            NotFound, NotADirectory, NameTooLong, PermissionDenied
            StaleHandle: The directory is gone.
        """
        raise NotImplementedError

    async def walk(self, volume: str, path: bytes, caller: Caller = ROOT) -> FileInfo:
        """Look up a slash-separated path from the root; symbolic links are not followed."""
        raise NotImplementedError

    async def parent(self, directory: Ref) -> Ref:
        """Return a directory's parent; the root is its own."""
        raise NotImplementedError

    async def readdir(
        self, directory: Ref, *, cookie: int = 0, limit: int = 1000, caller: Caller = ROOT
    ) -> tuple[Sequence[DirEntry], bool]:
        """Return entries after a cookie (0: from the start), `.` and `..` not among them, and whether that was the last page.

        An entry that is there from the first page to the last is returned exactly once, whatever happens to others meanwhile.

        Raises:
            NotADirectory, PermissionDenied, StaleHandle
        """
        raise NotImplementedError

    async def mkdir(
        self,
        directory: Ref,
        name: bytes,
        mode: int,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """Make a directory.

        Raises:
            AlreadyExists, NotFound, NotADirectory, NameTooLong, PermissionDenied, ReadOnly
        """
        raise NotImplementedError

    async def rmdir(
        self, directory: Ref, name: bytes, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> None:
        """Remove an empty directory.

        Raises:
            NotEmpty, NotFound, NotADirectory, PermissionDenied, ReadOnly
        """
        raise NotImplementedError

    async def unlink(
        self, directory: Ref, name: bytes, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> None:
        """Remove a name that is no directory. The file goes with its last name and its last open.

        On a versioned volume the content stays as a noncurrent version behind a delete marker.

        Raises:
            IsADirectory, NotFound, PermissionDenied, ReadOnly
            Locked: Somebody has it open and does not share deleting.
        """
        raise NotImplementedError

    async def rename(
        self,
        source: Ref,
        source_name: bytes,
        target: Ref,
        target_name: bytes,
        caller: Caller = ROOT,
        *,
        how: Rename = Rename.REPLACE,
        by: Owner | None = None,
    ) -> None:
        """Rename, atomically: at every moment the target name leads to the old or the new file, opens of both go on.

        Raises:
            CrossesVolumes: Another volume; or a directory of a volume with object lock.
            AlreadyExists: NOREPLACE, and the target is there.
            InvalidArgument: Flags that exclude one another.
            NotEmpty, IsADirectory, NotADirectory: The target cannot be replaced by the source.
            InvalidArgument: A directory would get below itself.
            NotFound, PermissionDenied, ReadOnly, Locked
        """
        raise NotImplementedError

    async def link(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """Give a file another name.

        Raises:
            AlreadyExists, TooManyLinks, CrossesVolumes, StaleHandle, PermissionDenied (also: it is a directory), ReadOnly
        """
        raise NotImplementedError

    async def symlink(
        self,
        directory: Ref,
        name: bytes,
        target: bytes,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """Make a symbolic link.

        Raises:
            AlreadyExists, NameTooLong, PermissionDenied, ReadOnly
        """
        raise NotImplementedError

    async def readlink(self, file: Ref) -> bytes:
        """Return where a symbolic link points.

        Raises:
            InvalidArgument: It is none.
        """
        raise NotImplementedError

    async def mknod(
        self,
        directory: Ref,
        name: bytes,
        kind: FileKind,
        mode: int,
        caller: Caller = ROOT,
        *,
        device: tuple[int, int] = (0, 0),
        by: Owner | None = None,
    ) -> FileInfo:
        """Make a fifo, socket or device node: a name with attributes, nothing here opens it.

        Raises:
            AlreadyExists, PermissionDenied (devices are the superuser's to make), ReadOnly
        """
        raise NotImplementedError

    # Files ----------------------------------------------------------------------------------------

    async def create(
        self,
        directory: Ref,
        name: bytes,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> tuple[OpenFile, bool]:
        """Open a name, making a regular file where there is none; also say whether it was made.

        Args:
            exclusive: O_EXCL: fail if the name is taken.
            truncate: O_TRUNC: an existing file is emptied.

        Raises:
            AlreadyExists, IsADirectory, NotFound, NotADirectory, NameTooLong, PermissionDenied, ReadOnly
            Locked: Share modes do not allow it.
        """
        raise NotImplementedError

    async def create_unnamed(
        self,
        directory: Ref,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
    ) -> OpenFile:
        """Make a regular file without a name and open it: O_TMPFILE. `link` gives it a name, else it goes with its last open.

        Raises:
            NotADirectory, PermissionDenied, ReadOnly, StaleHandle
        """
        raise NotImplementedError

    async def open(
        self,
        file: Ref,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        truncate: bool = False,
    ) -> OpenFile:
        """Open a regular file, after leases that conflict were recalled.

        Raises:
            StaleHandle, IsADirectory, PermissionDenied, ReadOnly, Locked
            Unsupported: A symbolic link, fifo, socket or device.
        """
        raise NotImplementedError

    async def getattr(self, file: Ref) -> FileInfo:
        """Return what stat tells.

        Raises:
            StaleHandle: The file is gone.
        """
        raise NotImplementedError

    async def setattr(
        self, file: Ref, change: SetInfo, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> FileInfo:
        """Change attributes, the size among them, and return them all.

        Raises:
            StaleHandle, ReadOnly, InvalidArgument, TooLarge
            PermissionDenied: Neither owner nor superuser (mode, owner, chosen times) or without write permission (size, times "now").
        """
        raise NotImplementedError

    async def access(self, file: Ref, want: Want, caller: Caller) -> Want:
        """Return the part of `want` that the caller is allowed, all of it at once."""
        raise NotImplementedError

    async def xattrs(self, file: Ref, caller: Caller = ROOT) -> Mapping[bytes, bytes]:
        """Return the extended attributes that the caller may read.

        Access control lists are among them where they say more than the mode: `system.posix_acl_access` and
        `system.posix_acl_default` in Linux's form, `system.nfs4_acl` as Linux's NFS client has it.
        """
        raise NotImplementedError

    async def xattr(self, file: Ref, name: bytes, caller: Caller = ROOT) -> bytes:
        """Return an extended attribute. `system.nfs4_acl` is the whole list, also where it says what the mode does.

        Raises:
            AttributeNotFound: There is none; or it is `trusted.`, and the caller no superuser.
            PermissionDenied: It is `user.`, and the caller may not read the file.
        """
        raise NotImplementedError

    async def set_xattr(
        self,
        file: Ref,
        name: bytes,
        value: bytes | None,
        caller: Caller = ROOT,
        *,
        must: Literal["", "create", "replace"] = "",
        by: Owner | None = None,
    ) -> None:
        """Set an extended attribute, or remove it (None). Those named in `xattrs` set the access control list.

        `user.` is of files and directories, for who may write them, in sticky directories for the owner; `trusted.` and
        `security.` are the superuser's, the list is the owner's.

        Raises:
            AlreadyExists: `must` is "create" and it is there.
            AttributeNotFound: `must` is "replace", or it is to be removed, and it is not there.
            AttributeNameInvalid, AttributeTooLarge, AttributesFull: XATTR_NAME_MAX, XATTR_MAX, XATTRS_MAX
            InvalidArgument: It is no access control list.
            Unsupported: Another namespace; or a list of a symbolic link.
            PermissionDenied, NotPermitted, ReadOnly, StaleHandle
        """
        raise NotImplementedError

    async def statfs(self, volume: str) -> SpaceInfo:
        """Return how full volume and stores are."""
        raise NotImplementedError

    async def sync(self, volume: str) -> None:
        """Make everything written to a volume durable: syncfs."""
        raise NotImplementedError

    # Snapshots and clones of one file -------------------------------------------------------------

    async def clone(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        replace: bool = False,
    ) -> FileInfo:
        """Make a new file of another's content, without copying bytes; both go their own ways from there.

        Raises:
            AlreadyExists, CrossesVolumes, PermissionDenied, ReadOnly, StaleHandle
        """
        raise NotImplementedError
