"""The error tree, in the vocabulary of storage.

A class says what happened, the errno that file protocols give for it, and whether the same call may succeed later. Protocols map
the tree by table; a test walks every leaf so that none falls through. Messages name the object, the limit and the value.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterator, Sequence
from typing import ClassVar


class WarpError(Exception):
    """Anything that WARP reports on purpose."""

    errno: ClassVar[int] = _errno.EIO
    retryable: ClassVar[bool] = False


# What the caller asked for ------------------------------------------------------------------------


class InvalidArgument(WarpError):
    """A value that no state of the system would accept."""

    errno = _errno.EINVAL


class NameTooLong(InvalidArgument):
    """A name or key longer than the namespace keeps."""

    errno = _errno.ENAMETOOLONG


class TooLarge(InvalidArgument):
    """A size or count beyond a stated limit."""

    errno = _errno.EFBIG


class AttributeNameInvalid(InvalidArgument):
    """A name that no extended attribute has."""

    errno = _errno.ERANGE


class AttributeTooLarge(TooLarge):
    """The value of an extended attribute, beyond what one may have."""

    errno = _errno.E2BIG


class AttributesFull(TooLarge):
    """An inode has no room for one more extended attribute, or for a longer access control list."""

    errno = _errno.ENOSPC


class OutOfRange(InvalidArgument):
    """A byte range outside the object."""

    errno = _errno.EINVAL


class Unsupported(WarpError):
    """A capability that this part does not claim."""

    errno = _errno.EOPNOTSUPP


class NotFound(WarpError):
    """No such volume, name, inode, version, blob or key."""

    errno = _errno.ENOENT


class VolumeNotFound(NotFound):
    """No volume of that name."""


class VersionNotFound(NotFound):
    """The name exists or existed, this version of it does not."""


class UploadNotFound(NotFound):
    """No multipart upload with that id: never begun, completed or aborted."""


class AttributeNotFound(NotFound):
    """No such extended attribute."""

    errno = _errno.ENODATA


class IsDeleteMarker(NotFound):
    """The newest or named version is a delete marker."""

    def __init__(self, message: str, *, version: str = "", current: bool = True) -> None:
        super().__init__(message)
        self.version = version
        self.current = current


class AlreadyExists(WarpError):
    """The name is taken."""

    errno = _errno.EEXIST


class AlreadyOwned(AlreadyExists):
    """The name is taken by the one who asks."""


class NotADirectory(WarpError):
    """A path component is something other than a directory."""

    errno = _errno.ENOTDIR


class IsADirectory(WarpError):
    """The operation needs something other than a directory."""

    errno = _errno.EISDIR


class NotEmpty(WarpError):
    """A directory or volume still holds something."""

    errno = _errno.ENOTEMPTY


class TooManyLinks(WarpError):
    """A link count or symlink depth beyond its limit."""

    errno = _errno.EMLINK


class CrossesVolumes(WarpError):
    """A rename or link from one volume to another."""

    errno = _errno.EXDEV


class PreconditionFailed(WarpError):
    """A condition that the caller attached does not hold."""

    errno = _errno.ECANCELED

    def __init__(self, message: str, *, condition: str = "") -> None:
        super().__init__(message)
        self.condition = condition


class BadDigest(InvalidArgument):
    """The content is not what the caller's checksum says."""

    errno = _errno.EBADMSG


# Who asked ----------------------------------------------------------------------------------------


class Unauthenticated(WarpError):
    """Credentials are missing, unknown or wrong."""

    errno = _errno.EACCES


class PermissionDenied(WarpError):
    """A known principal without the right."""

    errno = _errno.EACCES


class NotPermitted(PermissionDenied):
    """Something that only the owner or the superuser does, whatever access is granted."""

    errno = _errno.EPERM


class Retained(PermissionDenied):
    """Object lock, legal hold or a pin forbids the change."""

    errno = _errno.EPERM


class Sealed(PermissionDenied):
    """Content is encrypted, and the key for it was not given, is another, or is not to be had.

    `why` is "missing" (the caller's own key is needed), "wrong" (it is another), "needless" (the content has no such key) or
    "unavailable" (the key service does not open it).
    """

    def __init__(self, message: str, *, why: str = "unavailable") -> None:
        super().__init__(message)
        self.why = why


