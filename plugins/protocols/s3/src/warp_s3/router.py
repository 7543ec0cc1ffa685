"""Requests to operations: which verb of S3 a method, a path and a query mean.

S3 picks the operation by method, by what the path names (the service, a bucket, an object) and by
the *subresource*, a query parameter such as `?acl`. The tables below hold every subresource S3
defines; those that WARP does not serve have an operation too, so that they are refused by name
instead of being mistaken for a plain GET or, worse, PUT.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from warp_s3.errors import S3Error
from warp_s3.http.request import Request

KEY_MAX: Final = 1024
"""Bytes of a key; S3's own figure."""

HOSTS_MAX: Final = 1024
"""Host headers remembered with what they mean."""

PARAMETERS_MAX: Final = 64
"""Parameters of a query; a presigned upload of a part has 12."""

SERVICE: Final = 0
BUCKET: Final = 1
OBJECT: Final = 2

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_PLAIN: Final[Mapping[tuple[int, str], str]] = MappingProxyType(
    {
        (SERVICE, "GET"): "ListBuckets",
        (SERVICE, "POST"): "Query",
        (BUCKET, "GET"): "ListObjects",
        (BUCKET, "HEAD"): "HeadBucket",
        (BUCKET, "PUT"): "CreateBucket",
        (BUCKET, "DELETE"): "DeleteBucket",
        (BUCKET, "POST"): "PostObject",
        (BUCKET, "OPTIONS"): "Preflight",
        (OBJECT, "GET"): "GetObject",
        (OBJECT, "HEAD"): "HeadObject",
        (OBJECT, "PUT"): "PutObject",
        (OBJECT, "DELETE"): "DeleteObject",
        (OBJECT, "OPTIONS"): "Preflight",
    }
)

_BUCKET_SETTINGS: Final = {
    # subresource: (name in operations, methods)
    "abac": ("BucketAbac", "GET PUT"),
    "accelerate": ("BucketAccelerateConfiguration", "GET PUT"),
    "acl": ("BucketAcl", "GET PUT"),
    "analytics": ("BucketAnalyticsConfiguration", "GET PUT DELETE"),
    "cors": ("BucketCors", "GET PUT DELETE"),
    "encryption": ("BucketEncryption", "GET PUT DELETE"),
    "intelligent-tiering": ("BucketIntelligentTieringConfiguration", "GET PUT DELETE"),
    "inventory": ("BucketInventoryConfiguration", "GET PUT DELETE"),
    "lifecycle": ("BucketLifecycleConfiguration", "GET PUT DELETE"),
    "location": ("BucketLocation", "GET"),
    "logging": ("BucketLogging", "GET PUT"),
    "metadataConfiguration": ("BucketMetadataConfiguration", "GET POST DELETE"),
    "metadataTable": ("BucketMetadataTableConfiguration", "GET POST DELETE"),
    "metrics": ("BucketMetricsConfiguration", "GET PUT DELETE"),
    "notification": ("BucketNotificationConfiguration", "GET PUT"),
    "object-lock": ("ObjectLockConfiguration", "GET PUT"),
    "ownershipControls": ("BucketOwnershipControls", "GET PUT DELETE"),
    "policy": ("BucketPolicy", "GET PUT DELETE"),
    "policyStatus": ("BucketPolicyStatus", "GET"),
    "publicAccessBlock": ("PublicAccessBlock", "GET PUT DELETE"),
    "replication": ("BucketReplication", "GET PUT DELETE"),
    "requestPayment": ("BucketRequestPayment", "GET PUT"),
    "tagging": ("BucketTagging", "GET PUT DELETE"),
    "versioning": ("BucketVersioning", "GET PUT"),
    "website": ("BucketWebsite", "GET PUT DELETE"),
}

