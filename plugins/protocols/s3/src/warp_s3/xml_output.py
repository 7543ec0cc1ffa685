"""Answers in XML, written by joining strings: a page of 1,000 keys costs about a millisecond.

Element order, namespaces and the form of times are those of S3.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from time import gmtime
from types import MappingProxyType
from typing import Final
from urllib.parse import quote_from_bytes

from warp_core.views.objects import (
    Listing,
    ObjectInfo,
    PartInfo,
    RestoreInfo,
    Summary,
    UploadInfo,
    VersionListing,
    VolumeInfo,
    columns,
)

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

Restores = Mapping[tuple[bytes, str], RestoreInfo]
"""What was restored, by key and, where versions are listed, version."""

NONE_RESTORED: Final[Restores] = MappingProxyType({})

_SPECIAL: Final = re.compile('[&<>"\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]')
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_PLAIN_KEY: Final = re.compile(rb"[A-Za-z0-9_.~/-]*")
_PLAIN_KEYS: Final = re.compile(rb"[A-Za-z0-9_.~/\n-]*")
_HARMLESS_KEYS: Final = re.compile(rb"[\t\n !#-%'-;=?-~]*")


def escape(text: str) -> str:
    """Escape text for an element.

    Control characters become character references, as S3 writes them, although XML 1.0 has no way
    to hold them: clients that meet such keys ask for `encoding-type=url`.
    """
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(_entity, text)


def _entity(match: re.Match[str]) -> str:
    character = match[0]
    return _ENTITIES.get(character) or f"&#x{ord(character):x};"


def escape_key(key: bytes) -> str:
    """Write a key as text for an element."""
    return escape(key.decode("utf-8", "replace"))


def url_key(key: bytes) -> str:
    """Write a key in `encoding-type=url`: percent-encoded but for unreserved characters and `/`."""
    if _PLAIN_KEY.fullmatch(key) is not None:
        return key.decode("ascii")
    return quote_from_bytes(key, safe="/-_.~")


def write_keys(keys: Sequence[bytes], encoding_type: str) -> Sequence[str]:
    """Write keys as `key_writer` would, most of them at once: few pages have a key with anything to escape."""
    joined = b"\n".join(keys)
    pattern = _PLAIN_KEYS if encoding_type else _HARMLESS_KEYS
    if pattern.fullmatch(joined) is not None:
        texts = joined.decode("ascii").split("\n")
        if len(texts) == len(keys):
            return texts
    return list(map(key_writer(encoding_type), keys))


def key_writer(encoding_type: str) -> Callable[[bytes], str]:
    """Choose how keys are written for a request's encoding-type."""
    return url_key if encoding_type else escape_key


@lru_cache(maxsize=4096)
def _iso(second: int) -> str:
    year, month, day, hour, minute, sec, _, _, _ = gmtime(second)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{sec:02}.000Z"


