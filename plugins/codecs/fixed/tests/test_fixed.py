"""Sizes and how they are written."""

from __future__ import annotations

import pytest
from warp_core.config.types import Size
from warp_core.contexts import CodecContext
from warp_core.errors import ConfigError
from warp_fixed import Config, build
from warp_fixed.chunker import Fixed


def size(arguments: str, config: Config | None = None) -> int:
    codec = build(config or Config(), CodecContext(arguments))
    assert isinstance(codec, Fixed)
    return codec.max_size


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("8MiB", 8 << 20),
        ("8M", 8_000_000),
        ("8MB", 8_000_000),
        ("64k", 64_000),
        ("64K", 64_000),
        ("64KiB", 64 << 10),
        ("4096", 4096),
        ("64MiB", 64 << 20),
        ("", 8 << 20),
    ],
)
def test_sizes_may_be_written_in_these_ways(written: str, expected: int) -> None:
    assert size(written) == expected


def test_the_argument_overrules_the_table() -> None:
    assert size("", Config(size=Size.parse("1MiB"))) == 1 << 20
    assert size("2MiB", Config(size=Size.parse("1MiB"))) == 2 << 20


@pytest.mark.parametrize(
    "written",
    ["4095", "65MiB", "1G", "0", "-4096", "8MiB:2", "8X", "9" * 30, "many"],
)
def test_a_wrong_size_says_what_is_allowed(written: str) -> None:
    with pytest.raises(ConfigError, match="allowed: 4KiB to 64MiB"):
        size(written)
