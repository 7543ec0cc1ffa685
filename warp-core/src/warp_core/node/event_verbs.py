"""What the control socket tells of events: which bucket's go where, how many wait, and how the targets do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from warp_core import notifications
from warp_core.errors import Expired
from warp_core.interfaces.targets import TargetHealth
from warp_core.namespace import feed
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.notified import progress_of
from warp_core.namespace.tree import Volume
from warp_core.namespace.volumes import DELETED
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Verb

WAITING_MAX: Final = 1000  # changes that are counted: one scan


async def events_status(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell of every volume and target how far events have gone, and of targets that no rule names that they are there."""
    rows: list[dict[str, object]] = []
    named: set[str] = set()
    namespace = node.namespace
    for volume in await namespace.volumes.all(deleted=True):
        document = (await namespace.volumes.documents(volume)).get(notifications.DOCUMENT)
        if document is None:
            continue
        try:
            rules = notifications.unpack(document)
        except msgspec.DecodeError as error:
            rows.append(
                event_row(volume.row.name, "", None, state=f"rules cannot be read: {error}")
            )
            continue
        for target in rules.targets():
            named.add(target)
            rows.append(await _told(node, namespace, volume, rules, target))
    for name, found in node.targets.items():
        if name not in named:
            rows.append(event_row("", name, found.health, state="no rule names it"))
    return sorted(rows, key=lambda row: (str(row["name"]), str(row["target"])))


async def _told(
    node: Node,
    namespace: Namespace,
    volume: Volume,
    rules: notifications.Notifications,
    target: str,
) -> dict[str, object]:
    since_ns = rules.targets()[target][0].since_ns
    name = volume.row.name
    if name.startswith(DELETED):
        name = f"{rules.volume} (deleted)"
    found = node.targets.get(target)
    health = found.health if found is not None else None
    at = await progress_of(
        namespace, volume, target, since_ns=since_ns, written_ns=rules.written_ns
    )
    try:
        page = await feed.read_of(namespace, volume, at.cursor, limit=WAITING_MAX)
    except Expired:
        return event_row(name, target, health, state="too far behind: events are lost")
    if found is None:
        state = "no such [[event_target]] here"
    elif health is not None and health.failing_since_ns:
        state = "failing"
    else:
        state = "ok"
    oldest_s = (time.time_ns() - page.events[0].time_ns) / 1e9 if page.events else 0.0
    return event_row(name, target, health, state=state, waiting=len(page.events), oldest_s=oldest_s)


def event_row(
    volume: str,
    target: str,
    health: TargetHealth | None,
    *,
    state: str,
    waiting: int = 0,
    oldest_s: float = 0.0,
) -> dict[str, object]:
    """Tell of a volume's events to a target."""
    known = health or TargetHealth()
    failing = ""
    if known.failing_since_ns:
        failing = datetime.fromtimestamp(known.failing_since_ns / 1e9, UTC).isoformat(
            "T", "seconds"
        )
    return {
        "name": volume,
        "target": target,
        "state": state,
        "waiting": waiting,  # changes that were not looked at; at most WAITING_MAX are counted
        "oldest_s": round(max(oldest_s, 0.0), 3),
        "sent": known.sent,
        "failed": known.failed,
        "failing_since": failing,
        "error": known.error,
    }


EVENTS_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("events.status", Verb(Nothing, events_status)),
)
