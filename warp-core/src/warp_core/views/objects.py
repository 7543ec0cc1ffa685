"""Objects: the S3-shaped view of a volume. Keys are bytes, whole objects are written and replaced at once, versions are kept.

Who may do what is judged by the caller (the protocol asks its authorizer); retention and leases are enforced below this view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import msgspec

from warp_core.errors import Unsupported
from warp_core.views.origin import Origin

if TYPE_CHECKING:
    from warp_core.interfaces.auth import Principal
    from warp_core.interfaces.stores import Buffer
    from warp_core.views.files import Caller

KEY_MAX = 1024  # bytes of an object key, as AWS allows
SMALL_MAX = 64 * 1024  # payloads up to here may go through `put`
PART_NUMBER_MAX = 10_000
TOGETHER_MAX = 16  # keys of one `delete_together`: four to six rows each, of a commit's 100

Versioning = Literal["off", "on", "suspended"]
LockMode = Literal["", "GOVERNANCE", "COMPLIANCE"]


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version was made that is written here: it keeps its id and its time, as copies between sites do.

    In a volume that keeps versions it takes the place among those of its key that its id says, which may be before the current one;
    others keep the time only.
    """

    version: str = (
        ""  # 32 hex digits, the first half below 2**48, as this view gave them; empty: a new one
    )
    modified_ns: int = 0  # 0: now


Replication = Literal["", "PENDING", "COMPLETED", "FAILED", "REPLICA"]


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer says about an object besides its bytes. Names of `headers` and `metadata` are lower case."""

    headers: dict[
        str, str
    ] = {}  # content-type, cache-control, content-disposition, content-encoding, ...
    metadata: dict[str, str] = {}  # user metadata, without the protocol's prefix
    tags: dict[str, str] = {}
    storage_class: str = "STANDARD"
    owner: str = ""  # principal name
    acl: bytes = b""  # of the protocol, at most 4 KiB; empty: the owner's alone
    retain_mode: LockMode = ""  # empty: what the volume says
    retain_until_ns: int = 0
    legal_hold: bool | None = None  # None: nobody ever said
    replication: Replication = ""  # how far its copy to another site is; empty: there is to be none
    provenance: Provenance | None = None  # said by writers, never told


class Sealing(msgspec.Struct, frozen=True, kw_only=True):
    """How a writer wants content sealed (encrypted at rest): under a key of the node's key service, or under a secret of its own."""

    key: str = ""  # of the key service; empty: its default key
    secret: bytes = b""  # 32 bytes that nobody keeps: whoever reads has to give them again
    note: str = ""  # of the protocol, which gets it back

    def __repr__(self) -> str:
        own = "own secret" if self.secret else f"key {self.key!r}"
        return f"Sealing({own}, note={self.note!r})"


class SealInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How content is sealed."""

    key: str = ""  # of the key service
    own: bool = False  # with a secret of the writer's
    note: str = ""


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """What the protocol computed over the bytes as they arrived."""

    etag: str  # without quotes
    checksums: dict[str, str] = {}  # algorithm name ("CRC64NVME") → base64
    checksum_type: Literal["", "FULL_OBJECT", "COMPOSITE"] = ""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold of the current object when a write commits: a true compare-and-swap.

    `absent`: no current object (a delete marker counts as none). `etag`: the current object has it ("*": any object).
    """

    absent: bool = False
    etag: str = ""
    size: int | None = None
    modified_s: int | None = None  # whole seconds


ALWAYS = Condition()


class PartInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a multipart upload or of the object made by it."""

    number: int
    size: int
    etag: str
    modified_ns: int = 0
    checksums: dict[str, str] = {}


class RestoreInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far an archive's content is from being readable, or until when it is."""

    ongoing: bool
    until_ns: int = 0


class ObjectInfo(msgspec.Struct, frozen=True, gc=False):
    """One version of an object. Listings fill only what their entries carry: `attributes` and `parts` stay empty there."""

    key: bytes
    size: int
    etag: str
    modified_ns: int
    version: str = "null"  # "null" or 32 hex digits; sorts by nothing
    latest: bool = True
    marker: bool = False  # a delete marker
    owner: str = ""
    storage_class: str = "STANDARD"
    checksum_algorithms: tuple[str, ...] = ()
    checksum_type: str = ""
    attributes: Attributes = Attributes()
    checksums: dict[str, str] = {}
    parts: tuple[PartInfo, ...] = ()
    seal: SealInfo | None = None
    restore: RestoreInfo | None = None  # of an archive's content that was asked for


