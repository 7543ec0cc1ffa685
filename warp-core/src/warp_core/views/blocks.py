"""Blocks: the disk-shaped view. A disk is a regular file marked as one, with a fixed size; NBD, iSCSI and NVMe export it.

File protocols and S3 see the same bytes under the same name, and everybody's leases are called back before a block is written.
While a disk is open nobody replaces, renames or removes it: a PUT, a rename or an unlink gets Locked.

Durability: what a `write` returned for is durable after `flush`, of whatever connection, or at once with `fua`. Before that a crash
may lose any of it, block by block, and never mixes two writes within one block of BLOCK bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from warp_core.views.files import Ref  # at run time too: whoever decodes a DiskInfo needs it

if TYPE_CHECKING:
    from warp_core.interfaces.stores import Buffer

BLOCK = 512  # bytes; the smallest unit that any of the protocols addresses
IO_MAX = 32 * 1024 * 1024  # bytes of one read or write: NBD's maximum payload
TRANSFER_BEST = 1024 * 1024  # one packed row of extents
COMPARE_MAX = 1024 * 1024  # bytes of one compare_and_write
REGISTRATIONS_MAX = 256  # initiators registered with one disk


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One disk."""

    ref: Ref
    volume: str
    path: bytes
    size: int
    allocated: int  # bytes that lie in chunks
    read_only: bool = False
    serial: str = ""  # 16 hex digits, the same as long as the disk lives
    # Of the home: while it stays the same, what was written and not flushed is still there; after it changed it may be lost.
    incarnation: str = ""


class Status(NamedTuple):
    """One run of a block status: `hole` reads as zeros and takes no space."""

    offset: int
    length: int
    hole: bool


Run: TypeAlias = "tuple[int, int, Buffer | None]"
"""(offset, length, bytes) of a run of bytes of a disk; without bytes it is a hole, which reads as zeros."""


class Reservation(IntEnum):
    """Persistent reservations; the values are SPC-4's types (NVMe's are the same in another order)."""

    NONE = 0
    WRITE_EXCLUSIVE = 1
    EXCLUSIVE = 3
    WRITE_EXCLUSIVE_REGISTRANTS = 5
    EXCLUSIVE_REGISTRANTS = 6
    WRITE_EXCLUSIVE_ALL = 7
    EXCLUSIVE_ALL = 8


class ReservationInfo(NamedTuple):
    """What READ KEYS and READ RESERVATION tell."""

    generation: int  # grows with every registration, preemption and clear
    keys: tuple[tuple[str, int], ...]  # (initiator, key) of each registration
    kind: Reservation
    holder: str  # initiator; "" without reservation, and where all registrants hold it


class Disk:
    """An open disk, one for each connection. Reads and writes may be made concurrently."""

    info: DiskInfo

    @property
    def size(self) -> int:
        """The disk's size now, in bytes."""
        raise NotImplementedError

    async def read(self, offset: int, length: int) -> Buffer:
        """Return exactly these bytes.

        Raises:
            OutOfRange: Past the end.
            Locked: Reserved for others (RESERVATION CONFLICT).
            Corrupt: No good copy is left of some frame.
        """
        raise NotImplementedError

    async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
        """Return these bytes as runs of data and hole, back to back; raises as `read`."""
        return [(offset, length, await self.read(offset, length))] if length else []

    def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
        """Return what `read_runs` would if nothing has to be waited for, else None; raises as `read`."""
        return None

    def write_now(self, offset: int, data: Buffer) -> bool:
        """Write like `write` if nothing has to be waited for, and say whether it was done; raises as `write`."""
        return False

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write; with `fua` it is durable on return. `data` may be reused then.

        Raises:
            OutOfRange, Locked: As `read`.
            ReadOnly, NoSpace, QuotaExceeded
        """
        raise NotImplementedError

    async def flush(self) -> None:
        """Make every write that returned, of all connections, durable.

        Raises:
            StoreFailed: Some may not be.
        """
        raise NotImplementedError

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give space back: the range reads as zeros afterwards."""
        raise NotImplementedError

    async def zero(
        self, offset: int, length: int, *, fua: bool = False, may_trim: bool = True
    ) -> None:
        """Make the range read as zeros; with `may_trim` its space is given back."""
        raise NotImplementedError

    async def status(self, offset: int, length: int, *, limit: int = 1024) -> Sequence[Status]:
        """Return runs of data and hole, back to back from `offset`; at most `limit`, so perhaps not up to the end."""
        raise NotImplementedError

    async def compare_and_write(
        self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
    ) -> None:
        """Write if the disk holds `expected` there; atomic against all other verbs.

        Raises:
            PreconditionFailed: It does not (MISCOMPARE); `condition` is the offset of the first byte that differs.
            InvalidArgument: The lengths differ, or are more than COMPARE_MAX.
        """
        raise NotImplementedError

    def resizes(self) -> AsyncIterator[int]:
        """Yield the new size after each resize, until `close`."""
        raise NotImplementedError

    # Persistent reservations (SPC-4, 5.13; NVM Command Set, reservations): kept across restarts -----

    async def register(self, key: int, *, old: int | None = None) -> None:
        """Register this connection's initiator with a key, replace the key `old`, or (0) withdraw.

        Raises:
            Locked: `old` is not its key.
            Busy: REGISTRATIONS_MAX.
        """
        raise NotImplementedError

    async def reserve(self, key: int, kind: Reservation) -> None:
        """Take the reservation.

        Raises:
            Locked: Another holds one, or `key` is not registered.
        """
        raise NotImplementedError

    async def release(self, key: int, kind: Reservation) -> None:
        """Give the reservation back; without holding it nothing happens.

        Raises:
            Locked: `key` is not registered.
            InvalidArgument: It is of another kind.
        """
        raise NotImplementedError

    async def preempt(self, key: int, victim: int, kind: Reservation) -> None:
        """Remove all registrations with the key `victim`, and take the reservation if it was theirs.

        Raises:
            Locked: `key` is not registered, or nobody has `victim`.
        """
        raise NotImplementedError

    async def clear(self, key: int) -> None:
        """Remove reservation and registrations.

        Raises:
            Locked: `key` is not registered.
        """
        raise NotImplementedError

    async def reservations(self) -> ReservationInfo:
        """Return registrations and reservation."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close; harmless when repeated. Does not flush."""
        raise NotImplementedError