_OBJECT_SETTINGS: Final = {
    "acl": ("ObjectAcl", "GET PUT"),
    "annotation": ("ObjectAnnotation", "GET PUT DELETE"),
    "encryption": ("ObjectEncryption", "PUT"),
    "legal-hold": ("ObjectLegalHold", "GET PUT"),
    "retention": ("ObjectRetention", "GET PUT"),
    "tagging": ("ObjectTagging", "GET PUT DELETE"),
    "torrent": ("ObjectTorrent", "GET"),
}

_VERBS: Final = {"GET": "Get", "PUT": "Put", "POST": "Create", "DELETE": "Delete"}

_SUBRESOURCES: Final[Mapping[tuple[int, str, str], str]] = MappingProxyType(
    {
        (level, method, name): _VERBS[method] + noun
        for level, settings in ((BUCKET, _BUCKET_SETTINGS), (OBJECT, _OBJECT_SETTINGS))
        for name, (noun, methods) in settings.items()
        for method in methods.split()
    }
    | {
        (BUCKET, "GET", "versions"): "ListObjectVersions",
        (BUCKET, "GET", "uploads"): "ListMultipartUploads",
        (BUCKET, "GET", "session"): "CreateSession",
        (BUCKET, "POST", "delete"): "DeleteObjects",
        (BUCKET, "PUT", "metadataInventoryTable"): "UpdateBucketMetadataInventoryTable",
        (BUCKET, "PUT", "metadataJournalTable"): "UpdateBucketMetadataJournalTable",
        (BUCKET, "PUT", "metadataAnnotationTable"): "UpdateBucketMetadataAnnotationTable",
        (OBJECT, "GET", "attributes"): "GetObjectAttributes",
        (OBJECT, "POST", "uploads"): "CreateMultipartUpload",
        (OBJECT, "GET", "uploadId"): "ListParts",
        (OBJECT, "PUT", "uploadId"): "UploadPart",
        (OBJECT, "POST", "uploadId"): "CompleteMultipartUpload",
        (OBJECT, "DELETE", "uploadId"): "AbortMultipartUpload",
        (OBJECT, "POST", "restore"): "RestoreObject",
        (OBJECT, "POST", "select"): "SelectObjectContent",
        (OBJECT, "PUT", "renameObject"): "RenameObject",
    }
)

_NAMES: Final = frozenset(name for _, _, name in _SUBRESOURCES)

PAGE: Final = "Page"
"""What a request to a website wants: no operation of S3."""

OPERATIONS: Final = frozenset(
    {*_PLAIN.values(), *_SUBRESOURCES.values(), "CopyObject", "UploadPartCopy", "ListObjectsV2"}
)


class Route(msgspec.Struct, frozen=True, gc=False):
    """What a request wants."""

    operation: str  # one of OPERATIONS, or PAGE
    bucket: str  # empty: the service
    key: bytes  # empty: the bucket
    query: dict[str, str]  # decoded parameters


class Host(NamedTuple):
    """What a Host header means."""

    bucket: str  # empty: the path names it
    site: bool  # the bucket's website


