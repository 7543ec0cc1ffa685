"""Values of the namespace's rows (`docs/formats/rows.md`): msgpack arrays, described by these structs.

Every row that snapshots keep begins with `born`, the volume's epoch when it was last written. Fields are only ever appended, with a
default, so that older rows stay readable; `FORMAT` grows when that is not enough, and a volume says which one it was written in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from warp_core.containers.format import Chunk
from warp_core.errors import Corrupt
from warp_core.interfaces.quotas import Quota
from warp_core.views.objects import VolumeLock
from warp_core.views.origin import Origin

FORMAT: Final = 1

# Kinds of `Name`
FILE: Final = 0  # an object, a regular file, a disk
DIRECTORY: Final = 1  # made by mkdir: stays when empty, is no S3 key
IMPLIED: Final = 2  # a directory that S3 keys imply: leaves with its last live child
CONTINUED: Final = (
    3  # the node that a long component continues in: leaves with its last child as well
)
MARKER: Final = 4  # a delete marker, in V only
SYMLINK: Final = 5
SPECIAL: Final = 6  # fifo, socket, device: the inode says which

NULL_VERSION: Final = 0  # `Name.nonce` of the null version
EXTENTS_MAX: Final = 64  # in a row; content of more keeps them in a manifest chunk
INLINE_MAX: Final = 1024  # bytes of content that may lie in the revision row

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


class Extent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A range of a revision that lies in a chunk: content[offset : offset + length] = chunk[skip : skip + length].

    `volume` and `revision` say whose record the chunk is, where that is not the revision which holds the extent.
    """

    offset: int
    length: int
    chunk: Chunk
    skip: int = 0
    volume: int = 0
    revision: int = 0


