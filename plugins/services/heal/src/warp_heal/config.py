"""Options of healing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Duration, Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.heal]`."""

    # Between looks at what lacks copies, when there is nothing to do.
    interval: Annotated[Duration, Between("1s", "1d")] = Duration(60)
    # A container of a storage class with stores of its own goes there when nothing more came into it for so long.
    settle: Annotated[Duration, Between("0s", "1h")] = Duration(10)
    # Bytes that a pass may write before others get their turn.
    budget: Annotated[Size, Between("1MiB", "16GiB")] = Size(64 << 20)