class Router:
    """Finds the route of a request: in path style, below its domains in virtual-host style, and to websites."""

    def __init__(
        self,
        domains: Sequence[str] = (),
        *,
        site_domains: Sequence[str] = (),
        sites: Sequence[str] = (),
    ) -> None:
        """Start with domains such as `s3.example`, whose subdomains are buckets.

        `site_domains` are those whose subdomains are websites, `sites` hosts that are the websites of buckets of their own names.
        """
        self._suffixes = tuple("." + domain.lower().strip(".") for domain in domains)
        self._site_suffixes = tuple("." + domain.lower().strip(".") for domain in site_domains)
        self._sites = frozenset(map(str.lower, sites))
        self._hosts: dict[str, Host] = {}

    def route(self, request: Request) -> Route:
        """Find what a request wants.

        Raises:
            S3Error: `InvalidURI`, `KeyTooLongError`, `MethodNotAllowed` or `InvalidArgument`.
        """
        path = request.path
        host = request.headers.get("host", "")
        bucket, site = self._hosts.get(host) or self.host(host)
        if site:
            return Route(PAGE, bucket, unquote_to_bytes(path[1:]), {})
        if bucket:
            raw = path[1:]
        else:
            bucket, _, raw = path[1:].partition("/")
            if "%" in bucket:
                bucket = _decode(bucket).decode("utf-8", "replace")
            if ":" in bucket:  # TENANT:BUCKET, as Ceph's gateway has it: here names are everybody's
                bucket = bucket.rpartition(":")[2]
        key = _decode(raw) if "%" in raw else raw.encode("ascii")
        if len(key) > KEY_MAX:
            raise S3Error(
                "KeyTooLongError",
                details={"Size": str(len(key)), "MaxSizeAllowed": str(KEY_MAX)},
            )
        level = OBJECT if key else BUCKET if bucket else SERVICE
        query = parse_query(request.query) if request.query else {}
        return Route(_operation(request, level, query), bucket, key, query)

    def bucket_of_host(self, host: str) -> str:
        """Give the bucket that a Host names, or nothing."""
        return self.host(host).bucket

    def host(self, host: str) -> Host:
        """Say what a Host means, and remember it."""
        known = self._hosts.get(host)
        if known is None:
            name = host.lower()
            if not name.endswith("]"):
                name = name.rpartition(":")[0] or name
            known = self._meaning(name)
            if len(self._hosts) >= HOSTS_MAX:
                self._hosts.clear()
            self._hosts[host] = known
        return known

    def _meaning(self, name: str) -> Host:
        if name in self._sites:
            return Host(name, site=True)
        for suffix in self._site_suffixes:
            if name.endswith(suffix) or name == suffix[1:]:
                return Host(name[: -len(suffix)], site=True)
        for suffix in self._suffixes:
            if name.endswith(suffix):
                return Host(name[: -len(suffix)], site=False)
        return Host("", site=False)


def parse_query(query: str) -> dict[str, str]:
    """Decode a query; the first of equal names wins, a name without `=` has an empty value.

    Raises:
        S3Error: `InvalidURI` or `InvalidArgument`.
    """
    if query.count("&") >= PARAMETERS_MAX:
        raise S3Error("InvalidArgument", f"more than {PARAMETERS_MAX} query parameters")
    parameters: dict[str, str] = {}
    plain = "%" not in query and "+" not in query
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if not plain:
            name, value = _decode_text(name), _decode_text(value)
        if name and name not in parameters:
            parameters[name] = value
    return parameters


def _operation(request: Request, level: int, query: dict[str, str]) -> str:
    method = request.method
    found = _subresource(level, method, query) if query else None
    if found is None:
        found = _PLAIN.get((level, method))
        if found is None:
            raise S3Error(
                "MethodNotAllowed",
                details={"Method": method, "ResourceType": ("SERVICE", "BUCKET", "OBJECT")[level]},
            )
        if found == "ListObjects" and query.get("list-type") == "2":
            return "ListObjectsV2"
    if "x-amz-copy-source" in request.headers:
        if found == "PutObject":
            return "CopyObject"
        if found == "UploadPart":
            return "UploadPartCopy"
    return found


def _subresource(level: int, method: str, query: dict[str, str]) -> str | None:
    named = [name for name in query if name in _NAMES]
    for name in named:
        found = _SUBRESOURCES.get((level, method, name))
        if found is not None:
            return found
    if named and level != SERVICE and method not in {"HEAD", "OPTIONS"}:
        # `GET key?uploads` must not be taken for `GET key`.
        raise S3Error(
            "MethodNotAllowed",
            details={"Method": method, "ResourceType": named[0].upper()},
        )
    return None


def _decode(escaped: str) -> bytes:
    if _BAD_ESCAPE.search(escaped) is not None:
        raise S3Error("InvalidURI")
    decoded = unquote_to_bytes(escaped)
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI") from error
    return decoded


def _decode_text(escaped: str) -> str:
    if "+" in escaped:
        escaped = escaped.replace("+", " ")
    return _decode(escaped).decode("utf-8") if "%" in escaped else escaped