class Born(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all rows kept by snapshots begin with. A row that is nothing more hides what a clone's base has under its key."""

    born: int


class Name(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """D and V: a directory entry, a noncurrent version or a marker, with the summary that listings show.

    Of a directory `inode` is its id. `revision` 0 says that an inode row knows the current one, and size, etag and times with it.
    """

    born: int
    kind: int
    inode: int
    revision: int = 0
    sequence: int = 0  # counts versions of the name
    nonce: int = NULL_VERSION  # with `sequence` the version id
    size: int = 0
    etag: str = ""
    modified_ns: int = 0
    owner: str = ""
    storage_class: str = ""  # empty: STANDARD
    checksum_algorithms: tuple[str, ...] = ()
    checksum_type: str = ""


class NullVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """V: which noncurrent version is the null version."""

    born: int
    sequence: int


class PartSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of an object made by a multipart upload."""

    number: int
    size: int
    etag: str = ""
    checksums: dict[str, str] = {}


class Seal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How content is sealed: with a data key that only this row has, wrapped."""

    cipher: str  # a codec
    key_id: str  # names the data key in the heads of records
    wrapped: bytes
    master: str = ""  # key of the key service that it is wrapped under
    note: str = ""  # of the protocol that asked for it
    own: bool = False  # wrapped by a secret of the writer's, which nobody keeps


class Restore(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That content of an archive is wanted, or can be read for a while."""

    days: int
    tier: str = ""
    asked_ns: int = 0
    until_ns: int = 0  # 0: it is still being brought back
    archived: int = 0  # the revision in the archive that this one is a copy of for a while


class Revision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """R: content and attributes. The content never changes; tags and retention may.

    Exactly one of these holds: `inline` is not None; `manifest` is not None and leads to a `Manifest`; `extents` map the
    content, holes read as zeros. `windowed` says that E rows overlay it.
    """

    born: int
    size: int
    etag: str
    modified_ns: int
    extents: tuple[Extent, ...] = ()
    manifest: Chunk | None = None
    inline: bytes | None = None
    filters: str = ""  # that `inline` went through
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    storage_class: str = ""
    owner: str = ""
    checksums: dict[str, str] = {}
    checksum_type: str = ""
    parts: tuple[PartSummary, ...] = ()  # of a multipart object with a manifest they are there
    part_count: int = 0
    retain_mode: str = ""  # "", "GOVERNANCE", "COMPLIANCE"
    retain_until_ns: int = 0
    legal_hold: bool | None = None
    windowed: bool = False
    base: int = 0  # revision that shows through where this one has no window
    cut: int = -1  # extents and base are visible only below this offset; -1: everywhere
    # (volume, revision) of chunks in the manifest that others wrote
    lenders: tuple[tuple[int, int], ...] = ()
    lent_manifest: bool = False  # the manifest is one of the lenders' as well
    acl: bytes = b""  # a protocol's, which alone reads it; empty: the owner's alone
    seal: Seal | None = None  # of the content; a manifest is not sealed
    replication: str = ""  # "PENDING", "COMPLETED", "FAILED", "REPLICA"
    restore: Restore | None = None  # of an archive's content

    @property
    def archived(self) -> int:
        """The revision in an archive that this one is a copy of for a while; 0: it is none."""
        return 0 if self.restore is None else self.restore.archived

    listed: tuple[int, int] = (0, 0)  # of the revision's own chunks in the manifest: bytes, stored


class Manifest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The payload of a manifest chunk: what did not fit the revision row."""

    format: int
    extents: tuple[Extent, ...]
    parts: tuple[PartSummary, ...] = ()


class Garbage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """g: chunks that nothing refers to any more. With `manifest`, also those that it lists as the revision's own, then itself."""

    volume: int
    revision: int
    chunks: tuple[Chunk, ...]
    manifest: Chunk | None = None


class Upload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """U: a multipart upload; its number is the revision that the object will have."""

    key: bytes
    initiated_ns: int
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: dict[str, str] = {}
    storage_class: str = ""
    owner: str = ""
    checksum_algorithm: str = ""
    checksum_type: str = ""
    state: str = ""  # "": open; "completed": its parts are being removed; "aborted": they are, with their chunks
    lenders: tuple[tuple[int, int], ...] = ()  # (volume, revision) that parts were copied from
    digests: tuple[str, dict[str, str], str] = (
        "",
        {},
        "",
    )  # of the object made: etag, checksums, their type
    size: int = 0  # of the object made
    version: str = ""  # id of the version made
    ended_ns: int = 0
    acl: bytes = b""  # of the object made
    retain_mode: str = ""  # of the object made, as the next two
    retain_until_ns: int = 0
    legal_hold: bool | None = None
    seal: Seal | None = None  # of its parts, and of the object made
    replication: str = ""  # of the object made
    provenance: tuple[str, int] = ("", 0)  # of the object made: version id and time


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """P: a part; extents count from its own start."""

    size: int
    etag: str
    modified_ns: int
    extents: tuple[Extent, ...] = ()
    manifest: Chunk | None = None
    checksums: dict[str, str] = {}


class PoolRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """q: what has a quota. Of an account its limits as well; those of a volume are in its own row."""

    quota: Quota | None = None
    over_since_ns: int = (
        0  # when more than a soft limit was held for the first time since; 0: it is not
    )


class VolumeRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """n: a volume. Every transaction in it checks this row, so it changes only when the volume's own state does."""

    format: int
    number: int
    name: str
    created_ns: int
    owner: str = ""
    versioning: str = "off"
    epoch: int = 0  # grows with each snapshot
    newest: int = 0  # newest snapshot that exists, 0: none
    base: tuple[int, int] | None = None  # (volume, snapshot) that this is a clone of
    settings: int = 0  # grows when a document changes
    read_only: bool = False
    tags: dict[str, str] = {}
    policy: dict[str, str] = {}
    frozen: bool = False  # nothing changes it now: a rollback begins or is going on
    rolling: int = 0  # snapshot that it is being rolled back to, and shows meanwhile
    rolled: bool = False  # it was rolled back: content may be in several pieces of time
    lock: VolumeLock | None = (
        None  # objects can be locked, and what holds for those that do not say
    )
    quota: Quota | None = None
    owned: bool = False  # what users and groups have is counted
    limits: dict[str, Quota] = {}  # of them: "uid:1000", "gid:100"


class SnapshotRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """S: a snapshot. `state` "deleting": its dead list is being freed. `clones` are the volumes that read through it."""

    name: str
    created_ns: int
    previous: int = 0  # snapshot before it, 0: none
    state: str = ""
    clones: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()  # for which a policy made it; none: somebody did
    holds: tuple[str, ...] = ()  # who wants it to stay


class PendingRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """N: windows of a revision are still to get the changes of a file up to a position, as of an epoch; both are in the key."""

    inode: int  # the file
    until: tuple[int, int]  # of the last record: container, offset
    copies: tuple[int, ...] = ()  # inodes of clones, whose `allocated` counts them as well


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """F: one change, in the order of commits. `version` is the version id made or removed."""

    verb: str  # "put", "copy", "complete", "delete", "marker", "remove", "tags", "untags", "rename", "link", ...
    time_ns: int
    key: bytes = b""  # the S3 key, where the change came by key
    directory: int = 0
    name: bytes = b""
    inode: int = 0
    version: str = ""
    size: int = 0
    etag: str = ""
    actor: str = ""
    origin: Origin | None = None  # where the protocol said it
    restored: tuple[str, int] | None = None  # class of what can be read now, and until when


_INTEGER: Final = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}  # bytes of a msgpack integer by its first

_names = msgspec.msgpack.Decoder(list[Name])
_borns = msgspec.msgpack.Decoder(Born)
decode_name = msgspec.msgpack.Decoder(Name).decode
decode_revision = msgspec.msgpack.Decoder(Revision).decode
decode_volume = msgspec.msgpack.Decoder(VolumeRow).decode
decode_snapshot = msgspec.msgpack.Decoder(SnapshotRow).decode
decode_upload = msgspec.msgpack.Decoder(Upload).decode
decode_part = msgspec.msgpack.Decoder(Part).decode
decode_null = msgspec.msgpack.Decoder(NullVersion).decode
decode_manifest = msgspec.msgpack.Decoder(Manifest).decode
decode_garbage = msgspec.msgpack.Decoder(Garbage).decode
decode_pending = msgspec.msgpack.Decoder(PendingRow).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
decode_pool = msgspec.msgpack.Decoder(PoolRow).decode

WAYS_MAX: Final = (
    2048  # directories' rows whose decoded form is remembered, a few hundred bytes each
)


@lru_cache(maxsize=WAYS_MAX)
def decode_way(value: bytes) -> Name:
    """Decode the row of a name that a path goes through; many keys go through few."""
    return decode_name(value)


WHITEOUT_BYTE: Final = 0x91  # an array of one element: `Born` and nothing more


def decode_names(values: Sequence[bytes]) -> list[Name]:
    """Decode many name rows in one call: an array's elements lie back to back, so joining them behind a header makes an array."""
    return _names.decode(b"\xdd" + len(values).to_bytes(4, "big") + b"".join(values))


class DiskRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """J: a file is a disk."""

    born: int
    serial: str  # 16 hex digits
    volume: int  # where it got the serial: in a clone of that it is another disk


decode_disk: Final = msgspec.msgpack.Decoder(DiskRow).decode


class DueRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """M: a version is to be brought back from an archive, or its copy is to go; when, is in the key."""

    born: int
    key: bytes
    version: str


decode_due: Final = msgspec.msgpack.Decoder(DueRow).decode


def born(value: bytes) -> int:
    """Return the epoch that a row was last written in, of any struct that begins with `born`."""
    first = value[3 if value[0] == 0xDC else 1]  # behind the array's header; one byte up to 127
    return first if first < 0x80 else _borns.decode(value).born


def held(epoch: int) -> bytes:
    """Return a row whose presence is all it says."""
    return encode((epoch, True))


def unborn(value: bytes) -> bytes:
    """Return a row without the epoch that it was written in: rows that say the same have the same rest."""
    head = 3 if value[0] == 0xDC else 1
    return value[:head] + value[head + _INTEGER.get(value[head], 1) :]


def reborn(value: bytes, epoch: int) -> bytes:
    """Return a row as written in another epoch."""
    rest = unborn(value)
    head = 3 if value[0] == 0xDC else 1
    return rest[:head] + encode(epoch) + rest[head:]


def is_whiteout(value: bytes) -> bool:
    """Say whether the row only hides what a clone's base has under its key."""
    return value[0] == WHITEOUT_BYTE


def whiteout(epoch: int) -> bytes:
    """Return a row that hides what a clone's base has under its key."""
    return encode(Born(epoch))


def checked(decode: Any, key: bytes, value: bytes) -> Any:
    """Decode a row, naming its key when it is damaged.

    Raises:
        Corrupt: The value is not what the format says.
    """
    try:
        return decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"row {key!r} is damaged: {error}") from error
