"""Keys of the namespace's rows: how names become bytes whose order is S3's order (`docs/formats/rows.md`).

A *component* is what lies between slashes. Its row key is the name with `00` escaped as `00 FF`, then `00 00` for a file,
`2F 00 00` for a directory, `00 01` for a continuation. So an object `a` (`61 00 00`) sorts before `a\\0` (`61 00 FF 00 00`) and
`a-b` (`61 2D ...`), those before everything in `a/` (`61 2F 00 00`), and that before `a0`: a depth-first walk yields keys in
byte order.

A component of NODE_BYTES or more continues in another node: its first NODE_BYTES bytes are a continuation entry, the rest is
looked up in the node that the entry leads to, as if it were a name there. The split is made on raw bytes, then both sides are
escaped, so the order survives. Every key stays within what any engine takes (`KEY_MAX`), archived ones included.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from warp_core.errors import InvalidArgument

# Raw bytes of a component in one row: escaped at most 400, which leaves room for every prefix and tail.
NODE_BYTES: Final = 200
# Prefixes of keys whose steps are remembered: requests share few. A KiB each as a rule, 100 KiB where all is slashes.
PREFIXES_MAX: Final = 1024
ROOT: Final = 1  # the root directory of every volume
PREFIX_BYTES: Final = 5  # "v" + volume

FILE_END: Final = b"\0\0"
DIRECTORY_END: Final = b"/\0\0"
CONTINUED_END: Final = b"\0\1"

_new = tuple.__new__
_U64 = Struct(">Q")
_VOLUME = Struct(">cI")
_U64_MAX: Final = 2**64 - 1

# Rows outside any volume -------------------------------------------------------------------------

IDS: Final = b"i"  # next id that no node has reserved
GARBAGE: Final = b"g"  # g, commit version, number within the commit
GARBAGE_END: Final = b"h"
NAMES: Final = b"n"  # n, volume name
NAMES_END: Final = b"o"
FILES_DONE: Final = b"c"  # position in the journal up to which files' rows tell all
NUMBERS: Final = b"m"  # m, volume number
LOCK_CLOCK: Final = b"l"  # what the clock of object lock showed last
ACCOUNT_POOLS: Final = (b"qa", b"qb")  # quotas of accounts


def volume_name_key(name: str) -> bytes:
    """Return the key of the row that describes the volume."""
    return NAMES + name.encode()


def volume_number_key(volume: int) -> bytes:
    """Return the key of the row that tells a volume's name from its number."""
    return NUMBERS + volume.to_bytes(4, "big")


def account_pool_key(account: str) -> bytes:
    """q: the quota of an account."""
    return ACCOUNT_POOLS[0] + account.encode()


def volume_pool_key(volume: int) -> bytes:
    """q: what there is to say of a volume's quota besides its limits."""
    return b"qv" + volume.to_bytes(4, "big")


def owner_pool_key(volume: int, owner: str) -> bytes:
    """q: what there is to say of a user's or group's quota in a volume besides its limits."""
    return b"qo" + volume.to_bytes(4, "big") + owner.encode()


OWNERS: Final = (b"o", b"p")


def owner_key(owner: str) -> bytes:
    """o: what a user ("uid:1000") or group ("gid:100") has in the volume, by merges: files, bytes."""
    return OWNERS[0] + owner.encode()


def prefix(volume: int) -> bytes:
    """Return what all rows of a volume begin with; the keys below are relative to it."""
    return _VOLUME.pack(b"v", volume)


def after(start: bytes) -> bytes:
    """Return the smallest key greater than every key that begins with `start`; empty if there is none."""
    stripped = start.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b""


# Components --------------------------------------------------------------------------------------


def escape(raw: bytes) -> bytes:
    """Escape zeros, so that the ends below cannot occur inside; order is kept."""
    return raw.replace(b"\0", b"\0\xff") if b"\0" in raw else raw


def unescape(escaped: bytes) -> bytes:
    """Undo `escape`."""
    return escaped.replace(b"\0\xff", b"\0") if b"\0" in escaped else escaped


class Step(NamedTuple):
    """One row on the way to a name: `key` is the escaped component with its end, `raw` what it adds to the S3 key."""

    key: bytes
    raw: bytes


