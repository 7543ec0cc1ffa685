"""The plugin's options: every one with its default and unit."""

from __future__ import annotations

from warp_core.config import Address, Listening


class Config(Listening, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `skeleton`; core refuses addresses beyond loopback without TLS."""

    listen: Address = Address("127.0.0.1:0")
