"""What a volume holds, counted by merges in the transactions that change it."""

from __future__ import annotations

from typing import Final, NamedTuple

from warp_core.interfaces.consistency import View
from warp_core.metadata import counters
from warp_core.namespace import keys
from warp_core.namespace.tree import Volume

COUNTED: Final = 6  # fields of a Q row


class Usage(NamedTuple):
    """Counts and bytes of a volume. Bytes are sizes that users see: copies count, holes too."""

    objects: int = 0  # current objects and files
    bytes: int = 0
    versions: int = 0  # noncurrent ones, markers included
    version_bytes: int = 0
    uploads: int = 0
    part_bytes: int = 0
    snapshot_bytes: int = 0  # that no name leads to any more and snapshots keep: `kept_bytes`

    def plus(self, other: Usage) -> Usage:
        """Return the sum, field by field."""
        return Usage(*map(int.__add__, self, other))


def decode_usage(value: bytes | None) -> Usage:
    """Read the counter row; an absent one is all zeros."""
    return Usage(*counters(value, COUNTED))


async def usage_at(view: View, volume: Volume) -> Usage:
    """Return what a volume, or a snapshot of it, holds as a view shows it; of a clone with what it began with."""
    total = Usage()
    for number, snapshot in ((volume.number, volume.snapshot), *volume.bases):
        prefix = keys.prefix(number)
        start, end = keys.usage_until(snapshot)
        start, end = prefix + start, prefix + end
        while page := await view.scan(start, end):
            for row in page:
                found = decode_usage(row.value)
                if snapshot:  # uploads are nobody's but the live volume's
                    found = found._replace(uploads=0, part_bytes=0)
                total = total.plus(found)
            start = page[-1].key + b"\0"
    if not volume.snapshot:
        kept = await view.get(volume.prefix + keys.KEPT_BYTES)
        total = total._replace(snapshot_bytes=counters(kept[0] if kept else None, 1)[0])
    return total
