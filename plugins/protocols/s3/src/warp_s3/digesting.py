"""Everything that is computed over a payload while it arrives, and compared with what was announced."""

import asyncio
import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from concurrent.futures import Executor

from warp_core.views.objects import Digests

from warp_s3.body import POOL_MIN, Body
from warp_s3.checksums import (
    ALGORITHMS,
    DEFAULT,
    FULL_OBJECT,
    HEADERS,
    Algorithm,
    algorithm_named,
    decode,
    encode,
)
from warp_s3.errors import S3Error


class Expected:
    """What a request announces about its payload.

    Attributes:
        algorithm: The checksum that the client chose, if any.
    """

    __slots__ = ("_digest", "_md5", "_sha256", "_trailer", "algorithm")

    def __init__(self, headers: Mapping[str, str], payload: str) -> None:
        """Read the headers; `payload` is what x-amz-content-sha256 says, or UNSIGNED-PAYLOAD.

        Raises:
            S3Error: Values that are malformed or contradict each other.
        """
        self._sha256 = payload if len(payload) == 64 else None
        self._md5 = _content_md5(headers.get("content-md5"))
        self._digest: bytes | None = None
        self._trailer = False
        self.algorithm: Algorithm | None = None
        for name in HEADERS.keys() & headers.keys():
            if self.algorithm is not None:
                raise S3Error(
                    "InvalidRequest",
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not "
                    "allowed.",
                )
            self.algorithm = HEADERS[name]
            self._digest = decode(self.algorithm, headers[name])
        trailer = headers.get("x-amz-trailer")
        if trailer is not None:
            self._expect_trailer(trailer.strip().lower())
        named = headers.get("x-amz-sdk-checksum-algorithm")
        if named is not None:
            self._check_named(named)

    def check(self, sums: "Sums", body: Body) -> None:
        """Compare with what was computed; the body has been read to its end.

        Raises:
            S3Error: `XAmzContentSHA256Mismatch`, `BadDigest` or `MalformedTrailerError`.
        """
        if self._sha256 is not None and sums.sha256_hex() != self._sha256:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                details={
                    "ClientComputedContentSHA256": self._sha256,
                    "S3ComputedContentSHA256": sums.sha256_hex(),
                },
            )
        if self._md5 is not None and sums.md5() != self._md5:
            raise S3Error(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                details={
                    "ExpectedDigest": encode(self._md5),
                    "CalculatedDigest": encode(sums.md5()),
                },
            )
        if self.algorithm is None:
            return
        if self._trailer:
            self._digest = self._from_trailers(self.algorithm, body)
        if sums.digest(self.algorithm) != self._digest:
            raise S3Error(
                "BadDigest",
                f"The {self.algorithm.name} you specified did not match the calculated checksum.",
            )

    def sums(self, *further: Algorithm, md5: bool = False) -> "Sums":
        """Start everything that has to be computed, `further` algorithms, and with `md5` what is to be the ETag."""
        wanted = {algorithm.name for algorithm in further}
        if md5 or self._md5 is not None:
            wanted.add("MD5")
        if self.algorithm is not None:
            wanted.add(self.algorithm.name)
        if self._sha256 is not None:
            wanted.add("SHA256")
        return Sums(wanted)

    def _expect_trailer(self, name: str) -> None:
        if name not in HEADERS:
            raise S3Error(
                "InvalidRequest", "The value specified in the x-amz-trailer header is not supported"
            )
        if self.algorithm is not None:
            raise S3Error(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not "
                "allowed.",
            )
        self.algorithm = HEADERS[name]
        self._trailer = True

    def _check_named(self, name: str) -> None:
        algorithm = algorithm_named(name)
        if self.algorithm is None and algorithm.name == "MD5" and self._md5 is not None:
            return
        if self.algorithm is None:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or "
                "x-amz-trailer headers were found.",
            )
        if self.algorithm is not algorithm:
            raise S3Error(
                "InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid."
            )

    def _from_trailers(self, algorithm: Algorithm, body: Body) -> bytes:
        for name, value in body.trailers:
            if name == algorithm.header:
                return decode(algorithm, value)
        raise S3Error("MalformedTrailerError")


class Sums:
    """Running digests of one payload."""

    __slots__ = ("_hashes",)

    def __init__(self, names: set[str]) -> None:
        self._hashes = {name: ALGORITHMS[name].new() for name in names}

    def update(self, data: memoryview | bytes) -> None:
        """Take more of the payload."""
        for running in self._hashes.values():
            running.update(data)

    async def update_in(self, pool: Executor, data: memoryview) -> None:
        """Take more of the payload, in the pool if there is much of it."""
        if len(data) < POOL_MIN:
            self.update(data)
        else:
            await asyncio.get_running_loop().run_in_executor(pool, self.update, data)

    def md5(self) -> bytes:
        """Give the MD5 so far, which must have been asked for."""
        return self._hashes["MD5"].digest()

    def sha256_hex(self) -> str:
        """Give the SHA-256 so far."""
        return self._hashes["SHA256"].digest().hex()

    def digest(self, algorithm: Algorithm) -> bytes:
        """Give the digest of an algorithm that was asked for."""
        return self._hashes[algorithm.name].digest()

    def digests(self, algorithm: Algorithm) -> Digests:
        """Give what is kept with the content: the ETag, an opaque one where no MD5 was computed, and the value of one algorithm."""
        return Digests(
            etag=self.md5().hex() if "MD5" in self._hashes else unique_etag(),
            checksums={algorithm.name: encode(self.digest(algorithm))},
            checksum_type=FULL_OBJECT,
        )


def kept_algorithm(expected: Expected) -> Algorithm:
    """Choose whose value is kept with an object: the client's, or as S3 does, CRC64NVME."""
    return expected.algorithm or ALGORITHMS[DEFAULT]


def unique_etag() -> str:
    """Make an ETag that no other content has; from the dash SDKs know that it is no MD5."""
    return f"{os.urandom(16).hex()}-0"


def _content_md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        digest = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise S3Error("InvalidDigest", details={"Content-MD5": text})
    return digest
