"""The filter: each frame is sealed by itself, under a key and a nonce that no other frame ever has.

```
 key of the content ── BLAKE2b(container, offset) ──▶ key of the record ─┐
 12 random bytes ──────────────────────────── nonce ─────────────────────┤ AEAD
 container, offset, frame number ──────── associated data ───────────────┘

 stored frame:  nonce 12 │ ciphertext, as long as the frame │ tag 16
```

That is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) with the place of a frame in the role of its counter: a frame that was moved,
swapped, cut off or taken from another record does not open, and a range opens the frames that it touches and no others. An offset of a
container is written once, so a record's key is used once, for at most 1,024 frames. The random nonce is for what nobody can promise: a
machine that was cloned or put back to an older image writes the same offset again, and then 2^48 frames would have to share one
record's key before two nonces are likely to be equal.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from warp_core.errors import ConfigError, Corrupt, InvalidArgument
from warp_core.interfaces.codecs import Cipher, CodecCapabilities
from warp_core.interfaces.stores import Buffer

KEY = 32
NONCE = 12
TAG = 16
FRAME_NUMBER = 4  # bytes at the end of a context: what differs between the frames of a record

_PERSON = b"warp.frame-key.1"  # of BLAKE2b: no other use of a content's key gives this key
_CONSTRUCTIONS: dict[str, type[AESGCM | ChaCha20Poly1305]] = {
    "aes-gcm": AESGCM,
    "chacha20-poly1305": ChaCha20Poly1305,
}


class Aead(Cipher):
    """Seals under one key. Safe to share between threads: what it remembers is replaced as a whole."""

    capabilities = CodecCapabilities(deterministic=False, releases_gil=True)
    stage: Literal["compress", "encrypt"] = "encrypt"
    overhead = NONCE + TAG
    key_size = KEY

    def __init__(self, name: str, key: bytes = b"") -> None:
        """Take the construction's name and the content's key; without one it only makes others (`with_key`)."""
        if key and len(key) != KEY:
            raise InvalidArgument(f"{name} takes a key of {KEY} bytes, not {len(key)}")
        self.name = name
        self._key = key
        self._construction = _CONSTRUCTIONS[name]
        self._record: tuple[bytes, AESGCM | ChaCha20Poly1305] | None = None  # the last one used

    @property
    def keyed(self) -> bool:
        """Say whether it has a key."""
        return bool(self._key)

    def with_key(self, key: bytes) -> Aead:
        """Return the same filter under another key."""
        return Aead(self.name, key)

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer:
        """Return nonce, ciphertext and tag.

        Raises:
            ConfigError: There is no key.
        """
        stored = bytearray(NONCE + len(frame) + TAG)
        self.encode_into(frame, memoryview(stored), context=context)
        return stored

    def encode_into(self, frame: memoryview, target: memoryview, *, context: bytes) -> None:
        """Put them into `target`; raises as `encode`."""
        nonce = os.urandom(NONCE)
        target[:NONCE] = nonce
        self._of(context).encrypt_into(nonce, frame, context, target[NONCE:])

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Return the frame.

        Raises:
            Corrupt: It was changed, moved, or sealed under another key.
            ConfigError: There is no key.
        """
        if len(stored) != NONCE + length + TAG:
            raise Corrupt(
                f"a sealed frame of {len(stored)} bytes where {NONCE + length + TAG} are expected"
            )
        try:
            return self._of(context).decrypt(bytes(stored[:NONCE]), stored[NONCE:], context)
        except InvalidTag:
            raise Corrupt(
                f"a sealed frame of {length} bytes does not open: changed, moved, or of another key"
            ) from None

    def decode_into(self, stored: memoryview, target: memoryview, *, context: bytes) -> None:
        """Put the frame into `target`, which is as long as it; raises as `decode`."""
        if len(stored) != NONCE + len(target) + TAG:
            raise Corrupt(
                f"a sealed frame of {len(stored)} bytes where {NONCE + len(target) + TAG} are expected"
            )
        try:
            nonce = bytes(stored[:NONCE])
            self._of(context).decrypt_into(nonce, stored[NONCE:], context, target)
        except InvalidTag:
            raise Corrupt(
                f"a sealed frame of {len(target)} bytes does not open: changed, moved, or of another key"
            ) from None

    def _of(self, context: bytes) -> AESGCM | ChaCha20Poly1305:
        """Return the cipher of the record that a frame is in."""
        place = context[:-FRAME_NUMBER]
        known = self._record
        if known is not None and known[0] == place:
            return known[1]
        if not self._key:
            raise ConfigError(f'"{self.name}" has no key: name a key_file in [codecs.{self.name}]')
        key = blake2b(place, digest_size=KEY, key=self._key, person=_PERSON).digest()
        cipher = self._construction(key)
        self._record = place, cipher
        return cipher
