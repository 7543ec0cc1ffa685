"""Reading an audit log: what it says, and whether it is whole. Blocking; both may run beside a node that writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warp_core.audit.anchor import Anchor
from warp_core.audit.entries import Entry, open_line
from warp_core.audit.files import NO_HEAD, Head, LogFile, lines_of, log_files
from warp_core.errors import Corrupt

PAGE_MAX: Final = 10_000
"""Changes of one listing."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change with its result.

    Attributes:
        entry: Where it began, or was refused at once.
        result: `ok`, `refused`, `failed`, `cancelled`, or `unfinished`: the node ended before, or it goes on.
        ended: When, or "".
        error: Class of the error, or ""; `message` is its text.
    """

    entry: Entry
    result: str = "unfinished"
    ended: str = ""
    error: str = ""
    message: str = ""


def list_changes(
    folder: Path, *, limit: int, by: str = "", what: str = "", since: str = "", result: str = ""
) -> list[Change]:
    """Return the newest changes that fit, oldest first; lines that are damaged are left out.

    Args:
        folder: Of the log.
        limit: How many, at most `PAGE_MAX`.
        by: Only those of whoever's name contains this.
        what: Only verbs and operations that contain this.
        since: Only those at or after this time, as entries write it.
        result: Only those that ended so.
    """
    found: list[Change] = []
    later: dict[int, Entry] = {}  # results whose beginning is further up
    for file in reversed(log_files(folder)):
        changes: dict[int, Change] = {}
        for entry in _entries(file):
            if entry.event == "done":
                begun = changes.get(entry.begun)
                if begun is None:
                    later[entry.begun] = entry
                else:
                    changes[entry.begun] = _ended(begun.entry, entry)
            elif entry.event == "noted":
                changes[entry.seq] = _ended(entry, entry)
            else:
                changes[entry.seq] = Change(entry)
        for seq, change in list(changes.items()):
            if seq in later:
                changes[seq] = _ended(change.entry, later.pop(seq))
        fitting = [
            change
            for change in changes.values()
            if by in change.entry.by
            and what in change.entry.what
            and change.entry.time >= since.rstrip("Z")
            and result in ("", change.result)
        ]
        found = fitting[-limit + len(found) :] + found if len(found) < limit else found
        oldest = next(iter(changes.values()), None)
        if len(found) >= limit or (oldest is not None and oldest.entry.time < since.rstrip("Z")):
            break
    return found[-limit:]


def _entries(file: LogFile) -> Iterator[Entry]:
    for line in lines_of(file.path):
        try:
            yield open_line(line.rstrip(b"\n"))[0]
        except Corrupt:
            continue


def _ended(begun: Entry, done: Entry) -> Change:
    return Change(begun, done.result, done.time, done.error, done.message)


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where a chain is not what was written.

    Attributes:
        seq: Number of the line that should be there.
        file: Where it should be, or "" where there is no such file.
        line: Of that file, from 1.
        reason: What is wrong.
    """

    seq: int
    file: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        lines: That are whole, one after another, from the beginning.
        files: That were read.
        first: Number of the first line that is kept.
        head: The last of those lines.
        anchored: What the anchor says; None without one: then nobody knows whether lines are missing at the end.
        broken: The first place that is not as it was written, None if all is.
    """

    lines: int
    files: int
    first: int
    head: Head
    anchored: Head | None
    broken: Broken | None


def verify(
    folder: Path, anchor: Anchor | None, *, expected: Head | None = None, end: Head | None = None
) -> Verified:
    """Check every line of a log, and that none is missing.

    Args:
        folder: Of the log.
        anchor: What the metadata says of it.
        expected: A line that somebody noted down elsewhere.
        end: Where a running node's chain ends now; lines behind it are not looked at.
    """
    walk = _Walk(anchor, expected, end)
    files = log_files(folder)
    for file in files:
        if not walk.file(file):
            break
    broken = walk.broken or walk.missing()
    known = anchor.head if anchor is not None else None
    return Verified(walk.lines, len(files), walk.first, walk.head, known, broken)


class _Walk:
    def __init__(self, anchor: Anchor | None, expected: Head | None, end: Head | None) -> None:
        noted = [(anchor.head, "the metadata")] if anchor is not None else []
        self.notes = [*noted, *([(expected, "who asks")] if expected is not None else [])]
        self.before = anchor.before if anchor is not None else None
        self.end = end
        self.head: Head = self.before or NO_HEAD
        self.lines = 0
        self.first = self.head.seq + 1
        self.broken: Broken | None = None
        self._started = False

    def file(self, file: LogFile) -> bool:
        """Check a file; False if no further one is to be looked at."""
        if self.end is not None and self.head.seq >= self.end.seq and self._started:
            return False
        if not self._started:
            self._started = True
            if self.before is not None and file.first <= self.before.seq:
                # A file that is about to be removed: its lines count as well.
                self.before = None
            if self.before is None:
                self.head = Head(file.first - 1, "")
                self.first = file.first
        for number, line in enumerate(lines_of(file.path), 1):
            if self.end is not None and self.head.seq >= self.end.seq:
                return False
            reason = self._line(line)
            if reason:
                self.broken = Broken(self.head.seq + 1, file.path.name, number, reason)
                return False
        return True

    def _line(self, line: bytes) -> str:
        """Check a line; returns what is wrong with it."""
        if not line.endswith(b"\n"):
            return "the line is cut off"
        try:
            entry, hash = open_line(line[:-1])
        except Corrupt as error:
            return str(error)
        if entry.seq != self.head.seq + 1:
            return f"line {self.head.seq + 1} is not there: line {entry.seq} follows line {self.head.seq}"
        if self.head.hash and entry.prev != self.head.hash:
            return f"the line does not follow line {self.head.seq}: its `prev` is another hash"
        if entry.seq == 1 and entry.prev != NO_HEAD.hash:
            return "the first line follows another one"
        for mark, source in self.notes:
            if mark.seq == entry.seq and mark.hash != hash:
                return f"the line is another one than {source} says"
        self.head = Head(entry.seq, hash)
        self.lines += 1
        return ""

    def missing(self) -> Broken | None:
        """Say which line is not there that somebody knows of."""
        for mark, source in self.notes:
            if mark.seq > self.head.seq:
                gone = mark.seq - self.head.seq
                return Broken(
                    self.head.seq + 1,
                    "",
                    0,
                    f"the log ends here, but {source} knows of {gone} more line{'s' if gone > 1 else ''}",
                )
        if self.end is not None and self.end.seq > self.head.seq:
            return Broken(
                self.head.seq + 1, "", 0, "the log ends here, but the node has written more"
            )
        return None
