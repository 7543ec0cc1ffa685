"""Checksums against published values, other implementations and each other."""

import binascii
import hashlib
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3 import checksums
from warp_s3.checksums import (
    ALGORITHMS,
    HEADERS,
    algorithm_named,
    composite,
    decode,
    encode,
    full_object,
)
from warp_s3.errors import S3Error

# Check values: of the CRC catalogue for "123456789", of FIPS 180, RFC 1321 and the xxHash
# specification's reference implementation.
CHECKS = {
    "CRC32": "cbf43926",
    "CRC32C": "e3069283",
    "CRC64NVME": "ae8b14860a799888",
    "SHA1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "SHA256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "SHA512": hashlib.sha512(b"123456789").hexdigest(),
    "MD5": "25f9e794323b453885f5181f1b624d0b",
    "XXHASH64": "8cb841db40e6ae83",
}


def digest(name: str, *pieces: bytes) -> bytes:
    running = ALGORITHMS[name].new()
    for piece in pieces:
        running.update(memoryview(piece))
    return running.digest()


@pytest.mark.parametrize(("name", "value"), CHECKS.items())
def test_published_check_values_come_out(name: str, value: str) -> None:
    assert digest(name, b"123456789").hex() == value


def test_empty_xxh3_digests_are_those_of_its_specification() -> None:
    assert digest("XXHASH3").hex() == "2d06800538d394c2"
    assert digest("XXHASH128").hex() == "99aa06d3014798d86001c324468d497f"


def test_xxhash_agrees_with_the_sdk() -> None:
    from awscrt.checksums import XXHash

    data = bytes(range(256)) * 40
    assert digest("XXHASH64", data) == XXHash.compute_xxhash64(data)
    assert digest("XXHASH3", data) == XXHash.compute_xxhash3_64(data)
    assert digest("XXHASH128", data) == XXHash.compute_xxhash3_128(data)


@pytest.mark.parametrize("name", ALGORITHMS)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_pieces_digest_like_the_whole(name: str, data: bytes, cut: int) -> None:
    whole = digest(name, data)

    assert digest(name, data[:cut], data[cut:]) == whole
    assert len(whole) == ALGORITHMS[name].size
    assert decode(ALGORITHMS[name], encode(whole)) == whole


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME"])
@given(parts=st.lists(st.binary(max_size=100), max_size=6))
def test_crcs_of_parts_combine_to_the_whole(name: str, parts: list[bytes]) -> None:
    algorithm = ALGORITHMS[name]

    combined = full_object(algorithm, [(digest(name, part), len(part)) for part in parts])

    assert combined == encode(digest(name, b"".join(parts)))


def test_a_hash_has_no_full_object_form() -> None:
    with pytest.raises(S3Error) as caught:
        full_object(ALGORITHMS["SHA256"], [])

    assert caught.value.code == "InvalidRequest"
    assert ALGORITHMS["SHA256"].types == ("COMPOSITE",)


def test_a_composite_checksum_covers_the_parts_checksums() -> None:
    parts = [digest("SHA256", b"a"), digest("SHA256", b"b")]

    value = composite(ALGORITHMS["SHA256"], parts)

    assert value == encode(hashlib.sha256(parts[0] + parts[1]).digest()) + "-2"


def test_crc32_is_that_of_zlib_with_or_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    with_isal = digest("CRC32", b"hello")
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    monkeypatch.setattr(checksums, "_crc32_function", checksums._crc32_function.__wrapped__)

    assert with_isal == digest("CRC32", b"hello") == zlib.crc32(b"hello").to_bytes(4, "big")


@pytest.mark.parametrize("text", ["", "AAAA", "AAAAAA", "AAAAAAA=", "é", "AAAAAA==\n", "AA AAAA=="])
def test_a_malformed_value_is_refused(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        decode(ALGORITHMS["CRC32"], text)

    assert "x-amz-checksum-crc32" in caught.value.message


@given(st.binary(min_size=4, max_size=4))
def test_digests_come_back_from_their_text(raw: bytes) -> None:
    assert decode(ALGORITHMS["CRC32"], binascii.b2a_base64(raw, newline=False).decode()) == raw


def test_names_are_found_in_any_case_and_unknown_ones_are_told_what_there_is() -> None:
    assert algorithm_named("crc64nvme") is ALGORITHMS["CRC64NVME"]
    assert HEADERS["x-amz-checksum-xxhash128"] is ALGORITHMS["XXHASH128"]
    with pytest.raises(S3Error) as caught:
        algorithm_named("crc16")
    assert "CRC64NVME" in caught.value.message
