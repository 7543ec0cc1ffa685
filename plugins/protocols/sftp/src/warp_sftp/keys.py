"""Files of keys, read again when they change: this server's own, those that sign users' certificates, those that are refused."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp_core import logs
from warp_core.errors import ConfigError, StoreFailed

HOST_KEY: Final = "sftp/host_key_ed25519"
"""This server's own key where the configuration names none, from the node's data."""

FILE_MAX: Final = 16 << 20
"""Bytes of a file of public keys."""

_log = logs.get("warp_sftp")

Stamp = tuple[tuple[int, int, int], ...]


def host_key_files(data: Path, named: Sequence[str], *, key: str) -> tuple[Path, ...]:
    """Return the files of this server's keys; without named ones there is one, made on the first start.

    Raises:
        ConfigError: One is missing, or others may read it.
        StoreFailed: It cannot be made.
    """
    paths = tuple(data / name for name in named) or (data / HOST_KEY,)
    if not named and not paths[0].exists():
        _make(paths[0])
    for path in paths:
        try:
            mode = path.stat().st_mode & 0o777
        except OSError as error:
            raise ConfigError(f"{key}.host_keys: cannot use {path}: {error.strerror}") from None
        if mode & 0o077:
            raise ConfigError(
                f"{key}.host_keys: others may read {path} (mode {mode:03o}): chmod 600 it"
            )
    return paths


def _make(path: Path) -> None:
    # Here: it takes longer to import than the rest of the start, and is needed once.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    temporary = path.with_suffix(f".{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another was faster
        finally:
            temporary.unlink()
        path.with_suffix(".pub").write_bytes(public + b" warp\n")
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreFailed(f"{path} cannot be written ({error.strerror})") from None
    _log.info("host key made", file=str(path))


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """Return what changes when one of the files does; a missing one has a stamp as well."""
    stamps = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)


class PublicKeys:
    """The public keys of some files, by their blobs."""

    def __init__(self, paths: Sequence[Path], *, key: str) -> None:
        """Take the files; `key` names them in messages. Nothing is read yet."""
        self._paths = paths
        self._key = key
        self._stamp: Stamp | None = None
        self._blobs: frozenset[bytes] = frozenset()

    def load(self) -> frozenset[bytes]:
        """Read the files if they changed.

        Raises:
            ConfigError: One cannot be read.
        """
        stamp = stamp_of(self._paths)
        if stamp != self._stamp:
            self._blobs = frozenset(blob for path in self._paths for blob in self._read(path))
            self._stamp = stamp
        return self._blobs

    def now(self) -> frozenset[bytes] | None:
        """Return the keys as the files have them now; None where they cannot be read, which is logged."""
        try:
            return self.load()
        except ConfigError as error:
            _log.error("a file of keys is not used", error=str(error))
            return None

    def _read(self, path: Path) -> list[bytes]:
        from asyncssh import KeyImportError, import_public_key

        try:
            if path.stat().st_size > FILE_MAX:
                raise ConfigError(f"{self._key}: {path} has more than {FILE_MAX} bytes")
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._key}: cannot use {path}: {error}") from None
        found = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                found.append(import_public_key(text).public_data)
            except KeyImportError as error:
                raise ConfigError(f"{self._key}: {path}:{number}: {error}") from None
        return found
