"""Which store a bucket is, remembered in the node's data directory: so that a node starts while the endpoint is away."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from warp_core.errors import StoreFailed

FOLDER: Final = "buckets"


def remember(data: Path, place: str, identity: str) -> None:
    """Write down which store is at a place.

    Raises:
        StoreFailed: The data directory cannot be written.
    """
    path = _file(data, place)
    if remembered(data, place) == identity:
        return
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        fresh.write_text(identity + "\n")
        fresh.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path} cannot be written ({os.strerror(error.errno or 0)})") from None


def remembered(data: Path, place: str) -> str:
    """Return which store was at a place; empty: none was."""
    try:
        return _file(data, place).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _file(data: Path, place: str) -> Path:
    return data / FOLDER / hashlib.sha256(place.encode()).hexdigest()[:32]
