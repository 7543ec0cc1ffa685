"""What `[[store]] kind = "disk"` may say."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a disk store."""

    path: str = (
        "store"  # folder, made if it does not exist; relative paths start at the node's data folder
    )
    reserve: int = (
        -1
    )  # bytes kept free for deletes and commits; -1: 2 % of the file system, at most 1 GiB
    threads: int = 4  # file calls at once; more than a disk's queue is worth gains nothing
    descriptors: int = 512  # files kept open
    spares: int = 4  # deleted files kept for recycling, so that a journal finds its next segment written before
