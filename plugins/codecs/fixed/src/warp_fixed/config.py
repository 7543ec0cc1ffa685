"""Options of the fixed chunker."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Size
from warp_core.errors import ConfigError

SIZE_MIN = Size.parse("4KiB")  # one page: smaller chunks cost more in extents than they hold
SIZE_MAX = Size.parse("64MiB")  # a container


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[codecs.fixed]`."""

    size: Annotated[Size, Between("4KiB", "64MiB")] = Size(8 << 20)  # where `fixed` has no argument


def size_of(config: Config, arguments: str) -> int:
    """Return the bytes of a chunk that `fixed` or `fixed:SIZE` means.

    Raises:
        ConfigError: No size, or none that is allowed.
    """
    if not arguments:
        return config.size
    try:
        size = Size.parse(int(arguments) if arguments.isdecimal() else arguments)
    except ValueError:
        size = Size(0)
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise ConfigError(
            f'"fixed:{arguments}" is no size of a chunk; allowed: {SIZE_MIN} to {SIZE_MAX}, such as 64KiB or 8MiB'
        )
    return size
