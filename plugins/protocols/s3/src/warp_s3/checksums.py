"""The checksums of S3: incremental, combinable, and imported only when a client asks for them.

A multipart object has either a *composite* checksum, the checksum of its parts' checksums with
`-N` behind it, or the *full object* one, which CRCs can be combined to.

CRC32 runs at 3 GB/s in zlib and at 40 in ISA-L; CRC32C and CRC64NVME come from awscrt (45 GB/s),
whose import costs 70 ms, so nothing here is imported before its first use.
"""

import binascii
import hashlib
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from warp_s3.errors import S3Error

Buffer = bytes | bytearray | memoryview

COMPOSITE: Final = "COMPOSITE"
FULL_OBJECT: Final = "FULL_OBJECT"

DEFAULT: Final = "CRC64NVME"
"""What S3 computes for an object when the client names no algorithm."""


class Checksum(Protocol):
    """A running checksum; `hashlib` objects are some."""

    def update(self, data: Buffer, /) -> None:
        """Take more data; releases the GIL for large buffers."""

    def digest(self) -> bytes:
        """Give the checksum of all data so far, big-endian."""


class Algorithm(msgspec.Struct, frozen=True):
    """One checksum algorithm as S3 knows it."""

    name: str  # as in x-amz-checksum-algorithm
    size: int  # bytes of a digest
    new: Callable[[], Checksum]
    combine: Callable[[int, int, int], int] | None = None  # crc(a), crc(b), len(b) -> crc(a + b)

    @property
    def header(self) -> str:
        """Name of the header or trailer that carries a value."""
        return f"x-amz-checksum-{self.name.lower()}"

    @property
    def element(self) -> str:
        """Name of the XML element that carries a value."""
        return f"Checksum{self.name}"

    @property
    def types(self) -> tuple[str, ...]:
        """Checksum types of multipart objects, the default first."""
        if self.combine is None:
            return (COMPOSITE,)
        return (FULL_OBJECT,) if self.name == DEFAULT else (COMPOSITE, FULL_OBJECT)


class _Crc:
    """A running CRC over a function of (data, crc so far)."""

    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


# Imported once, at the first use: an import statement in each call would cost more than the CRC.


@cache
def _crc32_function() -> Callable[[Buffer, int], int]:
    try:
        from isal.isal_zlib import crc32
    except ImportError:  # no wheel for this machine: a tenth of the speed, the same value
        return zlib.crc32
    function: Callable[[Buffer, int], int] = crc32
    return function


@cache
def _awscrt_function(name: str) -> Callable[[Buffer, int], int]:
    from awscrt import checksums

    function: Callable[[Buffer, int], int] = getattr(checksums, name)
    return function


def _crc32() -> Checksum:
    return _Crc(_crc32_function(), 4)


def _crc32c() -> Checksum:
    return _Crc(_awscrt_function("crc32c"), 4)


def _crc64nvme() -> Checksum:
    return _Crc(_awscrt_function("crc64nvme"), 8)


def _combine_crc32(first: int, second: int, length: int) -> int:
    from awscrt.checksums import combine_crc32

    return int(combine_crc32(first, second, length))


def _combine_crc32c(first: int, second: int, length: int) -> int:
    from awscrt.checksums import combine_crc32c

    return int(combine_crc32c(first, second, length))


def _combine_crc64nvme(first: int, second: int, length: int) -> int:
    from awscrt.checksums import combine_crc64nvme

    return int(combine_crc64nvme(first, second, length))


def _xxhash64() -> Checksum:
    from xxhash import xxh64

    return xxh64()


def _xxhash3() -> Checksum:
    from xxhash import xxh3_64

    return xxh3_64()


def _xxhash128() -> Checksum:
    from xxhash import xxh3_128

    return xxh3_128()


ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {
        algorithm.name: algorithm
        for algorithm in (
            Algorithm("CRC32", 4, _crc32, _combine_crc32),
            Algorithm("CRC32C", 4, _crc32c, _combine_crc32c),
            Algorithm("CRC64NVME", 8, _crc64nvme, _combine_crc64nvme),
            Algorithm("SHA1", 20, lambda: hashlib.sha1(usedforsecurity=False)),
            Algorithm("SHA256", 32, hashlib.sha256),
            Algorithm("SHA512", 64, hashlib.sha512),
            Algorithm("MD5", 16, lambda: hashlib.md5(usedforsecurity=False)),
            Algorithm("XXHASH64", 8, _xxhash64),
            Algorithm("XXHASH3", 8, _xxhash3),
            Algorithm("XXHASH128", 16, _xxhash128),
        )
    }
)

HEADERS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {algorithm.header: algorithm for algorithm in ALGORITHMS.values()}
)


def warm() -> None:
    """Import what the default algorithm needs, so that no client waits for it."""
    _awscrt_function("crc64nvme")


def algorithm_named(name: str) -> Algorithm:
    """Find an algorithm by the name a client gave.

    Raises:
        S3Error: `InvalidRequest`, naming what there is.
    """
    found = ALGORITHMS.get(name.upper())
    if found is None:
        raise S3Error(
            "InvalidRequest",
            f"Checksum algorithm provided is unsupported: {name}. "
            f"Please try again with any of the valid types: [{', '.join(ALGORITHMS)}]",
        )
    return found


def encode(digest: bytes) -> str:
    """Write a digest as S3 does, in base64."""
    return b64encode(digest).decode("ascii")


def decode(algorithm: Algorithm, text: str) -> bytes:
    """Read a digest that a client sent.

    Raises:
        S3Error: `InvalidRequest` if it is no base64 of the right length.
    """
    try:
        digest = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != algorithm.size:
        raise S3Error("InvalidRequest", f"Value for {algorithm.header} header is invalid.")
    return digest


def composite(algorithm: Algorithm, digests: Sequence[bytes]) -> str:
    """Give a multipart object's composite checksum, in base64 with `-N` behind it."""
    whole = algorithm.new()
    whole.update(b"".join(digests))
    return f"{encode(whole.digest())}-{len(digests)}"


def full_object(algorithm: Algorithm, parts: Iterable[tuple[bytes, int]]) -> str:
    """Combine the parts' CRCs, each with its part's length in bytes, to the whole object's.

    Raises:
        S3Error: `InvalidRequest` if the algorithm is no CRC.
    """
    if algorithm.combine is None:
        raise S3Error(
            "InvalidRequest",
            f"The {FULL_OBJECT} checksum type cannot be used with the {algorithm.name} checksum "
            "algorithm.",
        )
    whole = 0
    for digest, length in parts:
        whole = algorithm.combine(whole, int.from_bytes(digest, "big"), length)
    return encode(whole.to_bytes(algorithm.size, "big"))
