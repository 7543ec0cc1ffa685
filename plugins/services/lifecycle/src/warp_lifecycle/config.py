"""Options of the lifecycle service."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Duration


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.lifecycle]`."""

    # From the beginning of one sweep over a volume to the beginning of the next.
    interval: Annotated[Duration, Between("1s", "7d")] = Duration(3600.0)
    # What a rule means by a day. Anything but 24 hours is for tests: data goes that much earlier.
    day: Annotated[Duration, Between("1s", "1d")] = Duration(86_400.0)
