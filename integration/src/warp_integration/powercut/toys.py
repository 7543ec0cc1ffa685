"""Small programs that keep promises, and the same programs with the classic mistakes.

They prove the rig: a correct one must never be blamed, a faulty one must be caught. Each runs as a process of its own
inside the recorded file system: `python -m warp_integration.powercut.toys NAME FAULT DIR LEDGER POSITION ITEMS SEED`.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from warp_integration.powercut.bench import Recording, Remains
from warp_integration.powercut.campaign import Workload
from warp_integration.powercut.ledger import ABSENT, Ledger
from warp_integration.powercut.position import Position

_KEYS = 12  # few, so that most operations overwrite or delete


def content_of(data: bytes) -> str:
    """Return the name by which a ledger knows `data`."""
    return hashlib.sha256(data).hexdigest()[:16]


class Toy(ABC):
    """A key-value store of a few lines in a directory; `fault` names a mistake, "" is the correct program."""

    faults: tuple[str, ...]

    def __init__(self, directory: Path, fault: str) -> None:
        if fault and fault not in self.faults:
            raise ValueError(f"{type(self).__name__} knows no fault {fault!r}, only {self.faults}")
        self.directory = directory
        self.fault = fault

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Make `data` the durable content of `key`."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove `key` durably."""

    @abstractmethod
    def contents(self) -> Mapping[str, bytes]:
        """Return what is there."""


class Blobs(Toy):
    """One file a key: write aside, sync, rename, sync the directory."""

    faults = ("no-fsync", "no-directory-fsync", "in-place")

    def put(self, key: str, data: bytes) -> None:
        """Write a new file and rename it over the old one."""
        target = self.directory / key
        aside = target if self.fault == "in-place" else self.directory / f".{key}"
        file = os.open(aside, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(file, data)
            os.ftruncate(file, len(data))
            if self.fault != "no-fsync":
                os.fsync(file)
        finally:
            os.close(file)
        aside.rename(target)
        self._sync_directory()

    def delete(self, key: str) -> None:
        """Unlink the file."""
        (self.directory / key).unlink(missing_ok=True)
        self._sync_directory()

    def _sync_directory(self) -> None:
        if self.fault in ("no-fsync", "no-directory-fsync"):
            return
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def contents(self) -> Mapping[str, bytes]:
        """Read all files."""
        files = (path for path in self.directory.iterdir() if path.is_file())
        return {path.name: path.read_bytes() for path in files if not path.name.startswith(".")}


class Log(Toy):
    """One file of checksummed lines, appended and synced; what follows a broken line does not count."""

    faults = ("no-fsync", "acknowledge-first")

    def __init__(self, directory: Path, fault: str) -> None:
        super().__init__(directory, fault)
        self._path = directory / "log"

    def put(self, key: str, data: bytes) -> None:
        """Append a line."""
        self._append(f"{key} {data.hex()}")

    def delete(self, key: str) -> None:
        """Append a line that says so."""
        self._append(f"{key} {ABSENT}")

    def _append(self, line: str) -> None:
        new = not self._path.exists()
        with self._path.open("ab") as log:
            log.write(f"{_sum(line)} {line}\n".encode())
            log.flush()
            if not self.fault:
                os.fdatasync(log.fileno())
        if new:
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)

    def settle(self) -> None:
        """Sync what was acknowledged too early."""
        with self._path.open("ab") as log:
            os.fdatasync(log.fileno())

    def contents(self) -> Mapping[str, bytes]:
        """Replay the log."""
        found: dict[str, bytes] = {}
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        for line in lines:
            checksum, _, rest = line.decode("latin-1").partition(" ")
            key, _, value = rest.partition(" ")
            if checksum != _sum(rest):
                break
            if value == ABSENT:
                found.pop(key, None)
            else:
                found[key] = bytes.fromhex(value)
        return found


def _sum(line: str) -> str:
    return hashlib.sha256(line.encode("latin-1")).hexdigest()[:8]


TOYS: dict[str, type[Toy]] = {"blobs": Blobs, "log": Log}


class ToyWorkload(Workload):
    """A toy in its own process, and a judge that reads its directory."""

    def __init__(self, name: str, fault: str = "", *, items: int = 60, seed: int = 1) -> None:
        self._name = name
        self._fault = fault
        self._items = items
        self._seed = seed

    def run(self, recording: Recording) -> Ledger:
        """Run the toy to its end."""
        ledger = recording.mounts[0].parent / "ledger"
        arguments = (self._name, self._fault, recording.mounts[0], ledger, recording.position_file)
        numbers = (str(self._items), str(self._seed))
        try:
            recording.namespace.run(sys.executable, "-m", __name__, *arguments, *numbers)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{self._name} failed: {error.stderr}") from error
        return Ledger.load(ledger)

    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Open the toy's directory as the toy itself would."""
        toy = TOYS[self._name](remains.path(), self._fault)
        return {key: content_of(data) for key, data in toy.contents().items()}


def work(toy: Toy, ledger: Ledger, *, items: int, seed: int) -> None:
    """Put and delete under few keys, so that overwriting and removing are what is mostly tested."""
    rng = random.Random(seed)
    early = toy.fault == "acknowledge-first"
    for _ in range(items):
        key = f"k{rng.randrange(_KEYS):02}"
        data = rng.randbytes(rng.choice((100, 3000, 40_000)))
        if rng.random() < 0.2:
            operation = ledger.begin(key, ABSENT)
            toy.delete(key)
        else:
            operation = ledger.begin(key, content_of(data))
            toy.put(key, data)
        ledger.acknowledge(operation)
        if early and isinstance(toy, Log):
            toy.settle()


def main(arguments: list[str]) -> None:
    """Run one toy."""
    name, fault, directory, file, position_file, items, seed = arguments
    toy = TOYS[name](Path(directory), fault)
    with (
        Position(Path(position_file)) as position,
        closing(Ledger(position.read, file=Path(file))) as ledger,
    ):
        work(toy, ledger, items=int(items), seed=int(seed))


if __name__ == "__main__":
    main(sys.argv[1:])
