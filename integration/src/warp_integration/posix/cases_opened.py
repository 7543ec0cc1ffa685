"""Open files: every way to open every kind, and what may be done then."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from itertools import product
from typing import Final

from warp_integration.posix.tables import (
    ALICE,
    BOB,
    KINDS,
    ROOT,
    A,
    Case,
    Step,
    group,
    made,
)

_TMPFILE: Final = 0o20200000  # O_TMPFILE, of which O_DIRECTORY is a part
_WAYS: Final = {
    "": 0,
    "create": os.O_CREAT,
    "create alone": os.O_CREAT | os.O_EXCL,
    "alone": os.O_EXCL,
    "truncate": os.O_TRUNC,
    "create, truncate": os.O_CREAT | os.O_TRUNC,
    "directory": os.O_DIRECTORY,
    "create directory": os.O_CREAT | os.O_DIRECTORY,
    "no link": os.O_NOFOLLOW,
    "create, no link": os.O_CREAT | os.O_NOFOLLOW,
    "directory, no link": os.O_DIRECTORY | os.O_NOFOLLOW,
    "path": os.O_PATH,
    "path, no link": os.O_PATH | os.O_NOFOLLOW,
    "append": os.O_APPEND,
    "append, truncate": os.O_APPEND | os.O_TRUNC,
    "synchronous": os.O_SYNC,
    "data": os.O_DSYNC,
    "direct": os.O_DIRECT,
    "quiet": os.O_NOATIME,
    "nameless": _TMPFILE,
}


@group
def ways() -> Iterator[Case]:
    """Every combination of flags on every kind."""
    there = (
        "nothing",
        *KINDS,
        "link to a file",
        "link to a directory",
        "full directory",
        "link to nothing",
    )
    for name, kind, access, who in product(_WAYS, there, (0, 1, 2, 3), (ROOT, BOB)):
        if kind in ("block", "character") and not _WAYS[name] & os.O_PATH:
            continue  # a driver answers
        if access == 3 and (who == BOB or name not in ("", "create", "truncate")):
            continue
        before: list[Step] = [("chmod", ".", 0o777)]
        if kind == "link to a file":
            before += [*made("file", "y", 0o666), ("symlink", "y", "x")]
        elif kind == "link to a directory":
            before += [*made("directory", "y", 0o777), ("symlink", "y", "x")]
        elif kind == "full directory":
            before += [*made("directory", "x", 0o777), *made("file", "x/y")]
        elif kind == "link to nothing":
            before += [("symlink", "y", "x")]
        elif kind != "nothing":
            before += made(kind, "x", 0o777 if kind == "directory" else 0o666)
        if kind == "file":
            before.append(("write", "x", 7))
        step = (who, "open", "x", _WAYS[name] | access)
        yield Case(f"{kind}: {name} {access} by {who}", tuple(before), (step,))


@group
def wrong_ways() -> Iterator[Case]:
    """Calls on files that were not opened for them."""
    calls: tuple[Step, ...] = (
        ("pread", "h", 0, 10),
        ("pwrite", "h", 0, 10),
        ("append", "h", 3),
        ("ftruncate", "h", 3),
        ("ftruncate", "h", -1),
        ("fchmod", "h", 0o600),
        ("fchown", "h", A, A),
        ("futimes", "h", [1, 0], [2, 0]),
        ("fsync", "h"),
        ("fstat", "h"),
        ("fallocate", "h", 0, 0, 100),
        ("posix_fallocate", "h", 0, 100),
        ("lseek", "h", 3, os.SEEK_SET),
        ("lseek", "h", -1, os.SEEK_SET),
        ("lseek", "h", 0, 77),
        ("fchdir", "h"),
        ("map", "h", False),
        ("map", "h", True),
        ("flock", "h", fcntl.LOCK_EX),
        ("lock", "h", fcntl.F_RDLCK, 0, 10),
        ("lock", "h", fcntl.F_WRLCK, 0, 10),
        ("lock", "h", fcntl.F_WRLCK, -1, 10),
        ("link_held", "h", "new"),
    )
    opened = {
        "reading": ("file", os.O_RDONLY),
        "writing": ("file", os.O_WRONLY),
        "both": ("file", os.O_RDWR),
        "appending": ("file", os.O_RDWR | os.O_APPEND),
        "path": ("file", os.O_PATH),
        "directory": ("directory", os.O_RDONLY),
        "path of a directory": ("directory", os.O_PATH),
        "fifo": ("fifo", os.O_RDWR),
        "nameless": ("directory", _TMPFILE | os.O_RDWR),
        "nameless for ever": ("directory", _TMPFILE | os.O_RDWR | os.O_EXCL),
    }
    for (name, (kind, flags)), call in product(opened.items(), calls):
        if kind == "fifo" and call[0] in ("pread", "pwrite", "append", "map"):
            continue
        there = made(kind, "x", 0o755 if kind == "directory" else 0o644)
        content = (("write", "x", 5000),) if kind == "file" else ()
        before = (*there, *content, ("hold", "h", "x", flags))
        yield Case(f"{call[0]} while open for {name}", before, (call,))


@group
def nameless() -> Iterator[Case]:
    """O_TMPFILE: files that get a name later, or never."""
    for who, mode, directory in product((ROOT, ALICE), (0o600, 0o6777), (0o777, 0o2777, 0o755)):
        before = (
            *made("directory", "d", directory),
            ("chmod", "d", directory),
            ("chmod", ".", 0o777),
        )
        yield Case(
            f"by {who} with {mode:o} in {directory:o}",
            before,
            (
                (who, "hold", "h", "d", _TMPFILE | os.O_RDWR, mode),
                (who, "fstat", "h"),
                (who, "pwrite", "h", 10, 100),
                (who, "pread", "h", 0, 1000),
                (who, "listdir", "d"),
                (who, "link_held", "h", "d/x"),
                (who, "fstat", "h"),
                (who, "link_held", "h", "y"),
                (who, "unlink", "d/x"),
                (who, "close", "h"),
                (who, "read", "y"),
            ),
        )


# Not to take out a range (8) or put one in (0x20): FUSE's client in the kernel refuses both before it asks anybody.
_MODES: Final = (0, 1, 2, 3, 9, 0x10, 0x11, 0x40, 0x80, 0xFF)


@group
def allocating() -> Iterator[Case]:
    """fallocate(2) in all modes."""
    for mode, size, (offset, length) in product(
        _MODES,
        (0, 10_000, 16_384),
        (
            (0, 100),
            (0, 4096),
            (4096, 4096),
            (100, 5000),
            (9_999, 10),
            (20_000, 100),
            (0, 0),
            (-1, 5),
            (5, -1),
            (1 << 62, 1 << 62),
        ),
    ):
        before: list[Step] = [*made("file", "x"), ("hold", "h", "x", os.O_RDWR)]
        if size:
            before = [*made("file", "x"), ("truncate", "x", size), ("hold", "h", "x", os.O_RDWR)]
        yield Case(
            f"{mode:#x} {size} at {offset} {length}",
            tuple(before),
            (("fallocate", "h", mode, offset, length), ("pread", "h", 0, 1 << 15)),
        )
    for kind, flags in (("directory", os.O_RDONLY), ("fifo", os.O_RDWR), ("file", os.O_RDONLY)):
        before = [*made(kind, "x", 0o755), ("hold", "h", "x", flags)]
        for call in (("fallocate", "h", 0, 0, 10), ("posix_fallocate", "h", 0, 10)):
            yield Case(f"{call[0]} of a {kind}", tuple(before), (call,))
    for offset, length in ((0, 1), (0, 10_000), (5000, 1), (0, 0), (-1, 1), (0, 1 << 50)):
        before = [
            *made("file", "x"),
            ("truncate", "x", 5000) if offset else ("chmod", "x", 0o600),
            ("hold", "h", "x", os.O_RDWR),
        ]
        yield Case(
            f"portably {offset} {length}",
            tuple(before),
            (("posix_fallocate", "h", offset, length),),
        )


@group
def seeking() -> Iterator[Case]:
    """SEEK_DATA and SEEK_HOLE, where file systems with blocks agree."""
    before = (
        *made("file", "x"),
        ("hold", "h", "x", os.O_RDWR),
        ("ftruncate", "h", 1 << 22),
    )
    places = (0, 1, 1 << 20, (1 << 20) + 4096, (1 << 21) - 1, 1 << 22, (1 << 22) + 1, -1)
    calls: list[Step] = [("pwrite", "h", 1 << 20, 1 << 16)]
    calls += [("lseek", "h", at, how) for at in places for how in (os.SEEK_DATA, os.SEEK_HOLE)]
    yield Case("in a sparse file", before, tuple(calls), alike=True)
    yield Case(
        "in an empty file",
        (*made("file", "x"), ("hold", "h", "x", os.O_RDONLY)),
        tuple(("lseek", "h", at, how) for at in (0, 1) for how in (3, 4)),
    )


@group
def running() -> Iterator[Case]:
    """Programs: who may start them, and that nobody writes to one that runs."""
    for mode, who in product((0o755, 0o644, 0o700, 0o711, 0o100, 0o055), (ROOT, ALICE, BOB)):
        installed: tuple[Step, ...] = (
            ("install", "x", 0o755),
            ("chown", "x", A, A),
            ("chmod", "x", mode),
        )
        yield Case(f"{mode:o} by {who}", installed, ((who, "execute", "x"),))
    calls: tuple[Step, ...] = (
        ("open", "x", os.O_WRONLY),
        ("open", "x", os.O_RDWR | os.O_TRUNC),
        ("truncate", "x", 5),
        ("unlink", "x"),
        ("rename", "x", "y"),
        ("chmod", "x", 0o700),
        ("open", "x", os.O_RDONLY),
    )
    for call in calls:
        before: tuple[Step, ...] = (("install", "x", 0o755), ("execute", "x"))
        yield Case(f"{call[0]} while it runs", before, (call,))
    before = (("install", "x", 0o755), ("hold", "h", "x", os.O_WRONLY))
    yield Case("while it is written", before, (("execute", "x"), ("close", "h"), ("execute", "x")))


@group
def sockets() -> Iterator[Case]:
    """Sockets have names that lead to who bound them."""
    yield Case(
        "bound",
        (("chmod", ".", 0o777),),
        (
            ("bind", "s"),
            ("connect", "s"),
            (BOB, "connect", "s"),
            ("chmod", "s", 0o600),
            (BOB, "connect", "s"),
            ("open", "s", os.O_RDONLY),
            ("rename", "s", "t"),
            ("connect", "t"),
            ("link", "t", "u"),
            ("connect", "u"),
            ("bind", "t"),
            ("unlink", "t"),
            ("connect", "t"),
        ),
    )
    yield Case("of nobody", made("socket", "s"), (("connect", "s"),))
    yield Case("a file", made("file", "s"), (("connect", "s"),))


@group
def locking() -> Iterator[Case]:
    """Locks of processes, of open files, and flock(2)'s: between two users."""
    before = (
        *made("file", "x", 0o666),
        ("hold", "h", "x", os.O_RDWR),
        (ALICE, "hold", "h", "x", os.O_RDWR),
        (ALICE, "hold", "i", "x", os.O_RDWR),
    )
    for kind, other in product((fcntl.F_RDLCK, fcntl.F_WRLCK), repeat=2):
        for first, second in product(("lock", "lock_open"), repeat=2):
            calls: tuple[Step, ...] = (
                (first, "h", kind, 0, 100),
                (ALICE, second, "h", other, 50, 100),
                (ALICE, second, "h", other, 100, 0),
                (ALICE, "who_locks", "i", fcntl.F_WRLCK, 0, 0),
                (first, "h", fcntl.F_UNLCK, 10, 20),
                (ALICE, second, "i", other, 10, 20),
                (ALICE, "close", "i"),
                (first, "h", fcntl.F_WRLCK, 10, 20),
                (ALICE, "close", "h"),
                (first, "h", fcntl.F_WRLCK, 0, 0),
            )
            yield Case(f"{first} {kind} against {second} {other}", before, calls)
    calls = (
        ("flock", "h", fcntl.LOCK_SH),
        (ALICE, "flock", "h", fcntl.LOCK_SH),
        (ALICE, "flock", "h", fcntl.LOCK_EX),
        (ALICE, "flock", "i", fcntl.LOCK_EX),
        ("flock", "h", fcntl.LOCK_UN),
        (ALICE, "flock", "h", fcntl.LOCK_EX),
        (ALICE, "flock", "i", fcntl.LOCK_SH),
        (ALICE, "lock", "i", fcntl.F_WRLCK, 0, 0),
        (ALICE, "close", "h"),
        (ALICE, "flock", "i", fcntl.LOCK_SH),
    )
    yield Case("flock", before, calls)


@group
def mapped() -> Iterator[Case]:
    """Times and set-id bits after a write through memory."""
    for size in (1, 4096, 10_000):
        before = (*made("file", "x"), ("write", "x", size), ("hold", "h", "x", os.O_RDWR))
        yield Case(
            f"of {size}",
            before,
            (("map", "h", False), ("map", "h", True), ("read", "x"), ("close", "h")),
            alike=True,
        )
