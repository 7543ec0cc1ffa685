"""The folder of a disk store: superblock, lock, and where blobs lie (`docs/formats/store.md`)."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from warp_core.errors import AlreadyRunning, ConfigError, Corrupt, NewerFormat
from warp_core.interfaces.stores import BlobInfo

from warp_disk.files import replace_durably, sync_folder

FORMAT = 1
SUPERBLOCK = "store.json"
FOLDERS = ("blobs", "spare", "incoming")
_ALLOWED_BESIDE = {"lost+found"}  # a fresh ext4 has it


def open_folder(path: Path) -> tuple[str, int]:
    """Prepare or check the folder and lock it. Returns the store's id and the descriptor that holds the lock.

    Raises:
        ConfigError: The folder holds something else, or may not be written.
        AlreadyRunning: Another process uses the store.
        NewerFormat: A later release wrote it.
        Corrupt: The superblock is damaged.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / SUPERBLOCK).exists():
            _refuse_foreign(path)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(
            f"store path {path} cannot be used ({error.strerror}): let this user write there, or name another folder"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another server uses the store {path}: stop it first") from None
        return _identity(path), lock
    except BaseException:
        os.close(lock)
        raise


def _refuse_foreign(path: Path) -> None:
    inside = {entry.name for entry in os.scandir(path)} - _ALLOWED_BESIDE - {"lock", *FOLDERS}
    if inside:
        raise ConfigError(
            f"store path {path} holds {min(inside)} but no WARP store: name an empty folder, or the store's own"
        )


def _identity(path: Path) -> str:
    file = path / SUPERBLOCK
    if not file.exists():
        identity = secrets.token_hex(8)
        for folder in FOLDERS:
            (path / folder).mkdir(exist_ok=True)
        text = json.dumps({"format": FORMAT, "id": identity, "kind": "disk"}) + "\n"
        replace_durably(file, path / "incoming" / SUPERBLOCK, [text.encode()], 0o600)
        sync_folder(path.parent)
        return identity
    try:
        superblock = json.loads(file.read_bytes())
        version, identity = superblock["format"], superblock["id"]
        valid = isinstance(version, int) and isinstance(identity, str) and identity != ""
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise Corrupt(f"{file} is damaged: restore it from a backup, or start with another folder")
    if version > FORMAT:
        raise NewerFormat(
            f"store {path} has format {version}, this release reads up to {FORMAT}: use the newer release"
        )
    for folder in FOLDERS:
        (path / folder).mkdir(exist_ok=True)
    return str(identity)


def file_of(blobs: Path, name: str) -> Path:
    """Return where a blob lies. Folders get a "+", which names cannot hold: a blob `a` stands beside blobs `a/…`."""
    *folders, last = name.split("/")
    for folder in folders:
        blobs = blobs / f"+{folder}"
    return blobs / last


def walk(folder: str, prefix: str, after: str, start: str = "") -> Iterator[BlobInfo]:
    """Yield blobs in name order whose name begins with `prefix` and sorts after `after`; `start` is the folder's own name."""
    try:
        entries = [
            (start + (entry.name[1:] + "/" if entry.name.startswith("+") else entry.name), entry)
            for entry in os.scandir(folder)
        ]
    except FileNotFoundError:
        return
    entries.sort(key=lambda pair: pair[0])
    for name, entry in entries:
        if name.endswith("/"):
            shared = min(len(name), len(prefix))
            if name[:shared] == prefix[:shared] and not (
                after >= name and not after.startswith(name)
            ):
                yield from walk(entry.path, prefix, after, name)
        elif name > after and name.startswith(prefix):
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            yield BlobInfo(name, status.st_size, status.st_blocks * 512)
