"""The aws-chunked content coding: bodies in chunks that are signed, end in trailers, or both.

    <size>;chunk-signature=<64 hex> CR LF <payload> CR LF ...
    0;chunk-signature=<64 hex> CR LF [x-amz-checksum-crc32:AAAAAA== CR LF
    x-amz-trailer-signature:<64 hex> CR LF] CR LF

Each signature covers the one before it, so chunks can be neither reordered nor left out. Unsigned
forms have only sizes and trailers, and rely on TLS.

Source: "Signature calculations for the Authorization header: Transferring a payload in multiple
chunks" in the Amazon S3 API reference.
"""

import hmac
import re
from hashlib import sha256
from typing import Final

from warp_s3.errors import S3Error
from warp_s3.http.chunked import ChunkFraming
from warp_s3.sigv4 import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    Claim,
    SigningKey,
)

_EXTENSION: Final = re.compile(rb";chunk-signature=([0-9a-f]{64})")
_EMPTY: Final = sha256(b"").hexdigest()
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"


class AwsChunkedDecoder(ChunkFraming):
    """Takes an aws-chunked body apart and verifies its signatures.

    Payload that `decode` returns belongs to chunks that may not be complete and so not verified:
    nothing may be linked to it before `done`.
    """

    def __init__(self, claim: Claim, key: SigningKey, *, decoded_length: int) -> None:
        """Start with the request's own signature as the seed.

        Args:
            claim: The verified claim of the request; its `payload` is one of `sigv4.STREAMING`.
            key: The signing key that verified it.
            decoded_length: Payload bytes announced by x-amz-decoded-content-length.
        """
        super().__init__(size_max=decoded_length)
        self._signed = claim.payload in {STREAMING_SIGNED, STREAMING_SIGNED_TRAILER}
        self._trailing = claim.payload in {STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER}
        self._key = key
        self._scope = f"{claim.timestamp}\n{claim.scope}"
        self._previous = claim.signature
        self._signature = ""
        self._hash = sha256()
        self._decoded_length = decoded_length

    def _on_chunk(self, size: int, extension: bytes) -> None:
        if self._signed:
            match = _EXTENSION.fullmatch(extension)
            if match is None:
                raise self._malformed("chunk without a signature")
            self._signature = match[1].decode("ascii")
            self._hash = sha256()
            if not size:
                self._on_chunk_end()
        if not size and self.received != self._decoded_length:
            raise S3Error(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the "
                "x-amz-decoded-content-length HTTP header",
                closes=True,
            )

    def _on_data(self, piece: memoryview) -> None:
        if self._signed:
            self._hash.update(piece)

    def _on_chunk_end(self) -> None:
        if self._signed:
            self._check("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY}\n{self._hash.hexdigest()}")

    def _on_end(self) -> None:
        if self.trailers and not self._trailing:
            raise S3Error("MalformedTrailerError", closes=True)
        if not (self._signed and self._trailing):
            return
        if not self.trailers or self.trailers[-1][0] != _TRAILER_SIGNATURE:
            raise S3Error("MalformedTrailerError", "The trailer signature is missing.", closes=True)
        self._signature = self.trailers.pop()[1]
        fields = "".join([f"{name}:{value}\n" for name, value in self.trailers])
        self._check("AWS4-HMAC-SHA256-TRAILER", sha256(fields.encode("latin-1")).hexdigest())

    def _check(self, kind: str, digest: str) -> None:
        text = f"{kind}\n{self._scope}\n{self._previous}\n{digest}"
        expected = self._key.sign(text)
        # As bytes: compare_digest refuses text that is not ASCII.
        if not hmac.compare_digest(expected.encode(), self._signature.encode("latin-1")):
            raise S3Error("SignatureDoesNotMatch", details={"StringToSign": text}, closes=True)
        self._previous = expected

    def _oversized(self) -> S3Error:
        return S3Error(
            "IncompleteBody",
            "The request body is longer than its x-amz-decoded-content-length",
            closes=True,
        )
