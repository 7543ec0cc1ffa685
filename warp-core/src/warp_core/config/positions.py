"""The line of every key in a TOML document that tomli has accepted.

tomli gives values without positions. This walks the same text once more and notes where each key
stands; values are skipped, not read, so what is legal was decided before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def positions(text: str) -> Mapping[Path, int]:
    """Return the line (from 1) of every table, key and array item; paths carry array indices."""
    return _Walk(text.replace("\r\n", "\n")).run()


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # tables so far of each [[array]]
        self.line, self.counted = 1, 0

    def run(self) -> Mapping[Path, int]:
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return self.lines
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        keys = self.dotted()
        path: Path = ()
        for depth, key in enumerate(keys):
            path += (key,)
            last = depth == len(keys) - 1
            if array and last:
                self.lines.setdefault(path, self.now())
                self.arrays[path] = self.arrays.get(path, 0) + 1
            if path in self.arrays:
                path += (self.arrays[path] - 1,)
            self.lines.setdefault(path, self.now())
        self.at += 2 if array else 1
        return path

    def pair(self, table: Path) -> None:
        path, line = table, 0
        for key in self.dotted():
            line = self.now()
            path += (key,)
            self.lines.setdefault(path, line)
        self.at += 1  # =
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self.string()
        elif first == "[":
            self.at += 1
            index = 0
            while not self.closes("]"):
                self.lines[(*path, index)] = self.now()
                self.value((*path, index))
                index += 1
        elif first == "{":
            self.at += 1
            while not self.closes("}"):
                self.pair(path)
        else:
            self.skip(_SCALAR)

    def closes(self, bracket: str) -> bool:
        """Skip blanks and a comma; step over the bracket if it comes next."""
        self.skip(_BLANK)
        if self.text[self.at] == ",":
            self.at += 1
            self.skip(_BLANK)
        if self.text[self.at] != bracket:
            return False
        self.at += 1
        return True

    def dotted(self) -> list[str]:
        keys = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                keys.append(self.string())
            else:
                match = _BARE.match(self.text, self.at)
                assert match is not None, "tomli accepted what is no key"
                keys.append(match[0])
                self.at = match.end()
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def string(self) -> str:
        quote = self.text[self.at]
        fence = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        start = self.at = self.at + len(fence)
        while not self.text.startswith(fence, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        if len(fence) == 3:  # up to two quotes may stand before the fence
            while self.text.startswith(quote, self.at + 3):
                self.at += 1
        raw = self.text[start : self.at]
        self.at += len(fence)
        return _ESCAPE.sub(_unescape, raw) if quote == '"' else raw

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def now(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line


def _unescape(match: re.Match[str]) -> str:
    short, long, single = match.groups()
    if single is not None:
        return _ESCAPED.get(single, single)
    return chr(int(short or long, 16))
