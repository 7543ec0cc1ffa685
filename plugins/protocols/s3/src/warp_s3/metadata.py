"""What a request says about an object besides its bytes, and the headers that say it again."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from warp_core.views.classes import STORAGE_CLASSES
from warp_core.views.objects import Attributes, ObjectInfo, RestoreInfo

from warp_s3.encryption import told
from warp_s3.errors import S3Error
from warp_s3.http import http_date
from warp_s3.locking import HEADERS, asked_in, lock_headers
from warp_s3.provenance import provenance_of, status_of
from warp_s3.website import REDIRECT, check_location
from warp_s3.xml_input import checked_tags

USER_PREFIX: Final = "x-amz-meta-"

USER_METADATA_MAX: Final = 2048
"""Bytes of user metadata, names and values; S3's own figure."""

HEADER_MAX: Final = 1024
"""Bytes of one system header that is kept, such as Content-Disposition."""

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

DEFAULT_TYPE: Final = "binary/octet-stream"

# Kept with the object and said again, by the name they are stored under.
_KEPT: Final = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-type": "Content-Type",
    "expires": "Expires",
    REDIRECT: REDIRECT,
}

# Query parameters of a GET that replace what is kept.
_OVERRIDES: Final = {f"response-{name}": name for name in _KEPT if not name.startswith("x-")}

# What is asked for but not there must be refused instead of ignored.
_UNKNOWN: Final = frozenset({"x-amz-write-offset-bytes"})
_REFUSED: Final = _UNKNOWN


def attributes_of(headers: Mapping[str, str], *, owner: str, acl: bytes = b"") -> Attributes:
    """Read an object's attributes from the headers of a PUT, a copy or a new upload.

    Raises:
        S3Error: A limit is broken, or something asked for is not there.
    """
    if not _REFUSED.isdisjoint(headers):
        check_refused(headers)
    kept: dict[str, str] = {}
    user: dict[str, str] = {}
    size = 0
    for name, value in headers.items():
        if name in _KEPT:
            if name == REDIRECT:
                check_location(value)
            elif len(value) > HEADER_MAX:
                raise S3Error(
                    "MetadataTooLarge", details={"MaxSizeAllowed": str(HEADER_MAX), "Header": name}
                )
            kept[name] = value
        elif name.startswith(USER_PREFIX):
            user[name[len(USER_PREFIX) :]] = _text(value)
            size += len(name) - len(USER_PREFIX) + len(value)
    if size > USER_METADATA_MAX:
        raise S3Error(
            "MetadataTooLarge",
            details={"Size": str(size), "MaxSizeAllowed": str(USER_METADATA_MAX)},
        )
    encoding = kept.get("content-encoding")
    if encoding is not None and "aws-chunked" in encoding.lower():
        _drop_aws_chunked(kept, encoding)
    tagging = headers.get("x-amz-tagging")
    mode, until_ns, held = ("", 0, None) if HEADERS.isdisjoint(headers) else asked_in(headers)
    return Attributes(
        headers=kept,
        metadata=user,
        tags=tags_of(tagging) if tagging else {},
        storage_class=storage_class(headers),
        owner=owner,
        acl=acl,
        retain_mode=mode,
        retain_until_ns=until_ns,
        legal_hold=held,
        replication=status_of(headers),
        provenance=provenance_of(headers),
    )


def check_refused(headers: Mapping[str, str]) -> None:
    """Refuse what would be ignored at the client's peril.

    Raises:
        S3Error: `NotImplemented`.
    """
    for name in _REFUSED & headers.keys():
        raise S3Error("NotImplemented", details={"Header": name})


def storage_class(headers: Mapping[str, str]) -> str:
    """Read the storage class, a label that is kept.

    Raises:
        S3Error: `InvalidStorageClass`.
    """
    name = headers.get("x-amz-storage-class", "STANDARD")
    if name not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", details={"StorageClassRequested": name})
    return name


def tags_of(text: str) -> dict[str, str]:
    """Read tags from the query-encoded header.

    Raises:
        S3Error: `InvalidArgument`, `InvalidTag` or `BadRequest`.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError as error:
        raise S3Error(
            "InvalidArgument",
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
            "parameters without tag name duplicates.",
        ) from error
    return checked_tags(iter(sorted(pairs)))


def described(
    info: ObjectInfo, query: Mapping[str, str], asked: Mapping[str, str] = NO_HEADERS
) -> list[tuple[str, str]]:
    """Write the headers of an object for GET and HEAD, without those about length and range.

    `asked` are the request's headers, which SSE-C is told back from.
    """
    attributes = info.attributes
    kept = attributes.headers
    headers = [
        ("ETag", f'"{info.etag}"'),
        ("Last-Modified", http_date(info.modified_ns // 1_000_000_000)),
        ("Accept-Ranges", "bytes"),
    ]
    if query and not _OVERRIDES.keys().isdisjoint(query):
        kept = dict(kept)
        for parameter, name in _OVERRIDES.items():
            if parameter in query:
                kept[name] = query[parameter].encode("utf-8").decode("latin-1")
    if "content-type" not in kept:
        headers.append(("Content-Type", DEFAULT_TYPE))
    for name, value in kept.items():
        headers.append((_KEPT.get(name, name), value))
    for name, value in attributes.metadata.items():
        headers.append((USER_PREFIX + name, value if value.isascii() else _wire(value)))
    if info.version != "null" or query.get("versionId") == "null":
        headers.append(("x-amz-version-id", info.version))
    if attributes.tags:
        headers.append(("x-amz-tagging-count", str(len(attributes.tags))))
    if info.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", info.storage_class))
    if attributes.retain_mode or attributes.legal_hold is not None:
        headers += lock_headers(attributes)
    if attributes.replication:
        headers.append(("x-amz-replication-status", attributes.replication))
    if info.parts:
        headers.append(("x-amz-mp-parts-count", str(len(info.parts))))
    if info.seal is not None:
        headers += told(info.seal, asked)
    if info.restore is not None:
        headers.append(("x-amz-restore", restore_header(info.restore)))
    return headers


def restore_header(restore: RestoreInfo) -> str:
    """Write how far an archive's content is from being readable, or until when it is."""
    if restore.ongoing:
        return 'ongoing-request="true"'
    until = http_date(restore.until_ns // 1_000_000_000)
    return f'ongoing-request="false", expiry-date="{until}"'


def checksum_headers(checksums: Mapping[str, str], kind: str) -> list[tuple[str, str]]:
    """Write an object's checksums as headers."""
    headers = [(f"x-amz-checksum-{name.lower()}", value) for name, value in checksums.items()]
    if headers and kind:
        headers.append(("x-amz-checksum-type", kind))
    return headers


def _drop_aws_chunked(kept: dict[str, str], encoding: str) -> None:
    """Forget the coding of the transport; what remains is the object's."""
    codings = [coding.strip() for coding in encoding.split(",")]
    codings = [coding for coding in codings if coding and coding.lower() != "aws-chunked"]
    if codings:
        kept["content-encoding"] = ",".join(codings)
    else:
        del kept["content-encoding"]


def _text(value: str) -> str:
    """Read a header's bytes as UTF-8 where they are, so that other protocols see text."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return value


def _wire(value: str) -> str:
    """Write text as the Latin-1 that carries its UTF-8 bytes."""
    return value.encode("utf-8").decode("latin-1")
