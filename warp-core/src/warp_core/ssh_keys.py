"""Public SSH keys of accounts: lines of an `authorized_keys` file, kept on a shelf of the authenticator's records.

A key is its blob (RFC 4253, section 6.6): a string with its kind, then what the kind says. Blobs are compared as bytes; what a
signature proves is its protocol's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from warp_core.errors import AlreadyExists, InvalidArgument, NotFound, TooLarge
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.records import Records

SHELF: Final = "ssh-keys"
KEYS_MAX: Final = 64  # of one account: they lie in one record
LINE_MAX: Final = 16 * 1024  # characters
BLOB_MAX: Final = 4096  # bytes; RSA keys of 16,384 bits have half of it
COMMENT_MAX: Final = 256  # characters
RSA_BITS_MIN: Final = 2048  # as OpenSSH's default is 3072 and its minimum 1024, which can be broken

KINDS: Final = frozenset(
    (
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    )
)
_WORD: Final = re.compile(r"\S+")


class PublicKey(msgspec.Struct, frozen=True, array_like=True):
    """One public key."""

    kind: str
    blob: bytes
    comment: str = ""
    added_ns: int = 0

    @property
    def fingerprint(self) -> str:
        """Its fingerprint, as `ssh-keygen -l` shows it."""
        return fingerprint(self.blob)


_decode = msgspec.msgpack.Decoder(list[PublicKey]).decode


def fingerprint(blob: bytes) -> str:
    """Return the SHA-256 fingerprint of a key's blob."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def parse(line: str) -> PublicKey:
    """Read a line of a `.pub` or `authorized_keys` file, without options.

    Raises:
        InvalidArgument: It is no public key, or one that is not taken.
    """
    if len(line) > LINE_MAX:
        raise InvalidArgument(f"a line of {len(line)} characters > {LINE_MAX}")
    if "PRIVATE KEY" in line:
        raise InvalidArgument("this is a private key: give the file that ends with .pub")
    words = _WORD.findall(line.strip().splitlines()[0] if line.strip() else "")
    if len(words) < 2 or words[0] not in KINDS:
        raise InvalidArgument(
            f"no public key: a line begins with its kind ({', '.join(sorted(KINDS))}), without options"
        )
    kind = words[0]
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise InvalidArgument("the key's second word is no base64") from None
    if len(blob) > BLOB_MAX:
        raise InvalidArgument(f"a key of {len(blob)} bytes > {BLOB_MAX}")
    _check_blob(kind, blob)
    return PublicKey(kind, blob, " ".join(words[2:])[:COMMENT_MAX])


def _check_blob(kind: str, blob: bytes) -> None:
    fields: list[bytes] = []
    at = 0
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        if at + 4 + length > len(blob):
            raise InvalidArgument("the key is cut off")
        fields.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    if len(fields) < 2 or fields[0] != kind.encode():
        raise InvalidArgument(f"what follows is no key of the kind {kind}")
    if kind == "ssh-rsa":
        bits = int.from_bytes(fields[-1], "big").bit_length()
        if len(fields) != 3 or bits < RSA_BITS_MIN:
            raise InvalidArgument(f"an RSA key of {bits} bits: at least {RSA_BITS_MIN} are taken")


class SshKeys:
    """The keys of all accounts."""

    def __init__(self, authenticator: Authenticator) -> None:
        """Take where they are kept.

        Raises:
            Unsupported: The authenticator keeps no records.
        """
        self._records: Records = authenticator.records(SHELF)

    async def of(self, account: str) -> Sequence[PublicKey]:
        """Return an account's keys (`account:NAME`), as they are now."""
        await self._records.refresh()
        return _keys(self._records.known, account)

    async def add(self, account: str, key: PublicKey) -> PublicKey:
        """Give an account one more key.

        Raises:
            AlreadyExists: It has it.
            TooLarge: It has KEYS_MAX.
        """
        added = msgspec.structs.replace(key, added_ns=time.time_ns())

        def decide(known: Mapping[str, bytes]) -> tuple[None, Mapping[str, bytes | None]]:
            keys = _keys(known, account)
            if any(each.blob == key.blob for each in keys):
                raise AlreadyExists(f"{account} has the key {key.fingerprint}")
            if len(keys) >= KEYS_MAX:
                raise TooLarge(f"{account} has {KEYS_MAX} keys, the most an account may have")
            return None, {account: msgspec.msgpack.encode([*keys, added])}

        await self._records.change(decide)
        return added

    async def remove(self, account: str, which: str) -> PublicKey:
        """Take a key from an account, by its fingerprint or its comment, and return it.

        Raises:
            NotFound: It has none like that.
            InvalidArgument: Several have the comment.
        """

        def decide(known: Mapping[str, bytes]) -> tuple[PublicKey, Mapping[str, bytes | None]]:
            keys = _keys(known, account)
            found = [each for each in keys if which in (each.fingerprint, each.comment)]
            if not found:
                raise NotFound(f"{account} has no key {which!r}")
            if len(found) > 1:
                raise InvalidArgument(f"{len(found)} keys are called {which!r}: say a fingerprint")
            left = [each for each in keys if each is not found[0]]
            return found[0], {account: msgspec.msgpack.encode(left) if left else None}

        return await self._records.change(decide)

    async def forget(self, account: str) -> None:
        """Take all keys from an account."""

        def decide(known: Mapping[str, bytes]) -> tuple[None, Mapping[str, bytes | None]]:
            return None, {account: None} if account in known else {}

        await self._records.change(decide)


def _keys(known: Mapping[str, bytes], account: str) -> list[PublicKey]:
    value = known.get(account)
    return _decode(value) if value is not None else []
