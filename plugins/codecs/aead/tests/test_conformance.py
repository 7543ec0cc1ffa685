"""The filter kit."""

from __future__ import annotations

import os

import pytest
from warp_aead.filter import Aead
from warp_conformance.kits.codecs import FilterKit
from warp_core.interfaces.codecs import Filter


class TestAesGcm(FilterKit):
    @pytest.fixture
    def subject(self) -> Filter:
        return Aead("aes-gcm", os.urandom(32))


class TestChaCha20Poly1305(FilterKit):
    @pytest.fixture
    def subject(self) -> Filter:
        return Aead("chacha20-poly1305", os.urandom(32))
