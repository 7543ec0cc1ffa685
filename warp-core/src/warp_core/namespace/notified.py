"""How far the events of a volume have gone to a target, and where they begin for one that is new."""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.errors import Corrupt, VolumeNotFound
from warp_core.interfaces.consistency import View
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.feed import CURSOR_BYTES
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import checked, decode_event
from warp_core.namespace.tree import Volume
from warp_core.namespace.volumes import DELETED
from warp_core.notifications import (
    DOCUMENT,
    Progress,
    decode_progress,
    encode_progress,
    progress_name,
)

SKEW_NS: Final = 2 * 10**9  # between the clock that dates rules and the one that dates events
PAGE: Final = 200


async def progress_of(
    namespace: Namespace, volume: Volume, target: str, *, since_ns: int, written_ns: int
) -> Progress:
    """Return how far events have gone to a target that the volume's rules, written at `written_ns`, name since `since_ns`.

    A target that these rules were the first to name begins behind their commit: exactly. One that earlier rules named, and that
    nothing went to, begins where these were written, by the clock.

    Raises:
        Corrupt: The row is damaged.
    """
    view = namespace.store.view()
    try:
        found = await view.get(volume.prefix + keys.progress_key(progress_name(target)))
        if found is not None:
            try:
                kept = decode_progress(found[0])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Corrupt(f"progress of events to {target!r} cannot be read: {error}") from None
            if kept.since_ns == since_ns and len(kept.cursor) == CURSOR_BYTES:
                return kept
        rules = await view.get(volume.prefix + keys.document_key(DOCUMENT))
        version = rules[1] if rules is not None else 0
        cursor = version.to_bytes(8, "big") + b"\xff\xff"
        if since_ns < written_ns:
            cursor = await _before(view, volume, cursor, since_ns - SKEW_NS)
        return Progress(since_ns, cursor)
    finally:
        view.close()


async def _before(view: View, volume: Volume, cursor: bytes, moment_ns: int) -> bytes:
    """Return the newest cursor up to `cursor` whose event was before a moment; that of nothing if there is none."""
    start, end = volume.prefix + keys.FEED, volume.prefix + keys.FEED + cursor + b"\0"
    while page := await view.scan(start, end, limit=PAGE, reverse=True):
        for row in page:
            if checked(decode_event, row.key, row.value).time_ns < moment_ns:
                return row.key[-CURSOR_BYTES:]
        end = page[-1].key
    trimmed = await view.get(volume.prefix + keys.FEED_TRIMMED)
    return trimmed[0] + b"\xff\xff" if trimmed is not None else bytes(CURSOR_BYTES)


async def save_progress(
    namespace: Namespace, volume: Volume, target: str, progress: Progress | None
) -> None:
    """Note how far events have gone; None forgets it. Fenced as every change that a home makes.

    Raises:
        VolumeNotFound, ReadOnly, Busy, Unavailable
    """

    key = keys.progress_key(progress_name(target))
    await _change(namespace, volume, key, None if progress is None else encode_progress(progress))


async def finish(namespace: Namespace, volume: Volume) -> None:
    """Drop the rules of a deleted volume, whose events have all been told: nothing holds its rows any more.

    Raises:
        VolumeNotFound, Unavailable
    """
    await _change(namespace, volume, keys.document_key(DOCUMENT), None)


async def still_told(namespace: Namespace, volume: Volume, *, after_ns: int) -> bool:
    """Say whether a deleted volume has rules, and events since a moment that somebody may still wait for."""
    view = namespace.store.view()
    try:
        if await view.get(volume.prefix + keys.document_key(DOCUMENT)) is None:
            return False
        start, end = volume.prefix + keys.FEED, volume.prefix + keys.FEED_END
        newest = await view.scan(start, end, limit=1, reverse=True)
    finally:
        view.close()
    return any(checked(decode_event, row.key, row.value).time_ns >= after_ns for row in newest)


async def _change(namespace: Namespace, volume: Volume, key: bytes, value: bytes | None) -> None:
    """Set or remove a row of a volume, by the name that it has since it was deleted if it was."""

    async def body(change: Change) -> None:
        if change.rows.volume.number != volume.number:
            raise VolumeNotFound(f"volume {volume.row.name!r} is another one now")
        if value is None:
            change.rows.delete_present(key)
        else:
            change.rows.put_present(key, value)

    try:
        await namespace.change(volume.row.name, body)
    except VolumeNotFound:
        if volume.row.name.startswith(DELETED):
            raise
        await namespace.change(f"{DELETED}{volume.number}", body)
