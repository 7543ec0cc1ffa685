"""The plugin's options: every one with its default and unit."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `skeleton`; `Size`, `Duration` and others are in `warp_core.config`."""
