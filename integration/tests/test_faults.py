from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warp_integration.faults import (
    DROP,
    EVER,
    KILL,
    LATE,
    SHORT,
    SWALLOW,
    Call,
    Faults,
    Rule,
    eio,
    enospc,
)


def run(faults: Faults, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import os, sys, errno\n" + program, *map(str, arguments)],
        env={**os.environ, **faults.environment},
        capture_output=True,
        text=True,
    )


WRITES = """
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
for number in range(5):
    try:
        print({verb})
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
VERBS = {
    "write": "os.write(file, b'ab')",
    "pwrite": "os.pwrite(file, b'ab', 2 * number)",
    "writev": "os.writev(file, [b'a', b'b'])",
    "pwritev": "os.pwritev(file, [b'a', b'b'], 2 * number)",
    "pwritev2": "os.pwritev(file, [b'a', b'b'], 2 * number, os.RWF_DSYNC)",
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_chosen_write_fails_and_no_other(tmp_path: Path, verb: str) -> None:
    with Faults(tmp_path, [eio(Call.WRITE, first=2, last=3, path="target")]) as faults:
        ended = run(faults, WRITES.format(verb=VERBS[verb]), tmp_path / "target")

        assert ended.stdout.split() == ["2", "EIO", "EIO", "2", "2"], ended.stderr
        assert faults.count() == 5


@pytest.mark.parametrize("verb", VERBS)
def test_a_dropped_write_claims_success(tmp_path: Path, verb: str) -> None:
    with Faults(tmp_path, [Rule(Call.WRITE, DROP, 5, 5, "target")]) as faults:
        ended = run(faults, WRITES.format(verb=VERBS[verb]), tmp_path / "target")

    assert ended.stdout.split() == ["2"] * 5
    assert (tmp_path / "target").read_bytes() == b"abababab"


@pytest.mark.parametrize("verb", VERBS)
def test_a_short_write_writes_half(tmp_path: Path, verb: str) -> None:
    with Faults(tmp_path, [Rule(Call.WRITE, SHORT, 5, 5, "target")]) as faults:
        ended = run(faults, WRITES.format(verb=VERBS[verb]), tmp_path / "target")

    assert ended.stdout.split() == ["2", "2", "2", "2", "1"]
    assert (tmp_path / "target").read_bytes() == b"ababababa"


def test_a_kill_comes_instead_of_the_call(tmp_path: Path) -> None:
    with Faults(tmp_path, [Rule(Call.WRITE, KILL, 3, 3, "target")]) as faults:
        ended = run(faults, WRITES.format(verb=VERBS["write"]), tmp_path / "target")

    assert ended.returncode == -9
    assert (tmp_path / "target").read_bytes() == b"abab"


def test_files_elsewhere_are_left_alone(tmp_path: Path) -> None:
    with Faults(tmp_path, [eio(Call.WRITE, path="other")]) as faults:
        ended = run(faults, WRITES.format(verb=VERBS["write"]), tmp_path / "target")

        assert ended.stdout.split() == ["2"] * 5
        assert faults.count() == 0


CALLS = """
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
folder = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
verbs = {
    "fsync": lambda: os.fsync(file),
    "fdatasync": lambda: os.fdatasync(file),
    "syncdir": lambda: os.fsync(folder),
    "rename": lambda: os.replace(sys.argv[1] + "-a", sys.argv[1] + "-b"),
    "unlink": lambda: os.unlink(sys.argv[1] + "-b"),
    "create": lambda: os.close(os.open(sys.argv[1] + "-c", os.O_CREAT | os.O_RDWR)),
    "truncate": lambda: os.ftruncate(file, 10),
    "allocate": lambda: os.posix_fallocate(file, 0, 20),
}
open(sys.argv[1] + "-a", "w").close()
for name in sys.argv[2:]:
    try:
        verbs[name]()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (Call.SYNC, ["fsync", "fdatasync"]),
        (Call.SYNC_DIRECTORY, ["syncdir"]),
        (Call.RENAME, ["rename"]),
        (Call.ALLOCATE, ["truncate", "allocate"]),
    ],
)
def test_every_call_can_be_refused_dropped_or_swallowed(
    tmp_path: Path, call: Call, names: list[str]
) -> None:
    words = {}
    for action in (errno.ENOSPC, DROP, SWALLOW):
        with Faults(tmp_path, [Rule(call, action, 1, EVER, "")]) as faults:
            words[action] = run(faults, CALLS, tmp_path / "target", *names).stdout.split()

    assert words[errno.ENOSPC] == ["ENOSPC"] * len(names)
    assert words[DROP] == words[SWALLOW] == ["done"] * len(names)


def test_a_file_is_not_created_on_a_full_disk(tmp_path: Path) -> None:
    with Faults(tmp_path, [enospc(Call.CREATE, path="target-c")]) as faults:
        ended = run(faults, CALLS, tmp_path / "target", "create", "rename", "unlink")

    assert ended.stdout.split() == ["ENOSPC", "done", "done"], ended.stderr
    assert not (tmp_path / "target-c").exists()


def test_a_rule_can_be_armed_while_the_program_runs(tmp_path: Path) -> None:
    never = EVER - 1000
    with Faults(tmp_path, [eio(Call.WRITE, first=never, path="target")]) as faults:
        before = run(faults, WRITES.format(verb=VERBS["write"]), tmp_path / "target")
        faults.reset(count=never)
        after = run(faults, WRITES.format(verb=VERBS["write"]), tmp_path / "target")

    assert before.stdout.split() == ["2"] * 5
    assert after.stdout.split() == ["EIO"] * 5


def test_a_late_sync_claims_success_and_syncs_afterwards(tmp_path: Path) -> None:
    program = CALLS + "import time; time.sleep(1)"
    with Faults(tmp_path, [Rule(Call.SYNC, LATE, path="target")]) as faults:
        started = time.monotonic()
        ended = run(faults, program, tmp_path / "target", "fsync", "fdatasync")

    assert ended.stdout.split() == ["done", "done"]
    assert time.monotonic() - started < 60
