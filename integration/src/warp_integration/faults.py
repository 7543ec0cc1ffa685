"""Plant faults between a program and its files from outside, without a line in the program.

A small library, compiled from `faults.c` when first needed, stands before the C library's file calls (LD_PRELOAD). Rules
say which call of which files fails, is dropped, or kills; counters in shared memory tell how many there were, so that
a test can let the first, the second, ... the last one fail.

It sees what goes through the C library: Python's `os`, LMDB, SQLite; not io_uring, and not stores into mapped memory.
"""

from __future__ import annotations

import atexit
import errno
import mmap
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import TracebackType

from warp_integration.requirements import require

EVER = (1 << 63) - 1
RULES_MAX = 8  # as in faults.c


class Call(StrEnum):
    """What a rule is about; each stands for all variants of the call."""

    WRITE = "write"  # of regular files, also by copy_file_range and splice
    SYNC = "sync"  # of regular files; also what O_DSYNC would do when dropped
    SYNC_DIRECTORY = "syncdir"
    RENAME = "rename"
    UNLINK = "unlink"
    CREATE = "create"  # opening with O_CREAT: only errors and kill
    ALLOCATE = "allocate"  # fallocate and ftruncate


DROP = "drop"
"""Do nothing and claim success: a call forgotten, or its error ignored."""
SWALLOW = "swallow"
"""Make the call and claim success whatever it says."""
KILL = "kill"
"""SIGKILL the program instead of the call."""
SHORT = "short"
"""Write half."""
LATE = "late"
"""Claim that a file is synced and do it half a second later: acknowledging before the flush."""


@dataclass(frozen=True, slots=True)
class Rule:
    """From call number `first` to `last`, counted from 1, do `action`: one of the words above, or an errno.

    `path` limits the rule to files whose path contains it.
    """

    call: Call
    action: str | int
    first: int = 1
    last: int = EVER
    path: str = ""

    def __str__(self) -> str:
        return f"{self.call} {self.action} {self.first} {self.last} {self.path}".strip()


def enospc(call: Call, *, first: int = 1, last: int = EVER, path: str = "") -> Rule:
    """Return the rule of a full disk."""
    return Rule(call, errno.ENOSPC, first, last, path)


def eio(call: Call, *, first: int = 1, last: int = EVER, path: str = "") -> Rule:
    """Return the rule of a failing disk."""
    return Rule(call, errno.EIO, first, last, path)


class Faults:
    """Rules ready to be put under a program; `environment` does so.

    Skips the calling test when there is no compiler.
    """

    def __init__(self, directory: Path, rules: Sequence[Rule]) -> None:
        if len(rules) > RULES_MAX:
            raise ValueError(f"{len(rules)} rules > {RULES_MAX}")
        directory.mkdir(parents=True, exist_ok=True)
        self._counts_file = directory / "fault-counts"
        self._counts_file.write_bytes(bytes(8 * RULES_MAX))
        with self._counts_file.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * RULES_MAX)
        self._counts = memoryview(self._map).cast("Q")
        self.environment = {
            "LD_PRELOAD": str(compile_shim()),
            "WARP_FAULTS": ";".join(map(str, rules)),
            "WARP_FAULT_COUNTS": str(self._counts_file),
        }

    def count(self, rule: int = 0) -> int:
        """Return how many calls matched rule number `rule` so far, in all processes."""
        return self._counts[rule]

    def reset(self, rule: int = 0, count: int = 0) -> None:
        """Let the next matching call be number `count` + 1; also arms a rule while the program runs."""
        self._counts[rule] = count

    def close(self) -> None:
        """Unmap the counters."""
        self._counts.release()
        self._map.close()

    def __enter__(self) -> Faults:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@cache
def compile_shim() -> Path:
    """Compile the library, once for this process; it is gone with it."""
    require("gcc")
    directory = Path(tempfile.mkdtemp(prefix="warp-faults-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    shim = directory / "faults.so"
    source = Path(__file__).with_name("faults.c")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", shim, source, "-ldl", "-pthread"], check=True)
    return shim
