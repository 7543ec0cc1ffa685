"""A directory's names in the order of their cookies: hashes of names, so that a cookie means the same for ever.

An entry is one string of bytes, cookie first, that sorts by itself: a million of them are a hundred MiB, and no listing has to sort
more than the part of the order that it is in.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.namespace import keys, rows
from warp_core.namespace.rows import decode_name
from warp_core.namespace.tree import Rows
from warp_core.views.files import NAME_MAX

PARTS: Final = 256  # of the order, each sorted when a listing comes to it
_SHIFT: Final = 63 - 8  # a cookie's part is its upper eight bits of 63
_TAIL: Final = 10  # bytes behind the name: zero, kind, inode


class Entry(NamedTuple):
    """A name and what it leads to; `kind` is that of the name's row."""

    cookie: int
    name: bytes
    kind: int
    inode: int


class Order:
    """The entries of one directory as they were at some moment."""

    __slots__ = ("_parts", "_sorted", "built_s", "continued", "count", "stamp")

    def __init__(self, stamp: int | None, built_s: float) -> None:
        """Begin empty.

        Args:
            stamp: What changes whenever an entry does; None where nothing does.
            built_s: When, on a clock that never goes back.
        """
        self.stamp = stamp
        self.built_s = built_s
        self.count = 0
        self.continued = False  # long names, whose changes the stamp does not tell
        self._parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._sorted = [False] * PARTS

    def add(self, name: bytes, kind: int, inode: int) -> None:
        """Add an entry; of two with one name, the directory counts."""
        cookie = cookie_of(name)
        packed = b"%b%b\0%c%b" % (cookie.to_bytes(8, "big"), name, kind, inode.to_bytes(8, "big"))
        self._parts[cookie >> _SHIFT].append(packed)
        self.count += 1

    def page(self, cookie: int, limit: int) -> tuple[list[Entry], bool]:
        """Return up to `limit` entries after a cookie, and whether no more follow."""
        found: list[Entry] = []
        for number in range(cookie >> _SHIFT, PARTS):
            part = self._part(number)
            at = bisect_left(part, (cookie + 1).to_bytes(8, "big"))
            taken = part[at : at + limit - len(found) + 1]
            for packed in taken:
                if len(found) == limit:
                    return found, False
                found.append(_unpacked(packed))
        return found, True

    def _part(self, number: int) -> list[bytes]:
        part = self._parts[number]
        if not self._sorted[number]:
            part.sort()
            if any(map(_alike, part, part[1:])):
                part = self._parts[number] = list(_told_apart(part))
            self._sorted[number] = True
        return part


async def ordered(
    stored: Rows, directory: int, stamp: int | None, now: Callable[[], float]
) -> Order:
    """Return the entries of a directory that a file system can show, read page by page; others get their turn between pages."""
    order = Order(stamp, now())
    await _gather(stored, directory, b"", order)
    return order


async def _gather(stored: Rows, directory: int, head: bytes, order: Order) -> None:
    start, end = keys.names_of(directory)
    while page := await stored.scan(start, end):
        for key, value in page:
            name = decode_name(value)
            raw = head + keys.raw_of(key[keys.NAME_AT :])
            if name.kind == rows.CONTINUED:
                order.continued = True
                await _gather(stored, name.inode, raw, order)
                continue
            if is_directory(name.kind):
                raw = raw[:-1]
            if expressible(raw):
                order.add(raw, name.kind, name.inode)
        if len(page) < SCAN_MAX:
            return
        start = page[-1][0] + b"\0"
        await asyncio.sleep(0)


def is_directory(kind: int) -> bool:
    """Say whether the row of a name is that of a directory, made or implied."""
    return kind in (rows.DIRECTORY, rows.IMPLIED)


def cookie_of(name: bytes) -> int:
    """Return the cookie of a name: 63 bits, never 0, 1 or 2 (which protocols use for the start, `.` and `..`)."""
    return max(3, xxh3_64_intdigest(name) >> 1)


def expressible(name: bytes) -> bool:
    """Say whether a file system can show the name; others exist for S3 only."""
    return 0 < len(name) <= NAME_MAX and name not in (b".", b"..") and b"\0" not in name


def _unpacked(packed: bytes) -> Entry:
    return Entry(
        int.from_bytes(packed[:8], "big"),
        packed[8:-_TAIL],
        packed[1 - _TAIL],
        int.from_bytes(packed[-8:], "big"),
    )


def _alike(one: bytes, other: bytes) -> bool:
    return one[:8] == other[:8]


def _told_apart(part: list[bytes]) -> Iterator[bytes]:
    """Yield sorted entries, one for each name, each with a cookie of its own: one in 2^63 is its hash plus one."""
    last = 0
    waiting: bytes | None = None
    for packed in part:
        if waiting is not None and _same_name(waiting, packed):
            if is_directory(packed[1 - _TAIL]):
                waiting = packed
            continue
        if waiting is not None:
            last, waiting = _with_cookie(waiting, last)
            yield waiting
        waiting = packed
    if waiting is not None:
        yield _with_cookie(waiting, last)[1]


def _same_name(one: bytes, other: bytes) -> bool:
    return one[:-_TAIL] == other[:-_TAIL]


def _with_cookie(packed: bytes, last: int) -> tuple[int, bytes]:
    cookie = max(int.from_bytes(packed[:8], "big"), last + 1)
    return cookie, cookie.to_bytes(8, "big") + packed[8:]