class Summary(Protocol):
    """What a listing tells of an object besides its key; `ObjectInfo` is one. An empty storage class is STANDARD."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def etag(self) -> str:
        """Without quotes."""

    @property
    def modified_ns(self) -> int:
        """Nanoseconds since 1970."""

    @property
    def owner(self) -> str:
        """Name of a principal."""

    @property
    def storage_class(self) -> str:
        """As S3 names it."""

    @property
    def checksum_algorithms(self) -> tuple[str, ...]:
        """Such as "CRC64NVME"."""

    @property
    def checksum_type(self) -> str:
        """FULL_OBJECT or COMPOSITE."""


class Entries(Sequence[ObjectInfo]):
    """Entries of a listing as two columns: a page of 1,000 is written out without an `ObjectInfo` for each."""

    __slots__ = ("_describe", "keys", "summaries")

    def __init__(self, describe: Callable[[bytes, Any], ObjectInfo]) -> None:
        self._describe = describe
        self.keys: list[bytes] = []
        self.summaries: list[Any] = []

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> ObjectInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[ObjectInfo]: ...
    def __getitem__(self, index: int | slice) -> ObjectInfo | list[ObjectInfo]:
        if isinstance(index, slice):
            return list(map(self._describe, self.keys[index], self.summaries[index]))
        return self._describe(self.keys[index], self.summaries[index])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def columns(entries: Sequence[ObjectInfo]) -> tuple[Sequence[bytes], Sequence[Summary]]:
    """Return keys and summaries of a listing's entries."""
    if isinstance(entries, Entries):
        return entries.keys, entries.summaries
    return [entry.key for entry in entries], entries


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `next` resumes after the last entry or prefix of this page; empty when nothing follows."""

    entries: Sequence[ObjectInfo]
    prefixes: Sequence[bytes]
    next: bytes = b""


@dataclass(frozen=True, slots=True)
class VersionListing:
    """One page of versions and markers, newest first within a key."""

    entries: Sequence[ObjectInfo]
    prefixes: Sequence[bytes]
    next_key: bytes = b""
    next_version: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did: `version` is the marker made, or the version removed; `marker` says that it is (was) a marker."""

    version: str = ""
    marker: bool = False
    found: bool = True


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A multipart upload in progress."""

    key: bytes
    upload: str
    initiated_ns: int
    attributes: Attributes = field(default_factory=Attributes)
    checksum_algorithm: str = ""
    checksum_type: str = ""
    seal: SealInfo | None = None


class VolumeLock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a volume with object lock says of objects that say nothing themselves: with a mode, either days or years."""

    mode: LockMode = ""
    days: int = 0
    years: int = 0


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as Objects sees it (a bucket)."""

    name: str
    created_ns: int
    owner: str = ""
    versioning: Versioning = "off"
    tags: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(
        default_factory=dict
    )  # protocol-owned settings by name ("s3.cors", ...)
    lock: VolumeLock | None = None  # None: nothing can be locked in it


class Reader:
    """An open object: its revision is pinned until `close`, whatever happens to the name."""

    info: ObjectInfo

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """Return verified bytes if no device has to be waited for, else None: then `read`. At most 1 MiB at a time."""
        raise NotImplementedError

    async def read(self, offset: int, length: int) -> Buffer:
        """Return verified bytes, at most 1 MiB at a time; short only at the end of the object.

        Raises:
            Corrupt: No good copy is left of some frame; never returned as data.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the pin; harmless when repeated."""
        raise NotImplementedError


class Writer:
    """Content on its way in. Nothing is visible before `commit`; leaving it uncommitted leaves garbage for collection."""

    def buffer(self) -> memoryview:
        """Return the free rest of the current buffer (never empty): receive into it, then tell `wrote`."""
        raise NotImplementedError

    def wrote(self, length: int) -> bool:
        """Count bytes put into `buffer`; True means that `drain` must be awaited before the next `buffer`."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Hand full buffers to the containers; waits while too many are on their way.

        Raises:
            NoSpace: The stores are full.
        """
        raise NotImplementedError

    async def write(self, data: Buffer) -> None:
        """Append bytes by copying; `buffer`/`wrote`/`drain` avoid the copy."""
        raise NotImplementedError

    async def commit(self, digests: Digests) -> ObjectInfo:
        """Make the content durable and link it, in this order; returns when both are done.

        Raises:
            PreconditionFailed: The writer's condition does not hold any more; nothing changed.
        """
        raise NotImplementedError

    async def abort(self) -> None:
        """Drop what was written; harmless after `commit`."""
        raise NotImplementedError


class Objects:
    """The view. One instance serves every volume; all calls are safe to make concurrently."""

    # Volumes --------------------------------------------------------------------------------------

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        """Make a volume with the default policy; where objects can be `locked`, it keeps versions.

        Raises:
            AlreadyOwned, AlreadyExists: The name is taken, by the same owner or another.
        """
        raise NotImplementedError

    async def delete_volume(self, name: str) -> None:
        """Remove an empty volume (uploads in progress do not count, versions and markers do).

        Raises:
            VolumeNotFound, NotEmpty
        """
        raise NotImplementedError

    async def volume(self, name: str) -> VolumeInfo:
        """Describe a volume, from memory when it is known.

        Raises:
            VolumeNotFound
        """
        raise NotImplementedError

    def volume_now(self, name: str) -> VolumeInfo | None:
        """Describe a volume if nothing has to be waited for, else None, also where it is missing: then `volume`."""
        return None

    async def volumes(self) -> Sequence[VolumeInfo]:
        """Return every volume, sorted by name."""
        raise NotImplementedError

    async def set_versioning(self, volume: str, state: Versioning) -> None:
        """Switch versioning ("off" only while it never was on; a volume with object lock stays "on").

        Raises:
            InvalidArgument
        """
        raise NotImplementedError

    async def set_lock(self, volume: str, lock: VolumeLock) -> None:
        """Let objects be locked from now on, for good, and say what holds for those that come without retention.

        Raises:
            InvalidArgument: The volume does not keep versions, or the period is out of range.
        """
        raise NotImplementedError

    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        """Keep or drop a protocol-owned document of at most 60 KiB on the volume."""
        raise NotImplementedError

    # Objects --------------------------------------------------------------------------------------

    async def head(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes | None = None
    ) -> ObjectInfo:
        """Describe the current object, or the named version; with a `secret`, empty or not, judge that it opens the content.

        Raises:
            VolumeNotFound, NotFound, VersionNotFound
            IsDeleteMarker: The current (or named) version is a marker.
            Sealed: The secret is missing, wrong or needless.
        """
        raise NotImplementedError

    async def readable(self, volume: str, key: bytes, caller: Caller, *, version: str = "") -> bool:
        """Say whether a caller could read, as a file, what is at a key; so it is where there are no files.

        Raises:
            VolumeNotFound
        """
        return True

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        """Open for reading; raises as `head`, and as key services do."""
        raise NotImplementedError

    def head_now(self, volume: str, key: bytes) -> ObjectInfo | None:
        """Describe the current object if nothing has to be waited for, else None, also where it is missing: then `head`."""
        return None

    def open_now(self, volume: str, key: bytes) -> Reader | None:
        """Open the current object if nothing has to be waited for, else None, also where it is missing: then `open`."""
        return None

    async def put(
        self,
        volume: str,
        key: bytes,
        payload: Buffer,
        attributes: Attributes,
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """Store a small object (at most SMALL_MAX) in one go; on return it is durable and visible.

        Raises:
            KeyNotFound, KeyDisabled, Sealed: The content cannot be sealed as wished.
            AlreadyExists: The version that its provenance names is there.
            PreconditionFailed, NoSpace, VolumeNotFound, NameTooLong
            NotFound: `condition.etag` was given and there is no object.
        """
        raise NotImplementedError

    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> Writer:
        """Begin a large object; `size` is a hint for placement. A condition that does not hold already is refused here.

        Raises:
            KeyNotFound, KeyDisabled, Sealed: The content cannot be sealed as wished.
            VolumeNotFound, ReadOnly, PreconditionFailed, NotFound
        """
        raise NotImplementedError

    async def copy(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        *,
        source_version: str = "",
        attributes: Attributes | None = None,
        digests: Digests | None = None,
        condition: Condition = ALWAYS,
        source_secret: bytes = b"",
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """Make an object of another's content; `attributes` replace the source's where given.

        It is by reference, and no byte moves, unless content is sealed that was not, or no more, or with a secret of its writer.
        `source_secret` is that of the source, `sealing` what the copy wishes.
        """
        raise NotImplementedError

    async def delete(
        self,
        volume: str,
        key: bytes,
        *,
        version: str = "",
        condition: Condition = ALWAYS,
        bypass: bool = False,
        origin: Origin | None = None,
        provenance: Provenance | None = None,
    ) -> Deleted:
        """Delete: the object, or (versioned) put a marker, or remove the named version for good.

        `bypass` ends retention in mode GOVERNANCE, which the caller has judged; nothing ends COMPLIANCE or a legal hold.
        With a `provenance` the marker that is put is the one that was put there.

        Raises:
            Retained: The version is locked.
            AlreadyExists, PreconditionFailed: The marker is there, or its place is another version's.
        """
        raise NotImplementedError

    async def delete_together(
        self, volume: str, keys: Sequence[bytes], *, origin: Origin | None = None
    ) -> Sequence[Deleted]:
        """Delete the current versions of up to TOGETHER_MAX keys as `delete` does, in as few commits as they fit into.

        What was deleted when it raises is not said: `delete` of each tells.
        """
        return [await self.delete(volume, key, origin=origin) for key in keys]

    async def set_tags(
        self,
        volume: str,
        key: bytes,
        tags: Mapping[str, str],
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """Replace the tags of a version; returns its version id."""
        raise NotImplementedError

    async def set_acl(
        self,
        volume: str,
        key: bytes,
        acl: bytes,
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """Replace the ACL of a version, which only the protocol can read; returns its version id."""
        raise NotImplementedError

    async def set_replication(
        self, volume: str, key: bytes, status: Replication, *, version: str = ""
    ) -> str:
        """Say how far the copy of a version to another site is; returns its version id."""
        raise NotImplementedError

    async def set_retention(
        self,
        volume: str,
        key: bytes,
        mode: LockMode,
        until_ns: int,
        *,
        version: str = "",
        bypass: bool = False,
    ) -> str:
        """Retain a version until a moment, an empty mode: no longer; returns its version id.

        It can be made longer by everybody, shorter or another only with `bypass`, and only in mode GOVERNANCE.

        Raises:
            Retained: It would become shorter or another.
            InvalidArgument: The volume has no object lock, or the moment is over.
            Locked: It is open for writing in place.
        """
        raise NotImplementedError

    async def restore(
        self,
        volume: str,
        key: bytes,
        days: int,
        *,
        tier: str = "",
        version: str = "",
        origin: Origin | None = None,
    ) -> bool:
        """Let the content of a version in an archive be readable for so many days; True if it has to be brought back first.

        Where it can be read already, that ends so many days from now instead.

        Raises:
            Archived: It is in no archive.
            Restoring: It is being brought back.
            InvalidArgument: The days are out of range.
            Unsupported: Nothing is restored here.
        """
        raise Unsupported("this view restores nothing")

    async def set_legal_hold(
        self, volume: str, key: bytes, held: bool, *, version: str = ""
    ) -> str:
        """Hold a version, or let it go; returns its version id.

        Raises:
            InvalidArgument: The volume has no object lock.
            Locked: It is open for writing in place.
        """
        raise NotImplementedError

    async def list(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Listing:
        """List current objects in key order; names with `delimiter` after `prefix` are rolled up into prefixes.

        `after` may be a key, a common prefix of an earlier page (which is then skipped as a whole), or any bytes.
        """
        raise NotImplementedError

    async def list_versions(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        version_marker: str = "",
        limit: int = 1000,
    ) -> VersionListing:
        """List all versions and markers in key order, newest first within a key."""
        raise NotImplementedError

    # Multipart uploads ----------------------------------------------------------------------------

    async def create_upload(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        checksum_algorithm: str = "",
        checksum_type: str = "",
        sealing: Sealing | None = None,
    ) -> UploadInfo:
        """Begin a multipart upload; all its parts are sealed alike."""
        raise NotImplementedError

    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        """Describe an upload.

        Raises:
            UploadNotFound
        """
        raise NotImplementedError

    async def part_writer(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        size: int | None = None,
        secret: bytes = b"",
    ) -> Writer:
        """Begin a part; its `commit` returns an ObjectInfo whose etag and size are the part's.

        Raises:
            UploadNotFound
            Sealed: The secret is not the one that the upload was begun with.
        """
        raise NotImplementedError

    async def copy_part(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        source_version: str = "",
        offset: int = 0,
        length: int | None = None,
        digests: Digests | None = None,
        source_secret: bytes = b"",
        secret: bytes = b"",
    ) -> PartInfo:
        """Make a part of a range of another object, by reference unless one of them is sealed.

        `digests` are of that range, where the caller has read it; without them the part's ETag is opaque (32 hex digits).
        """
        raise NotImplementedError

    async def list_parts(
        self, volume: str, key: bytes, upload: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Sequence[PartInfo], bool]:
        """Return parts with a number above `after`, ascending, and whether more follow."""
        raise NotImplementedError

    async def complete_upload(
        self,
        volume: str,
        key: bytes,
        upload: str,
        parts: Sequence[PartInfo],
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """Make the object of the named parts, by reference. Repeating it after success returns the same answer for a while.

        Raises:
            UploadNotFound
            InvalidArgument: A part is missing or its etag differs.
            PreconditionFailed: The upload stays as it was.
        """
        raise NotImplementedError

    async def abort_upload(self, volume: str, key: bytes, upload: str) -> None:
        """Drop an upload and its parts.

        Raises:
            UploadNotFound
        """
        raise NotImplementedError

    async def list_uploads(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        upload_marker: str = "",
        limit: int = 1000,
    ) -> tuple[Sequence[UploadInfo], Sequence[bytes], bool]:
        """Return uploads in key order (then by time), common prefixes, and whether more follow."""
        raise NotImplementedError