class Archived(PermissionDenied):
    """Content lies in an archive and was not restored; or it is to be restored, and lies in none."""

    def __init__(self, message: str, *, storage_class: str = "") -> None:
        super().__init__(message)
        self.storage_class = storage_class


class KeyNotFound(NotFound):
    """The key service has no key of that id."""

    errno = _errno.ENOENT


class KeyDisabled(PermissionDenied):
    """The key service has the key and does not use it now."""


class ReadOnly(WarpError):
    """A snapshot, a read-only export or a node that stopped writing."""

    errno = _errno.EROFS


class WritesStopped(ReadOnly):
    """This node's log failed, so it acknowledges no more changes until it is restarted; reads go on."""

    retryable = True


# Who else is there --------------------------------------------------------------------------------


class Conflict(WarpError):
    """Another transaction changed what this one read."""

    errno = _errno.EAGAIN
    retryable = True


class Locked(WarpError):
    """A byte-range lock or share mode of another owner is in the way."""

    errno = _errno.EAGAIN
    retryable = True


class Deadlock(WarpError):
    """Waiting for this lock would never end."""

    errno = _errno.EDEADLK


class Busy(WarpError):
    """The thing is in use, or a queue is full; later it may not be."""

    errno = _errno.EBUSY
    retryable = True


class Restoring(Busy):
    """Content is being brought back from an archive already."""


class InGrace(Busy):
    """After a takeover only reclaims of opens, locks and leases are admitted for a while."""

    errno = _errno.EAGAIN


class StaleHandle(WarpError):
    """The handle's inode, generation or session is gone."""

    errno = _errno.ESTALE


class Fenced(WarpError):
    """A newer holder of the lease exists; this one may change nothing any more."""

    errno = _errno.ESTALE


class Expired(WarpError):
    """A lease, view or token outlived its time."""

    errno = _errno.ETIME
    retryable = True


# What the machine did -----------------------------------------------------------------------------


class NoSpace(WarpError):
    """The store is down to its reserve."""

    errno = _errno.ENOSPC
    retryable = True


class QuotaExceeded(WarpError):
    """The volume's, user's or directory's quota is used up."""

    errno = _errno.EDQUOT


class Corrupt(WarpError):
    """Stored bytes are not what was written, and no good copy is left."""

    errno = _errno.EIO


class StoreFailed(WarpError):
    """A store answered with an I/O error."""

    errno = _errno.EIO


class Unavailable(WarpError):
    """A peer, store or engine cannot be reached now."""

    errno = _errno.EHOSTDOWN
    retryable = True


class TimedOut(WarpError):
    """A deadline passed."""

    errno = _errno.ETIMEDOUT
    retryable = True


class Ambiguous(WarpError):
    """The change may or may not have happened; ask by its request id."""

    errno = _errno.EIO


# How it was set up --------------------------------------------------------------------------------


class ConfigError(WarpError):
    """A configuration that cannot be used; the message names file, line, key and what is allowed.

    `problems` are the same, one by one (`warp_core.config.source.Problem`).
    """

    errno = _errno.EINVAL

    def __init__(self, message: str, *, problems: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class PluginError(WarpError):
    """A plugin that is missing, broken, or in another's place."""

    errno = _errno.ENOPKG


class NewerFormat(WarpError):
    """Data written by a newer release than this one reads."""

    errno = _errno.EPROTONOSUPPORT


class AlreadyRunning(WarpError):
    """Another server holds the data directory, or the address."""

    errno = _errno.EADDRINUSE


# What the wire said -------------------------------------------------------------------------------


class RemoteProtocolError(WarpError):
    """The peer broke the protocol; its connection ends, nothing more."""

    errno = _errno.EPROTO


class LocalProtocolError(WarpError):
    """We broke the protocol: a defect of ours."""

    errno = _errno.EPROTO


def leaves(root: type[WarpError] = WarpError) -> Iterator[type[WarpError]]:
    """Yield every class of the tree below `root`, so that a table can be checked against all of them."""
    for child in root.__subclasses__():
        yield child
        yield from leaves(child)
