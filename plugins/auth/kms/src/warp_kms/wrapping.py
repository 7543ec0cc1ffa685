"""Wrapping of keys by keys: AES-256-GCM, under a key that is derived for each wrapping, so that no nonce can repeat.

wrapped:  format 1 │ version 4 │ salt 24 │ ciphertext │ tag 16
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b

from warp_core.errors import Corrupt, NewerFormat

FORMAT = 1
SALT = 24
_HEAD = struct.Struct(">BI")
_PERSON = b"warp.key-wrap.01"


def wrap(key: bytes, version: int, plain: bytes, context: bytes) -> bytes:
    """Return `plain` wrapped under a version of a key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head = _HEAD.pack(FORMAT, version)
    salt = os.urandom(SALT)
    return head + salt + AESGCM(_derived(key, salt)).encrypt(bytes(12), plain, head + context)


def version_of(wrapped: bytes) -> int:
    """Return which version of its key wrapped something.

    Raises:
        Corrupt: It is no wrapped key.
        NewerFormat: A later release wrapped it.
    """
    if len(wrapped) < _HEAD.size + SALT + 16:
        raise Corrupt(f"a wrapped key of {len(wrapped)} bytes")
    form, version = _HEAD.unpack_from(wrapped)
    if form > FORMAT:
        raise NewerFormat(f"a wrapped key is of format {form}, this release reads up to {FORMAT}")
    return int(version)


def unwrap(key: bytes, wrapped: bytes, context: bytes) -> bytes:
    """Return what was wrapped.

    Raises:
        Corrupt: Under another key, for another context, or it was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    version_of(wrapped)
    head, salt = wrapped[: _HEAD.size], wrapped[_HEAD.size : _HEAD.size + SALT]
    try:
        return AESGCM(_derived(key, salt)).decrypt(
            bytes(12), wrapped[_HEAD.size + SALT :], head + context
        )
    except InvalidTag:
        raise Corrupt("a wrapped key does not open: changed, or for something else") from None


def _derived(key: bytes, salt: bytes) -> bytes:
    return blake2b(salt, digest_size=32, key=key, person=_PERSON).digest()
