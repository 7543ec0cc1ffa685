"""Long random sequences of steps on something that checks itself, and the shortest one that still fails.

Hypothesis' state machines draw every choice so that it can be shrunk, which makes long sequences rare. Here a choice is a plain
draw: a hundred steps cost what the subject takes. A sequence that fails is cut down by leaving steps out (delta debugging), so steps
have to make sense whatever came before them: one that cannot be done does nothing.

```python
found = search(VERBS, attempt, seed=7, length=150, budget_s=60)
assert found is None, found
```
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Step = tuple[
    str, dict[str, Any]
]  # verb and arguments, literals: a failure can be pasted into a test
Attempt = Callable[
    [Sequence[Step]], None
]  # runs a sequence on a fresh subject; raises if something is wrong

SHRINK_S = 120.0  # of processor time for one failure: most end well before


@dataclass(frozen=True, slots=True)
class Verb:
    """How often a step is drawn, relative to others, and with which arguments."""

    draw: Callable[[random.Random], dict[str, Any]]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """The shortest sequence that was found to fail, and how it does."""

    steps: tuple[Step, ...]
    error: str  # with its traceback
    tried: int  # sequences before it was found

    def __str__(self) -> str:
        """Return the steps as a list to paste, then the error."""
        steps = "".join(f"    {step!r},\n" for step in self.steps)
        return f"after {self.tried} sequences:\n[\n{steps}]\n{self.error}"


def drawn(verbs: Mapping[str, Verb], chance: random.Random, length: int) -> list[Step]:
    """Draw a sequence."""
    weights = [verb.weight for verb in verbs.values()]
    names = chance.choices(list(verbs), weights, k=length)
    return [(name, verbs[name].draw(chance)) for name in names]


def search(
    verbs: Mapping[str, Verb],
    attempt: Attempt,
    *,
    seed: int,
    length: int,
    budget_s: float,
    shrink_s: float = SHRINK_S,
) -> Failure | None:
    """Try random sequences for `budget_s` seconds of processor time; return the first that fails, made short."""
    chance = random.Random(seed)
    end = time.process_time() + budget_s
    tried = 0
    while time.process_time() < end:
        steps = drawn(verbs, chance, length)
        tried += 1
        error = _error(attempt, steps)
        if error is not None:
            return _shrunk(attempt, steps, error, tried, shrink_s)
    return None


def _shrunk(
    attempt: Attempt, steps: list[Step], error: Exception, tried: int, shrink_s: float
) -> Failure:
    last = error

    def fails(some: Sequence[Step]) -> bool:
        nonlocal last
        found = _error(attempt, some)
        if found is None or type(found) is not type(error):
            return False
        last = found
        return True

    left = shortest(steps, fails, budget_s=shrink_s)
    return Failure(tuple(left), "".join(traceback.format_exception(last)), tried)


def _error(attempt: Attempt, steps: Sequence[Step]) -> Exception | None:
    try:
        attempt(steps)
    except Exception as error:  # whatever it is, it is what is looked for
        return error
    return None


def shortest(
    steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], *, budget_s: float
) -> list[Step]:
    """Leave out what is not needed for the failure: halves, quarters, at last single steps, until none can go.

    Each call of `fails` that answers True is of a sequence that is kept. After `budget_s` seconds of processor time the shortest so
    far is returned.
    """
    left = list(steps)
    end = time.process_time() + budget_s
    size = max(1, len(left) // 2)
    while size:
        at, gone = 0, False
        while at < len(left):
            if time.process_time() > end:
                return left
            without = left[:at] + left[at + size :]
            if fails(without):
                left, gone = without, True
            else:
                at += size
        if size > 1 or not gone:
            size //= 2
    return left
