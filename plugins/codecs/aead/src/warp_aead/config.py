"""Options of the encrypting filters."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
from warp_core.errors import ConfigError

KEY_BYTES = 32


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[codecs.aes-gcm]` and `[codecs.chacha20-poly1305]`."""

    # Absolute path of 32 random bytes, mode 0600, for volumes whose policy names the filter. Objects that are encrypted one by one
    # have keys of their own and need none here.
    key_file: str = ""


def key_of(config: Config, name: str, arguments: str) -> bytes:
    """Return the key in the configured file; empty where none is configured.

    Raises:
        ConfigError: The file is not there, may be read by others, or holds no key; or the filter was given arguments.
    """
    if arguments:
        raise ConfigError(f'"{name}:{arguments}": this filter takes no arguments')
    if not config.key_file:
        return b""
    path = Path(config.key_file).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"key_file {config.key_file!r} is not an absolute path")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"key_file {path} cannot be read ({os.strerror(error.errno or 0)}): make one with `warp kms master {path}`"
        ) from None
    if mode & 0o077:
        raise ConfigError(f"others may read key_file {path} (mode {mode:03o}): chmod 600 it")
    if len(key) != KEY_BYTES:
        raise ConfigError(f"key_file {path} holds {len(key)} bytes, not {KEY_BYTES}")
    return key
