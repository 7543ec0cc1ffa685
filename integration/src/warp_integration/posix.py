"""The same system calls in a file system under test and in one of the kernel's own, by several users: answers and outcomes must agree.

Sequences are random and drawn from a seed. After each call every file of both trees is looked at: kind, mode, links, owner, size, and
whether its times moved.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import random
import shutil
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

USERS: list[tuple[int, int, list[int]]] = [
    (0, 0, []),
    (65534, 65534, []),
    (65533, 65533, []),
    (65534, 65532, [65533]),
    (65531, 65534, []),
]
UMASKS = (0, 0o027, 0, 0o022, 0o077)
IDS = (-1, 0, 65531, 65532, 65533, 65534)
FILES = ("a", "b", "c", "d", "e")
DIRECTORIES = ("D1", "D2")
ODD = (
    *("D1/D1", "D2/D1", "D1/D1/a", "a/x", "b/x", "n" * 255, "n" * 256, "D1/" + "m" * 256),
    *("nope/x", "D1/nope/x", "", "D1/", "a/", "D1/.", "D1/..", ".", "D1/../a", "./b"),
    *("D1/../" * 700 + "a", "/".join(["q" * 200] * 21)),
)
MODES = (
    *(0, 0o007, 0o070, 0o111, 0o222, 0o444, 0o600, 0o640, 0o644, 0o700, 0o755, 0o777),
    *(0o1755, 0o1777, 0o2755, 0o2777, 0o4755, 0o6777),
)
TARGETS = ("a", "b", "D1", "D2/a", "nope", "a/", "../a", "e", "x" * 1000, "x" * 4095)
TIMES = (0, 1, 10**9 + 5, 2**31 * 10**9 + 7, -(10**9), 1_900_000_000_000_000_001)
XATTRS = ("user.a", "user.b", "trusted.t", "user." + "k" * 249, "user." + "k" * 300, "bad")
OPEN_FLAGS = (
    *(0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC),
    *(os.O_NOFOLLOW, os.O_DIRECTORY, os.O_CREAT | os.O_NOFOLLOW),
)
LISTS = ("system.posix_acl_access", "system.posix_acl_default")
HELD = ("fstat", "pwrite", "pread", "ftruncate", "fchmod", "posix_fallocate", "close")
SPECIAL = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG)

Call = list[Any]  # a name and its arguments, as JSON carries them
Tree = dict[str, os.stat_result]


def drawn(random_: random.Random) -> Call:
    """Return a call."""
    pick = random_.choice

    def path() -> str:
        return pick(
            (
                pick(FILES),
                pick(FILES),
                f"{pick(DIRECTORIES)}/{pick(FILES)}",
                pick(DIRECTORIES),
                pick(ODD),
            )
        )

    calls: list[tuple[int, str, Callable[[], Call]]] = [
        (6, "mkdir", lambda: [path(), pick(MODES)]),
        (4, "rmdir", lambda: [path()]),
        (5, "unlink", lambda: [path()]),
        (9, "rename", lambda: [path(), path()]),
        (3, "renameat2", lambda: [path(), path(), pick((1, 2, 3))]),
        (6, "link", lambda: [path(), path()]),
        (4, "symlink", lambda: [pick(TARGETS), path()]),
        (1, "readlink", lambda: [path()]),
        (4, "mknod", lambda: [path(), pick(SPECIAL) | pick(MODES)]),
        (10, "chmod", lambda: [path(), pick(MODES)]),
        (8, "chown", lambda: [path(), pick(IDS), pick(IDS)]),
        (4, "lchown", lambda: [path(), pick(IDS), pick(IDS)]),
        (3, "truncate", lambda: [path(), pick((0, 1, 5, 4096, 100_000, -1))]),
        (3, "utimes", lambda: [path(), pick(TIMES), pick(TIMES), pick((True, False))]),
        (2, "utimes_now", lambda: [path()]),
        (2, "access", lambda: [path(), pick((0, 1, 2, 4, 6, 7))]),
        (9, "open", lambda: [path(), pick((0, 1, 2)) | pick(OPEN_FLAGS), pick(MODES)]),
        (3, "write", lambda: [path(), pick((0, os.O_APPEND)), pick((1, 10, 5000))]),
        (3, "hold", lambda: [path(), pick((0, 1, 2))]),
        (1, "fstat", list),
        (2, "pwrite", lambda: [pick((0, 3, 4096, 9999)), pick((1, 100, 8192))]),
        (1, "pread", lambda: [pick((0, 3, 4096, 9999)), pick((1, 100, 8192))]),
        (2, "ftruncate", lambda: [pick((0, 7, 8192))]),
        (1, "fchmod", lambda: [pick(MODES)]),
        (1, "posix_fallocate", lambda: [pick((0, 100)), pick((1, 5000, 0))]),
        (2, "close", list),
        (
            2,
            "setxattr",
            lambda: [path(), pick(XATTRS), pick(("", "v", "w" * 300)), pick((0, 1, 2))],
        ),
        (2, "getxattr", lambda: [path(), pick(XATTRS)]),
        (1, "removexattr", lambda: [path(), pick(XATTRS)]),
        (5, "setacl", lambda: [path(), pick(LISTS), drawn_acl(random_)]),
        (2, "getacl", lambda: [path(), pick(LISTS)]),
        (2, "listdir", lambda: [path()]),
        (2, "read", lambda: [path()]),
    ]
    weights = [weight for weight, _, _ in calls]
    _, name, arguments = random_.choices(calls, weights)[0]
    return [name, *arguments()]


def drawn_acl(random_: random.Random) -> str:
    """Return a POSIX ACL as it is in an extended attribute, in hex; one in ten is none that Linux takes."""
    pick = random_.choice
    named = [(2, pick((0, 4, 6, 7)), each) for each in random_.sample(IDS[1:], pick((0, 1, 2)))]
    groups = [(8, pick((0, 4, 6, 7)), each) for each in random_.sample(IDS[1:], pick((0, 1)))]
    entries = [(1, pick((6, 7)), -1), *sorted(named, key=lambda each: each[2])]
    entries += [(4, pick((0, 4, 5)), -1), *groups]
    if named or groups or random_.random() < 0.5:
        entries.append((16, pick((4, 5, 6, 7)), -1))
    entries.append((32, pick((0, 4, 5)), -1))
    if random_.random() < 0.1:
        entries.remove(pick(entries))
    return (b"\2\0\0\0" + b"".join(struct.pack("<HHi", *each) for each in entries)).hex()


class User:
    """A process with its own credentials, in a directory. It holds at most one file open."""

    def __init__(
        self, directory: Path, umask: int, uid: int, gid: int, groups: Sequence[int]
    ) -> None:
        ours, theirs = socket.socketpair()
        self._process = os.fork()
        if not self._process:
            try:
                ours.close()
                os.chdir(directory)
                os.umask(umask)
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._socket = ours
        self._stream = ours.makefile("rw")

    def call(self, call: Call) -> Any:
        """Make a call and return its answer: a value, or the name of the error."""
        self._stream.write(json.dumps(call) + "\n")
        self._stream.flush()
        return json.loads(self._stream.readline())

    def end(self) -> None:
        """End the process, and with it what it holds open."""
        with contextlib.suppress(OSError):
            self._stream.write("[]\n")
            self._stream.flush()
        self._socket.close()
        os.waitpid(self._process, 0)


def _serve(channel: socket.socket) -> None:
    stream = channel.makefile("rw")
    held: list[int] = []
    for line in stream:
        call = json.loads(line)
        if not call:
            return
        try:
            answer = _do(held, *call)
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, str(error))
        except ValueError as error:
            answer = type(error).__name__
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


def _do(held: list[int], name: str, *arguments: Any) -> Any:
    if name in HELD:
        return _do_held(held, name, *arguments) if held else "nothing is held"
    path = arguments[0]
    if name in ("mkdir", "rmdir", "unlink", "rename", "symlink", "mknod", "chmod", "chown"):
        getattr(os, name)(*arguments)
    elif name in ("lchown", "truncate", "readlink", "access", "removexattr"):
        return getattr(os, name)(*arguments)
    elif name == "link":
        os.link(*arguments, follow_symlinks=False)
    elif name == "renameat2":
        _renameat2(*arguments)
    elif name == "utimes":
        os.utime(path, ns=(arguments[1], arguments[2]), follow_symlinks=arguments[3])
    elif name == "utimes_now":
        os.utime(path)
    elif name == "open":
        os.close(os.open(path, arguments[1] | os.O_NONBLOCK, arguments[2]))
    elif name == "hold":
        descriptor = os.open(path, arguments[1] | os.O_NONBLOCK)
        if held:
            os.close(held.pop())
        held.append(descriptor)
    elif name == "setxattr":
        os.setxattr(path, arguments[1], arguments[2].encode(), arguments[3])
    elif name == "getxattr":
        return os.getxattr(path, arguments[1]).decode()
    elif name == "setacl":
        os.setxattr(path, arguments[1], bytes.fromhex(arguments[2]))
    elif name == "getacl":
        return os.getxattr(path, arguments[1]).hex()
    elif name == "listdir":
        return sorted(os.listdir(path))
    else:
        return _read_or_write(name, path, *arguments[1:])
    return "done"


def _read_or_write(name: str, path: str, flags: int = 0, size: int = 0) -> int:
    mode = os.O_WRONLY | flags if name == "write" else os.O_RDONLY
    descriptor = os.open(path, mode | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return -1
        return os.write(descriptor, b"x" * size) if size else len(os.read(descriptor, 1 << 20))
    finally:
        os.close(descriptor)


def _do_held(held: list[int], name: str, *arguments: Any) -> Any:
    descriptor = held[-1]
    if name == "fstat":
        return plain(os.fstat(descriptor))
    if name == "pwrite":
        return os.pwrite(descriptor, b"z" * arguments[1], arguments[0])
    if name == "pread":
        return len(os.pread(descriptor, arguments[1], arguments[0]))
    getattr(os, name)(descriptor, *arguments)
    if name == "close":
        held.pop()
    return "done"


def _renameat2(source: str, target: str, flags: int) -> None:
    here, libc = -100, ctypes.CDLL(None, use_errno=True)  # AT_FDCWD
    if libc.renameat2(here, os.fsencode(source), here, os.fsencode(target), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def look(root: Path) -> Tree:
    """Return what lstat tells of everything below a directory, by path."""
    found = {".": os.lstat(root)}
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(above, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def plain(found: os.stat_result) -> tuple[int, ...]:
    """Return what file systems agree upon; directories' sizes and links are each one's own."""
    directory = stat.S_ISDIR(found.st_mode)
    counted = (0, 0) if directory else (found.st_nlink, found.st_size)
    return (found.st_mode, *counted, found.st_uid, found.st_gid)


@contextmanager
def users(directory: Path) -> Iterator[list[User]]:
    """Begin all users in a directory."""
    with ExitStack() as stack:
        began = []
        for umask, credentials in zip(UMASKS, USERS, strict=True):
            user = User(directory, umask, *credentials)
            stack.callback(user.end)
            began.append(user)
        yield began


def differences(reference: Path, mounts: Sequence[Path], *, seed: int, calls: int) -> list[str]:
    """Make random calls below `reference` and, each through any of `mounts` of one volume, there; tell where they differ.

    Ends with the first call whose outcome differs, as all that follows would.
    """
    chance = random.Random(seed)
    places = [place / f"seed-{seed}" for place in (reference, *mounts)]
    reference.chmod(stat.S_IMODE(mounts[0].stat().st_mode))  # symbolic links lead there
    for place in places[:2]:
        place.mkdir()
        place.chmod(0o777)
    told: list[str] = []
    with ExitStack() as stack:
        expected, *others = [stack.enter_context(users(place)) for place in places]
        before = [look(place) for place in places]
        for number in range(calls):
            call, who = drawn(chance), chance.choices(range(len(USERS)), [5, 4, 2, 2, 2])[0]
            # What is held open is held through one mount.
            through = others[0] if call[0] in (*HELD, "hold") else chance.choice(others)
            answers = expected[who].call(call), through[who].call(call)
            after = [look(place) for place in places]
            found = _compared(answers, before, after)
            before = after
            if found:
                shown = [str(word)[:40] for word in call]
                told.append(f"seed {seed} call {number} by {USERS[who]}: {shown}: {found}"[:600])
                if any("then" in line for line in found):
                    break
    shutil.rmtree(places[0])
    shutil.rmtree(places[1])
    return told


def _compared(answers: tuple[Any, Any], before: Sequence[Tree], after: Sequence[Tree]) -> list[str]:
    found = [] if answers[0] == answers[1] else [f"{answers[0]}, here {answers[1]}"]
    expected = {path: plain(each) for path, each in after[0].items()}
    for tree in after[1:]:
        here = {path: plain(each) for path, each in tree.items()}
        found += [
            f"then {path[:30]} is {expected.get(path)}, here {here.get(path)}"
            for path in sorted(expected.keys() | here.keys())
            if expected.get(path) != here.get(path)
        ]
    if found:
        return found
    for path in after[0].keys() & before[0].keys() & before[1].keys():
        for time in ("st_mtime_ns", "st_ctime_ns"):
            moved = [
                getattr(new[path], time) != getattr(old[path], time)
                for old, new in zip(before[:2], after[:2], strict=True)
            ]
            if moved[0] != moved[1]:
                found.append(f"{time} of {path[:30]} moved: {moved[0]}, here {moved[1]}")
    return found
