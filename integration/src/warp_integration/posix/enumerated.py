"""Runs enumerated cases in a reference and in mounts, and tells where answers or effects differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from warp_integration.posix import looking
from warp_integration.posix.calls import User
from warp_integration.posix.looking import TIMES, Tree, look
from warp_integration.posix.tables import GROUPS, USERS, Case, by

ALL_TIMES: Final = ("st_atime_ns", *TIMES)


def cases(groups: Iterable[str] = (), *, every: int = 1) -> Iterator[Case]:
    """Yield the cases of groups, of all where none is named; of each group one out of `every`."""
    for name in groups or GROUPS:
        for number, case in enumerate(GROUPS[name]()):
            if not number % every:
                yield case._replace(name=f"{name}: {case.name}")


class Compared:
    """Users in a reference and in mounts of one volume, which is to behave like it."""

    def __init__(self, reference: Path, mounts: Sequence[Path]) -> None:
        """Take directories that are there and empty; every mount shows the same one."""
        self._places = [reference, *mounts]
        self._stack = ExitStack()
        self._users: list[list[User]] = []
        self._count = 0

    def __enter__(self) -> Compared:
        """Start the users' processes."""
        with ExitStack() as stack:
            for place in self._places:
                here = []
                for credentials in USERS:
                    user = User(place, *credentials)
                    stack.callback(user.end)
                    here.append(user)
                self._users.append(here)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._stack.close()

    def run(self, case: Case) -> list[str]:
        """Run a case everywhere and return what differs; it ends with the first difference that others would follow from."""
        self._count += 1
        folder = f"{self._count:06d}"
        steps = [by(step) for step in (*case.before, *case.calls)]
        who = sorted({0, *(user for user, _ in steps)})
        places = [place / folder for place in self._places]
        for place in places[:2]:
            place.mkdir()
        for user in who:
            for each in self._users:
                each[user].call(["chdir", str(folder)])
        try:
            return self._run(case, places, steps)
        finally:
            for user in who:
                for each in self._users:
                    each[user].call(["forget"])

    def _run(self, case: Case, places: list[Path], steps: list[tuple[int, list[Any]]]) -> list[str]:
        count = len(case.before)
        for number, (user, call) in enumerate(steps[:count]):
            answers = self._answers(number, user, call)
            if answers[0] != answers[1] or (answers[0] != "done" and isinstance(answers[0], str)):
                return [f"{case.name}: {_short(call)} answers {answers} before it begins"]
        before = [look(place) for place in places]
        found = []
        for number, (user, call) in enumerate(steps[count:]):
            expected, here = self._answers(number, user, call)
            after = [look(place) for place in places]
            differ = [] if expected == here else [f"{expected}, here {here}"]
            if not case.alike:
                differ += looking.differences(before, after, ALL_TIMES if case.accessed else TIMES)
            before = after
            if differ:
                found.append(f"{case.name}: {_short(call)} by {user}: {'; '.join(differ)}")
                if any("then" in line for line in differ):
                    break
        return found

    def _answers(self, number: int, user: int, call: list[Any]) -> list[Any]:
        """Make a call in the reference and through one of the mounts: what is held open is held through the user's own."""
        through = self._users[1 + user % (len(self._users) - 1)]
        return [self._users[0][user].call(call), through[user].call(call)]


def compare(
    reference: Path,
    mounts: Sequence[Path],
    chosen: Iterable[Case],
    told: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Run cases below directories that are there; return what differs."""
    found = []
    with Compared(reference, mounts) as compared:
        for case in chosen:
            for line in compared.run(case):
                told(line)
                found.append(line)
    return found


def _short(call: list[Any]) -> str:
    words = [word if len(word := str(each)) < 48 else f"{word[:20]}…({len(word)})" for each in call]
    return " ".join(words)


__all__ = ["Case", "Compared", "Tree", "cases", "compare"]
