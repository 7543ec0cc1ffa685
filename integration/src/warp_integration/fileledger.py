"""The ledger of file calls: what directories may hold after a crash.

What a mount promises is order: after a crash there is what was there after some number of calls, never less than
what was done before the last acknowledged sync, whatever file was synced, and whoever asked. So the judgement is
one of whole directories, not of files, and a file that is empty, mixed or old beside a newer one cannot pass.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from warp_integration.powercut.ledger import ABSENT, Finding

_NEVER = 1 << 62

State = Mapping[str, str]
"""Path → what is there."""


@dataclass(slots=True)
class Step:
    """One call. `*_tick` order events in real time, `*_position` place them in the trace."""

    what: str
    state: State  # of the worker's directory afterwards
    sync: bool
    begin_tick: int
    begin_position: int
    end_tick: int = _NEVER
    end_position: int = _NEVER
    part: bool = (
        False  # of the call of the next step, which the kernel may make in several requests
    )

    @property
    def over(self) -> bool:
        """Whether it was acknowledged."""
        return self.end_tick != _NEVER


class FileLedger:
    """Note calls as they are made; judge what is there after a crash.

    Args:
        position: Tells how far the trace has come; the default suits kills, where every event counts.
        settled: What was there before, and stays.
    """

    def __init__(
        self, position: Callable[[], int] = lambda: 0, settled: State | None = None
    ) -> None:
        self._position = position
        self._lock = threading.Lock()
        self._tick = 0
        self._steps: dict[str, list[Step]] = defaultdict(list)
        self._settled = dict(settled or {})

    def begin(
        self, worker: str, what: str, state: State, *, sync: bool = False, part: bool = False
    ) -> Step:
        """Note that a call is about to be made.

        Args:
            worker: Whose.
            what: Which, for messages.
            state: What the worker's directory holds once it is done.
            sync: Whether all that was done before is durable once it is acknowledged.
            part: Whether it is only what the kernel may make of the next one.
        """
        with self._lock:
            self._tick += 1
            step = Step(what, state, sync, self._tick, self._position(), part=part)
            self._steps[worker].append(step)
        return step

    def acknowledge(self, step: Step) -> None:
        """Note that a call has returned without error."""
        with self._lock:
            self._tick += 1
            step.end_tick, step.end_position = self._tick, self._position()

    def acks(self) -> list[int]:
        """Return the positions of all acknowledged syncs: there a promise that came too early shows."""
        return [s.end_position for s in self._all() if s.sync and s.over]

    def acknowledged(self) -> int:
        """Return how many calls were acknowledged."""
        return sum(step.over and not step.part for step in self._all())

    def _all(self) -> list[Step]:
        return [step for steps in self._steps.values() for step in steps]

    def judge(self, seen: Mapping[str, str], at: int = _NEVER) -> list[Finding]:
        """Compare what is there after a cut at position `at` with what may be; return what is wrong."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for path, text in seen.items():
            found[path.partition("/")[0]][path] = text
        syncs = [s for s in self._all() if s.sync and s.over and s.end_position <= at]
        sync = max(syncs, key=lambda s: s.begin_tick, default=None)
        synced = sync.begin_tick if sync else -1
        findings: list[Finding] = []
        fits: dict[str, range | list[int]] = {}
        for worker, steps in self._steps.items():
            least = sum(step.end_tick < synced for step in steps)
            most = sum(step.begin_position <= at for step in steps)
            states = [{}, *(step.state for step in steps)]
            here = found.pop(worker, {})
            fits[worker] = [k for k in range(least, most + 1) if states[k] == here]
            if not fits[worker]:
                by = (
                    f"{sync.what}, ticks {sync.begin_tick} to {sync.end_tick}"
                    if sync
                    else "nothing"
                )
                findings += _blame(worker, here, states, steps, least, most, by)
        findings += self._out_of_order(fits)
        rest = {path: text for paths in found.values() for path, text in paths.items()}
        for path in sorted({*rest, *self._settled}):
            text, wanted = rest.get(path, ABSENT), self._settled.get(path, ABSENT)
            if text != wanted:
                findings.append(
                    Finding("mixed" if wanted == ABSENT else "lost", path, text, (wanted,))
                )
        return findings

    def _out_of_order(self, fits: Mapping[str, Sequence[int]]) -> list[Finding]:
        """Find calls that are gone though one that began after their acknowledgement is there."""
        findings = []
        for later, fit in fits.items():
            if not fit or not fit[0]:
                continue
            there = self._steps[later][fit[0] - 1]
            for worker, kept in fits.items():
                done = sum(step.end_tick < there.begin_tick for step in self._steps[worker])
                if kept and kept[-1] < done:
                    seen = f"as after call {kept[-1]}, beside {later}'s {there.what}"
                    findings.append(Finding("lost", worker, seen, (f"call {done} or later",)))
        return findings


def _blame(
    worker: str,
    here: State,
    states: Sequence[State],
    steps: Sequence[Step],
    least: int,
    most: int,
    by: str,
) -> list[Finding]:
    """Say what is wrong with a directory that is none of `states[least : most + 1]`."""
    older = [k for k in range(least) if states[k] == here]
    if older:
        lost = steps[older[-1]].what
        wanted = (f"call {least} (synced by {by}) to {most}",)
        return [Finding("lost", worker, f"as after call {older[-1]}, without {lost}", wanted)]

    def differing(k: int) -> list[str]:
        paths = {*here, *states[k]}
        return sorted(path for path in paths if here.get(path) != states[k].get(path))

    nearest = min(
        range(least, most + 1),
        key=lambda k: (len(differing(k)), states[k].keys() != here.keys()),
    )
    last = steps[nearest - 1].what if nearest else "nothing"
    which = f"as after call {nearest}, {last}; one of {least} to {most}, synced by {by}"
    if nearest < len(steps):
        which += f"; followed by {steps[nearest].what}"
    return [
        Finding("mixed", path, here.get(path, ABSENT), (states[nearest].get(path, ABSENT), which))
        for path in differing(nearest)
    ]
