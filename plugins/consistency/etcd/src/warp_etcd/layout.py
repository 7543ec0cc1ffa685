"""Keys and values of WARP in etcd's key space, and back (`docs/formats/etcd.md`).

Everything lies below one prefix, so that a cluster may be shared. One letter after it tells what follows:

    d KEY       a row: the version of its commit (8 bytes, big endian), then the value
    e VERSION   an entry of the log: what a batch of commits changed; the version is its last, big endian
    g           the head: format and newest version; every batch writes it under the condition that it is unchanged
    l NAME      a lease's holder, gone with its etcd lease
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from warp_core.errors import Corrupt, NewerFormat

FORMAT = 1
VERSION_SIZE = 8  # bytes of a version, big endian so that entries sort by it


class Noted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One commit in the log: which rows it set and which it deleted."""

    version: int
    request_id: bytes
    written: tuple[bytes, ...]
    deleted: tuple[bytes, ...]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One batch in the log. `before` is the version of the batch before it, so that a hole is seen."""

    format: int
    before: int
    commits: tuple[Noted, ...]


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the head says."""

    format: int
    version: int


class Holder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who holds a lease."""

    format: int
    holder: str
    ttl_s: float
    rewritten: bool = False  # by each renewal; releases before this was there did not


Sent = TypeVar("Sent", Entry, Head, Holder)

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_holder = msgspec.msgpack.Decoder(Holder).decode


class Layout:
    """The keys below one prefix."""

    __slots__ = ("_row_size", "entries", "head", "leases", "log_end", "prefix", "rows")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self.rows = self.prefix + b"d"
        self.entries = self.prefix + b"e"
        self.log_end = (
            self.prefix + b"f"
        )  # rows and entries lie in [rows, log_end): one watch sees both
        self.head = self.prefix + b"g"
        self.leases = self.prefix + b"l"
        self._row_size = len(self.rows)

    def row(self, key: bytes) -> bytes:
        """Return where a row lies."""
        return self.rows + key

    def key(self, key: bytes) -> bytes:
        """Return the row's key of one of etcd's."""
        return key[self._row_size :]

    def entry(self, version: int) -> bytes:
        """Return where the batch lies that ends with a version."""
        return self.entries + version.to_bytes(VERSION_SIZE, "big")

    def lease(self, name: str) -> bytes:
        """Return where a lease lies."""
        return self.leases + name.encode()


def pack_row(version: int, value: bytes) -> bytes:
    """Return what etcd keeps for a row."""
    return version.to_bytes(VERSION_SIZE, "big") + value


def unpack_row(packed: bytes) -> tuple[bytes, int]:
    """Return value and version.

    Raises:
        Corrupt: It is too short to be a row.
    """
    if len(packed) < VERSION_SIZE:
        raise Corrupt(f"a row of {len(packed)} bytes in etcd is none of WARP's")
    return packed[VERSION_SIZE:], int.from_bytes(packed[:VERSION_SIZE], "big")


def pack_entry(before: int, commits: tuple[Noted, ...]) -> bytes:
    """Return a log entry."""
    return _encode(Entry(FORMAT, before, commits))


def unpack_entry(packed: bytes) -> Entry:
    """Read a log entry; raises as `unpack_head`."""
    return _checked(_decode_entry, packed, "log entry")


def pack_head(version: int) -> bytes:
    """Return the head."""
    return _encode(Head(FORMAT, version))


def unpack_head(packed: bytes) -> Head:
    """Read the head.

    Raises:
        NewerFormat: A newer release wrote it.
        Corrupt: It is none of WARP's.
    """
    return _checked(_decode_head, packed, "head")


def pack_holder(holder: str, ttl_s: float) -> bytes:
    """Return a lease's row."""
    return _encode(Holder(FORMAT, holder, ttl_s, rewritten=True))


def unpack_holder(packed: bytes) -> Holder:
    """Read a lease's row; raises as `unpack_head`."""
    return _checked(_decode_holder, packed, "lease")


def _checked(decode: Callable[[bytes], Sent], packed: bytes, what: str) -> Sent:
    try:
        value = decode(packed)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"the {what} in etcd is none of WARP's: {error}") from error
    if value.format > FORMAT:
        raise NewerFormat(
            f"the {what} in etcd has format {value.format}; this release reads up to {FORMAT}"
        )
    return value
