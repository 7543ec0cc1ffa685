"""Walk a copy of the index in a process of its own: `python -m warp_local.probe FOLDER SIZE_MAX`.

LMDB maps its file and trusts what is in it, so a damaged one may end the process that reads it. Here that is one line of a report.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from warp_core.errors import WarpError
from warp_core.interfaces.consistency import KEY_MAX

from warp_local.index import Index

PROBLEMS_MAX = 1000  # reported of one index: the first ones tell


class Probed(msgspec.Struct, frozen=True):
    """What a walk found. `version` is 0 where there is no index, -1 where its state cannot be read."""

    version: int = -1
    rows: int = 0
    problems: tuple[str, ...] = ()

    @property
    def damaged(self) -> bool:
        """Whether there is an index that is not sound."""
        return self.version != 0 and bool(self.problems)


def walk(folder: Path, size_max: int) -> Probed:
    """Read every row of a copy."""
    import lmdb

    if not (folder / "data.mdb").exists():
        return Probed(0, 0, (f"{folder}: there is no index",))
    index = Index(folder, size_max)
    rows = 0
    problems: list[str] = []
    try:
        index.open()
        if index.empty:
            return Probed(0, 0, (f"{folder}: the index is empty",))
        for problem in _unsound(index):
            rows += not problem
            if problem and len(problems) < PROBLEMS_MAX:
                problems.append(problem)
        return Probed(index.state.version, rows, tuple(problems))
    except (WarpError, lmdb.Error, ValueError) as error:
        return Probed(index.state.version or -1, rows, (*problems, f"{folder}: {error}"))
    finally:
        index.close()


def _unsound(index: Index) -> Iterator[str]:
    """Yield an empty string for each row that may be, else what is wrong with it."""
    previous = b""
    for row in index.all_rows():
        problem = ""
        if not 0 < len(row.key) <= KEY_MAX or row.key <= previous:
            problem = f"{index.folder}: key {row.key[:40]!r} is out of order or too long"
        elif not 0 < row.version <= index.state.version:
            problem = (
                f"{index.folder}: row {row.key!r} has version {row.version}, the index"
                f" {index.state.version}"
            )
        yield problem
        previous = row.key


async def probe(folder: Path, size_max: int) -> Probed:
    """Walk a copy in another process, and survive what that does not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "warp_local.probe",
        str(folder),
        str(int(size_max)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        told, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    try:
        return msgspec.json.decode(told, type=Probed)
    except msgspec.DecodeError:
        code = process.returncode or 0
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return Probed(problems=(f"{folder}: the index is damaged: reading it ended with {how}",))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(walk(Path(sys.argv[1]), int(sys.argv[2]))))
