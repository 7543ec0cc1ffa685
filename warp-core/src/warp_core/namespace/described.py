"""Rows ↔ what the Objects view says of them: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import InvalidArgument, NameTooLong, NotFound, PreconditionFailed, TooLarge
from warp_core.namespace.rows import (
    FILE,
    MARKER,
    Extent,
    Name,
    PartSummary,
    Restore,
    Revision,
    Seal,
)
from warp_core.namespace.versions import version_id
from warp_core.views.objects import (
    KEY_MAX,
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    PartInfo,
    RestoreInfo,
    SealInfo,
)

ATTRIBUTES_MAX: Final = (
    32 * 1024
)  # bytes of an object's headers, metadata and tags: its row has 64 KiB
ACL_MAX: Final = 4096  # bytes: 100 grants of S3, each of a name and a right
STANDARD: Final = "STANDARD"


def show(key: bytes) -> str:
    """Return a key as messages show it."""
    return repr(key.decode(errors="backslashreplace"))


def check_key(key: bytes) -> None:
    """Refuse what no object can be called.

    Raises:
        InvalidArgument: It is empty.
        NameTooLong: More than KEY_MAX bytes.
    """
    if len(key) > KEY_MAX:
        raise NameTooLong(f"key of {len(key)} bytes > {KEY_MAX}")
    if not key:
        raise InvalidArgument("a key may not be empty")


def check_attributes(attributes: Attributes) -> None:
    """Refuse attributes that do not fit a row.

    Raises:
        TooLarge
    """
    check_acl(attributes.acl)
    check_size(attributes.headers, attributes.metadata, attributes.tags)


def check_acl(acl: bytes) -> None:
    """Refuse an ACL that does not fit a row.

    Raises:
        TooLarge
    """
    if len(acl) > ACL_MAX:
        raise TooLarge(f"an ACL of {len(acl)} bytes > {ACL_MAX}")


def check_size(*maps: Mapping[str, str]) -> None:
    """Refuse more than ATTRIBUTES_MAX bytes of names and values.

    Raises:
        TooLarge
    """
    size = sum(len(name) + len(value) for each in maps for name, value in each.items())
    if (
        size * 4 > ATTRIBUTES_MAX
    ):  # a character takes up to four bytes: count them only where it may matter
        size = sum(
            len(name.encode()) + len(value.encode())
            for each in maps
            for name, value in each.items()
        )
        if size > ATTRIBUTES_MAX:
            raise TooLarge(f"attributes of {size} bytes > {ATTRIBUTES_MAX}")


def make_revision(
    size: int,
    attributes: Attributes,
    digests: Digests,
    *,
    extents: tuple[Extent, ...] = (),
    manifest: Chunk | None = None,
    inline: bytes | None = None,
    parts: tuple[PartSummary, ...] = (),
    part_count: int = 0,
    seal: Seal | None = None,
) -> Revision:
    """Return the row of new content.

    Raises:
        TooLarge: The attributes do not fit.
    """
    if attributes.headers or attributes.metadata or attributes.tags or attributes.acl:
        check_attributes(attributes)
    storage_class, provenance = attributes.storage_class, attributes.provenance
    return Revision(
        0,
        size,
        digests.etag,
        0 if provenance is None else provenance.modified_ns,
        extents,
        manifest,
        inline,
        "",
        attributes.headers,
        attributes.metadata,
        attributes.tags,
        "" if storage_class == STANDARD else storage_class,
        attributes.owner,
        digests.checksums,
        digests.checksum_type,
        parts,
        part_count,
        attributes.retain_mode,
        attributes.retain_until_ns,
        attributes.legal_hold,
        acl=attributes.acl,
        seal=seal,
        replication=attributes.replication,
    )


def retained_by(attributes: Attributes) -> Revision:
    """Return a row of no content with the retention that attributes ask for."""
    return make_revision(0, attributes, Digests(etag=""))


def describe(
    key: bytes,
    name: Name,
    revision: Revision,
    parts: Sequence[PartSummary] = (),
    *,
    latest: bool = True,
) -> ObjectInfo:
    """Return what is known of an object."""
    storage_class = name.storage_class or STANDARD
    return ObjectInfo(
        key=key,
        size=name.size,
        etag=name.etag,
        modified_ns=name.modified_ns,
        version=version_id(name),
        latest=latest,
        owner=name.owner,
        storage_class=storage_class,
        checksum_algorithms=name.checksum_algorithms,
        checksum_type=revision.checksum_type,
        attributes=Attributes(
            headers=revision.headers,
            metadata=revision.metadata,
            tags=revision.tags,
            storage_class=storage_class,
            owner=name.owner,
            acl=revision.acl,
            retain_mode=revision.retain_mode,  # type: ignore[arg-type]
            retain_until_ns=revision.retain_until_ns,
            legal_hold=revision.legal_hold,
            replication=revision.replication,  # type: ignore[arg-type]
        ),
        checksums=revision.checksums,
        parts=tuple(part_info(part, name.modified_ns) for part in parts),
        seal=seal_info(revision.seal),
        restore=None if revision.restore is None else restore_info(revision.restore),
    )


def restore_info(restore: Restore) -> RestoreInfo:
    """Return how far restoring is, as the view shows it."""
    return RestoreInfo(ongoing=not restore.until_ns, until_ns=restore.until_ns)


def seal_info(seal: Seal | None) -> SealInfo | None:
    """Return a seal as the view shows it."""
    return None if seal is None else SealInfo(key=seal.master, own=seal.own, note=seal.note)


def summarize(key: bytes, name: Name, *, latest: bool = True) -> ObjectInfo:
    """Return what a listing tells of a name."""
    return ObjectInfo(
        key=key,
        size=name.size,
        etag=name.etag,
        modified_ns=name.modified_ns,
        version=version_id(name),
        latest=latest,
        marker=name.kind == MARKER,
        owner=name.owner,
        storage_class=name.storage_class or STANDARD,
        checksum_algorithms=name.checksum_algorithms,
        checksum_type=name.checksum_type,
    )


def part_info(part: PartSummary, modified_ns: int) -> PartInfo:
    """Return a part as the view shows it."""
    return PartInfo(
        number=part.number,
        size=part.size,
        etag=part.etag,
        modified_ns=modified_ns,
        checksums=part.checksums,
    )


def judge(condition: Condition, key: bytes, current: Name | None) -> None:
    """Compare what a caller demands with the current version.

    Raises:
        PreconditionFailed: It is not so.
        NotFound: Something is demanded of an object that is not there.
    """
    present = current if current is not None and current.kind == FILE else None
    if condition.absent and present is not None:
        raise PreconditionFailed(f"{show(key)} exists", condition="If-None-Match")
    wanted = condition.etag or condition.size is not None or condition.modified_s is not None
    if not wanted:
        return
    if present is None:
        raise NotFound(f"no object {show(key)}")
    if condition.etag and condition.etag not in ("*", present.etag):
        raise PreconditionFailed(
            f"{show(key)} has ETag {present.etag}, not {condition.etag}", condition="If-Match"
        )
    if condition.size is not None and condition.size != present.size:
        raise PreconditionFailed(
            f"{show(key)} has {present.size} bytes, not {condition.size}", condition="size"
        )
    if condition.modified_s is not None and condition.modified_s != present.modified_ns // 10**9:
        raise PreconditionFailed(f"{show(key)} was modified since", condition="modified")


def borrowed(original: Revision, home: int, number: int, target: int) -> Revision:
    """Return a revision for another name, in volume `target`, that refers to the content of revision `number` in volume `home`."""
    lenders = {(place(volume, home, target), lender) for volume, lender in original.lenders}
    if original.manifest is not None:
        lenders.add((place(0, home, target), number))
    return msgspec.structs.replace(
        original,
        born=0,
        extents=tuple(lent(extent, home, number, target) for extent in original.extents),
        lenders=tuple(sorted(lenders)),
        lent_manifest=original.manifest is not None,
        retain_mode="",
        retain_until_ns=0,
        legal_hold=None,
        replication="",
        restore=None,
    )


def lent(extent: Extent, home: int, number: int, target: int) -> Extent:
    """Return an extent of revision `number` in volume `home` as one of another revision in volume `target`."""
    volume = place(extent.volume, home, target)
    return msgspec.structs.replace(extent, volume=volume, revision=extent.revision or number)


def cut(extents: Sequence[Extent], offset: int, length: int) -> list[Extent]:
    """Return the extents of a range, counted from its start."""
    end = offset + length
    found: list[Extent] = []
    for extent in extents:
        start = max(offset, extent.offset)
        stop = min(end, extent.offset + extent.length)
        if start < stop:
            found.append(
                msgspec.structs.replace(
                    extent,
                    offset=start - offset,
                    length=stop - start,
                    skip=extent.skip + start - extent.offset,
                )
            )
    return found


def place(volume: int, home: int, target: int) -> int:
    """Return a volume's number as seen from `target`, 0 for itself; 0 as seen from `home` is `home`."""
    absolute = volume or home
    return 0 if absolute == target else absolute


def with_attributes(
    revision: Revision, attributes: Attributes | None, digests: Digests | None
) -> Revision:
    """Return a copy's revision with what the caller says of it.

    Raises:
        TooLarge: The attributes do not fit.
    """
    if attributes is not None:
        check_attributes(attributes)
        revision = msgspec.structs.replace(
            revision,
            headers=attributes.headers,
            metadata=attributes.metadata,
            tags=attributes.tags,
            storage_class="" if attributes.storage_class == STANDARD else attributes.storage_class,
            owner=attributes.owner or revision.owner,
            acl=attributes.acl,
            retain_mode=attributes.retain_mode,
            retain_until_ns=attributes.retain_until_ns,
            legal_hold=attributes.legal_hold,
            replication=attributes.replication,
            modified_ns=0 if attributes.provenance is None else attributes.provenance.modified_ns,
        )
    if digests is not None:
        revision = msgspec.structs.replace(
            revision,
            etag=digests.etag,
            checksums=digests.checksums,
            checksum_type=digests.checksum_type,
            parts=(),
            part_count=0,
        )
    return revision
