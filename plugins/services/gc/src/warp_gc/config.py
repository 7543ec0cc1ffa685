"""Options of the collector."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Duration, Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.gc]`."""

    interval: Duration = Duration(10.0)  # between passes when there is nothing to do
    copy_budget: Annotated[Size, Between("1MiB", "16GiB")] = Size(
        64 << 20
    )  # bytes that a pass may move to compact
    ask_budget: Annotated[Size, Between("1MiB", "16GiB")] = Size(
        64 << 20
    )  # bytes that a pass may read after a crash
