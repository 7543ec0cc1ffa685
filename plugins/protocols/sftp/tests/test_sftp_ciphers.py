"""Packets that are sealed many at a time are those that asyncssh seals one by one."""

from __future__ import annotations

from collections import deque

import pytest
from asyncssh.encryption import get_encryption
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.interfaces.stores import Buffer
from warp_sftp.ciphers import OVERHEAD, TAG, Opener, Sealer, preferred

KEYS = [
    (b"aes128-gcm@openssh.com", bytes(range(16))),
    (b"aes256-gcm@openssh.com", bytes(range(32))),
]
IV = b"\1\2\3\4" + b"\xff" * 8  # whose counter turns over at once


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=8), st.sampled_from(KEYS), st.data())
def test_data_comes_out_of_asyncssh_as_it_was_sealed(
    pieces: list[bytes], cipher: tuple[bytes, bytes], data: st.DataObject
) -> None:
    name, key = cipher
    theirs, sealer = get_encryption(name, key, IV), Sealer(key, IV)
    parts: deque[Buffer] = deque(memoryview(each) for each in pieces)
    whole, got = b"".join(pieces), b""
    out = memoryview(bytearray(len(whole) + 200 * OVERHEAD))
    at = 0
    while len(got) < len(whole):
        length = data.draw(st.integers(1, len(whole) - len(got)))
        end = sealer.seal_data(out, at, 7, parts, length)
        packet = bytes(out[at:end])
        size = int.from_bytes(packet[:4], "big")
        plain = theirs.decrypt_packet(0, packet[:16], packet[16:-TAG], 4, packet[-TAG:])
        assert plain is not None
        assert (size + 4 + TAG, size % 16) == (len(packet), 0)
        assert plain[0] >= 4
        payload = plain[1 : -plain[0]]
        assert payload[:9] == b"\x5e" + (7).to_bytes(4, "big") + length.to_bytes(4, "big")
        got += payload[9:]
        at = end

    assert got == whole


@pytest.mark.parametrize("cipher", KEYS)
def test_packets_of_asyncssh_are_opened_and_changed_ones_are_not(
    cipher: tuple[bytes, bytes],
) -> None:
    name, key = cipher
    theirs, opener = get_encryption(name, key, IV), Opener(key, IV)
    head = (32).to_bytes(4, "big")
    for turn in range(3):
        packet, tag = theirs.encrypt_packet(0, head, bytes([turn]) * 32)
        assert opener.open(packet[4:] + tag, head) == bytes([turn]) * 32
    packet, tag = theirs.encrypt_packet(0, head, bytes(32))

    assert opener.open(packet[4:] + tag[:-1] + bytes([tag[-1] ^ 1]), head) is None


def test_who_knows_aes_gcm_is_told_of_nothing_else() -> None:
    served = [b"aes128-gcm@openssh.com", b"chacha20-poly1305@openssh.com", b"aes128-ctr"]

    both = [b"chacha20-poly1305@openssh.com", b"aes128-ctr", b"aes128-gcm@openssh.com"]
    assert preferred(both, served) == [b"aes128-gcm@openssh.com"]
    assert preferred([b"chacha20-poly1305@openssh.com"], served) == served
    assert preferred([], served) == served
