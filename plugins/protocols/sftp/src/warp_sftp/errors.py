"""Which of SFTP's few statuses each of core's errors becomes, and the sentence that goes with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warp_core import errors as core

from warp_sftp.wire import Malformed, Status

FROM_CORE: Final[Mapping[type[core.WarpError], Status]] = MappingProxyType(
    {
        # Version 3 has a status for four things; everything else is FAILURE, and its sentence says what.
        core.WarpError: Status.FAILURE,
        core.NotFound: Status.NO_SUCH_FILE,
        core.StaleHandle: Status.NO_SUCH_FILE,
        core.NotADirectory: Status.NO_SUCH_FILE,  # what is below a file is not there
        core.PermissionDenied: Status.PERMISSION_DENIED,
        core.Unauthenticated: Status.PERMISSION_DENIED,
        core.ReadOnly: Status.PERMISSION_DENIED,
        core.WritesStopped: Status.FAILURE,  # nobody may write now: this node's log is broken
        core.Unsupported: Status.OP_UNSUPPORTED,
        Malformed: Status.BAD_MESSAGE,
        core.NameTooLong: Status.BAD_MESSAGE,  # as OpenSSH's server does with ENAMETOOLONG
    }
)


def status_of(error: core.WarpError) -> tuple[Status, str]:
    """Return the status of an error, and what the system calls it with what happened."""
    for kind in type(error).__mro__:
        found = FROM_CORE.get(kind)
        if found is not None:
            said = os.strerror(error.errno) if error.errno else "Failure"
            return found, f"{said}: {error}"
    raise AssertionError("every error is a WarpError")
