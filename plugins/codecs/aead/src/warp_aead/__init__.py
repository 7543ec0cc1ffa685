"""WARP plugin: authenticated encryption of frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_aead.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from warp_core.contexts import CodecContext
    from warp_core.interfaces.codecs import Codec

__all__ = ["Config", "warp_register_codecs"]

NAMES = ("aes-gcm", "chacha20-poly1305")


def _building(name: str) -> Callable[[Config, CodecContext], Codec]:
    def build(config: Config, context: CodecContext) -> Codec:
        from warp_aead.config import key_of  # the library is loaded when something is encrypted
        from warp_aead.filter import Aead

        return Aead(name, key_of(config, name, context.arguments))

    return build


def _sample(folder: Path) -> Config:
    file = folder / "filter.key"
    if not file.exists():
        file.write_bytes(os.urandom(32))
        file.chmod(0o600)
    return Config(key_file=str(file))


def _key_files(config: Config, data: Path) -> dict[str, Path]:
    return {"key_file": Path(config.key_file).expanduser()} if config.key_file else {}


@hookimpl
def warp_register_codecs(registry: Registry[Codec]) -> None:
    """Offer `aes-gcm` and `chacha20-poly1305`."""
    for name in NAMES:
        registry.add(
            Entry(
                name,
                build=_building(name),
                config=Config,
                summary=f"encrypts frames and binds each to its place ({name.upper()})",
                sample=_sample,
                key_files=_key_files,
            )
        )
