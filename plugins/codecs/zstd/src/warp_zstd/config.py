"""Options of the Zstandard filter."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.errors import ConfigError

LEVEL_MIN = 1
LEVEL_MAX = 19  # beyond, only windows larger than a frame help


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[codecs.zstd]`."""

    level: Annotated[int, msgspec.Meta(ge=LEVEL_MIN, le=LEVEL_MAX)] = (
        3  # where `zstd` has no argument
    )


def level_of(config: Config, arguments: str) -> int:
    """Return the level that `zstd` or `zstd:LEVEL` means.

    Raises:
        ConfigError: The argument is no level.
    """
    if not arguments:
        return config.level
    if (
        not (arguments.isascii() and arguments.isdecimal())
        or not LEVEL_MIN <= int(arguments) <= LEVEL_MAX
    ):
        raise ConfigError(
            f'"zstd:{arguments}" has no such level; allowed: zstd:{LEVEL_MIN} (fast) to zstd:{LEVEL_MAX} (small)'
        )
    return int(arguments)
