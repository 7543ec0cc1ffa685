"""Options of the encrypting filters."""

from __future__ import annotations

from pathlib import Path

import msgspec
from warp_core.errors import ConfigError
from warp_core.key_files import read_key_file


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[codecs.aes-gcm]` and `[codecs.chacha20-poly1305]`."""

    # Absolute path of 32 random bytes, mode 0600, for volumes whose policy names the filter. Objects that are encrypted one by one
    # have keys of their own and need none here.
    key_file: str = ""


def key_of(config: Config, name: str, arguments: str) -> bytes:
    """Return the key in the configured file; empty where none is configured.

    Raises:
        ConfigError: The file is not there or may be read by others; or the filter was given arguments.
        Corrupt, StoreFailed: It holds no key, or cannot be read.
    """
    if arguments:
        raise ConfigError(f'"{name}:{arguments}": this filter takes no arguments')
    if not config.key_file:
        return b""
    path = Path(config.key_file).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"key_file {config.key_file!r} is not an absolute path")
    key = read_key_file(path)
    if key is None:
        raise ConfigError(f"key_file {path} is missing: make one with `warp kms master {path}`")
    return key
