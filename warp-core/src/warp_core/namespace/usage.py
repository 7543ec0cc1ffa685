"""What a volume holds, counted by merges in the transactions that change it."""

from __future__ import annotations

from typing import NamedTuple

from warp_core.metadata import counters


class Usage(NamedTuple):
    """Counts and bytes of a volume. Bytes are sizes that users see: copies count, holes too."""

    objects: int = 0  # current objects and files
    bytes: int = 0
    versions: int = 0  # noncurrent ones, markers included
    version_bytes: int = 0
    uploads: int = 0
    part_bytes: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum, field by field."""
        return Usage(*map(int.__add__, self, other))


def decode_usage(value: bytes | None) -> Usage:
    """Read the counter row; an absent one is all zeros."""
    return Usage(*counters(value, len(Usage._fields)))
