"""What the parts of the kit for blob stores share: content, names, and ways to look at a store."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from warp_core.interfaces.stores import BLOB_NAME_MAX, BlobStore

from warp_conformance.kit import Kit

Reopen = Callable[[], Awaitable[BlobStore]]
SMALL_STORE = 64 * 1024 * 1024  # bytes in all: only stores up to here are filled to the brim
KIB = 1024


BAD_NAMES = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "A",
    "ä",
    "a b",
    "a\0",
    ".",
    "..",
    "a/../b",
    "./a",
    "a" * (BLOB_NAME_MAX + 1),
)


NAMES = ("a", "a-b", "a.b", "a/b", "a/b.c", "a/b/c", "a/c", "a0", "b", "b/a", "ba")  # sorted


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a pattern."""
    return random.Random(seed).randbytes(length)


async def names(store: BlobStore, prefix: str = "") -> list[str]:
    """Return all names, in pages of three."""
    found: list[str] = []
    while page := await store.list(prefix, after=found[-1] if found else "", limit=3):
        assert len(page) <= 3
        found += [info.name for info in page]
        assert len(found) < 1000
    return found


class BlobStorePart(Kit):
    """What every part of the kit stands on: a blob store."""
