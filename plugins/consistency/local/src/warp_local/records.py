"""Commits as they lie in the journal (`docs/formats/local-index.md`)."""

from __future__ import annotations

import msgspec
from warp_core.errors import Corrupt, NewerFormat
from warp_core.interfaces.stores import Buffer
from warp_core.metadata.rows import Changes

COMMIT_VERSION = 1


class CommitRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one commit changed: rows as they are afterwards, so that replaying it twice does no
    harm.
    """

    format: int
    version: int
    request_id: bytes
    changes: tuple[tuple[bytes, bytes | None], ...]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(CommitRecord)


def pack(version: int, request_id: bytes, changes: Changes) -> bytes:
    """Return the payload of a commit's record."""
    return _encode((COMMIT_VERSION, version, request_id, changes))


def unpack(payload: Buffer) -> CommitRecord:
    """Read the payload of a commit's record.

    Raises:
        NewerFormat: Written by a later release.
        Corrupt: It is none.
    """
    try:
        record = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        head = bytes(payload[:2])
        if len(head) == 2 and head[0] & 0xF0 == 0x90 and COMMIT_VERSION < head[1] < 0x80:
            raise NewerFormat(
                f"a commit has format version {head[1]} > {COMMIT_VERSION}"
            ) from error
        raise Corrupt(f"a commit in the journal cannot be read: {error}") from error
    if record.format > COMMIT_VERSION:
        raise NewerFormat(f"a commit has format version {record.format} > {COMMIT_VERSION}")
    return record
