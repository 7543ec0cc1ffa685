"""Attributes: modes, owners, times, sizes; who may change them, and what a change does to the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Final

from warp_integration.posix.calls import EFFECTIVE, NO_FOLLOW, NOW, OMIT
from warp_integration.posix.tables import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    KINDS,
    ROOT,
    A,
    B,
    C,
    Case,
    D,
    Step,
    group,
    made,
)

MODES: Final = (
    0,
    0o111,
    0o222,
    0o444,
    0o644,
    0o755,
    0o777,
    0o1644,
    0o1777,
    0o2755,
    0o2744,
    0o4755,
    0o6777,
    0o7777,
)
_NONE: Final = 0xFFFFFFFF  # an id that chown leaves as it is


@group
def modes() -> Iterator[Case]:
    """Setting each mode on each kind by root, the owner, the owner in other groups, and another."""
    for kind, mode, who in product(KINDS, MODES, (ROOT, ALICE, DAVE, BOB)):
        if kind == "symlink":
            continue
        before = made(kind, "x", 0o640, (A, A))
        yield Case(f"{kind} to {mode:o} by {who}", before, ((who, "chmod", "x", mode),))
    for kind, who in product(KINDS, (ROOT, ALICE, BOB)):
        before = made(kind, "x", 0o640, (A, A))
        yield Case(f"{kind} itself by {who}", before, ((who, "lchmod", "x", 0o604),))
    for mode, who in product(MODES, (ROOT, ALICE, DAVE, BOB)):
        before = (*made("file", "x", 0o666, (A, A)), (who, "hold", "h", "x", os.O_RDONLY))
        yield Case(f"open to {mode:o} by {who}", before, ((who, "fchmod", "h", mode),))


@group
def owners() -> Iterator[Case]:
    """Giving files away: which set-id bits stay, who may."""
    ids = (
        (_NONE, _NONE),
        (A, _NONE),
        (B, _NONE),
        (_NONE, A),
        (_NONE, B),
        (_NONE, D),
        (A, A),
        (A, B),
        (B, B),
        (0, 0),
        (C, A),
    )
    for kind, mode, pair, who in product(
        ("file", "directory", "fifo", "symlink"),
        (0o6755, 0o2644, 0o4711, 0o644, 0o2755),
        ids,
        (ROOT, ALICE, DAVE, CAROL, BOB),
    ):
        if kind == "symlink" and mode != 0o644:
            continue
        if pair == (_NONE, _NONE) and who == BOB and mode == 0o2644 and kind != "directory":
            continue  # EPERM there; the kernel asks a FUSE server in the words that a write begins with
        call = "lchown" if kind == "symlink" else "chown"
        before = made(kind, "x", mode, (A, A))
        uid, gid = (-1 if each == _NONE else each for each in pair)
        yield Case(f"{kind} {mode:o} to {uid}:{gid} by {who}", before, ((who, call, "x", *pair),))
    for pair, who in product(ids, (ROOT, ALICE, DAVE, BOB)):
        before = (*made("file", "x", 0o6777, (A, A)), (who, "hold", "h", "x", os.O_RDONLY))
        yield Case(f"open to {pair} by {who}", before, ((who, "fchown", "h", *pair),))
    for pair in ((0, 0), (1, 2), (2**31, 2**31), (2**32 - 2, 2**32 - 2)):
        yield Case(f"to numbers like {pair}", made("file", "x"), (("chown", "x", *pair),))


TIMES: Final = (
    (0, 0),
    (0, 1),
    (1, 999_999_999),
    (-1, 5),
    (-(2**31), 0),
    (2**31 - 1, 999_999_999),
    (2**31, 0),
    (2**32 + 7, 123_456_789),
    (15_032_385_535, 0),  # the last second of ext4
    (1_900_000_000, 1),
)


@group
def times() -> Iterator[Case]:
    """Each time on each kind, by path and by open file."""
    for kind, time in product(KINDS, TIMES):
        other = TIMES[(TIMES.index(time) + 3) % len(TIMES)]
        yield Case(
            f"{kind} {time}",
            made(kind, "x", 0o755),
            (
                ("utimes", "x", list(time), list(other), NO_FOLLOW),
                ("utimes", "x", [0, OMIT], list(time), NO_FOLLOW),
                ("utimes", "x", list(other), [0, OMIT], NO_FOLLOW),
                ("utimes", "x", [0, OMIT], [0, OMIT], NO_FOLLOW),
                ("utimes", "x", [0, NOW], [0, OMIT], NO_FOLLOW),
                ("utimes", "x", [0, OMIT], [0, NOW], NO_FOLLOW),
            ),
            accessed=kind != "directory",  # to look at one is to read it
        )
    for bad in (10**9, -1, 2 * 10**9):
        for pair in (([0, bad], [0, 0]), ([0, 0], [0, bad]), ([0, OMIT], [0, bad])):
            yield Case(f"nanoseconds {pair}", made("file", "x"), (("utimes", "x", *pair),))
    # A directory keeps what it was given until its names change, also when that is in the past.
    yield Case(
        "directory after changes",
        (*made("directory", "d", 0o755), *made("file", "d/x")),
        (
            ("utimes", "d", [1, 0], [2, 0]),
            ("chmod", "d", 0o700),
            ("write", "d/x", 5),
            ("mkdir", "d/y"),
            ("utimes", "d", [3, 0], [4, 0]),
            ("stat", "d/y"),
            ("unlink", "d/x"),
            ("utimes", "d", [5, 0], [6, 0]),
            ("lchown", "d", A, A),
            ("rename", "d/y", "y"),
        ),
    )
    yield Case(
        "file after changes",
        (*made("file", "x"), ("hold", "h", "x", os.O_RDWR)),
        (
            ("pwrite", "h", 0, 10),
            ("utimes", "x", [1, 0], [2, 0]),
            ("pread", "h", 0, 10),
            ("pwrite", "h", 5, 10),
            ("futimes", "h", [3, 0], [-5, 0]),
            ("fsync", "h"),
            ("chmod", "x", 0o600),
            ("link", "x", "y"),
            ("rename", "y", "z"),
            ("futimes", "h", [0, OMIT], [7, 7]),
            ("close", "h"),
            ("read", "x"),
            ("utimes", "x", [9, 0], [10, 0]),
            ("truncate", "x", 3),
            ("utimes", "x", [9, 0], [10, 0]),
            ("truncate", "x", 3),
        ),
    )


@group
def who_sets_times() -> Iterator[Case]:
    """Chosen times are the owner's to set, "now" anybody's who may write."""
    kinds = ("file", "directory")
    choices: tuple[tuple[object, ...], ...] = (
        ("utimes_null", "x"),
        ("utimes", "x", [0, NOW], [0, NOW]),
        ("utimes", "x", [0, NOW], [0, OMIT]),
        ("utimes", "x", [0, OMIT], [0, NOW]),
        ("utimes", "x", [0, OMIT], [0, OMIT]),
        ("utimes", "x", [1, 0], [2, 0]),
        ("utimes", "x", [1, 0], [0, OMIT]),
        ("utimes", "x", [0, NOW], [2, 0]),
        ("utimes", "x", [1, 0], [0, NOW]),
    )
    for kind, choice, mode, who in product(
        kinds, choices, (0, 0o444, 0o644, 0o664, 0o666, 0o446), (ROOT, ALICE, BOB, CAROL)
    ):
        before = (*made(kind, "x", 0o755, (A, A)), ("chmod", "x", mode))
        yield Case(f"{kind} {choice} {mode:o} by {who}", before, ((who, *choice),))


@group
def sizes() -> Iterator[Case]:
    """Cutting and extending, by path and by open file; what it does to times and set-id bits."""
    for before_size, size, call in product(
        (0, 1, 4096, 10_000), (0, 1, 4095, 10_000, 1 << 20, -1), ("truncate", "ftruncate")
    ):
        before: list[Step] = [*made("file", "x"), ("hold", "h", "x", os.O_RDWR)]
        if before_size:
            before.append(("truncate", "x", before_size))
        step = (call, "x" if call == "truncate" else "h", size)
        yield Case(
            f"{call} {before_size} to {size}", tuple(before), (step, ("pread", "h", 0, 20_000))
        )
    for kind, who in product(KINDS, (ROOT, ALICE, BOB)):
        before = list(made(kind, "x", 0o644, (A, A)))
        yield Case(f"{kind} by {who}", tuple(before), ((who, "truncate", "x", 5),))
    for mode, who, size, call in product(
        (0o6777, 0o2767, 0o2777, 0o4777, 0o777),
        (ROOT, ALICE, BOB),
        (0, 5, 10),
        ("truncate", "ftruncate", "open"),
    ):
        before = [
            *made("file", "x", 0o777, (A, A)),
            ("truncate", "x", 5),
            (who, "hold", "h", "x", os.O_RDWR),
            ("chmod", "x", mode),
        ]
        if call == "open":
            if size:
                continue
            doing: Step = (who, "open", "x", os.O_WRONLY | os.O_TRUNC)
        else:
            doing = (who, call, "x" if call == "truncate" else "h", size)
        yield Case(f"{call} {mode:o} to {size} by {who}", tuple(before), (doing,))


@group
def writes_and_set_ids() -> Iterator[Case]:
    """A write by who is not root takes set-id bits away."""
    for mode, who, how in product(
        (0o6777, 0o2767, 0o2777, 0o4777, 0o4666, 0o777),
        (ROOT, ALICE, BOB, CAROL),
        ("pwrite", "append", "nothing", "fallocate", "map", "copy", "punch"),
    ):
        flags = os.O_RDWR | (os.O_APPEND if how == "append" else 0)
        before = (
            *made("file", "x", 0o777, (A, A)),
            ("truncate", "x", 5000),
            *made("file", "other", 0o666),
            ("write", "other", 5000),
            (who, "hold", "h", "x", flags),
            (who, "hold", "o", "other", os.O_RDONLY),
            ("chmod", "x", mode),
        )
        step: Step = {
            "pwrite": ("pwrite", "h", 10, 10),
            "append": ("append", "h", 10),
            "nothing": ("pwrite", "h", 10, 0),
            "fallocate": ("fallocate", "h", 0, 0, 9000),
            "map": ("map", "h", True),
            "copy": ("copy_range", "o", "h", 0, 100, 100),
            "punch": ("fallocate", "h", 3, 0, 4096),
        }[how]
        yield Case(f"{how} {mode:o} by {who}", before, ((who, *step), (who, "close", "h")))


@group
def asking() -> Iterator[Case]:
    """access(2) with real and effective ids, on files and directories."""
    for kind, mode, who, want, flags in product(
        ("file", "directory"),
        (0, 0o100, 0o040, 0o004, 0o750, 0o027, 0o777),
        (ROOT, ALICE, BOB, CAROL),
        (0, 1, 2, 4, 7),
        (0, EFFECTIVE),
    ):
        before = (*made(kind, "x", 0o755, (A, A)), ("chmod", "x", mode))
        yield Case(
            f"{kind} {mode:o} {want} by {who} {flags}",
            before,
            ((who, "faccessat", "x", want, flags),),
        )
    for want in (8, 15, -1):
        yield Case(f"nonsense {want}", made("file", "x"), (("access", "x", want),))
    yield Case("of the file system", (), (("statvfs", "."),))


@group
def reading_times() -> Iterator[Case]:
    """What reading does to times of access: they move if they are not newer than the others."""
    old = [1, 0]
    # Not the content of files that were written just before: what the kernel has in memory it reads without telling.
    for kind, call in (
        ("directory", ("listdir", "x")),
        ("symlink", ("readlink", "x")),
        ("file", ("access", "x", 4)),
        ("file", ("open", "x", os.O_RDONLY)),
        ("file", ("stat", "x")),
        ("fifo", ("open", "x", os.O_RDONLY)),
    ):
        there = (*made(kind, "x", 0o755), *((("write", "x", 10),) if kind == "file" else ()))
        yield Case(
            f"{call[0]} of a {kind}",
            (*there, ("utimes", "x", old, old, NO_FOLLOW)),
            (
                call,
                call,
                ("utimes", "x", old, [0, OMIT], NO_FOLLOW),
                call,
                ("chown" if kind != "symlink" else "lchown", "x", A, A),
            ),
            accessed=True,
        )
