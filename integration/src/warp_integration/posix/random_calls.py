"""Random system calls, drawn from a seed, by several users in a reference and in mounts: answers and effects must agree.

After each call every file of both trees is looked at: kind, mode, links, owner, size, and whether its times moved.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from warp_integration.posix import looking
from warp_integration.posix.calls import NO_FOLLOW, Call, User
from warp_integration.posix.looking import look

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
HELD = ("fstat", "pwrite", "pread", "ftruncate", "fchmod", "posix_fallocate", "close", "hold")
SPECIAL = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG)
KEY = "h"  # of the one file that a user holds open


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

    def time() -> list[int]:
        return list(divmod(pick(TIMES), 10**9))

    calls: list[tuple[int, str, Callable[[], Call]]] = [
        (6, "mkdir", lambda: [path(), pick(MODES)]),
        (4, "rmdir", lambda: [path()]),
        (5, "unlink", lambda: [path()]),
        (9, "rename", lambda: [path(), path()]),
        (3, "rename", lambda: [path(), path(), pick((1, 2, 3))]),
        (6, "link", lambda: [path(), path()]),
        (4, "symlink", lambda: [pick(TARGETS), path()]),
        (1, "readlink", lambda: [path()]),
        (4, "mknod", lambda: [path(), pick(SPECIAL) | pick(MODES)]),
        (10, "chmod", lambda: [path(), pick(MODES)]),
        (8, "chown", lambda: [path(), pick(IDS), pick(IDS)]),
        (4, "lchown", lambda: [path(), pick(IDS), pick(IDS)]),
        (3, "truncate", lambda: [path(), pick((0, 1, 5, 4096, 100_000, -1))]),
        (3, "utimes", lambda: [path(), time(), time(), pick((0, NO_FOLLOW))]),
        (2, "utimes_null", lambda: [path()]),
        (2, "access", lambda: [path(), pick((0, 1, 2, 4, 6, 7))]),
        (9, "open", lambda: [path(), pick((0, 1, 2)) | pick(OPEN_FLAGS), pick(MODES)]),
        (3, "write", lambda: [path(), pick((1, 10, 5000)), pick((0, os.O_APPEND))]),
        (3, "hold", lambda: [KEY, path(), pick((0, 1, 2))]),
        (1, "fstat", lambda: [KEY]),
        (2, "pwrite", lambda: [KEY, pick((0, 3, 4096, 9999)), pick((1, 100, 8192))]),
        (1, "pread", lambda: [KEY, pick((0, 3, 4096, 9999)), pick((1, 100, 8192))]),
        (2, "ftruncate", lambda: [KEY, pick((0, 7, 8192))]),
        (1, "fchmod", lambda: [KEY, pick(MODES)]),
        (1, "posix_fallocate", lambda: [KEY, pick((0, 100)), pick((1, 5000, 0))]),
        (2, "close", lambda: [KEY]),
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


@contextmanager
def users(directory: Path) -> Iterator[list[User]]:
    """Begin all users in a directory."""
    with ExitStack() as stack:
        began = []
        for umask, credentials in zip(UMASKS, USERS, strict=True):
            user = User(directory, *credentials, umask=umask)
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
            through = others[0] if call[0] in HELD else chance.choice(others)
            answers = expected[who].call(call), through[who].call(call)
            after = [look(place) for place in places]
            found = [] if answers[0] == answers[1] else [f"{answers[0]}, here {answers[1]}"]
            found += looking.differences(before, after)
            before = after
            if found:
                shown = [str(word)[:40] for word in call]
                told.append(f"seed {seed} call {number} by {USERS[who]}: {shown}: {found}"[:600])
                if any("then" in line for line in found):
                    break
    shutil.rmtree(places[0])
    shutil.rmtree(places[1])
    return told
