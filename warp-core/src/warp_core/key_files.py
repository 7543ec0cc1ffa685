"""Files that hold a key: 32 random bytes that only their owner may read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from warp_core.errors import AlreadyExists, ConfigError, Corrupt, StoreFailed

SIZE = 32


def make_key_file(path: Path) -> bytes:
    """Write a new key, durably, and return it.

    Raises:
        AlreadyExists: There is a file: what it wraps would be lost.
        StoreFailed: It cannot be written.
    """
    key = secrets.token_bytes(SIZE)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, key)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, path)  # unlike a rename it never replaces what is there
        finally:
            temporary.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists: what its key wraps would be lost") from None
    except OSError as error:
        raise StoreFailed(f"{path} cannot be written ({os.strerror(error.errno or 0)})") from None
    return key


def read_key_file(path: Path) -> bytes | None:
    """Return the key; None if there is no file.

    Raises:
        ConfigError: Others may read it.
        Corrupt: It is no key.
        StoreFailed: It cannot be read.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreFailed(f"{path} cannot be read ({os.strerror(error.errno or 0)})") from None
    if mode & 0o077:
        raise ConfigError(f"others may read {path} (mode {mode:03o}): chmod 600 it")
    if len(key) != SIZE:
        raise Corrupt(f"{path} is no key of {SIZE} bytes: restore it from a backup")
    return key
