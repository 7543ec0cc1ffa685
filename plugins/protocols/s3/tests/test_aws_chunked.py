"""The aws-chunked coding, checked against AWS's published examples and a signer of our own."""

import hmac
import itertools
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.aws_chunked import AwsChunkedDecoder
from warp_s3.errors import S3Error
from warp_s3.sigv4 import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    Claim,
    SigningKey,
    signing_key,
)

SCOPE = "20130524/us-east-1/s3/aws4_request"
TIMESTAMP = "20130524T000000Z"
KEY = signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", SCOPE)
EMPTY = sha256(b"").hexdigest()
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"

# "Signature calculations for the Authorization header: Transferring a payload in multiple chunks".
SIGNED_EXAMPLE = (
    b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
    + b"a" * 65536
    + b"\r\n400;chunk-signature="
    b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
    + b"a"
    * 1024
    + b"\r\n0;chunk-signature="
    b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)

# The same page's example with trailing headers.
TRAILER_EXAMPLE = (
    b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
    + b"a" * 65536
    + b"\r\n400;chunk-signature="
    b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
    + b"a"
    * 1024
    + b"\r\n0;chunk-signature="
    b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:"
    b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def decoder(payload: str, length: int, seed: str = SEED) -> AwsChunkedDecoder:
    claim = Claim("AKID", TIMESTAMP, SCOPE, "host", seed, payload, presigned=False)
    return AwsChunkedDecoder(claim, SigningKey(KEY), decoded_length=length)


def feed(subject: AwsChunkedDecoder, body: bytes, cuts: Sequence[int] = ()) -> bytes:
    payload = b""
    for start, end in itertools.pairwise([0, *sorted(cut % len(body) for cut in cuts), len(body)]):
        payload += b"".join(subject.decode(memoryview(body)[start:end]))
    return payload


def sign(kind: str, previous: str, digest: str) -> str:
    text = f"{kind}\n{TIMESTAMP}\n{SCOPE}\n{previous}\n{digest}"
    return hmac.digest(KEY, text.encode(), "sha256").hex()


def encode(chunks: list[bytes], *, trailers: dict[str, str] | None = None) -> bytes:
    """Sign and frame chunks as an SDK does."""
    previous, body = SEED, b""
    for chunk in [*filter(None, chunks), b""]:
        digest = sha256(chunk).hexdigest()
        previous = sign("AWS4-HMAC-SHA256-PAYLOAD", previous, f"{EMPTY}\n{digest}")
        body += b"%x;chunk-signature=%s\r\n" % (len(chunk), previous.encode())
        if chunk:
            body += chunk + b"\r\n"
    if trailers is not None:
        text = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        previous = sign("AWS4-HMAC-SHA256-TRAILER", previous, sha256(text.encode()).hexdigest())
        body += text.replace("\n", "\r\n").encode()
        body += f"x-amz-trailer-signature:{previous}\r\n".encode()
    return body + b"\r\n"


@pytest.mark.parametrize("cuts", [[], [1, 50, 100, 65536, 66000, 66700], list(range(0, 900, 7))])
def test_the_published_example_verifies(cuts: list[int]) -> None:
    subject = decoder(STREAMING_SIGNED, 66560)

    assert feed(subject, SIGNED_EXAMPLE, cuts) == b"a" * 66560
    assert subject.done


def test_the_published_example_with_a_trailer_verifies() -> None:
    subject = decoder(STREAMING_SIGNED_TRAILER, 66560, TRAILER_SEED)

    assert feed(subject, TRAILER_EXAMPLE) == b"a" * 66560
    assert subject.done
    assert subject.trailers == [("x-amz-checksum-crc32c", "sOO8/Q==")]


def test_unsigned_chunks_end_in_trailers() -> None:
    subject = decoder(STREAMING_UNSIGNED_TRAILER, 5)

    assert feed(subject, b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n") == b"hello"
    assert subject.done
    assert subject.trailers == [("x-amz-checksum-crc32", "NhCmhg==")]


@given(
    st.lists(st.binary(max_size=64), max_size=6),
    st.none() | st.just({"x-amz-checksum-crc32": "AAAAAA=="}),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_what_is_signed_verifies_in_any_fragmentation(
    chunks: list[bytes], trailers: dict[str, str] | None, cuts: list[int]
) -> None:
    payload = b"".join(chunks)
    kind = STREAMING_SIGNED if trailers is None else STREAMING_SIGNED_TRAILER
    subject = decoder(kind, len(payload))

    assert feed(subject, encode(chunks, trailers=trailers), cuts) == payload
    assert subject.done
    assert dict(subject.trailers) == (trailers or {})


@given(st.integers(0), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(at: int, change: int) -> None:
    body = bytearray(encode([b"hello", b"world"], trailers={"x-amz-checksum-crc32": "AAAAAA=="}))
    body[at % len(body)] ^= change
    subject = decoder(STREAMING_SIGNED_TRAILER, 10)

    with suppress(S3Error):
        payload = feed(subject, bytes(body))
        # Only the case of the size's digits and of names means nothing.
        assert not subject.done or (payload == b"helloworld" and subject.trailers)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (encode([b"hello", b"world"]), STREAMING_SIGNED_TRAILER, "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\n\r\n", STREAMING_SIGNED, "InvalidRequest"),
        (b"a;chunk-signature=short\r\n", STREAMING_SIGNED, "InvalidRequest"),
        (b"a\r\n" + b"h" * 10 + b"\r\n0\r\nA:b\r\n\r\n", STREAMING_SIGNED, "InvalidRequest"),
        (b"b\r\n", STREAMING_UNSIGNED_TRAILER, "IncompleteBody"),
        (b"5\r\nhello\r\n0\r\n\r\n", STREAMING_UNSIGNED_TRAILER, "IncompleteBody"),
        (b"5\r\nhelloX\n", STREAMING_UNSIGNED_TRAILER, "InvalidRequest"),
        (encode([b"helloworld"], trailers={"a": "b"}), STREAMING_SIGNED, "MalformedTrailerError"),
        (
            encode([b"world", b"hello"]).replace(b"world", b"hell0"),
            STREAMING_SIGNED,
            "SignatureDoesNotMatch",
        ),
    ],
)
def test_a_malformed_body_is_refused(body: bytes, kind: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        feed(decoder(kind, 10), body)

    assert caught.value.code == code
    assert caught.value.closes


def test_chunks_cannot_be_reordered_or_left_out() -> None:
    body = encode([b"hello", b"world"])
    first, second = body[:91], body[91 : 91 + len(body[:91])]
    rest = body[len(first) + len(second) :]
    assert first.endswith(b"hello\r\n")

    for forged in (second + first + rest, second + rest, first + rest):
        with pytest.raises(S3Error) as caught:
            feed(decoder(STREAMING_SIGNED, 10), forged)
        assert caught.value.code in {"SignatureDoesNotMatch", "IncompleteBody"}


@given(st.binary(max_size=200), st.sampled_from([STREAMING_SIGNED, STREAMING_UNSIGNED_TRAILER]))
def test_garbage_is_refused_or_incomplete(body: bytes, kind: str) -> None:
    with suppress(S3Error):
        subject = decoder(kind, 50)
        assert len(b"".join(subject.decode(memoryview(body)))) <= 50
