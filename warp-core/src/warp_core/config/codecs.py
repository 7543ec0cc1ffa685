"""Codecs from the words that policies and records name them by."""

from __future__ import annotations

from typing import Any

from warp_core.config.model import Settings
from warp_core.config.types import Codec
from warp_core.contexts import CodecContext
from warp_core.registry import Registries


def build_codec(settings: Settings, registries: Registries, spec: str) -> Any:
    """Return the codec that `spec` ("zstd:3") names, with the options of its table.

    Raises:
        NotFound, PluginError: It is not installed, or cannot be loaded.
        ConfigError, InvalidArgument: It refuses its arguments.
    """
    codec = Codec.parse(spec)
    entry = registries["codecs"].get(codec.name)
    options = settings.codecs.get(codec.name) or entry.config()
    return entry.build(options, CodecContext(arguments=codec.arguments))
