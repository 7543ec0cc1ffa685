"""What `[[store]] kind = "memory"` may say."""

from __future__ import annotations

import msgspec
from warp_core.config.types import Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[store]]` with `kind = "memory"`."""

    capacity: Size = Size(1 << 30)  # writes beyond it are refused
    reserve: Size = Size(1 << 20)  # of it, for what frees space