def iso_time(nanoseconds: int) -> str:
    """Write a time as S3 does in XML: whole seconds, so that it equals Last-Modified."""
    return _iso(nanoseconds // 1_000_000_000)


def document(root: str, body: str) -> bytes:
    """Wrap elements into a document in S3's namespace."""
    text = f'{DECLARATION}<{root} xmlns="{NAMESPACE}">{body}</{root}>'
    return text.encode("utf-8", "replace")


def error(
    code: str, message: str, *, resource: str, request_id: str, details: Mapping[str, str]
) -> bytes:
    """Write an error; this document alone has no namespace."""
    further = "".join([f"<{name}>{escape(text)}</{name}>" for name, text in details.items()])
    return (
        f"{DECLARATION}<Error><Code>{code}</Code><Message>{escape(message)}</Message>{further}"
        f"<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId></Error>"
    ).encode("utf-8", "replace")


# Buckets ------------------------------------------------------------------------------------------


def buckets(
    volumes: Iterable[VolumeInfo], *, owner: str, display: str, prefix: str = "", token: str = ""
) -> bytes:
    """Write ListBuckets; `token` continues after the last bucket."""
    rows = "".join(
        [
            f"<Bucket><Name>{escape(volume.name)}</Name>"
            f"<CreationDate>{iso_time(volume.created_ns)}</CreationDate></Bucket>"
            for volume in volumes
        ]
    )
    further = f"<ContinuationToken>{escape(token)}</ContinuationToken>" if token else ""
    if prefix:
        further += f"<Prefix>{escape(prefix)}</Prefix>"
    return document(
        "ListAllMyBucketsResult",
        f"{_owner('Owner', owner, display)}<Buckets>{rows}</Buckets>{further}",
    )


def location(region: str) -> bytes:
    """Write GetBucketLocation; us-east-1 is, for history's sake, the empty text."""
    text = "" if region == "us-east-1" else escape(region)
    return (
        f'{DECLARATION}<LocationConstraint xmlns="{NAMESPACE}">{text}</LocationConstraint>'
    ).encode()


def versioning(state: str) -> bytes:
    """Write GetBucketVersioning; a bucket that never had any has no Status."""
    status = {"on": "Enabled", "suspended": "Suspended"}.get(state)
    return document("VersioningConfiguration", f"<Status>{status}</Status>" if status else "")


def access_control(owner: str, display: str) -> bytes:
    """Write the one ACL there is: the owner may do everything."""
    grantee = (
        '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:type="CanonicalUser"><ID>{escape(owner)}</ID>'
        f"<DisplayName>{escape(display)}</DisplayName></Grantee>"
    )
    return document(
        "AccessControlPolicy",
        f"{_owner('Owner', owner, display)}<AccessControlList><Grant>{grantee}"
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList>",
    )


def tagging(tags: Mapping[str, str]) -> bytes:
    """Write a tag set."""
    rows = "".join(
        [
            f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>"
            for key, value in tags.items()
        ]
    )
    return document("Tagging", f"<TagSet>{rows}</TagSet>")


# Listings -----------------------------------------------------------------------------------------


def objects_v1(
    bucket: str,
    listing: Listing,
    *,
    prefix: bytes,
    marker: bytes,
    delimiter: bytes,
    limit: int,
    encoding_type: str,
    owners: Callable[[str], str],
    restores: Restores = NONE_RESTORED,
) -> bytes:
    """Write ListObjects."""
    write = key_writer(encoding_type)
    head = (
        f"<Name>{escape(bucket)}</Name><Prefix>{write(prefix)}</Prefix>"
        f"<Marker>{write(marker)}</Marker>"
    )
    # S3 gives NextMarker only with a delimiter; without one the last key says the same. Giving it
    # always harms nobody and helps clients that forget the difference.
    if listing.next:
        head += f"<NextMarker>{write(_last(listing))}</NextMarker>"
    head += f"<MaxKeys>{limit}</MaxKeys>{_rolled(delimiter, encoding_type, write)}"
    head += f"<IsTruncated>{_bool(bool(listing.next))}</IsTruncated>"
    return document(
        "ListBucketResult",
        head
        + _contents(listing.entries, encoding_type, owners, restores)
        + _common_prefixes(listing.prefixes, write),
    )


def objects_v2(
    bucket: str,
    listing: Listing,
    *,
    prefix: bytes,
    delimiter: bytes,
    limit: int,
    encoding_type: str,
    start_after: bytes,
    token: str,
    next_token: str,
    owners: Callable[[str], str] | None,
    restores: Restores = NONE_RESTORED,
) -> bytes:
    """Write ListObjectsV2; `owners` only if the request has fetch-owner."""
    write = key_writer(encoding_type)
    head = f"<Name>{escape(bucket)}</Name><Prefix>{write(prefix)}</Prefix>"
    if start_after:
        head += f"<StartAfter>{write(start_after)}</StartAfter>"
    if token:
        head += f"<ContinuationToken>{escape(token)}</ContinuationToken>"
    if next_token:
        head += f"<NextContinuationToken>{next_token}</NextContinuationToken>"
    count = len(listing.entries) + len(listing.prefixes)
    head += (
        f"<KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        f"{_rolled(delimiter, encoding_type, write)}"
        f"<IsTruncated>{_bool(bool(next_token))}</IsTruncated>"
    )
    return document(
        "ListBucketResult",
        head
        + _contents(listing.entries, encoding_type, owners, restores)
        + _common_prefixes(listing.prefixes, write),
    )


def versions(
    bucket: str,
    listing: VersionListing,
    *,
    prefix: bytes,
    delimiter: bytes,
    key_marker: bytes,
    version_marker: str,
    limit: int,
    encoding_type: str,
    owners: Callable[[str], str],
    restores: Restores = NONE_RESTORED,
) -> bytes:
    """Write ListObjectVersions: versions and delete markers in one row, as they come."""
    write = key_writer(encoding_type)
    truncated = bool(listing.next_key)
    head = (
        f"<Name>{escape(bucket)}</Name><Prefix>{write(prefix)}</Prefix>"
        f"<KeyMarker>{write(key_marker)}</KeyMarker>"
        f"<VersionIdMarker>{escape(version_marker)}</VersionIdMarker>"
    )
    if truncated:
        head += f"<NextKeyMarker>{write(listing.next_key)}</NextKeyMarker>"
        if listing.next_version:
            head += f"<NextVersionIdMarker>{listing.next_version}</NextVersionIdMarker>"
    head += (
        f"<MaxKeys>{limit}</MaxKeys>{_rolled(delimiter, encoding_type, write)}"
        f"<IsTruncated>{_bool(truncated)}</IsTruncated>"
    )
    rows = []
    for info in listing.entries:
        common = (
            f"<Key>{write(info.key)}</Key><VersionId>{info.version}</VersionId>"
            f"<IsLatest>{_bool(info.latest)}</IsLatest>"
            f"<LastModified>{iso_time(info.modified_ns)}</LastModified>"
        )
        if info.marker:
            rows.append(f"<DeleteMarker>{common}{owners(info.owner)}</DeleteMarker>")
        else:
            rows.append(
                f"<Version>{common}<ETag>&quot;{info.etag}&quot;</ETag>{_algorithms(info)}"
                f"<Size>{info.size}</Size>{owners(info.owner)}"
                f"<StorageClass>{info.storage_class}</StorageClass>"
                f"{_restore_status(restores.get((info.key, info.version)))}</Version>"
            )
    return document(
        "ListVersionsResult", head + "".join(rows) + _common_prefixes(listing.prefixes, write)
    )


def uploads(
    bucket: str,
    rows: Sequence[UploadInfo],
    prefixes: Sequence[bytes],
    *,
    truncated: bool,
    prefix: bytes,
    delimiter: bytes,
    key_marker: bytes,
    upload_marker: str,
    limit: int,
    encoding_type: str,
    owners: Callable[[str], str],
) -> bytes:
    """Write ListMultipartUploads."""
    write = key_writer(encoding_type)
    last_key, last_upload = _last_upload(rows, prefixes) if truncated else (b"", "")
    head = (
        f"<Bucket>{escape(bucket)}</Bucket><KeyMarker>{write(key_marker)}</KeyMarker>"
        f"<UploadIdMarker>{escape(upload_marker)}</UploadIdMarker>"
        f"<NextKeyMarker>{write(last_key)}</NextKeyMarker>"
        f"<NextUploadIdMarker>{escape(last_upload)}</NextUploadIdMarker>"
        f"{f'<Prefix>{write(prefix)}</Prefix>' if prefix else ''}"
        f"{_rolled(delimiter, encoding_type, write)}"
        f"<MaxUploads>{limit}</MaxUploads><IsTruncated>{_bool(truncated)}</IsTruncated>"
    )
    body = "".join(
        [
            f"<Upload><Key>{write(row.key)}</Key><UploadId>{row.upload}</UploadId>"
            f"{owners(row.attributes.owner).replace('Owner>', 'Initiator>')}"
            f"{owners(row.attributes.owner)}"
            f"<StorageClass>{row.attributes.storage_class}</StorageClass>"
            f"<Initiated>{iso_time(row.initiated_ns)}</Initiated>"
            f"{_upload_checksum(row)}</Upload>"
            for row in rows
        ]
    )
    return document("ListMultipartUploadsResult", head + body + _common_prefixes(prefixes, write))


def parts(
    bucket: str,
    key: bytes,
    upload: UploadInfo,
    rows: Sequence[PartInfo],
    *,
    truncated: bool,
    after: int,
    limit: int,
    encoding_type: str,
    owner: str,
) -> bytes:
    """Write ListParts; `owner` is a complete Owner element."""
    last = rows[-1].number if rows else after
    head = (
        f"<Bucket>{escape(bucket)}</Bucket><Key>{key_writer(encoding_type)(key)}</Key>"
        f"<UploadId>{upload.upload}</UploadId>"
        f"{owner.replace('Owner>', 'Initiator>')}{owner}"
        f"<StorageClass>{upload.attributes.storage_class}</StorageClass>"
        f"<PartNumberMarker>{after}</PartNumberMarker>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker>"
        f"<MaxParts>{limit}</MaxParts><IsTruncated>{_bool(truncated)}</IsTruncated>"
        f"{_upload_checksum(upload)}"
    )
    body = "".join(
        [
            f"<Part><PartNumber>{row.number}</PartNumber>"
            f"<LastModified>{iso_time(row.modified_ns)}</LastModified>"
            f"<ETag>&quot;{row.etag}&quot;</ETag><Size>{row.size}</Size>"
            f"{_checksums(row.checksums)}</Part>"
            for row in rows
        ]
    )
    return document("ListPartsResult", head + body)


# Single objects -----------------------------------------------------------------------------------


def copied(root: str, info: ObjectInfo | PartInfo) -> bytes:
    """Write CopyObjectResult or CopyPartResult."""
    kind = ""
    if isinstance(info, ObjectInfo) and info.checksum_type:
        kind = f"<ChecksumType>{info.checksum_type}</ChecksumType>"
    return document(
        root,
        f"<LastModified>{iso_time(info.modified_ns)}</LastModified>"
        f"<ETag>&quot;{info.etag}&quot;</ETag>{kind}{_checksums(info.checksums)}",
    )


def upload_created(bucket: str, key: bytes, upload: str) -> bytes:
    """Write CreateMultipartUpload's answer."""
    return document(
        "InitiateMultipartUploadResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{escape_key(key)}</Key>"
        f"<UploadId>{upload}</UploadId>",
    )


def upload_completed(place: str, bucket: str, info: ObjectInfo) -> bytes:
    """Write CompleteMultipartUpload's answer; `place` is the object's URL."""
    kind = f"<ChecksumType>{info.checksum_type}</ChecksumType>" if info.checksum_type else ""
    return document(
        "CompleteMultipartUploadResult",
        f"<Location>{escape(place)}</Location><Bucket>{escape(bucket)}</Bucket>"
        f"<Key>{escape_key(info.key)}</Key><ETag>&quot;{info.etag}&quot;</ETag>"
        f"{_checksums(info.checksums)}{kind}",
    )


def posted(place: str, bucket: str, info: ObjectInfo) -> bytes:
    """Write PostObject's answer; `place` is the object's URL. Like errors, it has no namespace."""
    return (
        f"{DECLARATION}<PostResponse><Location>{escape(place)}</Location>"
        f"<Bucket>{escape(bucket)}</Bucket><Key>{escape_key(info.key)}</Key>"
        f"<ETag>&quot;{info.etag}&quot;</ETag></PostResponse>"
    ).encode("utf-8", "replace")


def deleted_row(key: str, version: str | None, *, marker: bool, made: str) -> str:
    """Write one success of DeleteObjects; `made` is the id of a marker that was made or removed."""
    row = f"<Deleted><Key>{escape(key)}</Key>"
    if version:
        row += f"<VersionId>{escape(version)}</VersionId>"
    if marker:
        row += (
            "<DeleteMarker>true</DeleteMarker>"
            f"<DeleteMarkerVersionId>{made}</DeleteMarkerVersionId>"
        )
    return row + "</Deleted>"


def delete_error_row(key: str, version: str | None, code: str, message: str) -> str:
    """Write one failure of DeleteObjects."""
    named = f"<VersionId>{escape(version)}</VersionId>" if version else ""
    return (
        f"<Error><Key>{escape(key)}</Key>{named}<Code>{code}</Code>"
        f"<Message>{escape(message)}</Message></Error>"
    )


def attributes(
    info: ObjectInfo, wanted: frozenset[str], *, part_marker: int = 0, part_limit: int = 1000
) -> bytes:
    """Write GetObjectAttributes: the wanted ones of ETag, Checksum, ObjectParts and so on."""
    body = ""
    if "ETag" in wanted:
        body += f"<ETag>{info.etag}</ETag>"
    if "Checksum" in wanted and info.checksums:
        kind = f"<ChecksumType>{info.checksum_type}</ChecksumType>" if info.checksum_type else ""
        body += f"<Checksum>{_checksums(info.checksums)}{kind}</Checksum>"
    if "ObjectParts" in wanted and info.parts:
        body += _object_parts(info, part_marker, part_limit)
    if "StorageClass" in wanted:
        body += f"<StorageClass>{info.storage_class}</StorageClass>"
    if "ObjectSize" in wanted:
        body += f"<ObjectSize>{info.size}</ObjectSize>"
    return document("GetObjectAttributesResponse", body)


def _object_parts(info: ObjectInfo, marker: int, limit: int) -> str:
    following = [part for part in info.parts if part.number > marker]
    page = following[:limit]
    rows = ""
    if any(part.checksums for part in page):
        rows = "".join(
            [
                f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size}</Size>"
                f"{_checksums(part.checksums)}</Part>"
                for part in page
            ]
        )
    last = page[-1].number if page else marker
    return (
        f"<ObjectParts><PartsCount>{len(info.parts)}</PartsCount>"
        f"<PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>"
        f"<IsTruncated>{_bool(len(page) < len(following))}</IsTruncated>{rows}</ObjectParts>"
    )


