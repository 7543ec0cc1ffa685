"""Event records as AWS writes them ("Event message structure" in S3's user guide), from events of the change feed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote_plus

import msgspec
from warp_core.namespace.rows import Event

# Verbs of the feed that a notification may name.
_NAMES: Final = {
    "put": "ObjectCreated:Put",
    "copy": "ObjectCreated:Copy",
    "complete": "ObjectCreated:CompleteMultipartUpload",
    "delete": "ObjectRemoved:Delete",
    "remove": "ObjectRemoved:Delete",
    "marker": "ObjectRemoved:DeleteMarkerCreated",
    "tags": "ObjectTagging:Put",
    "untags": "ObjectTagging:Delete",
    "acl": "ObjectAcl:Put",
    "restore": "ObjectRestore:Post",
}
_BY_RULE: Final = {
    "delete": "LifecycleExpiration:Delete",
    "remove": "LifecycleExpiration:Delete",
    "marker": "LifecycleExpiration:DeleteMarkerCreated",
    "class": "LifecycleTransition",
    "restored": "ObjectRestore:Completed",
    "unrestored": "ObjectRestore:Delete",
}
_PUT_AS: Final = {"post": "ObjectCreated:Post", "copy": "ObjectCreated:Copy"}

# What S3 says "2.3" of; all else is "2.1".
_LATER: Final = ("Lifecycle", "ObjectTagging", "ObjectAcl")
_EMPTY_ETAG: Final = "d41d8cd98f00b204e9800998ecf8427e"  # of nothing: what S3 says of a marker


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Somebody."""

    principalId: str  # noqa: N815


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """The bucket of an event."""

    name: str
    ownerIdentity: Identity  # noqa: N815
    arn: str


class Object(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The object of an event; `sequencer` orders the events of one key, as text."""

    key: str  # percent-encoded, a space as "+"
    sequencer: str
    size: int | None = None
    eTag: str = ""  # noqa: N815
    versionId: str = ""  # noqa: N815


class Entity(msgspec.Struct, frozen=True, gc=False):
    """What S3 says of an event."""

    s3SchemaVersion: str  # noqa: N815
    configurationId: str  # noqa: N815
    bucket: Bucket
    object: Object


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event."""

    eventVersion: str  # noqa: N815
    eventSource: str  # noqa: N815
    awsRegion: str  # noqa: N815
    eventTime: str  # noqa: N815
    eventName: str  # noqa: N815
    userIdentity: Identity  # noqa: N815
    requestParameters: dict[str, str]  # noqa: N815
    responseElements: dict[str, str]  # noqa: N815
    s3: Entity


class RestoreData(msgspec.Struct, frozen=True, gc=False):
    """Until when what was restored can be read, and where it lies otherwise."""

    lifecycleRestorationExpiryTime: str  # noqa: N815
    lifecycleRestoreStorageClass: str  # noqa: N815


class GlacierData(msgspec.Struct, frozen=True, gc=False):
    """What S3 adds to a record of something that was restored."""

    restoreEventData: RestoreData  # noqa: N815


class RestoredRecord(Record, frozen=True, gc=False):
    """One event: content of an archive can be read."""

    glacierEventData: GlacierData  # noqa: N815


_encode = msgspec.json.Encoder().encode


def name_of(event: Event) -> str:
    """Return an event's name ("ObjectCreated:Put"), "" for what S3 has no name for."""
    via = event.origin.via if event.origin is not None else ""
    if not event.key:
        return ""
    if via == "lifecycle":
        return _BY_RULE.get(event.verb, "")
    if event.verb == "put" and via in _PUT_AS:
        return _PUT_AS[via]
    return _NAMES.get(event.verb, "")


def record_of(
    event: Event, name: str, *, cursor: bytes, configuration: str, bucket: Bucket, region: str
) -> bytes:
    """Write one record.

    Args:
        event: Of the change feed.
        name: Its `name_of`.
        cursor: Of the feed behind the event: what orders it.
        configuration: Id of the rule that names it.
        bucket: Where it happened.
        region: What the record says of the server's place.
    """
    origin = event.origin
    removed = event.verb in ("delete", "remove")
    size = None if removed or event.verb == "marker" else event.size
    etag = "" if removed else _EMPTY_ETAG if event.verb == "marker" else event.etag
    record = Record(
        "2.3" if name.startswith(_LATER) else "2.1",
        "aws:s3",
        region,
        _time(event.time_ns),
        name,
        Identity(event.actor),
        {"sourceIPAddress": origin.address if origin is not None else ""},
        {
            "x-amz-request-id": origin.request if origin is not None else "",
            "x-amz-id-2": origin.request if origin is not None else "",
        },
        Entity(
            "1.0",
            configuration,
            bucket,
            Object(
                quote_plus(event.key, safe="/*"),
                cursor.hex().upper(),
                size,
                etag,
                event.version if event.version != "null" else "",
            ),
        ),
    )
    if event.restored is None:
        return _encode(record)
    storage_class, until_ns = event.restored
    restored = GlacierData(RestoreData(_time(until_ns), storage_class))
    return _encode(RestoredRecord(**msgspec.structs.asdict(record), glacierEventData=restored))


def message_of(records: Sequence[bytes]) -> bytes:
    """Put records into one message."""
    return b'{"Records":[%b]}' % b",".join(records)


def _time(moment_ns: int) -> str:
    moment = datetime.fromtimestamp(moment_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ns // 1_000_000 % 1000:03}Z"