class Blocks:
    """The view. One instance serves every volume; all calls are safe to make concurrently."""

    incarnation: str  # see `DiskInfo`; of one home only

    async def create(self, volume: str, path: bytes, *, size: int | None) -> DiskInfo:
        """Make a sparse disk, with the directories on the way; without `size`, make a disk of the file that exists.

        Raises:
            AlreadyExists: There is something, and `size` was given.
            NotFound: There is nothing, and `size` was not given.
            InvalidArgument: The size is not a positive multiple of BLOCK.
            VolumeNotFound, IsADirectory
        """
        raise NotImplementedError

    async def open(
        self,
        volume: str,
        path: bytes,
        *,
        initiator: str,
        read_only: bool = False,
        snapshot: str = "",
    ) -> Disk:
        """Open a disk, or (read only) a snapshot of it, for one connection of an initiator (its IQN, NQN or address).

        Raises:
            NotFound, VolumeNotFound
            InvalidArgument: The file is no disk.
            Locked: Somebody has the file open and denies it.
        """
        raise NotImplementedError

    async def show(self, volume: str, path: bytes, *, snapshot: str = "") -> DiskInfo:
        """Describe a disk, or a snapshot of it as the disk that it was; raises as `open`."""
        raise NotImplementedError

    async def disks(self, volume: str = "") -> list[DiskInfo]:
        """Return all disks of a volume, or of all of them, by volume and path."""
        raise NotImplementedError

    async def resize(self, volume: str, path: bytes, size: int) -> DiskInfo:
        """Change a disk's size; open ones are told. Shrinking drops what is cut off.

        Raises:
            InvalidArgument: As `create`.
        """
        raise NotImplementedError

    async def clone(
        self, volume: str, path: bytes, target: bytes, *, snapshot: str = ""
    ) -> DiskInfo:
        """Make a new disk of a disk's content, now or as a snapshot of it was, without copying bytes.

        Raises:
            AlreadyExists, NotFound
        """
        raise NotImplementedError

    async def snapshot(self, volume: str, path: bytes, snapshot: str) -> None:
        """Keep what the disk holds now under a name.

        Raises:
            AlreadyExists, NotFound
        """
        raise NotImplementedError

    async def snapshots(self, volume: str, path: bytes) -> list[str]:
        """Return the names of a disk's snapshots, oldest first."""
        raise NotImplementedError

    async def delete_snapshot(self, volume: str, path: bytes, snapshot: str) -> None:
        """Drop a snapshot of a disk; space that only it held is freed."""
        raise NotImplementedError

    async def delete(self, volume: str, path: bytes) -> None:
        """Remove a disk and its snapshots.

        Raises:
            Busy: It is open.
            NotFound
        """
        raise NotImplementedError