# Pieces -------------------------------------------------------------------------------------------


def owner_element(owner: str, display: str) -> str:
    """Write an Owner element."""
    return _owner("Owner", owner, display)


def _owner(element: str, owner: str, display: str) -> str:
    return (
        f"<{element}><ID>{escape(owner)}</ID>"
        f"<DisplayName>{escape(display)}</DisplayName></{element}>"
    )


def _restore_status(restore: RestoreInfo | None) -> str:
    if restore is None:
        return ""
    until = "" if restore.ongoing else iso_time(restore.until_ns)
    date = f"<RestoreExpiryDate>{until}</RestoreExpiryDate>" if until else ""
    ongoing = _bool(restore.ongoing)
    return (
        f"<RestoreStatus><IsRestoreInProgress>{ongoing}</IsRestoreInProgress>{date}</RestoreStatus>"
    )


def _contents(
    entries: Sequence[ObjectInfo],
    encoding_type: str,
    owners: Callable[[str], str] | None,
    restores: Restores = NONE_RESTORED,
) -> str:
    if restores:
        return _contents_with_restores(entries, encoding_type, owners, restores)
    keys, summaries = columns(entries)
    # Neighbours mostly have these alike, and often their second.
    second, time = -1, ""
    alike: tuple[object, ...] = ()
    checksum = end = ""
    rows: list[str] = []
    add = rows.append
    for key, info in zip(write_keys(keys, encoding_type), summaries, strict=True):
        its_second = info.modified_ns // 1_000_000_000
        if its_second != second:
            second, time = its_second, _iso(its_second)
        its = info.checksum_algorithms, info.checksum_type, info.owner, info.storage_class
        if its != alike:
            alike = its
            checksum = _algorithms(info)
            owner = owners(info.owner) if owners is not None else ""
            storage_class = info.storage_class or "STANDARD"
            end = f"</Size>{owner}<StorageClass>{storage_class}</StorageClass></Contents>"
        add(
            f"<Contents><Key>{key}</Key><LastModified>{time}</LastModified>"
            f"<ETag>&quot;{info.etag}&quot;</ETag>{checksum}<Size>{info.size}{end}"
        )
    return "".join(rows)


