"""Which of NBD's few errors each of core's becomes, in replies to requests and to options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warp_core import errors as core

from warp_nbd.wire import Errno, Reply

FROM_CORE: Final[Mapping[type[core.WarpError], Errno]] = MappingProxyType(
    {
        # What the caller asked for.
        core.InvalidArgument: Errno.EINVAL,
        core.TooLarge: Errno.EINVAL,
        core.OutOfRange: Errno.EINVAL,  # of a write: ENOSPC, by `of`
        core.Unsupported: Errno.ENOTSUP,
        core.NotFound: Errno.EIO,  # a disk that is open does not vanish
        core.AlreadyExists: Errno.EINVAL,
        core.NotADirectory: Errno.EINVAL,
        core.IsADirectory: Errno.EINVAL,
        core.NotEmpty: Errno.EINVAL,
        core.TooManyLinks: Errno.EINVAL,
        core.CrossesVolumes: Errno.EINVAL,
        core.PreconditionFailed: Errno.EINVAL,
        # Who asked.
        core.Unauthenticated: Errno.EPERM,
        core.PermissionDenied: Errno.EPERM,
        core.ReadOnly: Errno.EPERM,
        core.WritesStopped: Errno.EIO,  # the disk may be written, this node's log is broken
        # Who else is there. NBD has no "try again": a reservation of another is a refusal, the rest a failure.
        core.Conflict: Errno.EIO,
        core.Locked: Errno.EPERM,
        core.Deadlock: Errno.EIO,
        core.Busy: Errno.ENOMEM,
        core.StaleHandle: Errno.ESHUTDOWN,
        core.Fenced: Errno.ESHUTDOWN,
        core.Expired: Errno.ESHUTDOWN,
        # What the machine did. The protocol maps a used-up quota to a full disk.
        core.NoSpace: Errno.ENOSPC,
        core.QuotaExceeded: Errno.ENOSPC,
        core.Corrupt: Errno.EIO,
        core.StoreFailed: Errno.EIO,
        core.Unavailable: Errno.EIO,
        core.TimedOut: Errno.EIO,
        core.Ambiguous: Errno.EIO,
        # Defects of ours, and what should have been found before a client could ask.
        core.ConfigError: Errno.EIO,
        core.PluginError: Errno.EIO,
        core.NewerFormat: Errno.EIO,
        core.AlreadyRunning: Errno.EIO,
        core.RemoteProtocolError: Errno.EINVAL,
        core.LocalProtocolError: Errno.EIO,
    }
)

FOR_OPTIONS: Final[Mapping[type[core.WarpError], Reply]] = MappingProxyType(
    {
        core.WarpError: Reply.ERR_POLICY,
        core.NotFound: Reply.ERR_UNKNOWN,
        core.InvalidArgument: Reply.ERR_UNKNOWN,  # the name of something that is no disk
        core.IsADirectory: Reply.ERR_UNKNOWN,
        core.NotADirectory: Reply.ERR_UNKNOWN,
        core.RemoteProtocolError: Reply.ERR_INVALID,
        core.LocalProtocolError: Reply.ERR_INVALID,
    }
)


def errno_of(error: core.WarpError, *, writing: bool = False) -> Errno:
    """Translate an error of core; subclasses that the table does not know go by their parents.

    Args:
        writing: Of a write or write-zeroes, which past the end has no space; other requests there are invalid.
    """
    if writing and isinstance(error, core.OutOfRange):
        return Errno.ENOSPC
    return next(FROM_CORE[kind] for kind in type(error).__mro__ if kind in FROM_CORE)


def reply_of(error: core.WarpError) -> Reply:
    """Translate an error of core that refuses an option."""
    return next(FOR_OPTIONS[kind] for kind in type(error).__mro__ if kind in FOR_OPTIONS)
