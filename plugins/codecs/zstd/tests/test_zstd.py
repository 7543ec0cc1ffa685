"""What the kit cannot know: formats, levels, limits."""

from __future__ import annotations

import pytest
import zstandard
from warp_core.contexts import CodecContext
from warp_core.errors import ConfigError, Corrupt
from warp_zstd import Config, build
from warp_zstd.filter import Zstd

TEXT = b"".join(b"line %d of a text that compresses\n" % line for line in range(1000))


def level(arguments: str, config: Config | None = None) -> int:
    codec = build(config or Config(), CodecContext(arguments))
    assert isinstance(codec, Zstd)
    return codec.level


def test_the_argument_overrules_the_table() -> None:
    assert level("") == 3
    assert level("", Config(level=5)) == 5
    assert level("7", Config(level=5)) == 7


@pytest.mark.parametrize("arguments", ["0", "20", "-1", "fast", "3:4", "1e1", " 3", "٣"])
def test_a_wrong_level_says_what_is_allowed(arguments: str) -> None:
    with pytest.raises(ConfigError, match=r"zstd:1 \(fast\) to zstd:19"):
        level(arguments)


def test_frames_are_what_other_tools_read() -> None:
    stored = Zstd(3).encode(memoryview(TEXT), context=b"")

    assert stored is not None
    assert zstandard.ZstdDecompressor().decompress(stored) == TEXT


def test_levels_read_one_another() -> None:
    stored = Zstd(19).encode(memoryview(TEXT), context=b"")

    assert stored is not None
    assert Zstd(1).decode(memoryview(stored), length=len(TEXT), context=b"") == TEXT


def test_a_higher_level_stores_less() -> None:
    sizes = [len(Zstd(level).encode(memoryview(TEXT), context=b"") or TEXT) for level in (1, 19)]

    assert sizes[1] < sizes[0]


def test_a_frame_that_saves_little_is_kept_as_it_is() -> None:
    noise = memoryview(bytes((i * i * 7919 + (i >> 3) * 104729) % 251 for i in range(1000)))
    barely = bytes(noise)[:980] + bytes(20)

    assert Zstd(1).encode(memoryview(barely), context=b"") is None


def test_a_header_that_promises_a_terabyte_allocates_nothing() -> None:
    bomb = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1 << 20)))
    header = bytes.fromhex("28b52ffd") + b"\xe0" + (1 << 40).to_bytes(8, "little")

    with pytest.raises(Corrupt, match="1099511627776"):
        Zstd(1).decode(memoryview(header + bytes(bomb[9:])), length=1 << 16, context=b"")


def test_a_frame_without_content_size_is_corrupt() -> None:
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)

    with pytest.raises(Corrupt):
        Zstd(1).decode(memoryview(stored), length=len(TEXT), context=b"")


def test_an_understated_content_size_is_corrupt() -> None:
    stored = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(70_000)))
    assert zstandard.frame_content_size(stored) == 70_000
    at = bytes(stored).index((70_000).to_bytes(4, "little"))
    stored[at : at + 4] = (65_536).to_bytes(4, "little")

    with pytest.raises(Corrupt):
        Zstd(1).decode(memoryview(stored), length=65_536, context=b"")
