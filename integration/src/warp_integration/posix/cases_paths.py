"""Everything that can be wrong with a path, for each call that takes one; and who may enter and change a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from warp_integration.posix.calls import NO_FOLLOW, NOW
from warp_integration.posix.tables import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    S_IFCHR,
    S_IFREG,
    S_IFSOCK,
    A,
    B,
    Case,
    Step,
    group,
    made,
)

# Calls with the path under test written as None.
_CREATE: Final[tuple[Step, ...]] = (
    ("mkdir", None),
    ("mkfifo", None),
    ("mknod", None, S_IFREG | 0o644),
    ("mknod", None, S_IFSOCK | 0o644),
    ("mknod", None, S_IFCHR | 0o644, 1, 3),
    ("symlink", "f", None),
    ("link", "f", None),
    ("rename", "f", None),
    ("rename", "d", None),
    ("rename", "f", None, 1),
    ("open", None, os.O_CREAT | os.O_WRONLY),
    ("open", None, os.O_CREAT | os.O_EXCL | os.O_RDWR),
    ("open", None, os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY),
)
_USE: Final[tuple[Step, ...]] = (
    ("rmdir", None),
    ("unlink", None),
    ("rename", None, "new"),
    ("rename", None, "f", 2),
    ("link", None, "new"),
    ("link", None, "new", 0x400),
    ("readlink", None),
    ("chmod", None, 0o600),
    ("lchmod", None, 0o600),
    ("chown", None, A, B),
    ("lchown", None, A, B),
    ("truncate", None, 10),
    ("utimes", None, [5, 6], [7, 8]),
    ("utimes", None, [5, 6], [7, 8], NO_FOLLOW),
    ("utimes_null", None),
    ("stat", None),
    ("lstat", None),
    ("access", None, os.R_OK),
    ("open", None, os.O_RDONLY),
    ("open", None, os.O_WRONLY),
    ("open", None, os.O_RDONLY | os.O_DIRECTORY),
    ("open", None, os.O_RDONLY | os.O_NOFOLLOW),
    ("open", None, os.O_WRONLY | os.O_TRUNC),
    ("listdir", None),
    ("chdir", None),
    ("setxattr", None, "user.a", "v"),
    ("getxattr", None, "user.a"),
)
_THERE: Final = (
    *made("file", "f"),
    *made("directory", "d", 0o755),
    *made("file", "d/g"),
    ("symlink", "d", "to-d"),
    ("symlink", "f", "to-f"),
    ("symlink", "nowhere", "to-nothing"),
    ("symlink", "loop-b", "loop-a"),
    ("symlink", "loop-a", "loop-b"),
    ("symlink", "self", "self"),
)
_N255, _N256 = "n" * 255, "n" * 256
_LONGEST = "./" * 2047 + "x"  # with its zero 4096 bytes
_CHAIN = 41  # one more link than Linux follows


def _named(call: Step, path: str) -> Step:
    return tuple(path if word is None else word for word in call)


FAULTS: Final = {
    "missing": "x",
    "missing above": "no/x",
    "below a file": "f/x",
    "below a file, two": "f/x/y",
    "below a link to a file": "to-f/x",
    "below a link to nothing": "to-nothing/x",
    "255 bytes": _N255,
    "256 bytes": _N256,
    "256 bytes below": f"d/{_N256}",
    "below 255 bytes": f"{_N255}/x",
    "below 256 bytes": f"{_N256}/x",
    "4095 bytes": _LONGEST,
    "4096 bytes": "./" + _LONGEST[:-1] + "x",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "dot below": "d/.",
    "dots below": "d/..",
    "slash": "/",
    "a file": "f",
    "a file and a slash": "f/",
    "a directory": "d",
    "a directory and a slash": "d/",
    "a file in a directory": "d/g",
    "missing and a slash": "x/",
    "a link to a directory": "to-d",
    "a link to a directory and a slash": "to-d/",
    "through a link": "to-d/g",
    "missing through a link": "to-d/x",
    "a link to a file": "to-f",
    "a link to a file and a slash": "to-f/",
    "a link to nothing": "to-nothing",
    "a link to nothing and a slash": "to-nothing/",
    "a circle": "loop-a",
    "through a circle": "loop-a/x",
    "itself": "self",
    "through itself": "self/x",
    "double slashes": "d//g",
    "back and forth": "d/../d/./g",
    "not utf-8": "\udcff\udcfe",
    "newline and blank": "a\nb c",
}


@group
def paths() -> Iterator[Case]:
    """Every fault for every call; the users are root and one who may write here."""
    for call in (*_CREATE, *_USE):
        for fault, path in FAULTS.items():
            step = _named(call, path)
            if path == "/" and call[0] not in ("mkdir", "rmdir", "unlink", "link", "mkfifo"):
                continue  # the root is not the file system's that is tested
            yield Case(f"{' '.join(map(str, call))} {fault}", _THERE, (step,))


@group
def chains() -> Iterator[Case]:
    """More symbolic links behind one another than are followed."""
    links = tuple(("symlink", f"l{number}", f"l{number + 1}") for number in range(_CHAIN))
    there = (*made("file", "l0"), *links)
    for length in (1, 39, 40, 41):
        for call in (("stat", None), ("open", None, os.O_RDONLY), ("chmod", None, 0o600)):
            yield Case(f"{call[0]} over {length} links", there, (_named(call, f"l{length}"),))


@group
def deep() -> Iterator[Case]:
    """Paths as long as they may be, with directories all the way."""
    above = "/".join(["p" * 250] * 16)
    parts = tuple(("mkdir", "/".join(["p" * 250] * count)) for count in range(1, 17))
    room = 4095 - len(above) - 1
    for call in (*_CREATE, *_USE):
        for length in (room, room + 1):
            name = f"{above}/{'e' * length}"
            create = call in _CREATE
            before = (*_THERE, *parts, *(() if create else made("file", f"{above}/{'e' * room}")))
            yield Case(
                f"{call[0]} with {4095 - room + length} bytes", before, (_named(call, name),)
            )


@group
def pointers() -> Iterator[Case]:
    """Addresses that are none."""
    for name, *arguments in (
        ("mkdir", -1, 0o755),
        ("rmdir", -1),
        ("unlink", -1),
        ("mkfifo", -1, 0o644),
        ("mknod", -1, S_IFREG | 0o644, 0),
        ("chmod", -1, 0o600),
        ("chown", -1, 0, 0),
        ("lchown", -1, 0, 0),
        ("truncate", -1, 0),
        ("open", -1, 0),
        ("rename", -1, -1),
        ("link", -1, -1),
        ("symlink", -1, -1),
        ("stat", -1, -1),
        ("statvfs", -1, -1),
    ):
        yield Case(name, (), (("bad_pointer", name, *arguments),))


_WHO: Final = {
    # who, and which three bits of a mode are theirs in a directory of alice's (group alice's)
    "owner": (ALICE, 6),
    "supplementary group": (CAROL, 3),
    "owner in other groups": (DAVE, 6),
    "other": (BOB, 0),
}


@group
def searching() -> Iterator[Case]:
    """What a directory's mode allows: finding, making and removing names in it."""
    calls: tuple[Step, ...] = (
        ("stat", "d/f"),
        ("listdir", "d"),
        ("mkdir", "d/x"),
        ("mkfifo", "d/x"),
        ("mknod", "d/x", S_IFREG | 0o644),
        ("mknod", "d/x", S_IFSOCK | 0o644),
        ("mknod", "d/x", S_IFCHR | 0o644, 1, 3),
        ("bind", "d/x"),
        ("symlink", "y", "d/x"),
        ("link", "own", "d/x"),
        ("rename", "own", "d/x"),
        ("rename", "d/f", "here/x"),
        ("rename", "d/f", "d/x"),
        ("rename", "d/sub", "here/sub"),
        ("open", "d/x", os.O_CREAT | os.O_WRONLY),
        ("open", "d/f", os.O_RDONLY),
        ("open", "d/f", os.O_RDONLY | os.O_CREAT),
        ("open", "d", os.O_RDONLY),
        ("unlink", "d/f"),
        ("rmdir", "d/sub"),
        ("truncate", "d/f", 3),
        ("chmod", "d/f", 0o600),
        ("chdir", "d"),
        ("access", "d/f", os.F_OK),
        ("access", "d", os.W_OK),
        ("utimes", "d/f", [1, 0], [2, 0]),
        ("readlink", "d/l"),
    )
    for call in calls:
        for name, (who, shift) in _WHO.items():
            for bits in range(8):
                mode = bits << shift
                uid = {ALICE: A, DAVE: A, CAROL: 65532, BOB: B}[who]
                before = (
                    ("chmod", ".", 0o777),
                    *made("file", "own", 0o666, (uid, uid)),
                    *made("directory", "here", 0o777),
                    *made("directory", "d", 0o755),
                    *made("file", "d/f", 0o666, (uid, uid)),
                    *made("directory", "d/sub", 0o777, (uid, uid)),
                    ("symlink", "somewhere", "d/l"),
                    ("lchown", "d", A, A),
                    ("chmod", "d", mode),
                )
                yield Case(f"{call[0]} as {name} in {mode:03o}", before, ((who, *call),))


