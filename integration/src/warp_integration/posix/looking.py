"""What a tree looks like, in terms that file systems agree upon."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

Tree = dict[str, os.stat_result]

TIMES: Final = ("st_mtime_ns", "st_ctime_ns")
TODAY_NS: Final = 10**9 * 86_400
"""Times further from now than that were chosen by a call, so that file systems agree on them to the nanosecond."""


class Plain(NamedTuple):
    """What is compared of a file."""

    mode: int
    links: int
    size: int
    uid: int
    gid: int
    device: int


def look(root: Path) -> Tree:
    """Return what lstat tells of everything below a directory, by path."""
    found = {".": os.lstat(root)}
    todo = [(os.open(root, os.O_RDONLY), "")]
    while todo:
        descriptor, above = todo.pop()
        try:
            # By descriptor: with what is above them paths may be too long for the kernel.
            for name in os.listdir(descriptor):
                path = os.path.join(above, name)
                found[path] = known = os.lstat(name, dir_fd=descriptor)
                if stat.S_ISDIR(known.st_mode):
                    todo.append((os.open(name, os.O_RDONLY, dir_fd=descriptor), path))
        finally:
            os.close(descriptor)
    return found


def plain(found: os.stat_result) -> Plain:
    """Return what file systems agree upon; sizes of directories are each one's own."""
    directory = stat.S_ISDIR(found.st_mode)
    size = 0 if directory else found.st_size
    return Plain(found.st_mode, found.st_nlink, size, found.st_uid, found.st_gid, found.st_rdev)


def differences(
    before: Sequence[Tree], after: Sequence[Tree], times: Sequence[str] = TIMES
) -> list[str]:
    """Compare what a call left in a reference and in trees that should be like it.

    Times are compared by whether they moved, and exactly where they were chosen.
    """
    found = []
    expected = {path: plain(each) for path, each in after[0].items()}
    for tree in after[1:]:
        here = {path: plain(each) for path, each in tree.items()}
        found += [
            f"then {path[:30]} is {_told(expected, path)}, here {_told(here, path)}"
            for path in sorted(expected.keys() | here.keys())
            if expected.get(path) != here.get(path)
        ]
    if found:
        return found
    for path in after[0].keys() & before[0].keys() & before[1].keys():
        if any(
            old[path].st_ino != new[path].st_ino for old, new in zip(before, after, strict=True)
        ):
            continue  # another file, with times of its own
        for time in times:
            then, now = (
                [getattr(tree[path], time) for tree in trees[:2]] for trees in (before, after)
            )
            moved = [new != old for old, new in zip(then, now, strict=True)]
            if moved[0] != moved[1]:
                found.append(f"{time} of {path[:30]} moved: {moved[0]}, here {moved[1]}")
            elif _chosen(now[0], after[0]) and now[0] != now[1]:
                found.append(f"{time} of {path[:30]} is {now[0]}, here {now[1]}")
    return found


def _chosen(time_ns: int, tree: Tree) -> bool:
    """Say whether a call chose a time: it is far from when the tree was made."""
    return abs(time_ns - tree["."].st_ctime_ns) > TODAY_NS


def _told(files: Mapping[str, Plain], path: str) -> str:
    found = files.get(path)
    if found is None:
        return "missing"
    links, size, uid, gid, device = found[1:]
    return f"{found.mode:06o} links {links} size {size} {uid}:{gid} device {device:x}"
