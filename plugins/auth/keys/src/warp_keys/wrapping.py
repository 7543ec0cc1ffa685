"""Wrapping of secrets: AES-256-GCM under a key that never leaves the data directory.

Request signatures need the secret itself, so it cannot be hashed. Wrapped, a copy of the metadata
(a backup, a lost disk of a replicated store) does not give the keys away.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from warp_core.errors import ConfigError, Corrupt, StoreFailed

from warp_keys.config import WRAP_KEY

_KEY_BYTES = 32
_SEALED = b"sealed\0"  # no access key begins so
_NONCE_BYTES = 12  # random: 2^32 secrets under one key stay safe (NIST SP 800-38D, 8.3)


class Wrapping:
    """Wraps and unwraps secrets; `name` binds each to its access key, so that none can be swapped."""

    def __init__(self, data: Path) -> None:
        self._path = data / WRAP_KEY
        self._key = b""
        self._elsewhere = False

    def is_elsewhere(self) -> bool:
        """Say whether the key is missing, now that there are secrets which another node wrapped; from then on none is made here."""
        self._elsewhere = not self._path.exists()
        return self._elsewhere

    def wrap(self, secret: str, name: str) -> bytes:
        """Return the wrapped form of a secret."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._load(make=True)).encrypt(nonce, secret.encode(), name.encode())

    def unwrap(self, wrapped: bytes, name: str) -> str:
        """Return the secret.

        Raises:
            Corrupt: It was wrapped under another key, for another name, or was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(self._load(make=False)).decrypt(nonce, sealed, name.encode()).decode()
        except (InvalidTag, ValueError):
            raise Corrupt(
                f"the secret of access key {name} does not open with {self._path}: restore that file, or"
                " revoke the key and make a new one"
            ) from None

    def seal(self, data: bytes, name: str) -> bytes:
        """Return the sealed form of data that is no secret of an access key; names have a space of their own."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._load(make=True)).encrypt(nonce, data, _SEALED + name.encode())

    def unseal(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed.

        Raises:
            Corrupt: It was sealed under another key, for another name, or was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce, inner = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return AESGCM(self._load(make=False)).decrypt(nonce, inner, _SEALED + name.encode())
        except (InvalidTag, ValueError):
            raise Corrupt(f"what was sealed as {name} does not open with {self._path}") from None

    def _load(self, *, make: bool) -> bytes:
        if self._key:
            return self._key
        try:
            self._key = self._path.read_bytes()
        except FileNotFoundError:
            if not make or self._elsewhere:
                raise Corrupt(
                    f"{self._path} is missing, so no secret of an access key can be read: restore it"
                ) from None
            self._key = self._make()
        except OSError as error:
            raise StoreFailed(f"{self._path} cannot be read ({error.strerror})") from None
        mode = self._path.stat().st_mode & 0o777
        if mode & 0o077:
            self._key = b""
            raise ConfigError(f"others may read {self._path} (mode {mode:03o}): chmod 600 it")
        if len(self._key) != _KEY_BYTES:
            self._key = b""
            raise Corrupt(f"{self._path} is no key of {_KEY_BYTES} bytes: restore it from a backup")
        return self._key

    def _make(self) -> bytes:
        key = secrets.token_bytes(_KEY_BYTES)
        temporary = self._path.with_suffix(".new")
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, key)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreFailed(f"{self._path} cannot be written ({error.strerror})") from None
        return key