@group
def reading_and_writing() -> Iterator[Case]:
    """What a file's mode allows."""
    calls: tuple[Step, ...] = (
        ("open", "f", os.O_RDONLY),
        ("open", "f", os.O_WRONLY),
        ("open", "f", os.O_RDWR),
        ("open", "f", os.O_RDONLY | os.O_TRUNC),
        ("open", "f", os.O_WRONLY | os.O_TRUNC | os.O_CREAT),
        ("open", "f", os.O_WRONLY | os.O_APPEND),
        ("open", "f", os.O_RDONLY | os.O_NOATIME),
        ("truncate", "f", 2),
        ("utimes", "f", [1, 0], [2, 0]),
        ("utimes", "f", [0, NOW], [0, NOW]),
        ("utimes_null", "f"),
        ("access", "f", os.R_OK),
        ("access", "f", os.W_OK),
        ("access", "f", os.X_OK),
        ("setxattr", "f", "user.a", "v"),
        ("chmod", "f", 0o604),
    )
    for call in calls:
        for name, (who, shift) in _WHO.items():
            for bits in range(8):
                mode = bits << shift
                before = (*made("file", "f", mode, (A, A)), ("chmod", "f", mode))
                yield Case(f"{call} as {name} of {mode:03o}", before, ((who, *call),))
