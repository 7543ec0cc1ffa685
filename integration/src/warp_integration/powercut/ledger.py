"""The ledger: what was tried and acknowledged, and which contents are therefore allowed after a cut.

Each key is a register. An operation begins, with the content it would leave (`ABSENT` for a delete), and ends as acknowledged,
as refused, or in doubt. After a cut at position p the operations that had begun by p may have happened; those that had been
acknowledged by p did. So a content is allowed unless another operation, begun after this one was over, was
itself acknowledged by p: that one replaced it. An operation in doubt is over when its key was next observed.

The judgement needs no knowledge of the system under test and serves power cuts, kills and full disks alike.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

ABSENT = "-"
"""The content of a key that does not exist. Other contents are any strings that identify them, such as a hash."""

_NEVER = 1 << 62


class End(StrEnum):
    """How an operation ended."""

    ACKNOWLEDGED = "ack"
    REFUSED = "refuse"  # certainly not applied
    DOUBTFUL = "doubt"  # applied, or not, or still to be applied


@dataclass(slots=True)
class Operation:
    """A change of one key. `*_tick` order events in real time, `*_position` places them in the trace."""

    key: str
    content: str
    begin_tick: int
    begin_position: int
    end: End | None = None
    end_tick: int = _NEVER
    end_position: int = _NEVER


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be so after a cut."""

    kind: str  # "lost" (an acknowledged change is gone) or "mixed" (a content that nobody wrote there)
    key: str
    seen: str
    allowed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}: {self.key} is {self.seen}, allowed {' or '.join(self.allowed)}"


class Ledger:
    """Note operations as they happen; judge what is there later.

    Args:
        position: Tells how far the trace has come; the default suits tests that cut nothing (kills, full disks),
            where every event simply counts.
        file: Where events are also written, a JSON line each, so that another process can read them.
    """

    def __init__(
        self, position: Callable[[], int] = lambda: 0, *, file: Path | None = None
    ) -> None:
        self._position = position
        self._tick = 0
        self._observed = 0
        self._history: dict[str, list[Operation]] = defaultdict(list)
        self._file = file.open("x", buffering=1) if file else None

    def begin(self, key: str, content: str) -> Operation:
        """Note that an operation is about to be asked for."""
        operation = Operation(key, content, self._next_tick(), self._position())
        self._history[key].append(operation)
        self._save("begin", operation, operation.begin_position)
        return operation

    def acknowledge(self, operation: Operation) -> None:
        """Note that the operation is promised to last; call it first thing after the answer."""
        self._end(operation, End.ACKNOWLEDGED, self._position())

    def refuse(self, operation: Operation) -> None:
        """Note that the operation was answered with an error that says it did not happen."""
        self._end(operation, End.REFUSED, self._position())

    def doubt(self, operation: Operation) -> None:
        """Note that nobody knows (connection lost, internal error), nor whether it is still to happen."""
        self._end(operation, End.DOUBTFUL, _NEVER)

    def observe(self, key: str, content: str) -> None:
        """Note that `content` was read when no operation on `key` was under way, nor can one in doubt still happen.

        For use after a restart: what is there now has to stay.
        """
        for operation in self._history[key]:
            if operation.end is None or (
                operation.end is End.DOUBTFUL and operation.end_tick == _NEVER
            ):
                self._end(operation, End.DOUBTFUL, self._position())
        self.acknowledge(self.begin(key, content))
        self._observed += 1

    def acks(self) -> list[int]:
        """Return the positions of all acknowledgements."""
        return [
            operation.end_position
            for operations in self._history.values()
            for operation in operations
            if operation.end is End.ACKNOWLEDGED
        ]

    def used_keys(self) -> list[str]:
        """Return every key ever used, in order of first use."""
        return list(self._history)

    def acknowledged(self) -> int:
        """Return the number of acknowledged operations, without what was merely observed."""
        return len(self.acks()) - self._observed

    def allowed(self, key: str, at: int = _NEVER) -> tuple[str, ...]:
        """Return the contents that `key` may have after a cut at position `at`, likeliest last."""
        begun = [o for o in self._history.get(key, ()) if o.begin_position <= at]
        done = [o for o in begun if o.end is End.ACKNOWLEDGED and o.end_position <= at]
        # What begins after this tick replaces whatever was acknowledged before it.
        latest = max((o.begin_tick for o in done), default=-1)
        contents = [] if done else [ABSENT]
        for operation in begun:
            if operation.end is End.REFUSED and operation.end_position <= at:
                continue
            if operation.end_position <= at and operation.end_tick < latest:
                continue
            contents.append(operation.content)
        return tuple(dict.fromkeys(contents))

    def judge(self, seen: Mapping[str, str], at: int = _NEVER) -> list[Finding]:
        """Compare the contents found after a cut at position `at` with what is allowed.

        Args:
            seen: The content of every key found; a key that is missing here is `ABSENT`.
            at: Position of the cut.

        Returns:
            What is wrong, in the order of keys; nothing when all is well.
        """
        findings = []
        for key in dict.fromkeys([*self._history, *seen]):
            content = seen.get(key, ABSENT)
            allowed = self.allowed(key, at)
            if content in allowed:
                continue
            known = content == ABSENT or any(
                o.content == content and o.begin_position <= at and o.end is not End.REFUSED
                for o in self._history.get(key, ())
            )
            findings.append(Finding("lost" if known else "mixed", key, content, allowed))
        return findings

    def close(self) -> None:
        """Close the file of events."""
        if self._file:
            self._file.close()

    @classmethod
    def load(cls, file: Path) -> Ledger:
        """Read the events that another process noted; a torn last line is one that it did not note."""
        ledger = cls()
        operations: dict[int, Operation] = {}
        for event in _events(file):
            kind, tick, position = event["event"], event["tick"], event["position"]
            if kind == "begin":
                operation = Operation(event["key"], event["content"], tick, position)
                operations[tick] = operation
                ledger._history[operation.key].append(operation)
            else:
                ledger._set_end(operations[event["of"]], End(kind), tick, position)
            ledger._tick = tick
        return ledger

    def _next_tick(self) -> int:
        self._tick += 1
        return self._tick

    def _end(self, operation: Operation, end: End, position: int) -> None:
        if operation.end_tick != _NEVER:
            raise ValueError(f"{operation} is over already")
        self._set_end(operation, end, self._next_tick(), position)
        self._save(end, operation, position)

    @staticmethod
    def _set_end(operation: Operation, end: End, tick: int, position: int) -> None:
        operation.end, operation.end_position = end, position
        operation.end_tick = _NEVER if position == _NEVER else tick

    def _save(self, event: str, operation: Operation, position: int) -> None:
        if not self._file:
            return
        line: dict[str, object] = {"event": event, "tick": self._tick, "position": position}
        if event == "begin":
            line |= {"key": operation.key, "content": operation.content}
        else:
            line |= {"of": operation.begin_tick}
        self._file.write(json.dumps(line) + "\n")


def _events(file: Path) -> Iterator[dict[str, Any]]:
    lines: Iterable[str] = file.read_text().splitlines(keepends=True)
    for line in lines:
        if line.endswith("\n"):
            yield json.loads(line)
