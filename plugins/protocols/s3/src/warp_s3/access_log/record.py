"""One request as a line of a server access log.

Source: "Amazon S3 server access log format" in the user guide. Fields that WARP cannot know (host id, cipher, access points) are `-`.
"""

import re
from collections.abc import Mapping
from time import gmtime, strftime
from typing import Final
from urllib.parse import quote

import msgspec

from warp_s3.http import Request
from warp_s3.router import PAGE, Route

_NAMES: Final[Mapping[str, str]] = {
    # operation of the router: resource type of the log
    "AbortMultipartUpload": "UPLOAD",
    "CompleteMultipartUpload": "UPLOAD",
    "CopyObject": "OBJECT",
    "CreateMultipartUpload": "UPLOADS",
    "DeleteObjects": "MULTI_OBJECT_DELETE",
    "ListMultipartUploads": "UPLOADS",
    "ListObjectVersions": "BUCKETVERSIONS",
    "ListParts": "UPLOAD",
    "Preflight": "PREFLIGHT",
    "SelectObjectContent": "SELECT_OBJECT_CONTENT",
    "RestoreObject": "OBJECT_RESTORE",
    "UploadPart": "PART",
    "UploadPartCopy": "PART",
    "BucketAccelerateConfiguration": "ACCELERATE",
    "BucketAcl": "ACL",
    "BucketCors": "CORS",
    "BucketEncryption": "ENCRYPTION",
    "BucketLifecycleConfiguration": "LIFECYCLE",
    "BucketLocation": "LOCATION",
    "BucketLogging": "LOGGING_STATUS",
    "BucketNotificationConfiguration": "NOTIFICATION",
    "BucketOwnershipControls": "OWNERSHIP_CONTROLS",
    "BucketPolicy": "BUCKETPOLICY",
    "BucketPolicyStatus": "BUCKETPOLICYSTATUS",
    "BucketReplication": "REPLICATION",
    "BucketRequestPayment": "REQUEST_PAYMENT",
    "BucketTagging": "TAGGING",
    "BucketVersioning": "VERSIONING",
    "BucketWebsite": "WEBSITE",
    "ObjectAcl": "ACL",
    "ObjectLegalHold": "OBJECT_LOCK_LEGALHOLD",
    "ObjectLockConfiguration": "OBJECT_LOCK_CONFIGURATION",
    "ObjectRetention": "OBJECT_LOCK_RETENTION",
    "ObjectTagging": "OBJECT_TAGGING",
    "PublicAccessBlock": "PUBLIC_ACCESS_BLOCK",
}
_COPIES: Final = frozenset({"CopyObject", "UploadPartCopy"})
_VERB: Final = re.compile(r"(?:Get|Put|Delete|Create|List)(?=[A-Z])")
_UNSAFE: Final = re.compile(r'[\x00-\x1f"\x7f]')


class Record(msgspec.Struct, frozen=True):
    """What a line says."""

    owner: str  # canonical id of the bucket's owner
    bucket: str
    second: int
    address: str
    requester: str  # canonical id; empty: nobody
    request_id: str
    operation: str  # as `operation_of` names it
    key: bytes
    request: Request
    status: int
    error: str
    sent: int
    size: int | None  # of the object
    total_ms: int
    turn_around_ms: int
    version: str
    signature: str  # "SigV4", "SigV2"
    auth: str  # "AuthHeader", "QueryString"
    tls: str  # "1.3"


def operation_of(route: Route, request: Request) -> str:
    """Return the name that the log has for an operation, such as `REST.GET.OBJECT`."""
    operation = route.operation
    if operation == PAGE:
        return f"WEBSITE.{request.method}.OBJECT"
    verb = "COPY" if operation in _COPIES else request.method
    found = _NAMES.get(operation) or _NAMES.get(_VERB.sub("", operation, count=1))
    if found is None:
        found = "OBJECT" if route.key or operation == "PostObject" else "BUCKET"
    return f"REST.{verb}.{found}"


def line(record: Record) -> str:
    """Write a record as a line, with its line feed."""
    request = record.request
    query = f"?{request.query}" if request.query else ""
    version = request.headers.get("host", "")
    fields = (
        record.owner,
        record.bucket,
        strftime("[%d/%b/%Y:%H:%M:%S +0000]", gmtime(record.second)),
        record.address or "-",
        record.requester or "-",
        record.request_id,
        record.operation,
        quote(record.key, safe="/-_.~") if record.key else "-",
        _quoted(f"{request.method} {request.path}{query} HTTP/1.1"),
        str(record.status),
        record.error or "-",
        str(record.sent) if record.sent else "-",
        "-" if record.size is None else str(record.size),
        str(record.total_ms),
        str(record.turn_around_ms),
        _quoted(request.headers.get("referer", "")),
        _quoted(request.headers.get("user-agent", "")),
        record.version or "-",
        "-",  # host id
        record.signature or "-",
        "-",  # cipher suite
        record.auth or "-",
        _plain(version) or "-",
        f"TLSv{record.tls}" if record.tls else "-",
        "-",  # ARN of an access point
        "-",  # whether an ACL was needed
    )
    return " ".join(fields) + "\n"


def signature_of(request: Request, *, anonymous: bool) -> tuple[str, str]:
    """Return version and place of a request's signature."""
    if anonymous:
        return "", ""
    header = request.headers.get("authorization", "")
    if header:
        return ("SigV2" if header.startswith("AWS ") else "SigV4"), "AuthHeader"
    if request.method == "POST" and "X-Amz-" not in request.query:
        return "SigV4", "-"
    return ("SigV4" if "X-Amz-" in request.query else "SigV2"), "QueryString"


def _quoted(text: str) -> str:
    return f'"{_plain(text)}"' if text else '"-"'


def _plain(text: str) -> str:
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", text)
