"""Cases that are enumerated rather than drawn: what is there before, and the calls whose answers and effects are compared.

A group is a function that yields cases; `GROUPS` names them all. Users are numbers into `USERS`; a step without a number is root's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

Step = tuple[Any, ...]  # a call and its arguments; before them perhaps who makes it

ROOT, ALICE, BOB, CAROL, DAVE = range(5)
A, B, C, D = 65534, 65533, 65532, 65531
USERS: Final = [
    (0, 0, []),
    (A, A, []),  # alice
    (B, B, []),  # bob
    (C, C, [A]),  # carol, who is in alice's group besides her own
    (A, D, [B]),  # alice again, in other groups: dave's and bob's
]


class Case(NamedTuple):
    """One case. What `before` does has to succeed; of `calls` answers and effects are compared."""

    name: str
    before: tuple[Step, ...]
    calls: tuple[Step, ...]
    accessed: bool = False  # compare times of access as well
    alike: bool = False  # answers alone are compared: what they are about is each file system's own


def by(step: Step) -> tuple[int, list[Any]]:
    """Return who makes a step, and the call."""
    if isinstance(step[0], int):
        return step[0], list(step[1:])
    return ROOT, list(step)


Group = Callable[[], Iterator[Case]]
GROUPS: dict[str, Group] = {}


def group(function: Group) -> Group:
    """Note a group of cases under its function's name."""
    GROUPS[function.__name__] = function
    return function


S_IFIFO, S_IFCHR, S_IFBLK, S_IFREG, S_IFSOCK = 0o010000, 0o020000, 0o060000, 0o100000, 0o140000

KINDS: Final = ("file", "directory", "fifo", "socket", "block", "character", "symlink")


def made(
    kind: str, path: str, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> tuple[Step, ...]:
    """Return the steps that make a file of a kind; a symbolic link leads nowhere."""
    steps: list[Step] = []
    if kind == "file":
        steps.append(("mknod", path, S_IFREG | mode))
    elif kind == "directory":
        steps.append(("mkdir", path, mode))
    elif kind == "fifo":
        steps.append(("mkfifo", path, mode))
    elif kind == "socket":
        steps.append(("mknod", path, S_IFSOCK | mode))
    elif kind == "block":
        steps.append(("mknod", path, S_IFBLK | mode, 7, 300))
    elif kind == "character":
        steps.append(("mknod", path, S_IFCHR | mode, 1, 3))
    elif kind == "symlink":
        steps.append(("symlink", "nowhere", path))
    if owner is not None:
        steps.append(("lchown", path, *owner))
        if kind != "symlink" and mode & 0o6000:
            steps.append(("chmod", path, mode))
    return tuple(steps)
