"""What `[auth] kind = "keys"` may say."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from warp_core.config import Between, Duration

WRAP_KEY: Final = "wrap.key"  # 32 bytes, mode 0600, in the data folder


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of access keys."""

    # How long another node of a cluster may go on using a key that was revoked here.
    remember: Annotated[Duration, Between("1s", "1h")] = Duration(5)
    keys_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100_000
    # log2 of scrypt's N: 14 takes 16 MiB and some 40 ms for each password.
    password_cost: Annotated[int, msgspec.Meta(ge=10, le=20)] = 14
