"""AES-GCM packets of SSH (RFC 5647, as OpenSSH has it), a whole transfer's worth at a time.

    u32 length | sealed: u8 padding, u8 type, ..., padding | 16 bytes of tag

The length is authenticated and not encrypted. The nonce is four fixed bytes and a counter of packets.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from warp_core.interfaces.stores import Buffer

TAG: Final = 16
BLOCK: Final = 16  # what lengths are a multiple of
PADDING_MIN: Final = 4  # RFC 4253, section 6
CHANNEL_DATA: Final = 94
HEAD: Final = (
    10  # of CHANNEL_DATA with its padding's length: u8, u8 type, u32 channel, u32 bytes of data
)
OVERHEAD: Final = 4 + HEAD + PADDING_MIN + BLOCK + TAG  # of a packet, at most

_HEAD: Final = struct.Struct(">BBII")
_COUNTER: Final = (1 << 64) - 1


class _Nonce:
    """The nonce of one direction."""

    __slots__ = ("_count", "_fixed")

    def __init__(self, iv: bytes) -> None:
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:], "big")

    def take(self) -> bytes:
        """Return the next one."""
        count = self._count
        self._count = (count + 1) & _COUNTER
        return self._fixed + count.to_bytes(8, "big")


class Sealer:
    """Makes packets of one direction. It takes the place of asyncssh's own for what that sends, and packs data itself."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = AESGCM(key)
        self._nonce = _Nonce(iv)
        self._plain = bytearray()
        # Under AES-GCM padding hides nothing: these are as good as new ones for each packet (RFC 4253, section 6, "SHOULD").
        self._padding = os.urandom(PADDING_MIN + BLOCK)

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Seal one packet of asyncssh's; `header` is its length."""
        sealed = self._cipher.encrypt(self._nonce.take(), packet, header)
        return header + sealed[:-TAG], sealed[-TAG:]

    def seal_data(
        self, out: memoryview, at: int, channel: int, parts: deque[Buffer], length: int
    ) -> int:
        """Seal the first `length` bytes of `parts`, which loses them, into `out` at a place; return where the packet ends."""
        size = HEAD + length
        padding = -size % BLOCK
        if padding < PADDING_MIN:
            padding += BLOCK
        total = size + padding
        if len(self._plain) < total:
            self._plain = bytearray(total)
        plain = memoryview(self._plain)
        _HEAD.pack_into(plain, 0, padding, CHANNEL_DATA, channel, length)
        filled, left = HEAD, length
        while left:
            part = parts[0]
            count = len(part)
            if count <= left:
                plain[filled : filled + count] = part
                parts.popleft()
            else:
                view = memoryview(part)
                count = left
                plain[filled : filled + count] = view[:count]
                parts[0] = view[count:]
            filled += count
            left -= count
        plain[size:total] = self._padding[:padding]
        head = total.to_bytes(4, "big")
        out[at : at + 4] = head
        end = at + 4 + total + TAG
        self._cipher.encrypt_into(self._nonce.take(), plain[:total], head, out[at + 4 : end])
        return end


class Opener:
    """Opens packets of the other direction; what asyncssh is to see of them is handed to it as opened (`opened`)."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._cipher = AESGCM(key)
        self._nonce = _Nonce(iv)
        self.opened: bytes | None = None

    def open(self, sealed: Buffer, head: Buffer) -> bytes | None:
        """Return what a packet says, None if it is not what the peer sealed."""
        try:
            return self._cipher.decrypt(self._nonce.take(), sealed, head)
        except InvalidTag:
            return None

    def decrypt_header(self, seq: int, first: bytes, length: int) -> tuple[bytes, bytes]:
        """Return the start of a packet and its length, as asyncssh asks for them."""
        return first, first[:length]

    def decrypt_packet(
        self, seq: int, first: bytes, rest: bytes, length: int, mac: bytes
    ) -> bytes | None:
        """Return what a packet says, as asyncssh asks for it."""
        opened, self.opened = self.opened, None
        if opened is not None:
            return opened
        return self.open(first[length:] + rest + mac, first[:length])


def preferred(offered: Sequence[bytes], served: Sequence[bytes]) -> list[bytes]:
    """Return the ciphers to name to a client that offers some: it will take the first of its own that we name.

    OpenSSH's clients name ChaCha20 first, which costs both sides several times what AES-GCM does where there are instructions for
    AES. So who knows AES-GCM is told of nothing else; who does not is told of all that is served.
    """
    known = [each for each in served if each in offered and b"-gcm@" in each]
    return known or list(served)