def steps(key: bytes) -> list[Step]:
    """Return the rows on the way from the root to an S3 key: directories and continuations, last the file.

    >>> [step.key for step in steps(b"a/b")]
    [b'a/\\x00\\x00', b'b\\x00\\x00']
    """
    cut = key.rfind(b"/") + 1
    name = key[cut:]
    if len(name) < NODE_BYTES:
        last = _new(Step, (escape(name) + FILE_END, name))
        return [*_above(key[:cut]), last] if cut else [last]
    path = [*_above(key[:cut])]
    while len(name) >= NODE_BYTES:
        path.append(_continued(name))
        name = name[NODE_BYTES:]
    path.append(Step(escape(name) + FILE_END, name))
    return path


@lru_cache(maxsize=PREFIXES_MAX)
def _above(prefix: bytes) -> tuple[Step, ...]:
    """Return the rows on the way through a prefix of keys, which is empty or ends with a slash."""
    path: list[Step] = []
    for component in prefix.split(b"/")[:-1]:
        while len(component) >= NODE_BYTES:
            path.append(_continued(component))
            component = component[NODE_BYTES:]
        path.append(Step(escape(component) + DIRECTORY_END, component + b"/"))
    return tuple(path)


def name_steps(name: bytes, *, directory: bool) -> list[Step]:
    """Return the rows on the way from a directory to one of its entries: continuations, then the entry (`name` holds no slash)."""
    return steps(name + b"/")[:-1] if directory else steps(name)


def _continued(component: bytes) -> Step:
    head = component[:NODE_BYTES]
    return Step(escape(head) + CONTINUED_END, head)


def raw_of(component: bytes) -> bytes:
    """Return what a component with its end adds to the S3 key: the inverse of `Step.key`."""
    return unescape(component[:-2])


def end_of_component(key: bytes, start: int) -> int:
    """Return where the component that begins at `start` ends (its end included), in a key that goes on behind it.

    Raises:
        InvalidArgument: No end follows: not a key of ours.
    """
    index = key.find(b"\0", start)
    while index >= 0:
        following = key[index + 1 : index + 2]
        if following != b"\xff":
            return index + 2
        index = key.find(b"\0", index + 2)
    raise InvalidArgument(f"component without an end in key {key!r}")


# Rows of a volume, relative to its prefix --------------------------------------------------------


def u64(number: int) -> bytes:
    """Pack an id, big endian so that order is kept."""
    return _U64.pack(number)


def descending(number: int) -> bytes:
    """Pack a number so that greater ones sort first."""
    return _U64.pack(_U64_MAX - number)


def from_descending(packed: bytes) -> int:
    """Undo `descending`."""
    return _U64_MAX - int.from_bytes(packed, "big")


def name_key(directory: int, component: bytes) -> bytes:
    """D: the live entry of a directory; `component` with its end."""
    return b"D" + _U64.pack(directory) + component


def names_of(directory: int) -> tuple[bytes, bytes]:
    """Return the range of D rows of a directory."""
    return b"D" + _U64.pack(directory), b"D" + _U64.pack(directory + 1)


NAME_AT: Final = 9  # where the component begins in a relative D or V key


def version_key(directory: int, component: bytes, sequence: int) -> bytes:
    """V: a noncurrent version or a delete marker, newest first within its name."""
    return b"V" + _U64.pack(directory) + component + _U64.pack(_U64_MAX - sequence)


def versions_of_name(directory: int, component: bytes) -> tuple[bytes, bytes]:
    """Return the range of V rows of one name, the null pointer excluded (it sorts before)."""
    base = b"V" + _U64.pack(directory) + component
    return base + b"\1", base + b"\xff" * 9


def null_version_key(directory: int, component: bytes) -> bytes:
    """V: says which noncurrent version of the name is the null version."""
    return b"V" + _U64.pack(directory) + component + b"\0"


def kept_directory_key(directory: int, component: bytes) -> bytes:
    """V: keeps the id of a directory or continuation as long as versions lie below it."""
    return b"V" + _U64.pack(directory) + component


def versions_of(directory: int) -> tuple[bytes, bytes]:
    """Return the range of V rows of a directory."""
    return b"V" + _U64.pack(directory), b"V" + _U64.pack(directory + 1)


def revision_key(revision: int) -> bytes:
    """R: immutable content and its attributes."""
    return b"R" + _U64.pack(revision)


def inode_key(inode: int) -> bytes:
    """I: an inode that something sets apart from its only name."""
    return b"I" + _U64.pack(inode)


