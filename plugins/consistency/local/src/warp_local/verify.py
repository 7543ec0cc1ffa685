"""Verification and rebuild of the index: what `warp fsck` does about it while no node runs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import msgspec
from warp_core.containers.journal import Journal
from warp_core.errors import ConfigError, StoreFailed, WarpError
from warp_core.interfaces.consistency import Progress, Row
from warp_core.interfaces.stores import BlobStore

from warp_local import image
from warp_local.config import Config
from warp_local.index import FOLDER, Index, sync_folder
from warp_local.probe import PROBLEMS_MAX, probe
from warp_local.restore import restore

ANEW = "meta.anew"  # beside the index, while it is made anew
OLD = "meta.old"  # what a rebuild moved aside, with a number behind it


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild did. `image` is the version of the image that it began with, 0 for none."""

    version: int
    rows: int
    image: int
    moved: tuple[str, ...] = ()  # where the old copies are now


def folders(stores: Sequence[BlobStore]) -> list[Path]:
    """Return where the copies are kept.

    Raises:
        ConfigError: No store has a local path.
    """
    found = [store.path for store in stores if store.path is not None]
    if not found:
        raise ConfigError('metadata engine "local" needs a store with a local path, such as "disk"')
    return found


async def verify(
    config: Config, stores: Sequence[BlobStore], journal: Journal, progress: Progress
) -> list[str]:
    """Say, in a sentence each, what is wrong with the log, the images and the copies of the index.

    The index is made anew beside the old one, from image and log, and every row is compared. `journal` was opened after the last
    commit, and every copy of the index was brought to its end, if that is possible.
    """
    problems = [problem async for problem in journal.inspect()]
    for store in stores:
        for end in (await image.ends(store))[:1]:
            problems += await image.damage(end, store)
    sound = []
    places = folders(stores)
    for place in places:
        probed = await probe(place / FOLDER, config.index_max)
        problems += probed.problems
        if not probed.problems:
            sound.append(place / FOLDER)
        progress({"rows": probed.rows})
    anew = places[0] / ANEW
    try:
        restored = await restore(config, stores, journal, anew, progress)
    except WarpError as error:
        return [*problems, str(error)]
    try:
        for folder in sound:
            problems += await asyncio.to_thread(_compared, restored.index, folder, config)
    finally:
        restored.index.close()
        shutil.rmtree(anew, ignore_errors=True)
    return problems


def _compared(expected: Index, folder: Path, config: Config) -> list[str]:
    index = Index(folder, config.index_max)
    try:
        index.open()
        if index.state.version < expected.state.version:
            return []  # the journal holds the rest: after a crash, beside a damaged copy that nobody opened
        if index.state.version > expected.state.version:
            return [
                f"{folder} is at version {index.state.version}, image and journal give"
                f" {expected.state.version}"
            ]
        found: list[str] = []
        for problem in _differences(folder, index, expected):
            if len(found) == PROBLEMS_MAX:
                return [*found, f"{folder}: there are more problems of this kind"]
            found.append(problem)
        return found
    except (WarpError, lmdb.Error) as error:
        return [f"{folder}: {error}"]
    finally:
        index.close()


def _differences(folder: Path, index: Index, expected: Index) -> Iterator[str]:
    """Walk both in step."""
    ours, theirs = index.all_rows(), expected.all_rows()
    mine: Row | None = next(ours, None)
    right: Row | None = next(theirs, None)
    while mine is not None or right is not None:
        if right is None or (mine is not None and mine.key < right.key):
            assert mine is not None
            yield f"{folder}: row {mine.key!r} of version {mine.version} should not be there"
            mine = next(ours, None)
        elif mine is None or right.key < mine.key:
            yield f"{folder}: row {right.key!r} of version {right.version} is missing"
            right = next(theirs, None)
        else:
            if mine != right:
                yield f"{folder}: row {mine.key!r} is not what version {right.version} made it"
            mine, right = next(ours, None), next(theirs, None)


async def rebuild(
    config: Config, stores: Sequence[BlobStore], journal: Journal, progress: Progress
) -> Rebuilt:
    """Make the index anew from image and journal, and put it in place of all copies; what was there is moved aside.

    The other copies are made from it at the next start of the engine.

    Raises:
        Corrupt: It cannot be made anew; nothing was changed.
        StoreFailed: A copy that is there and sound has commits that image and journal do not give; nothing was changed.
        NoSpace: There is no room for it; nothing was changed.
    """
    places = folders(stores)
    anew = places[0] / ANEW
    restored = await restore(config, stores, journal, anew, progress)
    version, rows = restored.version, restored.rows
    restored.index.close()
    try:
        for place in places:
            probed = await probe(place / FOLDER, config.index_max)
            if not probed.problems and probed.version > version:
                raise StoreFailed(
                    f"{place / FOLDER} is sound and at version {probed.version}, image and journal give"
                    f" only {version}: it is kept; start the node with it"
                )
    except BaseException:
        shutil.rmtree(anew, ignore_errors=True)
        raise
    moved = []
    for place in places:
        if (place / FOLDER).exists():
            aside = _free_name(place)
            os.rename(place / FOLDER, aside)
            sync_folder(place)
            moved.append(str(aside))
    os.rename(anew, places[0] / FOLDER)
    sync_folder(places[0])
    return Rebuilt(version, rows, restored.image, tuple(moved))


def _free_name(place: Path) -> Path:
    number = 1
    while (place / f"{OLD}-{number}").exists():
        number += 1
    return place / f"{OLD}-{number}"
