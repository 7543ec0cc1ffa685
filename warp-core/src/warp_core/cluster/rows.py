"""Rows that all nodes of a cluster share, as they lie in the MetaStore (`docs/formats/cluster.md`).

They begin with SHARED, rows of domain n with `prefix(n)`. Domain 0 has no prefix: what a node wrote before it was in a
cluster is that.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from warp_core.errors import Corrupt, NewerFormat

FORMAT: Final = 1
SHARED: Final = b"C/"
ALONE: Final = SHARED + b"alone"
CLEAN: Final = SHARED + b"clean/"
DOMAINS: Final = SHARED + b"domain/"
LEFT: Final = SHARED + b"left/"
MEMBERS: Final = SHARED + b"member/"
ROOMS: Final = SHARED + b"room/"
VOLUMES: Final = SHARED + b"volume/"
WHOLE: Final = SHARED + b"whole/"
WISHES: Final = SHARED + b"wish/"
DOMAINS_MAX: Final = 65_536

R = TypeVar("R", bound=msgspec.Struct)


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """One store of a domain: where it lies, and under which name its node exports it."""

    store: str  # its id
    node: str
    export: str


class DomainRow(msgspec.Struct, array_like=True, frozen=True):
    """`domain/<n>`: changed by a takeover only, so that every commit of the domain may check that it did not change."""

    format: int
    origin: str  # name of the node that made it and usually holds it
    identity: str  # of that node's data: what the superblocks of the stores say
    holder: str  # node; "" after it was given back
    token: int  # of the holder's lease: fences older holders
    stores: tuple[Kept, ...]


class WholeRow(msgspec.Struct, array_like=True, frozen=True):
    """`whole/<n>`: ids of the stores that hold everything acknowledged; changed by the holder only."""

    format: int
    stores: tuple[str, ...]


class RoomRow(msgspec.Struct, array_like=True, frozen=True):
    """`room/<n>`: which node is asked to keep another copy of a domain, and the room that it made, until the domain's row names it."""

    format: int
    node: str
    export: str = ""  # "": not made yet
    store: str = ""  # its id


class AloneRow(msgspec.Struct, array_like=True, frozen=True):
    """`alone`: which run of which node has the rows that no cluster shares; every commit of it checks that this did not change."""

    format: int
    identity: str  # of the node's data directory
    run: str  # hex digits, others in each process


class MemberRow(msgspec.Struct, array_like=True, frozen=True):
    """`member/<name>`: a node, as it described itself at its last start."""

    format: int
    name: str
    address: str  # where peers reach it, as its transport writes addresses; "" for nobody
    transport: str
    endpoints: dict[str, str]  # protocol → URL
    identity: str = ""  # of its data directory
    fingerprint: str = ""  # of its certificate, hex


def prefix(domain: int) -> bytes:
    """Return what all rows of a domain begin with."""
    return b"D" + domain.to_bytes(2, "big") if domain else b""


def domain_key(domain: int) -> bytes:
    """Return the key of a domain's row."""
    return DOMAINS + domain.to_bytes(2, "big")


def whole_key(domain: int) -> bytes:
    """Return the key of the row that says which stores are whole."""
    return WHOLE + domain.to_bytes(2, "big")


def clean_key(domain: int) -> bytes:
    """Return the key of the row that is there while a domain is closed, and was closed with everything durable."""
    return CLEAN + domain.to_bytes(2, "big")


def room_key(domain: int) -> bytes:
    """Return the key of the row that says where a domain gets another copy."""
    return ROOMS + domain.to_bytes(2, "big")


def wish_key(domain: int) -> bytes:
    """Return the key of the row that names the node which should get the domain; its value is that name."""
    return WISHES + domain.to_bytes(2, "big")


def member_key(name: str) -> bytes:
    """Return the key of a node's row."""
    return MEMBERS + name.encode()


def left_key(name: str) -> bytes:
    """Return the key of the row that says that a node left for good; its value is empty."""
    return LEFT + name.encode()


def volume_key(name: str) -> bytes:
    """Return the key of the row that says in which domain a volume is; its value is the domain, 2 bytes big endian."""
    return VOLUMES + name.encode()


def pack(row: msgspec.Struct) -> bytes:
    """Return a row's value."""
    return msgspec.msgpack.encode(row)


def unpack(value: bytes, kind: type[R]) -> R:
    """Return the row of a value.

    Raises:
        NewerFormat: Written by a later release.
        Corrupt: It is no such row.
    """
    try:
        version = msgspec.msgpack.decode(value, type=list)[0]
        if version > FORMAT:
            raise NewerFormat(f"a row of the cluster has format version {version} > {FORMAT}")
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.DecodeError, IndexError, TypeError) as error:
        raise Corrupt(f"a row of the cluster is no {kind.__name__}: {error}") from error