def window_key(revision: int, window: int) -> bytes:
    """E: extents of one 1 MiB window of content that is written at random."""
    return b"E" + _U64.pack(revision) + _U64.pack(window)


def windows_of(revision: int) -> tuple[bytes, bytes]:
    """Return the range of E rows of a revision."""
    return b"E" + _U64.pack(revision), b"E" + _U64.pack(revision + 1)


def pending_key(revision: int, epoch: int) -> bytes:
    """N: windows of a revision are still to get changes that were made until the end of an epoch."""
    return b"N" + _U64.pack(revision) + _U64.pack(epoch)


def pending_parts(key: bytes) -> tuple[int, int]:
    """Undo `pending_key`."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:17], "big")


PENDING: Final = (b"N", b"O")


def drain_key(revision: int) -> bytes:
    """W: a dropped revision whose windows are still to be removed: they are too many for the transaction that dropped it."""
    return b"W" + _U64.pack(revision)


DRAINS: Final = (b"W", b"X")


def orphan_key(inode: int) -> bytes:
    """O: an inode without a name, kept for those who have it open."""
    return b"O" + _U64.pack(inode)


ORPHANS: Final = (b"O", b"P")


def disk_key(inode: int) -> bytes:
    """J: a file that is a disk, and its serial."""
    return b"J" + _U64.pack(inode)


DISKS: Final = (b"J", b"K")


def due_key(moment_ns: int, revision: int) -> bytes:
    """M: content of an archive has to be brought back (moment 0), or its copy dropped."""
    return b"M" + _U64.pack(moment_ns) + _U64.pack(revision)


def due_until(moment_ns: int) -> tuple[bytes, bytes]:
    """Return the range of M rows that are due at a moment."""
    return b"M", b"M" + _U64.pack(moment_ns + 1)


def due_parts(key: bytes) -> tuple[int, int]:
    """Undo `due_key`."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:17], "big")


def reserved_key(inode: int) -> bytes:
    """B: registrations and reservation of a disk."""
    return b"B" + _U64.pack(inode)


def cookie_key(directory: int, cookie: int) -> bytes:
    """C: 63-bit hash of the case-folded name → name."""
    return b"C" + _U64.pack(directory) + _U64.pack(cookie)


def cookies_of(directory: int) -> tuple[bytes, bytes]:
    """Return the range of C rows of a directory."""
    return b"C" + _U64.pack(directory), b"C" + _U64.pack(directory + 1)


def archive_key(key: bytes, death: int) -> bytes:
    """A: what a relative key held until epoch `death`."""
    return b"A" + key + _U64.pack(death)


def archive_parts(key: bytes) -> tuple[bytes, int]:
    """Undo `archive_key`."""
    return key[1:-8], int.from_bytes(key[-8:], "big")


def dead_key(snapshot: int, key: bytes, death: int) -> bytes:
    """L: an entry of a snapshot's dead list, names the archived row."""
    return b"L" + _U64.pack(snapshot) + key + _U64.pack(death)


def dead_of(snapshot: int) -> tuple[bytes, bytes]:
    """Return the range of a snapshot's dead list."""
    return b"L" + _U64.pack(snapshot), b"L" + _U64.pack(snapshot + 1)


def dead_parts(key: bytes) -> tuple[bytes, int]:
    """Return the key and the death of the archived row that a dead list entry names."""
    return key[9:-8], int.from_bytes(key[-8:], "big")


def snapshot_key(snapshot: int) -> bytes:
    """S: a snapshot of the volume."""
    return b"S" + _U64.pack(snapshot)


SNAPSHOTS: Final = (b"S", b"T")


OF_REVISION: Final = b"r"  # what a holder begins with that is another revision


def holder_of_revision(volume: int, revision: int) -> bytes:
    """Return how a revision (a copy, or one written over another) is named as a holder."""
    return OF_REVISION + volume.to_bytes(4, "big") + _U64.pack(revision)


def holder_of_name(directory: int, component: bytes, sequence: int) -> bytes:
    """Return how a version of a name is named as a holder, current or not."""
    return b"n" + _U64.pack(directory) + component + _U64.pack(sequence)


def holder_of_inode(inode: int) -> bytes:
    """Return how an inode is named as a holder."""
    return b"i" + _U64.pack(inode)


