"""Commits out of the journal, in order and without a hole."""

from __future__ import annotations

from collections.abc import AsyncIterator

from warp_core.containers import format as fmt
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Gap, Position
from warp_core.errors import Corrupt

from warp_local import records
from warp_local.records import CommitRecord


async def commits_after(
    journal: Journal, since: Position, version: int
) -> AsyncIterator[tuple[CommitRecord, Position]]:
    """Yield every commit that earlier runs logged from `since` on and beyond `version`, and where it ends.

    Raises:
        Corrupt: Commits are missing, or may be: the message names the place.
    """
    newest = version
    gap: Gap | None = None
    async for entry in journal.replay(since):
        if isinstance(entry, Gap):
            gap = entry
            continue
        if entry.kind != fmt.Kind.COMMIT:
            continue
        record = records.unpack(entry.payload)
        if record.version > newest + 1:
            raise Corrupt(
                f"commits {newest + 1} to {record.version - 1} are missing in the journal before "
                f"{entry.position.container:016x}:{entry.position.offset}: run `warp fsck`"
            )
        gap = None  # the versions follow one another, so it held no commit
        if record.version > newest:
            newest = record.version
            yield record, entry.end
    if gap is not None:
        raise Corrupt(
            f"the journal cannot be read at {gap.start.container:016x}:{gap.start.offset}, where commits may "
            "have been: run `warp fsck`"
        )
