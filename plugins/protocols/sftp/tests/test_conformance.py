"""The kit for protocols."""

from __future__ import annotations

import msgspec
import pytest
from warp_conformance.kits.protocols import Make, ProtocolKit
from warp_core.contexts import ProtocolContext
from warp_sftp.config import Config
from warp_sftp.server import Server


def _names(*values: str) -> bytes:
    return b"".join(
        len(each).to_bytes(4, "big") + each for each in (value.encode() for value in values)
    )


def _kexinit() -> bytes:
    """Return a client's first packet, as OpenSSH would send it."""
    cipher, mac = "aes128-gcm@openssh.com", "hmac-sha2-256"
    payload = b"\x14" + bytes(16)
    payload += _names(
        "curve25519-sha256", "ssh-ed25519", cipher, cipher, mac, mac, "none", "none", "", ""
    )
    payload += bytes(5)
    padding = 8 - (5 + len(payload)) % 8 + 8
    return (
        (1 + len(payload) + padding).to_bytes(4, "big")
        + bytes([padding])
        + payload
        + bytes(padding)
    )


class TestSftp(ProtocolKit):
    exchange = (b"SSH-2.0-kit\r\n", _kexinit(), b"aes128-gcm@openssh.com")

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        plain = Config()
        return lambda listen: Server(msgspec.structs.replace(plain, listen=listen), context)
