"""Contents of archives: brought back when that was asked for, and left to the archive again when their time is over."""

from __future__ import annotations

import asyncio

from warp_core.errors import Busy, ReadOnly, Unavailable, VolumeNotFound, WarpError
from warp_core.logs import get
from warp_core.namespace import archives
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.tree import Volume

from warp_lifecycle.sweep import BY_RULE, NOT_MOVED

AT_ONCE = 16  # of one volume in one pass; two contents are copied at a time

log = get("warp_lifecycle")


async def restore_some(namespace: Namespace, volume: Volume, counts: dict[str, int]) -> bool:
    """Do some of what is due in a volume; True if there is nothing more to do now."""
    if volume.row.frozen or volume.row.read_only:
        return True
    tasks = await archives.due(namespace, volume, AT_ONCE)
    if not tasks:
        return True
    name = volume.row.name

    async def one(task: archives.Due) -> bool:
        try:
            done = await archives.do(namespace, name, task, BY_RULE)
        except (VolumeNotFound, ReadOnly, Busy):  # deleted meanwhile, or rolled back just now
            return False
        except (*NOT_MOVED, Unavailable) as error:
            # It stays due, and the next pass tries again.
            log.warning("content is not restored", volume=name, key=task.key, error=str(error))
            counts["not_restored"] = counts.get("not_restored", 0) + 1
            return False
        if done:
            counts[done] = counts.get(done, 0) + 1
        return True

    results = await asyncio.gather(*map(one, tasks), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, WarpError):
            raise result
        if isinstance(result, WarpError):
            log.warning("content is not restored", volume=name, error=str(result))
    # What failed is tried again after a while, not at once.
    return not any(result is True for result in results)
