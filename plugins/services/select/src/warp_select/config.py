"""Options of `[services.select]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from warp_core.config.types import Between, Duration, Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What queries may cost."""

    # Queries at once, each in a process of its own; further ones wait as long as `patience`, then they are told to come back.
    workers_max: Annotated[int, Meta(ge=1, le=64)] = 2
    patience: Annotated[Duration, Between("0s", "10min")] = Duration(20)
    # What DuckDB may use in a process; the process itself may take 1 GiB more of address space.
    memory: Annotated[Size, Between("64MiB", "16GiB")] = Size(256 << 20)
    # From the first byte read to the last sent.
    time_limit: Annotated[Duration, Between("1s", "1d")] = Duration(1800)
    # How long an idle process waits for the next query.
    idle: Annotated[Duration, Between("0s", "1h")] = Duration(60)
