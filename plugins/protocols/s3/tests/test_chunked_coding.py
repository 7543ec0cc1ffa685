"""The chunked transfer coding, whatever the network does to its pieces."""

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.http import ChunkedDecoder
from warp_s3.http.chunked import LINE_MAX, TRAILERS_MAX


def decode(
    body: bytes, cuts: list[int] | None = None, size_max: int = 1 << 20
) -> tuple[bytes, bytes]:
    """Give payload and what follows the body."""
    decoder = ChunkedDecoder(size_max=size_max)
    payload = b""
    bounds = [0, *sorted({cut % (len(body) + 1) for cut in cuts or ()}), len(body)]
    for start, end in itertools.pairwise(bounds):
        piece = memoryview(body)[start:end]
        payload += b"".join(decoder.decode(piece))
        if decoder.done:
            return payload, body[start + decoder.consumed :]
    raise EOFError


def encode(chunks: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    rows = [b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk]
    return b"".join(rows) + b"0\r\n" + trailer + b"\r\n"


@given(
    st.lists(st.binary(max_size=50), max_size=8),
    st.lists(st.integers(0, 1000), max_size=20),
    st.sampled_from([b"", b";a=b", b';a="b c"']),
    st.sampled_from([b"", b"A: b\r\n", b"a:b\r\nc: d\r\n"]),
    st.binary(max_size=20),
)
def test_decoding_gives_back_what_was_encoded(
    chunks: list[bytes], cuts: list[int], extension: bytes, trailer: bytes, after: bytes
) -> None:
    body = encode(chunks, extension=extension, trailer=trailer)

    payload, left = decode(body + after, cuts)

    assert payload == b"".join(chunks)
    assert (body + after).endswith(left)
    assert after.endswith(left) or left.endswith(after)


def test_what_follows_the_body_is_not_touched() -> None:
    decoder = ChunkedDecoder(size_max=10)
    body = b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n"

    pieces = decoder.decode(memoryview(body))

    assert b"".join(pieces) == b"abc"
    assert decoder.done
    assert body[decoder.consumed :] == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"1_0\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc",
        b"3 ;a\r\nabc\r\n0\r\n\r\n",
        b"3;\x00\r\nabc\r\n0\r\n\r\n",
        b"3;\r\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"g\r\n",
        b"3;" + b"a" * LINE_MAX + b"\r\nabc",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na : b\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * (TRAILERS_MAX + 1) + b"\r\n",
    ],
)
def test_malformed_chunks_end_the_connection(body: bytes) -> None:
    for cuts in ([], list(range(len(body)))):
        with pytest.raises(S3Error) as caught:
            decode(body, cuts)

        assert caught.value.closes
        assert caught.value.status == 400


def test_a_chunk_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(S3Error) as caught:
        decode(b"5\r\nabcde\r\n6\r\n", size_max=10)

    assert caught.value.code == "EntityTooLarge"


def test_payload_is_not_copied() -> None:
    body = bytearray(encode([b"x" * 100]))

    (piece,) = ChunkedDecoder(size_max=100).decode(memoryview(body))
    body[10] = ord("y")

    assert bytes(piece)[10 - len(b"64\r\n")] == ord("y")


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=5))
def test_garbage_is_refused_or_incomplete_or_payload(body: bytes, cuts: list[int]) -> None:
    with suppress(S3Error, EOFError):
        assert len(decode(body, cuts, size_max=100)[0]) <= 100
