"""Sealed contents: each has a data key of its own, which its row keeps wrapped and memory holds only while it is used.

```
 content ── sealed with ──▶ data key ── wrapped by ──▶ a key of the key service     (revision row: its id, the wrapped key)
                                                 or    the caller's own secret      (revision row: salt, the wrapped key)
```

A data key's id names it in the head of every record that is sealed with it. Content that is copied by reference keeps its data
key, and the copy's row wraps it anew. A caller's own secret is nowhere: the wrapped data key opens with it or does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgspec

from warp_core.containers import DataPolicy
from warp_core.containers.keyring import Hold, Keyring
from warp_core.errors import Corrupt, InvalidArgument, Sealed, Unsupported
from warp_core.interfaces.keys import KeyService
from warp_core.namespace.rows import Seal
from warp_core.views.objects import Sealing

CIPHER: Final = "aes-gcm"
OPENED_MAX: Final = 4096  # data keys that are remembered unwrapped: about 400 bytes each
REMEMBER_S: Final = 300.0  # so long a data key is used without asking the key service again
SECRET_SIZE: Final = 32
SALT: Final = 24
NOTE_MAX: Final = 1024  # characters of what a protocol notes beside a seal

_PERSON: Final = b"warp.own-secret1"


class Sealer:
    """Makes seals and opens them."""

    def __init__(
        self,
        keyring: Keyring,
        service: KeyService | None = None,
        *,
        cipher: str = CIPHER,
        remember_s: float = REMEMBER_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the keyring that the containers look into, and who wraps data keys; without one, only callers' secrets do."""
        self._keyring = keyring
        self._service = service
        self._cipher = cipher
        self._remember_s = remember_s
        self._monotonic = monotonic
        # data key's id, wrapped data key → (data key, until when)
        self._opened: dict[tuple[str, bytes], tuple[bytes, float]] = {}

    async def seal(self, wish: Sealing) -> tuple[Seal, Hold]:
        """Return a new seal as its row, and a hold on its key.

        Raises:
            InvalidArgument: A secret of another size, or no cipher is installed.
            Unsupported: No key service is installed.
            Sealed: It has no keys that it can use.
            KeyNotFound, KeyDisabled, Unavailable
        """
        if not wish.secret and self._service is None:
            raise Unsupported("no key service is installed that could keep keys for contents")
        key_id = os.urandom(16).hex()
        plain = os.urandom(self._keyring.key_size(self._cipher))
        seal = await self._wrapped(key_id, self._cipher, plain, wish)
        return seal, self._keyring.hold(seal.cipher, key_id, plain)

    async def wrap_again(self, seal: Seal, wish: Sealing) -> Seal:
        """Return the seal of a copy by reference: the same data key, wrapped as the copy wishes; raises as `seal` and `open`."""
        plain = await self._plain(seal, b"")
        return await self._wrapped(seal.key_id, seal.cipher, plain, wish)

    async def _wrapped(self, key_id: str, cipher: str, plain: bytes, wish: Sealing) -> Seal:
        context = key_id.encode()
        if len(wish.note) > NOTE_MAX:
            raise InvalidArgument(f"a note of {len(wish.note)} characters > {NOTE_MAX}")
        if wish.secret:
            return Seal(
                cipher, key_id, _wrap_with(wish.secret, plain, context), "", wish.note, True
            )
        if self._service is None:
            raise Unsupported("no key service is installed that could keep keys for contents")
        name, wrapped = await self._service.wrap(wish.key, plain, context=context)
        self._remember(key_id, wrapped, plain)
        return Seal(cipher, key_id, wrapped, name, wish.note)

    async def open(self, seal: Seal, secret: bytes = b"") -> Hold:
        """Return a hold on the key of a seal.

        Raises:
            Sealed: The secret is missing, wrong or needless, or the key service does not open it.
            KeyNotFound, KeyDisabled, Unavailable, Corrupt: As `KeyService.unwrap`.
        """
        plain = await self._plain(seal, secret)
        return self._keyring.hold(seal.cipher, seal.key_id, plain)

    def open_now(self, seal: Seal, secret: bytes = b"") -> Hold | None:
        """Return a hold if nobody has to be asked for it, else None: then `open`."""
        if seal.own or secret:
            return None
        known = self._opened.get((seal.key_id, seal.wrapped))
        if known is None or known[1] <= self._monotonic():
            return None
        return self._keyring.hold(seal.cipher, seal.key_id, known[0])

    async def check(self, seal: Seal | None, secret: bytes) -> None:
        """Judge a secret without opening anything.

        Raises:
            Sealed: It is missing, wrong or needless.
        """
        if seal is not None and seal.own:
            await self._plain(seal, secret)
        elif secret:
            raise Sealed("the content is not sealed with a caller's secret", why="needless")

    def forget(self) -> None:
        """Forget every data key that was unwrapped: the next use of each asks the key service."""
        self._opened.clear()

    def _remember(self, key_id: str, wrapped: bytes, plain: bytes) -> None:
        if len(self._opened) >= OPENED_MAX:
            del self._opened[next(iter(self._opened))]
        self._opened[key_id, wrapped] = plain, self._monotonic() + self._remember_s

    async def _plain(self, seal: Seal, secret: bytes) -> bytes:
        if seal.own:
            if not secret:
                raise Sealed("the content is sealed with a secret of its writer", why="missing")
            return _unwrap_with(secret, seal.wrapped, seal.key_id.encode())
        if secret:
            raise Sealed("the content is not sealed with a caller's secret", why="needless")
        place = seal.key_id, seal.wrapped
        known = self._opened.get(place)
        if known is not None and known[1] > self._monotonic():
            return known[0]
        self._opened.pop(place, None)
        if self._service is None:
            raise Sealed(
                f'the content is sealed with key "{seal.master}" of a key service, and [kms] names none'
            )
        plain = await self._service.unwrap(seal.master, seal.wrapped, context=seal.key_id.encode())
        self._remember(seal.key_id, seal.wrapped, plain)
        return plain


def sealed_policy(policy: DataPolicy, hold: Hold) -> DataPolicy:
    """Return a policy whose last filter seals with a key that is held."""
    return msgspec.structs.replace(policy, filters=(*policy.filters, hold.word))


def _kek(secret: bytes, salt: bytes) -> bytes:
    """Return the key that a caller's secret wraps one data key with: used once, so its nonce may be zero."""
    if len(secret) != SECRET_SIZE:
        raise InvalidArgument(f"a secret of {len(secret)} bytes, not {SECRET_SIZE}")
    return blake2b(salt, digest_size=SECRET_SIZE, key=secret, person=_PERSON).digest()


def _wrap_with(secret: bytes, plain: bytes, context: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt = os.urandom(SALT)
    return salt + AESGCM(_kek(secret, salt)).encrypt(bytes(12), plain, context)


def _unwrap_with(secret: bytes, wrapped: bytes, context: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, inside = wrapped[:SALT], wrapped[SALT:]
    try:
        return AESGCM(_kek(secret, salt)).decrypt(bytes(12), inside, context)
    except InvalidTag:
        raise Sealed(
            "the secret is not the one that the content was written with", why="wrong"
        ) from None
    except ValueError as error:
        raise Corrupt(f"a wrapped data key of {len(wrapped)} bytes") from error