def hold_key(revision: int, holder: bytes) -> bytes:
    """X: somebody besides its first holder needs the revision."""
    return b"X" + _U64.pack(revision) + holder


def holds_of(revision: int) -> tuple[bytes, bytes]:
    """Return the range of X rows of a revision."""
    return b"X" + _U64.pack(revision), b"X" + _U64.pack(revision + 1)


def left_key(revision: int) -> bytes:
    """Z: the revision's first holder is gone, others still need it."""
    return b"Z" + _U64.pack(revision)


def untidy_key(number: int) -> bytes:
    """Y: directories on the way to a key, the row's value, may have nothing below them."""
    return b"Y" + _U64.pack(number)


UNTIDY: Final = (b"Y", b"Z")


def upload_prefix(key: bytes) -> bytes:
    """Return what the U rows of an S3 key begin with; keys that share their first NODE_BYTES bytes share it."""
    if len(key) < NODE_BYTES:
        return b"U" + escape(key) + FILE_END
    return b"U" + escape(key[:NODE_BYTES]) + CONTINUED_END


def upload_key(key: bytes, upload: int) -> bytes:
    """U: a multipart upload in progress, by key, then by age."""
    return upload_prefix(key) + _U64.pack(upload)


UPLOADS: Final = (b"U", b"V")


def part_key(upload: int, number: int) -> bytes:
    """P: a part of an upload."""
    return b"P" + _U64.pack(upload) + number.to_bytes(2, "big")


def parts_of(upload: int, *, after: int = -1) -> tuple[bytes, bytes]:
    """Return the range of P rows of an upload with a number above `after`."""
    base = b"P" + _U64.pack(upload)
    return base + min(after + 1, 0xFFFF).to_bytes(2, "big"), b"P" + _U64.pack(upload + 1)


def usage_key(epoch: int) -> bytes:
    """Q: what the changes made in an epoch of the volume added to it, by merges."""
    return b"Q" + _U64.pack(epoch)


def usage_until(snapshot: int) -> tuple[bytes, bytes]:
    """Return the range of Q rows that make what a volume held at a snapshot; 0: what it holds now."""
    return b"Q", b"Q" + _U64.pack(snapshot) if snapshot else b"R"


def sole_key(death: int, born: int) -> bytes:
    """G: what archived rows of one death and birth hold alone, by merges."""
    return b"G" + _U64.pack(death) + _U64.pack(born)


def soles_of(start: int, end: int) -> tuple[bytes, bytes]:
    """Return the range of G rows with a death in [start, end); 0 as the end is none."""
    return b"G" + _U64.pack(start), b"G" + _U64.pack(end) if end else b"H"


def sole_parts(key: bytes) -> tuple[int, int]:
    """Return death and birth of a G row."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:17], "big")


BIRTHS: Final = b"b"
PLACES: Final = (b"p", b"q")


def birth_key(epoch: int, key: bytes) -> bytes:
    """b: a row that was not there before was made in an epoch, or what a name leads to changed without its row."""
    return b"b" + _U64.pack(epoch) + key


def births_of(epoch: int) -> bytes:
    """Return what the b rows of an epoch begin with."""
    return b"b" + _U64.pack(epoch)


def place_key(number: int) -> bytes:
    """p: where a directory or file was named that had no inode row then: directory (8) and component."""
    return b"p" + _U64.pack(number)


KEPT_BYTES: Final = b"H"  # what snapshots alone keep, by merges


def graves_of(key: bytes) -> tuple[bytes, bytes]:
    """Return the range of A rows of a key, by death."""
    return b"A" + key, b"A" + key + b"\xff" * 9


def times_key(directory: int) -> bytes:
    """T: when a directory's entries last changed, by merges."""
    return b"T" + _U64.pack(directory)


def branches_key(directory: int) -> bytes:
    """T: when a directory's directories last came or went, by merges."""
    return b"T" + _U64.pack(directory) + b"d"


FEED_TRIMMED: Final = b"f"  # 8 bytes: events up to this version were removed
FEED: Final = b"F"  # F, commit version, number within the commit
FEED_END: Final = b"G"


def document_key(name: str) -> bytes:
    """K: a document that a protocol keeps with the volume."""
    return b"K" + name.encode()


DOCUMENTS: Final = (b"K", b"L")


def progress_key(service: str) -> bytes:
    """w: how far a service has come in the volume, which it alone reads."""
    return b"w" + service.encode()