def _contents_with_restores(
    entries: Sequence[ObjectInfo],
    encoding_type: str,
    owners: Callable[[str], str] | None,
    restores: Restores,
) -> str:
    """Write entries one by one; what was restored says so."""
    rows = []
    for entry in entries:
        status = _restore_status(restores.get((entry.key, "")))
        row = _contents([entry], encoding_type, owners)
        rows.append(row.replace("</Contents>", f"{status}</Contents>") if status else row)
    return "".join(rows)


def _common_prefixes(prefixes: Sequence[bytes], write: Callable[[bytes], str]) -> str:
    return "".join(
        [
            f"<CommonPrefixes><Prefix>{write(prefix)}</Prefix></CommonPrefixes>"
            for prefix in prefixes
        ]
    )


def _rolled(delimiter: bytes, encoding_type: str, write: Callable[[bytes], str]) -> str:
    text = f"<Delimiter>{write(delimiter)}</Delimiter>" if delimiter else ""
    return text + (f"<EncodingType>{encoding_type}</EncodingType>" if encoding_type else "")


def _last(listing: Listing) -> bytes:
    key = listing.entries[-1].key if listing.entries else b""
    prefix = listing.prefixes[-1] if listing.prefixes else b""
    return max(key, prefix)


def _last_upload(rows: Sequence[UploadInfo], prefixes: Sequence[bytes]) -> tuple[bytes, str]:
    key, upload = (rows[-1].key, rows[-1].upload) if rows else (b"", "")
    if prefixes and prefixes[-1] > key:
        return prefixes[-1], ""
    return key, upload


def _algorithms(info: Summary) -> str:
    if not info.checksum_algorithms:
        return ""
    names = "".join(
        [f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in info.checksum_algorithms]
    )
    if info.checksum_type:
        names += f"<ChecksumType>{info.checksum_type}</ChecksumType>"
    return names


def _checksums(checksums: Mapping[str, str]) -> str:
    return "".join(
        [f"<Checksum{name}>{value}</Checksum{name}>" for name, value in checksums.items()]
    )


def _upload_checksum(upload: UploadInfo) -> str:
    if not upload.checksum_algorithm:
        return ""
    return (
        f"<ChecksumAlgorithm>{upload.checksum_algorithm}</ChecksumAlgorithm>"
        f"<ChecksumType>{upload.checksum_type}</ChecksumType>"
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"
