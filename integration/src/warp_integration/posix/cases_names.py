"""Names: making, linking, removing and renaming them, in directories of others, sticky ones, and ones that hand their group down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Final

from warp_integration.posix.tables import (
    ALICE,
    BOB,
    CAROL,
    KINDS,
    ROOT,
    S_IFBLK,
    S_IFCHR,
    S_IFIFO,
    S_IFREG,
    S_IFSOCK,
    A,
    B,
    Case,
    Step,
    group,
    made,
)

_NOREPLACE, _EXCHANGE, _WHITEOUT = 1, 2, 4
_OPEN: Final = ("chmod", ".", 0o777)


def _remove(kind: str, path: str) -> Step:
    return ("rmdir" if kind == "directory" else "unlink", path)


@group
def making() -> Iterator[Case]:
    """Owner, group, mode and times of what is made, and of the directory it is made in."""
    makers: tuple[Step, ...] = (
        ("mkdir", "d/x"),
        ("mkfifo", "d/x"),
        ("mknod", "d/x"),
        ("open", "d/x", os.O_CREAT | os.O_WRONLY),
        ("open", "d/x", os.O_CREAT | os.O_EXCL | os.O_RDONLY),
    )
    modes = (0o755, 0o151, 0o345, 0o000, 0o777, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777, 0o170755)
    for maker, mode, mask in product(makers, modes, (0, 0o22, 0o70, 0o777)):
        kind = (S_IFREG,) if maker[0] == "mknod" else ()
        if mode > 0o7777 and (kind or maker[0] == "open"):
            continue
        step = (*maker, kind[0] | mode) if kind else (*maker, mode)
        before = (*made("directory", "d", 0o777), ("umask", mask))
        yield Case(f"{maker[0]} {mode:o} under {mask:03o}", before, (step,))


@group
def handing_down() -> Iterator[Case]:
    """Group and set-group-id bit of what is made below a directory that has it."""
    makers: tuple[Step, ...] = (
        ("mkdir", "d/x", 0o755),
        ("mkdir", "d/x", 0o2770),
        ("mkfifo", "d/x", 0o2755),
        ("mknod", "d/x", S_IFREG | 0o2755),
        ("mknod", "d/x", S_IFREG | 0o6771),
        ("mknod", "d/x", S_IFSOCK | 0o2755),
        ("open", "d/x", os.O_CREAT | os.O_WRONLY, 0o2755),
        ("open", "d/x", os.O_CREAT | os.O_WRONLY, 0o2745),
        ("symlink", "y", "d/x"),
        ("bind", "d/x"),
    )
    for maker, who, mode, owner in product(
        makers, (ROOT, ALICE, BOB, CAROL), (0o777, 0o2777, 0o3777), ((0, 0), (A, A), (B, A), (A, B))
    ):
        before = (*made("directory", "d", mode, owner), ("chmod", "d", mode))
        yield Case(f"{maker} by {who} in {mode:o} of {owner}", before, ((who, *maker),))


@group
def taken() -> Iterator[Case]:
    """Making what is there already, as each kind."""
    makers: tuple[Step, ...] = (
        ("mkdir", "x"),
        ("mkfifo", "x"),
        ("mknod", "x", S_IFREG | 0o644),
        ("mknod", "x", S_IFSOCK | 0o644),
        ("mknod", "x", S_IFCHR | 0o644, 1, 3),
        ("bind", "x"),
        ("symlink", "y", "x"),
        ("link", "other", "x"),
        ("open", "x", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        ("rename", "other", "x", _NOREPLACE),
    )
    for maker, kind, who in product(makers, KINDS, (ROOT, BOB)):
        before = (
            _OPEN,
            *made("file", "other", 0o666, (B, B)),
            *made(kind, "x", 0o755, (A, A)),
        )
        yield Case(f"{maker} over a {kind}", before, ((who, *maker),))


@group
def nodes() -> Iterator[Case]:
    """Device numbers and kinds of nodes."""
    kinds = (S_IFIFO, S_IFCHR, S_IFBLK, S_IFREG, S_IFSOCK, 0o040000, 0o120000, 0, 0o150000)
    devices = ((0, 0), (1, 3), (4095, 1048575), (255, 256), (7, 255), (8, 65535))
    for kind, device, who in product(kinds, devices, (ROOT, ALICE)):
        step = (who, "mknod", "x", kind | 0o644, *device)
        yield Case(f"mknod {kind:o} {device}", (_OPEN,), (step,))


@group
def targets() -> Iterator[Case]:
    """What symbolic links lead to."""
    for target in (
        "",
        "x",
        "/",
        "a/b",
        "../..",
        "t" * 255,
        "t" * 1000,
        "t" * 4095,
        "t" * 4096,
        "\udcff",
        "é",
    ):
        for who in (ROOT, ALICE):
            yield Case(
                f"to {target[:10]!r}, {len(target)}",
                (_OPEN,),
                ((who, "symlink", target, "l"), (who, "readlink", "l"), (who, "lstat", "l")),
            )


@group
def linking() -> Iterator[Case]:
    """Hard links: to every kind, over one another, and by whom."""
    for kind, who, flags in product(KINDS, (ROOT, ALICE, BOB), (0, 0x400)):
        before = (_OPEN, *made(kind, "f", 0o666, (A, A)))
        calls: list[Step] = [
            (who, "link", "f", "g", flags),
            (who, "link", "g", "h"),
            (
                ROOT,
                "chmod" if kind != "symlink" else "lstat",
                "g",
                *((0o600,) if kind != "symlink" else ()),
            ),
            (who, "unlink", "f"),
            (who, "unlink", "g"),
            (who, "unlink", "h"),
        ]
        yield Case(f"{kind} by {who} with {flags}", before, tuple(calls))
    for content in (0, 5, 5000):
        before = (*made("file", "f"), ("write", "f", content), ("link", "f", "g"), ("mkdir", "d"))
        calls = [
            ("write", "g", content + 1),
            ("read", "f"),
            ("truncate", "f", 2),
            ("link", "g", "d/h"),
            ("unlink", "f"),
            ("read", "d/h"),
            ("rename", "g", "d/h"),
            ("rename", "g", "d/i"),
            ("chown", "d/i", A, A),
        ]
        yield Case(f"content of {content}", before, tuple(calls))


@group
def removing() -> Iterator[Case]:
    """Removing each kind, by the call for it and the other, from directories that are sticky or not, for all owners."""
    for kind, call, sticky, above, entry, who in product(
        KINDS,
        ("unlink", "rmdir"),
        (0o777, 0o1777),
        (0, A, B),
        (0, A, B),
        (ROOT, ALICE),
    ):
        before = (
            *made("directory", "d", 0o777, (above, above)),
            *made(kind, "d/x", 0o644, (entry, entry)),
            ("chmod", "d", sticky),
        )
        step = (who, call, "d/x")
        yield Case(f"{call} {kind} of {entry} in {sticky:o} of {above}", before, (step,))


@group
def emptiness() -> Iterator[Case]:
    """What keeps a directory from going, and a rename from replacing it."""
    for kind in KINDS:
        before = (
            *made("directory", "d", 0o755),
            *made(kind, "d/x"),
            *made("directory", "e", 0o755),
            *made("directory", "g", 0o755),
            *made("directory", "g/h", 0o755),
        )
        calls: tuple[Step, ...] = (
            ("rmdir", "d"),
            ("rename", "e", "d"),
            ("rename", "d", "e"),
            ("rmdir", "e"),
            (_remove(kind, "e/x")),
            ("rmdir", "e"),
            ("rename", "g/h", "g"),
            ("rename", "g", "g/h"),
            ("rename", "g", "g/h/i"),
            ("rename", "g/h", "h"),
            ("rmdir", "g"),
        )
        yield Case(f"of a {kind}", before, calls)


@group
def replacing() -> Iterator[Case]:
    """Renaming every kind over every kind, with all flags."""
    for source, target, flags in product(
        KINDS, (*KINDS, "nothing", "full directory"), (0, 1, 2, 3, 4, 5, 6, 8)
    ):
        if target == "full directory" and flags & _WHITEOUT:
            continue  # ext4 makes the whiteout, and takes it away when the rename fails
        before = [*made(source, "x", 0o755), *made("directory", "d", 0o755)]
        if target == "full directory":
            before += [*made("directory", "d/y", 0o755), *made("file", "d/y/z")]
        elif target != "nothing":
            before += made(target, "d/y", 0o644)
        yield Case(
            f"{source} over {target} with {flags}",
            tuple(before),
            (("rename", "x", "d/y", flags), ("lstat", "d/y")),
        )


@group
def same_file() -> Iterator[Case]:
    """Two names of one file, and one name."""
    for flags in (0, 1, 2):
        before = (*made("file", "f"), ("link", "f", "g"), *made("directory", "d", 0o755))
        yield Case(
            f"with {flags}",
            before,
            (
                ("rename", "f", "g", flags),
                ("rename", "f", "f", flags),
                ("rename", "d", "d", flags),
                ("rename", "d", "d/", flags),
            ),
        )


@group
def sticky() -> Iterator[Case]:
    """Renaming out of, within, and over what is in sticky directories, for all owners."""
    for kind, which, above, entry, who, flags in product(
        ("file", "directory", "fifo", "symlink"),
        ("from", "to", "within"),
        (0, A, B),
        (0, A, B),
        (ROOT, ALICE),
        (0, 2),
    ):
        mine = 0 if who == ROOT else A
        source_owner = entry if which != "to" else mine
        target_owner = entry if which == "to" else mine
        there = which == "to" or flags == 2
        before: list[Step] = [
            *made("directory", "from", 0o777, (above if which != "to" else mine, 0)),
            *made("directory", "to", 0o777, (above if which == "to" else mine, 0)),
            *made(kind, "from/x", 0o777, (source_owner, 0)),
        ]
        target = "from/y" if which == "within" else "to/y"
        if there:
            before += made(kind, target, 0o777, (target_owner, 0))
        before.append(("chmod", "from" if which != "to" else "to", 0o1777))
        yield Case(
            f"{kind} {which} of {above}, entry of {entry}, with {flags}",
            tuple(before),
            ((who, "rename", "from/x", target, flags),),
        )


@group
def moving_directories() -> Iterator[Case]:
    """A directory that changes its parent changes itself: whoever moves it has to be allowed to write in it."""
    for owner, mode, target, who in product(
        (0, A, B), (0o755, 0o555, 0o777, 0o700), ("to/d", "from/e"), (ROOT, ALICE)
    ):
        before = (
            *made("directory", "from", 0o777, (A, A)),
            *made("directory", "to", 0o777, (A, A)),
            *made("directory", "from/d", 0o755, (owner, owner)),
            *made("directory", "from/d/sub", 0o755),
            ("chmod", "from/d", mode),
        )
        yield Case(
            f"of {owner} {mode:o} to {target}",
            before,
            ((who, "rename", "from/d", target), ("lstat", "to/.."), ("lstat", "from")),
        )


@group
def counting_directories() -> Iterator[Case]:
    """Links of directories: one for each directory below."""
    calls: tuple[Step, ...] = (
        ("mkdir", "a"),
        ("mkdir", "a/b"),
        ("mkdir", "a/" + "n" * 250),
        ("rename", "a/b", "c"),
        ("rename", "c", "a/" + "m" * 255),
        ("mkdir", "e"),
        ("rename", "e", "a/" + "m" * 255),
        ("rmdir", "a/" + "n" * 250),
        ("mknod", "f", S_IFREG | 0o644),
        ("rename", "f", "a/" + "m" * 255, _EXCHANGE),
        ("rmdir", "f"),
        ("unlink", "a/" + "m" * 255),
        ("mkdir", "g"),
        ("mkdir", "g/h"),
        ("rename", "g/h", "a", _EXCHANGE),
        ("rename", "g", "g/h/x"),
        ("rmdir", "a"),
    )
    yield Case("come and go", (), calls)


@group
def open_and_gone() -> Iterator[Case]:
    """Files and directories that are used after their last name."""
    for kind in ("file", "directory"):
        flags = os.O_RDONLY if kind == "directory" else os.O_RDWR
        calls: list[Step] = [
            ("fstat", "h"),
            (_remove(kind, "x")),
            ("fstat", "h"),
            ("fchmod", "h", 0o700),
            ("fchown", "h", A, A),
            ("futimes", "h", [1, 1], [2, 2]),
            ("fstat", "h"),
        ]
        if kind == "file":
            calls += [
                ("pwrite", "h", 100, 10),
                ("pread", "h", 0, 1000),
                ("ftruncate", "h", 50),
                ("fstat", "h"),
                ("fsync", "h"),
                ("link_held", "h", "back"),
            ]
        else:
            calls += [
                ("fchdir", "h"),
                ("mkdir", "y"),
                ("open", "y", os.O_CREAT | os.O_WRONLY),
                ("listdir", "."),
                ("stat", "."),
            ]
        yield Case(kind, (*made(kind, "x", 0o755), ("hold", "h", "x", flags)), tuple(calls))
    for kind in ("file", "directory"):
        flags = os.O_RDONLY if kind == "directory" else os.O_RDWR
        before = (
            *made(kind, "x", 0o755),
            *made(kind, "y", 0o700),
            ("hold", "h", "y", flags),
        )
        yield Case(
            f"{kind} replaced",
            before,
            (
                ("rename", "x", "y"),
                ("fstat", "h"),
                ("fchmod", "h", 0o711),
                ("fstat", "h"),
                ("stat", "y"),
            ),
        )


@group
def whiteouts() -> Iterator[Case]:
    """A rename that leaves a whiteout, which overlay file systems need."""
    for kind, who in product(KINDS, (ROOT, ALICE)):
        before = (_OPEN, *made(kind, "x", 0o755, (A, A)))
        yield Case(
            f"{kind} by {who}",
            before,
            (
                (who, "rename", "x", "y", _WHITEOUT),
                ("lstat", "x"),
                (who, "rename", "y", "x", _WHITEOUT),
            ),
        )
