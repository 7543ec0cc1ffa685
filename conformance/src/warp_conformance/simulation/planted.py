"""Bugs that the scenarios have to find: each takes the place of a line of the real code, for as long as a run lasts.

A simulation that finds nothing proves nothing until it has found these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import msgspec
from warp_core.cluster.guard import DomainStore, unavailable
from warp_core.cluster.lease import DomainLease
from warp_core.cluster.standing import DomainStanding
from warp_core.containers import journal as journal_module
from warp_core.containers.appender import OpenContainer
from warp_core.containers.fleet import Copy
from warp_core.containers.generations import Copies
from warp_core.errors import WarpError
from warp_core.interfaces.consistency import Commit
from warp_core.interfaces.stores import BlobStore, Buffer
from warp_core.metadata.rows import Rows
from warp_core.namespace.filelog import FileLog
from warp_core.peers import exporter as exporter_module

Plant = Callable[[ExitStack], None]


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug: what is wrong, and the scenario that shows it."""

    what: str
    scenario: str
    plant: Plant
    first: int = 1  # the seed to begin with: one that has shown it


def instead(owner: Any, name: str, made: Any) -> Plant:
    """Return what puts something into the place of an attribute."""

    def plant(stack: ExitStack) -> None:
        stack.enter_context(mock.patch.object(owner, name, made))

    return plant


async def _write_without_sync(
    blob: str, store: BlobStore, *, offset: int, buffers: Sequence[Buffer]
) -> None:
    await store.write(blob, offset=offset, buffers=buffers)


async def _nothing(*arguments: object) -> None:
    return


def _keep(container: OpenContainer, copy: Copy, error: WarpError) -> None:
    """Take no note of a copy that failed."""


async def _change_unwritten(copies: Copies) -> None:
    """Begin a generation in memory only."""
    copies.generation += 1


_judge = Rows.judge


def _judge_nothing(rows: Rows, commit: Commit) -> Any:
    return _judge(rows, msgspec.structs.replace(commit, checks=()))


_placed = DomainStore._placed


def _placed_without_guard(store: DomainStore, commit: Commit) -> Commit:
    placed = _placed(store, commit)
    return msgspec.structs.replace(
        placed, checks=[check for check in placed.checks if check != store._guard]
    )


def _left_s(lease: DomainLease) -> float:
    return lease._deadline_s + 10.0 - lease._monotonic()


def _held(lease: DomainLease) -> bool:
    return _left_s(lease) > 0 and not lease.lost.is_set()


def _demand(lease: DomainLease) -> None:
    if not _held(lease):
        raise unavailable(lease.domain)


async def _left(standing: DomainStanding, living: Sequence[str]) -> bool:
    standing.used &= frozenset(living)
    return True


def _both(*plants: Plant) -> Plant:
    def plant(stack: ExitStack) -> None:
        for each in plants:
            each(stack)

    return plant


PLANTED = {
    "acknowledged-before-sync": Planted(
        "the journal does not sync what it wrote",
        "one-node",
        instead(journal_module, "_write", _write_without_sync),
    ),
    "flush-does-nothing": Planted(
        "FLUSH of a disk returns before the journal is durable",
        "one-node",
        instead(FileLog, "flush", _nothing),
    ),
    "commits-unchecked": Planted(
        "the consensus applies a commit whose checks do not hold",
        "one-node",
        instead(Rows, "judge", _judge_nothing),
    ),
    "generation-not-noted": Planted(
        "that a copy was left behind is not written down before more is acknowledged",
        "failing-disks",
        instead(Copies, "change", _change_unwritten),
    ),
    "lost-copy-ignored": Planted(
        "a copy of a container that could not be written goes on being counted as one",
        "failing-disks",
        instead(OpenContainer, "_lose", _keep),
        first=16,
    ),
    "stream-not-synced": Planted(
        "a large object is linked before it is synced",
        "one-node",
        instead(OpenContainer, "_sync", _nothing),
    ),
    "incarnation-ignored": Planted(
        "a peer that started anew takes syncs of what the one before it had been sent",
        "slow-streams",
        instead(exporter_module, "_PROMISED", frozenset()),
        first=6,
    ),
    "no-fencing": Planted(
        "a home goes on for ten seconds when its lease has ended, and its commits do not carry the check that it is the home",
        "takeover",
        _both(
            instead(DomainLease, "held", property(_held)),
            instead(DomainLease, "left_s", property(_left_s)),
            instead(DomainLease, "demand", _demand),
            instead(DomainStore, "_placed", _placed_without_guard),
        ),
    ),
    "left-behind-silently": Planted(
        "a home goes on without its other store, and does not say so where a takeover looks",
        "cluster",
        instead(DomainStanding, "leave", _left),
        first=11,
    ),
}
