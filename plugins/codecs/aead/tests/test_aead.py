"""Published vectors of what frames are sealed with, the layout of a sealed frame, and what a key file must be."""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from warp_aead import Config, warp_register_codecs
from warp_aead.config import key_of
from warp_aead.filter import _CONSTRUCTIONS, Aead
from warp_core.contexts import CodecContext
from warp_core.errors import ConfigError, Corrupt, InvalidArgument
from warp_core.key_files import make_key_file
from warp_core.registry import Registry

NAMES = ("aes-gcm", "chacha20-poly1305")

# The Galois/Counter Mode of Operation (McGrew, Viega), appendix B, test cases 13 to 16: AES-256, as NIST's validation suite has them.
GCM = [
    # key, nonce, plaintext, associated data, ciphertext and tag
    ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32,
        "00" * 12,
        "00" * 16,
        "",
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
        "b16aedf5aa0de657ba637b391aafd255",
        "",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
        "c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
        "b16aedf5aa0de657ba637b39",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
        "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    ),
]

# RFC 8439, section 2.8.2.
CHACHA = [
    (
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it.".hex(),
        "50515253c0c1c2c3c4c5c6c7",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    )
]


@pytest.mark.parametrize(
    ("name", "vector"),
    [*(("aes-gcm", v) for v in GCM), *(("chacha20-poly1305", v) for v in CHACHA)],
)
def test_the_constructions_give_what_their_standards_say(
    name: str, vector: tuple[str, str, str, str, str]
) -> None:
    key, nonce, plain, associated, sealed = map(bytes.fromhex, vector)
    cipher = _CONSTRUCTIONS[name](key)

    assert cipher.encrypt(nonce, plain, associated) == sealed
    assert cipher.decrypt(nonce, sealed, associated) == plain


@pytest.mark.parametrize(("name", "plainly"), [(NAMES[0], AESGCM), (NAMES[1], ChaCha20Poly1305)])
def test_a_sealed_frame_is_what_the_format_page_says(
    name: str, plainly: type[AESGCM | ChaCha20Poly1305]
) -> None:
    key = bytes(range(32))
    context = struct.pack("<QQI", 0x1234, 4096, 7)
    stored = bytes(Aead(name, key).encode(memoryview(b"frame" * 100), context=context))

    of_record = blake2b(context[:16], digest_size=32, key=key, person=b"warp.frame-key.1").digest()
    assert len(stored) == 12 + 500 + 16
    assert plainly(of_record).decrypt(stored[:12], stored[12:], context) == b"frame" * 100


@pytest.mark.parametrize("name", NAMES)
def test_no_two_frames_share_a_key_and_a_nonce(name: str) -> None:
    """Also where a place is written again, as after a machine was put back to an older image."""
    seen = set()
    for _ in range(2):
        for container in range(3):
            for offset in range(4096, 4096 + 80, 8):
                for number in range(20):
                    context = struct.pack("<QQI", container, offset, number)
                    one = Aead(name, b"k" * 32)
                    stored = bytes(one.encode(memoryview(b"x"), context=context))
                    seen.add((context[:16], stored[:12]))

    assert len(seen) == 2 * 3 * 10 * 20


@pytest.mark.parametrize("name", NAMES)
@given(one=st.binary(min_size=20, max_size=20), other=st.binary(min_size=20, max_size=20))
def test_a_frame_opens_at_its_place_only(name: str, one: bytes, other: bytes) -> None:
    subject = Aead(name, b"k" * 32)
    stored = memoryview(subject.encode(memoryview(b"content"), context=one))

    if one == other:
        assert subject.decode(stored, length=7, context=other) == b"content"
        return
    with pytest.raises(Corrupt):
        subject.decode(stored, length=7, context=other)


@pytest.mark.parametrize("name", NAMES)
def test_another_key_does_not_open_it(name: str) -> None:
    subject = Aead(name, b"k" * 32)
    stored = memoryview(subject.encode(memoryview(b"content"), context=b"here"))

    with pytest.raises(Corrupt):
        subject.with_key(b"o" * 32).decode(stored, length=7, context=b"here")
    target = memoryview(bytearray(7))
    with pytest.raises(Corrupt):
        subject.with_key(b"o" * 32).decode_into(stored, target, context=b"here")
    subject.decode_into(stored, target, context=b"here")
    assert bytes(target) == b"content"
    with pytest.raises(Corrupt):
        subject.decode_into(stored, memoryview(bytearray(8)), context=b"here")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_key_nothing_is_sealed(name: str) -> None:
    subject = Aead(name)

    assert not subject.keyed
    with pytest.raises(ConfigError, match="key_file"):
        subject.encode(memoryview(b"x"), context=b"here")
    with pytest.raises(InvalidArgument):
        subject.with_key(b"short")


def test_a_key_file_is_read_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "k"
    with pytest.raises(ConfigError, match="warp kms master"):
        key_of(Config(key_file=str(file)), "aes-gcm", "")
    key = make_key_file(file)

    assert key_of(Config(key_file=str(file)), "aes-gcm", "") == key
    assert key_of(Config(), "aes-gcm", "") == b""
    with pytest.raises(ConfigError, match="absolute"):
        key_of(Config(key_file="k"), "aes-gcm", "")
    with pytest.raises(ConfigError, match="no arguments"):
        key_of(Config(), "aes-gcm", "128")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        key_of(Config(key_file=str(file)), "aes-gcm", "")
    file.chmod(0o600)
    file.write_bytes(os.urandom(31))
    with pytest.raises(Corrupt):
        key_of(Config(key_file=str(file)), "aes-gcm", "")


def test_both_filters_are_offered(tmp_path: Path) -> None:
    registry = Registry("codecs")  # type: ignore[var-annotated]
    warp_register_codecs(registry)

    for name in NAMES:
        entry = registry.get(name)
        made = entry.build(entry.sampled(tmp_path), CodecContext())
        assert isinstance(made, Aead)
        assert made.keyed
        assert not entry.build(entry.config(), CodecContext()).keyed
