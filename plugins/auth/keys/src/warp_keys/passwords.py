"""Password hashes: scrypt (RFC 7914), with its cost and salt beside it."""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

SALT_SIZE = 16
HASH_SIZE = 32
BLOCK_SIZE = 8  # scrypt's r
PARALLEL = 1  # scrypt's p
COST_MAX = 20  # log2 of N accepted from a row: 1 GiB

_PARAMETERS = struct.Struct(">BBB")


def hash_password(password: str, cost: int) -> bytes:
    """Return a hash to keep; takes 128·8·2^cost bytes of memory. Runs without the GIL."""
    salt = os.urandom(SALT_SIZE)
    return _PARAMETERS.pack(cost, BLOCK_SIZE, PARALLEL) + salt + _scrypt(password, salt, cost)


def matches(password: str, kept: bytes) -> bool:
    """Say whether a password is the one that was hashed, in time that does not depend on how wrong it is."""
    cost, block_size, parallel = _PARAMETERS.unpack_from(kept)
    if (block_size, parallel) != (BLOCK_SIZE, PARALLEL) or cost > COST_MAX:
        return False
    salt = kept[_PARAMETERS.size : _PARAMETERS.size + SALT_SIZE]
    return hmac.compare_digest(_scrypt(password, salt, cost), kept[_PARAMETERS.size + SALT_SIZE :])


def nobody(cost: int) -> bytes:
    """Return a hash that no password has: checking one against it takes as long as any."""
    return _PARAMETERS.pack(cost, BLOCK_SIZE, PARALLEL) + os.urandom(SALT_SIZE + HASH_SIZE)


def _scrypt(password: str, salt: bytes, cost: int) -> bytes:
    # HMAC pads its key with zeros, so scrypt takes "a" and "a\0" for the same password: SHA-256 tells them apart.
    digest = hashlib.sha256(password.encode()).digest()
    memory = 128 * BLOCK_SIZE * (1 << cost) + (1 << 20)
    return hashlib.scrypt(
        digest,
        salt=salt,
        n=1 << cost,
        r=BLOCK_SIZE,
        p=PARALLEL,
        maxmem=memory,
        dklen=HASH_SIZE,
    )
