"""What `[[store]] kind = "disk"` may say."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Size


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[store]]` with `kind = "disk"`."""

    path: str = (
        "store"  # folder, made if it does not exist; relative paths start at the node's data folder
    )
    reserve: Size | None = (
        None  # kept for deletes and commits; default: 2 % of the file system, 80 MiB to 1 GiB, at most an eighth
    )
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = (
        4  # file calls at once; beyond a disk's queue more gain nothing
    )
    descriptors: Annotated[int, msgspec.Meta(ge=8, le=100_000)] = 512  # files kept open
    spares: Annotated[int, msgspec.Meta(ge=0, le=64)] = (
        4  # deleted files kept to be overwritten, by the journal above all
    )
