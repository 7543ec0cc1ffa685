"""How far an import is, on disk: a key below which everything is done, so that a run goes on where the last one was killed.

Nothing is lost with it: what is there is found by comparing. It only saves that.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = "imports"
"""Folder of the node's data with a file for each pair of source and target."""

SAVE_S: Final = 2.0
"""How often it is written."""

PROBLEMS_MAX: Final = 10_000
"""Problems that are listed; further ones are counted."""


class Problem(msgspec.Struct, frozen=True):
    """A version that could not be carried over."""

    key: str
    version: str
    reason: str


class Counts(msgspec.Struct):
    """What was done, of this run."""

    keys: int = 0  # looked at
    versions: int = 0  # carried
    markers: int = 0  # delete markers carried
    bytes: int = 0
    present: int = 0  # versions that were there
    problems: int = 0
    notes: dict[str, int] = {}  # what was not kept: "etag", "encryption", "retention", ...


class State(msgspec.Struct):
    """What the file says."""

    source: str
    target: str
    after: str = ""  # the last key below which, with itself, everything is done
    finished: bool = False


class Kept:
    """A state and its file."""

    def __init__(self, data: Path | None, source: str, target: str) -> None:
        """Read what an earlier run left; without a data directory nothing is kept."""
        name = hashlib.sha256(f"{source}\n{target}".encode()).hexdigest()[:32]
        self._path = data / FOLDER / f"{name}.json" if data is not None else None
        self.state = State(source, target)
        if self._path is not None and self._path.exists():
            try:
                found = msgspec.json.decode(self._path.read_bytes(), type=State)
            except msgspec.DecodeError:  # another release's: begin anew, nothing is done twice
                found = self.state
            if not found.finished:
                self.state = found

    def save(self) -> None:
        """Write it so that a crash leaves the old one or the new one."""
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(self.state))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


class Order:
    """Keys that are begun in order and done in any: up to which all are done."""

    def __init__(self) -> None:
        self._open: dict[str, bool] = {}
        self.after = ""

    def begin(self, key: str) -> None:
        """Note a key, in the order of keys."""
        self._open[key] = False

    def done(self, key: str) -> None:
        """Note that a key is done."""
        self._open[key] = True
        for first, done in list(self._open.items()):
            if not done:
                return
            self.after = first
            del self._open[first]
