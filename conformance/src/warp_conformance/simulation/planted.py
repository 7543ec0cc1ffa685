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
from warp_core.containers import journal as journal_module
from warp_core.containers.generations import Copies
from warp_core.interfaces.consistency import Commit
from warp_core.interfaces.stores import BlobStore, Buffer
from warp_core.metadata.rows import Rows
from warp_core.namespace.filelog import FileLog

Plant = Callable[[ExitStack], None]


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug: what is wrong, and the scenario that shows it."""

    what: str
    scenario: str
    plant: Plant


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


async def _change_unwritten(copies: Copies) -> None:
    """Begin a generation in memory only."""
    copies.generation += 1


_judge = Rows.judge


def _judge_nothing(rows: Rows, commit: Commit) -> Any:
    return _judge(rows, msgspec.structs.replace(commit, checks=()))


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
}
