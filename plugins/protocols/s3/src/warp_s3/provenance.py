"""What copies between sites say of a version: its id, time and ETag, and that it is a replica.

Headers of our own, as S3 has none: `warp import` and the replication service send them, with signatures that cover them, and whoever
does needs `s3:ReplicateObject` or `s3:ReplicateDelete`, as on AWS. Other servers do not know them and do what S3 does without them.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from warp_core.views.objects import Digests, Provenance, Replication

from warp_s3.errors import S3Error

VERSION: Final = "x-warp-source-version-id"
MODIFIED: Final = "x-warp-source-modified"  # nanoseconds since 1970
ETAG: Final = "x-warp-source-etag"
REPLICA: Final = "x-warp-source-replica"  # "true"
HEADERS: Final = frozenset({VERSION, MODIFIED, ETAG, REPLICA})

_VERSION: Final = re.compile(r"[0-9a-f]{32}")
_ETAG: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_MODIFIED: Final = re.compile(r"[1-9][0-9]{0,18}")


def provenance_of(headers: Mapping[str, str]) -> Provenance | None:
    """Read where a version comes from; None if it is a new one.

    Raises:
        S3Error: `InvalidArgument`.
    """
    if HEADERS.isdisjoint(headers):
        return None
    version = _matching(headers, VERSION, _VERSION)
    modified = _matching(headers, MODIFIED, _MODIFIED)
    return Provenance(version=version, modified_ns=int(modified or "0"))


def status_of(headers: Mapping[str, str]) -> Replication:
    """Say whether a request writes a replica."""
    return "REPLICA" if headers.get(REPLICA) == "true" else ""


def with_etag(headers: Mapping[str, str], digests: Digests) -> Digests:
    """Return digests with the ETag that the version has where it comes from, which may be no digest at all.

    Raises:
        S3Error: `InvalidArgument`.
    """
    if ETAG not in headers:
        return digests
    return msgspec.structs.replace(digests, etag=_matching(headers, ETAG, _ETAG))


def _matching(headers: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = headers.get(name)
    if value is None:
        return ""
    if pattern.fullmatch(value) is None:
        raise S3Error("InvalidArgument", details={"ArgumentName": name, "ArgumentValue": value})
    return value
