"""What etcd answers, in the words of WARP's error tree."""

from __future__ import annotations

from warp_core.errors import (
    Busy,
    Corrupt,
    Expired,
    NoSpace,
    NotFound,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WarpError,
)


class Behind(Unavailable):
    """This member has not seen yet what another one answered."""


# etcd tells by text what gRPC's codes do not (api/v3rpc/rpctypes/error.go); the first that is found counts.
ERRORS: tuple[tuple[str, type[WarpError], str], ...] = (
    (
        "database space exceeded",
        NoSpace,
        "etcd's database is full: compact and defragment it, raise --quota-backend-bytes, then disarm the alarm",
    ),
    ("required revision has been compacted", Expired, "the view is older than what etcd keeps"),
    ("is a future revision", Behind, ""),
    ("too many operations in txn", TooLarge, "start etcd with --max-txn-ops=128 or more"),
    ("request is too large", TooLarge, "start etcd with --max-request-bytes=1572864 or more"),
    ("larger than max", TooLarge, "start etcd with --max-request-bytes=1572864 or more"),
    ("too many requests", Busy, "etcd is overloaded"),
    ("requested lease not found", NotFound, ""),
    (
        "permission denied",
        PermissionDenied,
        "the user needs a role that may read and write below `prefix`",
    ),
    ("authentication failed", Unauthenticated, "`user` or `password` is wrong"),
    ("invalid auth token", Unauthenticated, ""),
    ("user name is empty", Unauthenticated, "this etcd wants `user` and `password`"),
    ("user name not found", Unauthenticated, "this etcd wants `user` and `password`"),
    ("corrupt", Corrupt, "etcd found that its members differ"),
)


def translate(where: str, code: str, details: str) -> WarpError:
    """Return the error for a failed call: gRPC's code by name, and what etcd says."""
    for text, kind, advice in ERRORS:
        if text in details:
            return kind(f"etcd at {where}: {details}" + (f": {advice}" if advice else ""))
    return Unavailable(f"etcd at {where} does not answer: {details or code.lower()}")
