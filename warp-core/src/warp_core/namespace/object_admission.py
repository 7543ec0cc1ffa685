"""What is judged before the content of an object comes: its condition, and whether quotas have room. The commit judges again."""

from __future__ import annotations

from warp_core.namespace import keys
from warp_core.namespace.described import judge
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import summary_of
from warp_core.namespace.paths import resolve
from warp_core.namespace.pools import Claim
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.views.objects import Condition


async def refuse_early(
    namespace: Namespace, volume: Volume, key: bytes, condition: Condition
) -> None:
    """Judge a condition before anything is written for it; the transaction judges again."""
    view = namespace.store.view()
    try:
        stored = volume.rows(ViewSource(view))
        current = (await resolve(stored, keys.steps(key), key)).current
        judge(condition, key, await summary_of(namespace.apart, stored, current))
    finally:
        view.close()


async def reserve(
    namespace: Namespace, target: Volume, key: bytes, size: int | None
) -> Claim | None:
    """Reserve for content that is about to come, as far as it adds to what is there; None where no limit applies.

    Raises:
        QuotaExceeded
    """
    quotas = namespace.quotas
    tracked = quotas.known(target) or await quotas.watch(target)
    if not tracked.pools or size is None or target.row.versioning == "suspended":
        return None  # suspended: what the new null version drops is known at the commit
    objects = 1
    if target.row.versioning == "off" and not target.row.newest:
        view = namespace.store.view()
        try:
            stored = target.rows(ViewSource(view))
            current = (await resolve(stored, keys.steps(key), key)).current
            there = await summary_of(namespace.apart, stored, current)
        finally:
            view.close()
        if there is not None:
            objects, size = 0, max(0, size - there.size)
    return quotas.claim(tracked, objects=objects, bytes=size)
