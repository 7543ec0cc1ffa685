"""Persistent reservations of disks (SPC-4, 5.13): what each verb makes of a disk's row, and what a reservation refuses."""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.errors import Busy, InvalidArgument, Locked
from warp_core.views.blocks import REGISTRATIONS_MAX, Reservation, ReservationInfo

_ALL_REGISTRANTS: Final = (Reservation.WRITE_EXCLUSIVE_ALL, Reservation.EXCLUSIVE_ALL)
_REGISTRANTS: Final = (
    Reservation.WRITE_EXCLUSIVE_REGISTRANTS,
    Reservation.EXCLUSIVE_REGISTRANTS,
    *_ALL_REGISTRANTS,
)
_EXCLUSIVE: Final = (
    Reservation.EXCLUSIVE,
    Reservation.EXCLUSIVE_REGISTRANTS,
    Reservation.EXCLUSIVE_ALL,
)


class Reserved(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """B: who is registered with a disk, and its reservation. They are kept across restarts (SPC-4, APTPL)."""

    generation: int = 0
    keys: dict[str, int] = {}  # initiator → key
    kind: int = 0
    holder: str = ""


decode_reserved = msgspec.msgpack.Decoder(Reserved).decode


def register(row: Reserved, initiator: str, key: int, old: int | None) -> Reserved:
    """Register an initiator with a key, replace the key `old`, or (0) withdraw.

    Raises:
        InvalidArgument: The key is not a 64-bit number.
        Locked: `old` is not its key.
        Busy: REGISTRATIONS_MAX.
    """
    if not 0 <= key < 1 << 64:
        raise InvalidArgument(f"key {key} is not a 64-bit number")
    have = row.keys.get(initiator, 0)
    if old is not None and old != have:
        raise Locked(f"the key of {initiator} is not {old:#x}")
    registered = dict(row.keys)
    if key:
        registered[initiator] = key
    else:
        registered.pop(initiator, None)
    if len(registered) > REGISTRATIONS_MAX:
        raise Busy(f"{REGISTRATIONS_MAX} initiators are registered")
    return _without_orphan(row, registered)


def reserve(row: Reserved, initiator: str, key: int, kind: Reservation) -> Reserved:
    """Take the reservation.

    Raises:
        InvalidArgument: It has no kind.
        Locked: Another holds one, or `key` is not the initiator's.
    """
    if kind == Reservation.NONE:
        raise InvalidArgument("a reservation has a kind")
    _check_registered(row, initiator, key)
    if row.kind:
        if not holds(row, initiator) or row.kind != kind:
            raise Locked(f"the disk is reserved ({Reservation(row.kind).name})")
        return row
    return _held(row, initiator, kind)


def release(row: Reserved, initiator: str, key: int, kind: Reservation) -> Reserved:
    """Give the reservation back; without holding it nothing happens.

    Raises:
        Locked: `key` is not the initiator's.
        InvalidArgument: The reservation is of another kind.
    """
    _check_registered(row, initiator, key)
    if not row.kind or not holds(row, initiator):
        return row
    if row.kind != kind:
        raise InvalidArgument(f"the reservation is {Reservation(row.kind).name}")
    return msgspec.structs.replace(row, kind=0, holder="")


def preempt(row: Reserved, initiator: str, key: int, victim: int, kind: Reservation) -> Reserved:
    """Remove all registrations with the key `victim`, and take the reservation if it was theirs.

    Raises:
        Locked: `key` is not the initiator's, or nobody has `victim`.
    """
    _check_registered(row, initiator, key)
    gone = {who for who, each in row.keys.items() if each == victim}
    if not gone:
        raise Locked(f"nobody is registered with {victim:#x}")
    theirs = bool(row.kind) and (
        row.holder in gone or (row.kind in _ALL_REGISTRANTS and initiator not in gone)
    )
    left = {who: each for who, each in row.keys.items() if who not in gone or who == initiator}
    row = msgspec.structs.replace(row, keys=left, generation=row.generation + 1)
    return _held(row, initiator, kind) if theirs else row


def clear(row: Reserved, initiator: str, key: int) -> Reserved:
    """Remove reservation and registrations.

    Raises:
        Locked: `key` is not the initiator's.
    """
    _check_registered(row, initiator, key)
    return msgspec.structs.replace(row, keys={}, kind=0, holder="", generation=row.generation + 1)


def holds(row: Reserved, initiator: str) -> bool:
    """Say whether an initiator holds the reservation that there is."""
    if row.kind in _ALL_REGISTRANTS:
        return initiator in row.keys
    return row.holder == initiator


def check_write(row: Reserved, initiator: str) -> None:
    """Refuse changes that a reservation refuses (SPC-4, table 65).

    Raises:
        Locked
    """
    if not row.kind or holds(row, initiator):
        return
    if row.kind in _REGISTRANTS and initiator in row.keys:
        return
    raise Locked(f"the disk is reserved ({Reservation(row.kind).name})")


def check_read(row: Reserved, initiator: str) -> None:
    """Refuse reads that a reservation refuses (SPC-4, table 65).

    Raises:
        Locked
    """
    if row.kind in _EXCLUSIVE:
        check_write(row, initiator)


def show(row: Reserved) -> ReservationInfo:
    """Return what a row tells its readers."""
    registered = tuple(sorted(row.keys.items()))
    return ReservationInfo(row.generation, registered, Reservation(row.kind), row.holder)


def _check_registered(row: Reserved, initiator: str, key: int) -> None:
    if not key or row.keys.get(initiator) != key:
        raise Locked(f"{initiator} is not registered with {key:#x}")


def _held(row: Reserved, initiator: str, kind: Reservation) -> Reserved:
    holder = "" if kind in _ALL_REGISTRANTS else initiator
    return msgspec.structs.replace(row, kind=int(kind), holder=holder)


def _without_orphan(row: Reserved, registered: dict[str, int]) -> Reserved:
    """Return the row with other registrations; a reservation ends with its holder's, or with the last one (SPC-4, 5.13.11.2)."""
    over = row.kind and (
        not registered if row.kind in _ALL_REGISTRANTS else row.holder not in registered
    )
    return msgspec.structs.replace(
        row,
        keys=registered,
        generation=row.generation + 1,
        kind=0 if over else row.kind,
        holder="" if over else row.holder,
    )
