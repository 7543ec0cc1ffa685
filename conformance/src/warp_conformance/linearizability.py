"""Is a recorded history linearizable: could every operation have happened at one moment between its call and its answer?

The search is Wing and Gong's (1993) with Lowe's memory of the states already tried (2017): operations are taken one after the other,
always one that was called before any other left has been answered, and undone where the sequential model refuses what was
answered. It is exponential in the number of operations that overlap, so histories are checked key by key (linearizability is
local: Herlihy and Wing 1990).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

State = TypeVar("State", bound=Hashable)

STEPS_MAX = 5_000_000  # of the search: beyond, a history overlaps too much to be judged
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client.

    Attributes:
        called_at: When it was asked for, on one clock for the whole history.
        until: When its answer arrived. Without an answer: when it can have happened at the latest (NEVER: nobody knows), if it did.
        asked: What was asked, for the model.
        answer: What was answered; of no meaning without an answer.
        answered: Whether its outcome is known; otherwise it may have happened or not.
        client: Who asked, for messages.
    """

    called_at: float
    until: float
    asked: Any
    answer: Any = None
    answered: bool = True
    client: str = ""


@dataclass(frozen=True, slots=True)
class Model(Generic[State]):
    """A sequential specification.

    Attributes:
        initial: The state before the history.
        step: Returns the state after an operation, or None if in that state it could not have been answered so. Of an operation
            without an answer, the state after it has happened.
    """

    initial: State
    step: Callable[[State, Operation], State | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found. `order` is a linearization, or the longest beginning of one that was found."""

    linearizable: bool
    order: Sequence[Operation]
    stuck_at: Sequence[
        Operation
    ] = ()  # none of which can come next, in a history that is not linearizable

    def __str__(self) -> str:
        if self.linearizable:
            return f"linearizable, {len(self.order)} operations"
        shown = [f"  {_line(each)}" for each in self.order[-8:]]
        blocked = [f"  {_line(each)}" for each in self.stuck_at]
        return "\n".join(["after", *shown, "none of these can have come next:", *blocked])


class TooMuchOverlap(Exception):
    """The search took more than STEPS_MAX steps."""


def check(
    history: Sequence[Operation], model: Model[State], *, steps_max: int = STEPS_MAX
) -> Verdict:
    """Judge the history of one object.

    Raises:
        TooMuchOverlap: It could not be judged in `steps_max` steps.
        ValueError: An operation was answered before it was called.
    """
    for operation in history:
        if operation.until < operation.called_at:
            raise ValueError(f"answered before it was called: {operation}")
    events = _Events(history)
    state = model.initial
    gone = 0  # bit i: history[i] has happened, or without an answer cannot happen any more
    undo: list[tuple[int, State, int]] = []  # (operation, state before it, gone before it)
    lifted: list[tuple[int, ...]] = []
    tried: set[tuple[int, State]] = set()
    best: list[int] = []
    stuck_at: list[int] = []
    answered_left = sum(operation.answered for operation in history)
    event = events.first
    steps = 0
    while answered_left:
        steps += 1
        if steps > steps_max:
            raise TooMuchOverlap(f"{len(history)} operations: more than {steps_max} steps")
        index = events.operation[event]
        if events.is_call[event]:
            after = model.step(state, history[index])
            if after is not None:
                late = events.ended_before(event)  # without answer, and too late for them now
                key = (gone | 1 << index | sum(1 << each for each in late), after)
                if key not in tried:
                    tried.add(key)
                    undo.append((index, state, gone))
                    state, gone = after, key[0]
                    answered_left -= history[index].answered
                    lifted.append((*late, index))
                    for each in lifted[-1]:
                        events.lift(each)
                    event = events.first
                    continue
            event = events.next[event]
            continue
        if not history[index].answered:
            event = events.next[event]  # it need not have happened
            continue
        # What is answered here has to have happened, and nothing that could come before it fits.
        if len(undo) >= len(best):
            best = [each for each, _, _ in undo]
            stuck_at = list(events.calls_until(event))
        if not undo:
            found = [history[each] for each in best]
            return Verdict(False, found, [history[each] for each in stuck_at])
        index, state, gone = undo.pop()
        answered_left += history[index].answered
        for each in reversed(lifted.pop()):
            events.unlift(each)
        event = events.next[events.call[index]]
    return Verdict(True, [history[each] for each, _, _ in undo])


class _Events:
    """Calls and answers in the order of time, as a doubly linked list from which operations are lifted and put back.

    Position 0 is the head, before the first and behind the last.
    """

    def __init__(self, history: Sequence[Operation]) -> None:
        # At equal times calls come first: what touches may overlap.
        order = sorted(
            [(each.called_at, 0, index) for index, each in enumerate(history)]
            + [(each.until, 1, index) for index, each in enumerate(history)]
        )
        count = len(order) + 1
        self.operation = [-1] + [index for _, _, index in order]
        self.is_call = [False] + [kind == 0 for _, kind, _ in order]
        self.next: list[int] = [*range(1, count), 0]
        self.before: list[int] = [count - 1, *range(count - 1)]
        self.call = [0] * len(history)
        self.answer = [0] * len(history)
        for event, (_, kind, index) in enumerate(order, 1):
            (self.answer if kind else self.call)[index] = event

    @property
    def first(self) -> int:
        return self.next[0]

    def lift(self, index: int) -> None:
        for event in (self.call[index], self.answer[index]):
            self.next[self.before[event]] = self.next[event]
            self.before[self.next[event]] = self.before[event]

    def unlift(self, index: int) -> None:
        for event in (self.answer[index], self.call[index]):
            self.next[self.before[event]] = event
            self.before[self.next[event]] = event

    def ended_before(self, event: int) -> list[int]:
        """Return the operations whose end is in the list before an event."""
        found = []
        at = self.first
        while at != event:
            if not self.is_call[at]:
                found.append(self.operation[at])
            at = self.next[at]
        return found

    def calls_until(self, event: int) -> list[int]:
        found = []
        at = self.first
        while at != event:
            found.append(self.operation[at])
            at = self.next[at]
        return found


def _line(operation: Operation) -> str:
    answer = repr(operation.answer) if operation.answered else "no answer"
    when = f"[{operation.called_at:.6f}, {operation.until:.6f}]"
    return f"{when} {operation.client} {operation.asked!r} -> {answer}"
