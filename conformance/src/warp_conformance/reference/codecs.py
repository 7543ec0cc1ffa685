"""One small codec of each shape."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Literal

from warp_core.errors import Corrupt, InvalidArgument
from warp_core.interfaces.codecs import Chunker, CodecCapabilities, Filter, Fingerprint, Striper
from warp_core.interfaces.stores import Buffer


class Marks(Chunker):
    """Cuts after a position whose last 16 bytes have a checksum with six zero bits, 64 to 512 bytes apart."""

    capabilities = CodecCapabilities(content_defined=True)
    min_size = 64
    max_size = 512

    def cut(self, window: memoryview, *, final: bool) -> int:
        """Look for a mark from `min_size` on."""
        for end in range(self.min_size, min(len(window), self.max_size) + 1):
            if zlib.crc32(window[end - 16 : end]) & 0x3F == 0:
                return end
        if len(window) >= self.max_size:
            return self.max_size
        return len(window) if final else 0


class Blake2(Fingerprint):
    """BLAKE2b with 32 bytes."""

    size = 32

    def digest(self, data: Buffer) -> bytes:
        """Hash in one go."""
        return hashlib.blake2b(data, digest_size=self.size).digest()


class Deflate(Filter):
    """zlib, level 1."""

    stage: Literal["compress", "encrypt"] = "compress"

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Compress, or keep what grows."""
        stored = zlib.compress(frame, 1)
        return stored if len(stored) < len(frame) else None

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Decompress at most one byte more than expected."""
        inflater = zlib.decompressobj()
        try:
            frame = inflater.decompress(stored, length + 1)
        except zlib.error as error:
            raise Corrupt("not a deflated frame") from error
        if len(frame) != length or not inflater.eof or inflater.unused_data:
            raise Corrupt(f"not a deflated frame of {length} bytes")
        return frame


class Masked(Filter):
    """A keyed mask and a keyed tag from BLAKE2b: an encryptor in shape, for tests only."""

    stage: Literal["compress", "encrypt"] = "encrypt"
    key = b"key of the test"

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Mask the frame, append the tag."""
        masked = self.mask(frame, context)
        return masked + self.tag(masked, context)

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Check the tag, take off the mask."""
        masked = bytes(stored[:-16])
        if len(masked) != length or bytes(stored[-16:]) != self.tag(masked, context):
            raise Corrupt("the tag does not match")
        return self.mask(masked, context)

    def mask(self, data: Buffer, context: bytes) -> bytes:
        """Return the data under the mask of a place."""
        stream = hashlib.shake_128(self.key + context).digest(len(data))
        return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))

    def tag(self, masked: bytes, context: bytes) -> bytes:
        """Return the tag of masked bytes at a place."""
        return hashlib.blake2b(
            len(context).to_bytes(8) + context + masked, digest_size=16, key=self.key
        ).digest()


class Sums(Striper):
    """Three data shards and two parity shards, weighted sums over GF(2^8)."""

    data_shards = 3
    parity_shards = 2

    def encode(self, stripe: memoryview) -> list[Buffer]:
        """Append P = a+b+c and Q = a+2b+4c over GF(2^8)."""
        if len(stripe) % self.data_shards:
            raise InvalidArgument(
                f"stripe of {len(stripe)} bytes is no multiple of {self.data_shards}"
            )
        width = len(stripe) // self.data_shards
        data = [bytes(stripe[at * width : (at + 1) * width]) for at in range(self.data_shards)]
        return [*data, self.parity(data, 0), self.parity(data, 1)]

    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        """Solve for the lost data shards, compute the parity anew."""
        present = [at for at, shard in enumerate(shards) if shard is not None]
        if len(present) < self.data_shards:
            raise Corrupt(f"{len(present)} shards of {self.data_shards} that are needed")
        rows = [_ROWS[at] for at in present[: self.data_shards]]
        known = [bytes(shards[at] or b"") for at in present[: self.data_shards]]
        data = _solve(rows, known)
        return [*data, self.parity(data, 0), self.parity(data, 1)]

    def parity(self, data: list[bytes], which: int) -> bytes:
        """Return the weighted sum of the data shards."""
        return _weighted(_ROWS[self.data_shards + which], data)


# Each shard as a weighted sum of the data shards.
_ROWS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 2, 4]]


def _times(a: int, b: int) -> int:
    """Multiply in GF(2^8), polynomial 0x11d."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


_PRODUCTS = [bytes(_times(a, b) for b in range(256)) for a in range(256)]
_INVERSES = [0, *(row.index(1) for row in _PRODUCTS[1:])]


def _weighted(weights: Sequence[int], shards: Sequence[bytes]) -> bytes:
    total = 0
    for weight, shard in zip(weights, shards, strict=True):
        total ^= int.from_bytes(shard.translate(_PRODUCTS[weight]))
    return total.to_bytes(len(shards[0]))


def _solve(rows: Sequence[Sequence[int]], known: Sequence[bytes]) -> list[bytes]:
    """Return the data shards by Gauss-Jordan elimination on [rows | identity]."""
    size = len(rows)
    matrix = [[*row, *(int(at == column) for column in range(size))] for at, row in enumerate(rows)]
    for column in range(size):
        pivot = next(at for at in range(column, size) if matrix[at][column])
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        scale = _PRODUCTS[_INVERSES[matrix[column][column]]]
        matrix[column] = [scale[value] for value in matrix[column]]
        for at in range(size):
            if at != column and (factor := matrix[at][column]):
                matrix[at] = [
                    value ^ _PRODUCTS[factor][other]
                    for value, other in zip(matrix[at], matrix[column], strict=True)
                ]
    return [_weighted(row[size:], known) for row in matrix]
