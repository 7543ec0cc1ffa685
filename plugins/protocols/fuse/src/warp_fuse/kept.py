"""Mounts that were asked for while a node ran, and that its next start makes again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from warp_core.errors import Corrupt

FILE: Final = "fuse-mounts.json"  # in the node's data folder


class Kept(msgspec.Struct, frozen=True):
    """One mount."""

    volume: str
    read_only: bool = False


def read(data: Path) -> dict[str, Kept]:
    """Return kept mounts by directory.

    Raises:
        Corrupt: The file cannot be read.
    """
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=dict[str, Kept])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"{data / FILE} cannot be read ({error}): mend it or remove it") from error


def write(data: Path, kept: Mapping[str, Kept]) -> None:
    """Replace the file: after a crash it is the old one or the new one."""
    draft = data / f"{FILE}.new"
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(dict(kept))) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(data / FILE)
