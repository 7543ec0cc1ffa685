"""Making the index anew from the newest image that is whole, and the journal behind it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from warp_core.containers.journal import Journal
from warp_core.containers.segments import START, Position
from warp_core.errors import Corrupt, WarpError
from warp_core.interfaces.consistency import Progress
from warp_core.interfaces.stores import BlobStore

from warp_local import image
from warp_local.config import Config
from warp_local.image import End
from warp_local.index import Index
from warp_local.replay import commits_after


class Restored:
    """An index that was made anew. `image` is the version of the image that it began with, 0 for none."""

    def __init__(self, index: Index, image: int, rows: int) -> None:
        self.index = index
        self.image = image
        self.rows = rows

    @property
    def version(self) -> int:
        """The newest commit in it."""
        return self.index.state.version


async def restore(
    config: Config,
    stores: Sequence[BlobStore],
    journal: Journal,
    folder: Path,
    progress: Progress,
) -> Restored:
    """Make an index in a folder, replacing what is there; it is open, closed by the caller.

    `journal` was opened after the last commit.

    Raises:
        Corrupt: No image is whole and has the journal behind it; the message says of each why.
        NoSpace, StoreFailed: The folder's disk did not take it.
    """
    reasons = []
    for end, holders in await _images(stores):
        try:
            return await _from(end, holders, config, journal, folder, progress)
        except Corrupt as error:
            reasons.append(f"image {end.version}: {error}")
    if not await journal.reaches(START):
        reasons.append("the journal does not reach back to its beginning")
    else:
        try:
            restored = await _from(None, (), config, journal, folder, progress)
            if restored.version:
                return restored
            restored.index.close()
            shutil.rmtree(folder, ignore_errors=True)
            reasons.append("the journal has no commit")
        except Corrupt as error:
            reasons.append(str(error))
    raise Corrupt("the index cannot be made anew: " + "; ".join(reasons))


async def _images(stores: Sequence[BlobStore]) -> list[tuple[End, list[BlobStore]]]:
    """Return every image and who has it, the newest first."""
    found: dict[End, list[BlobStore]] = {}
    for store in stores:
        try:
            for end in await image.ends(store):
                found.setdefault(end, []).append(store)
        except WarpError:
            continue
    return sorted(found.items(), key=lambda each: each[0].version, reverse=True)


async def _from(
    end: End | None,
    holders: Sequence[BlobStore],
    config: Config,
    journal: Journal,
    folder: Path,
    progress: Progress,
) -> Restored:
    if end is not None and not await journal.reaches(end.position):
        raise Corrupt("the journal does not reach back to it")
    shutil.rmtree(folder, ignore_errors=True)
    index = Index(folder, config.index_max)
    await asyncio.to_thread(index.open)
    try:
        loaded = 0
        if end is None:
            index.begin(os.urandom(16))
        else:
            pairs: image.Pairs = []
            async for step in image.read(end, holders):
                pairs += step
                if len(pairs) >= config.checkpoint_rows:
                    await asyncio.to_thread(index.load, pairs)
                    loaded, pairs = loaded + len(pairs), []
                    progress({"rows": loaded, "of": end.rows})
            await asyncio.to_thread(index.load, pairs)
            loaded += len(pairs)
            if loaded != end.rows:
                raise Corrupt(f"it has {loaded} rows instead of {end.rows}")
            await asyncio.to_thread(index.finish_load, end)
        commits = await _replayed(index, config, journal, progress)
        index.refresh()
        progress({"rows": loaded, "commits": commits})
    except BaseException:
        index.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Restored(index, end.version if end else 0, loaded)


async def _replayed(index: Index, config: Config, journal: Journal, progress: Progress) -> int:
    """Apply what the journal has beyond an index; return how many commits that were."""
    rows: dict[bytes, tuple[int, bytes | None]] = {}
    requests: list[tuple[bytes, int]] = []
    version, position, began = index.state.version, index.state.position, index.state.version

    async def apply() -> None:
        changed = sorted((key, *row) for key, row in rows.items())
        await asyncio.to_thread(index.apply, changed, tuple(requests), version, position)
        rows.clear()
        requests.clear()
        progress({"commits": version - began})

    since: Position = position
    async for record, end in commits_after(journal, since, version):
        version, position = record.version, end
        for key, value in record.changes:
            rows[key] = (version, value)
        if record.request_id:
            requests.append((record.request_id, version))
        if len(rows) >= config.checkpoint_rows:
            await apply()
    if version > index.state.version:
        await apply()
    return version - began
