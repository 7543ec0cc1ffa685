"""Rows of multipart uploads, and what the Objects view says of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from warp_core.errors import InvalidArgument, UploadNotFound
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.namespace import keys
from warp_core.namespace.described import STANDARD, seal_info, show
from warp_core.namespace.rows import Part, Upload, decode_upload
from warp_core.namespace.tree import Pair, Rows
from warp_core.views.objects import (
    PART_NUMBER_MAX,
    Attributes,
    ObjectInfo,
    PartInfo,
    Provenance,
    UploadInfo,
)


def parse(upload: str) -> int:
    """Return the number of an upload id.

    Raises:
        UploadNotFound: It cannot be one.
    """
    try:
        number = int(upload, 16) if len(upload) == 32 else 0
    except ValueError:
        number = 0
    if not 0 < number < 2**64:
        raise UploadNotFound(f"no upload {upload[:64]!r}")
    return number


def check_number(number: int) -> None:
    """Refuse a part number that there cannot be.

    Raises:
        InvalidArgument
    """
    if not 1 <= number <= PART_NUMBER_MAX:
        raise InvalidArgument(f"part number {number} is not 1 to {PART_NUMBER_MAX}")


async def open_upload(stored: Rows, key: bytes, number: int, *, completed: bool = False) -> Upload:
    """Return an upload that has not ended (or, with `completed`, was completed).

    Raises:
        UploadNotFound
    """
    value = await stored.get(keys.upload_key(key, number))
    if value is not None:
        row = decode_upload(value)
        if row.key == key and (not row.state or (completed and row.state == "completed")):
            return row
    raise UploadNotFound(f"no upload {number:032x} of {show(key)}")


async def scan_parts(
    scan: Callable[[bytes, bytes], Awaitable[list[Pair]]], number: int
) -> dict[int, bytes]:
    """Return the rows of an upload's parts by their numbers."""
    start, end = keys.parts_of(number)
    found: dict[int, bytes] = {}
    while True:
        page = await scan(start, end)
        for key, value in page:
            found[int.from_bytes(key[-2:], "big")] = value
        if len(page) < SCAN_MAX:
            return found
        start = page[-1][0] + b"\0"


async def list_uploads(
    stored: Rows,
    prefix: bytes,
    delimiter: bytes,
    key_marker: bytes,
    upload_marker: int | None,
    limit: int,
) -> tuple[list[UploadInfo], list[bytes], bool]:
    """Return uploads in the order of their keys, common prefixes, and whether there are more: see `Objects.list_uploads`."""
    uploads: list[UploadInfo] = []
    prefixes: list[bytes] = []
    start, end = keys.UPLOADS
    lower = max(prefix, key_marker)
    start = max(start, keys.upload_prefix(lower)[:-2])
    seen: list[tuple[bytes, int, Upload]] = []
    while True:
        page = await stored.scan(start, end)
        seen += [
            (row.key, int.from_bytes(row_key[-8:], "big"), row)
            for row_key, value in page
            if not (row := decode_upload(value)).state
        ]
        whole = len(page) < SCAN_MAX
        if not whole:
            start = page[-1][0] + b"\0"
        # Rows whose keys share their first NODE_BYTES bytes are in no order among themselves: keep a group together.
        ready = seen if whole else _complete_groups(seen)
        seen = seen[len(ready) :]
        for key, number, row in sorted(ready, key=lambda each: each[:2]):
            if not key.startswith(prefix):
                if key > prefix:
                    return uploads, prefixes, False
                continue
            if key < key_marker or (
                (key == key_marker and (upload_marker is None or number <= upload_marker))
                and key_marker
            ):
                continue
            found = key.find(delimiter, len(prefix)) if delimiter else -1
            common = key[: found + len(delimiter)] if found >= 0 else b""
            if common and (common in prefixes[-1:] or key_marker.startswith(common)):
                continue
            if len(uploads) + len(prefixes) >= limit:
                return uploads, prefixes, True
            if common:
                prefixes.append(common)
            else:
                uploads.append(upload_info(number, row))
        if whole:
            return uploads, prefixes, False


def _complete_groups(
    seen: list[tuple[bytes, int, Upload]],
) -> list[tuple[bytes, int, Upload]]:
    head = seen[-1][0][: keys.NODE_BYTES] if seen else b""
    cut_at = len(seen)
    while cut_at and seen[cut_at - 1][0][: keys.NODE_BYTES] == head:
        cut_at -= 1
    return seen[:cut_at]


def upload_info(number: int, row: Upload) -> UploadInfo:
    """Return an upload as the view shows it."""
    return UploadInfo(
        key=row.key,
        upload=f"{number:032x}",
        initiated_ns=row.initiated_ns,
        attributes=Attributes(
            headers=row.headers,
            metadata=row.metadata,
            tags=row.tags,
            storage_class=row.storage_class or STANDARD,
            owner=row.owner,
            acl=row.acl,
            retain_mode=row.retain_mode,  # type: ignore[arg-type]
            retain_until_ns=row.retain_until_ns,
            legal_hold=row.legal_hold,
            replication=row.replication,  # type: ignore[arg-type]
            provenance=provenance_of(row),
        ),
        checksum_algorithm=row.checksum_algorithm,
        checksum_type=row.checksum_type,
        seal=seal_info(row.seal),
    )


def provenance_of(row: Upload) -> Provenance | None:
    """Return where the object of an upload comes from."""
    version, modified_ns = row.provenance
    return Provenance(version=version, modified_ns=modified_ns) if version or modified_ns else None


def part_row_info(row_key: bytes, part: Part) -> PartInfo:
    """Return an upload's part as the view shows it."""
    return PartInfo(
        number=int.from_bytes(row_key[-2:], "big"),
        size=part.size,
        etag=part.etag,
        modified_ns=part.modified_ns,
        checksums=part.checksums,
    )


def completed_info(key: bytes, number: int, row: Upload) -> ObjectInfo:
    """Return the answer to a repeated completion."""
    etag, checksums, kind = row.digests
    return ObjectInfo(
        key=key,
        size=row.size,
        etag=etag,
        modified_ns=row.ended_ns,
        version=row.version,
        owner=row.owner,
        storage_class=row.storage_class or STANDARD,
        checksum_algorithms=tuple(checksums),
        checksum_type=kind,
        checksums=checksums,
    )
