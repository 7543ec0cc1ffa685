"""What `[[store]] kind = "memory"` may say."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a store in memory."""

    capacity: int = 1024 * 1024 * 1024  # bytes; writes beyond it are refused
    reserve: int = 1024 * 1024  # bytes of it that only what frees space may take
