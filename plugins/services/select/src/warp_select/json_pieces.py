"""JSON text to pieces that SQL can split: values, each whole, that the path of FROM leads to.

The values are cut out, not read: strings and brackets are looked at, and DuckDB judges the rest. So a document of any length with a
list of records in it takes the memory of one record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from warp_select.csv_pieces import RECORD_MAX, Piece
from warp_select.errors import refused
from warp_select.syntax import Step

NESTING_MAX: Final = 1000
"""Brackets inside brackets on the way to a record."""

SEPARATOR: Final = "\x1e"
MISSING: Final = "\x1d"
"""Control characters that JSON does not allow: between values, and instead of one that is missing."""

_STRING: Final = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN: Final = re.compile(
    rf'[ \t\r\n]*(?:(?P<string>{_STRING})|(?P<sign>[{{}}\[\],:])|(?P<scalar>[^\s{{}}\[\],:"]+))',
    re.DOTALL,
)
_BRACKET: Final = re.compile(rf'{_STRING}|[{{}}\[\]]|"', re.DOTALL)


class _Frame:
    """A bracket that is open on the way: how many steps of the path led here, or -1 where they did not."""

    __slots__ = ("index", "key", "list", "spread", "steps", "unit")

    def __init__(self, *, is_list: bool, steps: int, unit: bool, spread: bool) -> None:
        self.list = is_list
        self.steps = steps
        self.unit = unit  # what lies behind the last [*]: one record, present or missing
        self.spread = spread  # the list at the path's end: its elements are the records
        self.key: str | None = None
        self.index = 0


class Elements:
    """Takes JSON text as it comes and gives the texts of the values at a path; None for one that is missing."""

    def __init__(self, path: Sequence[Step]) -> None:
        """Start before the first character."""
        self._path = tuple(path)
        stars = [at for at, step in enumerate(path) if step == Step()]
        self._unit = stars[-1] + 1 if stars else 0
        self._text = ""
        self._at = 0
        self._frames: list[_Frame] = []
        self._found = False  # a record in the current unit
        self._depth = 0  # inside a value that is taken or passed over as a whole
        self._start = -1  # of the value that is taken

    def feed(self, text: str, *, final: bool) -> list[str | None]:
        """Take the next text; give the values that it completes.

        Raises:
            QueryRefused: `JSONParsingError`, `TruncatedInput` or `OverMaxRecordSize`.
        """
        keep = self._start if self._start >= 0 else self._at
        self._text = self._text[keep:] + text
        self._at -= keep
        self._start = 0 if self._start >= 0 else -1
        values: list[str | None] = []
        while self._step(values, final):
            pass
        if final and (self._frames or self._depth or self._text[self._at :].strip()):
            raise refused("TruncatedInput" if self._frames or self._depth else "JSONParsingError")
        if (
            len(self._text) - min(self._at, self._start if self._start >= 0 else self._at)
            > RECORD_MAX
        ):
            raise refused("OverMaxRecordSize")
        return values

    def _step(self, values: list[str | None], final: bool) -> bool:
        """Go on by one token; False if more text is needed."""
        if self._depth:
            return self._inside(values)
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            self._no_token(final)
            return False
        if match["scalar"] and match.end() == len(self._text) and not final:
            return False  # it may go on
        self._at = match.end()
        frame = self._frames[-1] if self._frames else None
        sign = match["sign"]
        if sign == ":" or sign == ",":
            if frame is None:
                raise refused("JSONParsingError", f'"{sign}" between values')
            return True
        if sign == "}" or sign == "]":
            if frame is None or frame.list != (sign == "]") or frame.key is not None:
                raise refused("JSONParsingError", f'"{sign}" does not belong there')
            self._frames.pop()
            self._closed(frame.unit, values)
            return True
        if frame is not None and not frame.list and frame.key is None:
            if not match["string"]:
                raise refused("JSONParsingError", "a name is missing")
            frame.key = _name(match["string"])
            return True
        self._value(match, frame, values)
        return True

    def _no_token(self, final: bool) -> None:
        rest = self._text[self._at :].lstrip(" \t\r\n")
        if rest and not rest.startswith('"'):
            raise refused("JSONParsingError", "a character does not belong there")
        if rest and final:
            raise refused("TruncatedInput")

    def _value(self, match: re.Match[str], frame: _Frame | None, values: list[str | None]) -> None:
        """Begin with a value, and end with it if it is no bracket."""
        steps, spread = self._steps_to(frame)
        unit = steps == self._unit and not (frame is not None and frame.spread)
        if unit:
            self._found = False
        start = match.start(match.lastgroup or 0)
        sign = match["sign"]
        target = steps == len(self._path) or spread
        opens_list = (
            target and not spread and sign == "[" and bool(self._path) and self._path[-1] != Step()
        )
        if target:
            self._found = True
        if sign and (opens_list or (steps >= 0 and not target)):
            if len(self._frames) >= NESTING_MAX:
                raise refused("JSONParsingError", "too deeply nested")
            self._frames.append(
                _Frame(is_list=sign == "[", steps=steps, unit=unit, spread=opens_list)
            )
            return
        if sign:
            self._depth = 1
            self._start = start if target else -1
            self._unit_open = unit
            return
        if target:
            values.append(self._text[start : match.end()])
        self._closed(unit, values)

    def _steps_to(self, frame: _Frame | None) -> tuple[int, bool]:
        """Tell how many steps lead to the next value, and whether it is an element of the list at the path's end."""
        if frame is None:
            return 0, False
        if frame.spread:
            return -1, True
        if frame.list:
            frame.index += 1
        if frame.steps < 0 or frame.steps == len(self._path):
            return -1, False
        step = self._path[frame.steps]
        if frame.list:
            led = step == Step() or step.index == frame.index - 1
        else:
            led = step.name is not None and (frame.key or "").lower() == step.name.lower()
        return (frame.steps + 1 if led else -1), False

    def _inside(self, values: list[str | None]) -> bool:
        """Go on to the end of a value that is taken or passed over as a whole."""
        text, depth = self._text, self._depth
        for match in _BRACKET.finditer(text, self._at):
            found = match.group()
            if found in "{[":
                depth += 1
            elif found in "}]":
                depth -= 1
                if not depth:
                    self._at = match.end()
                    self._depth = 0
                    if self._start >= 0:
                        values.append(text[self._start : self._at])
                        self._start = -1
                    self._closed(self._unit_open, values)
                    return True
            elif found == '"':  # a string that does not end here
                self._at = match.start()
                self._depth = depth
                return False
        self._at, self._depth = len(text), depth
        return False

    def _closed(self, unit: bool, values: list[str | None]) -> None:
        """End a value; a unit without a record is a record that is missing."""
        if self._frames:
            self._frames[-1].key = None
        if unit and not self._found:
            values.append(None)

    _unit_open = False


def _name(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError as error:
        raise refused("JSONParsingError", "a name is not valid") from error


class JsonCutter:
    """Takes text as it comes and gives pieces."""

    def __init__(self, path: Sequence[Step], *, lines: bool) -> None:
        """Start before the first character; `lines` hopes that each line is a record."""
        self._elements = Elements(path)
        self._hoping = lines and not path
        self._rest = ""
        self._begun = False

    def feed(self, text: str, *, final: bool) -> Iterator[Piece]:
        """Take the next text; give the values that it completes.

        Raises:
            QueryRefused: `JSONParsingError`, `TruncatedInput` or `OverMaxRecordSize`.
        """
        if not self._begun and text:
            self._begun = True
            text = text.removeprefix("\ufeff")
        if not self._hoping:
            yield from self._cut(text, final=final)
            return
        text = self._rest + text
        cut = len(text) if final else text.rfind("\n")
        if cut < 0:
            self._rest = text
            if len(text) > RECORD_MAX:
                raise refused("OverMaxRecordSize")
            return
        self._rest = text[cut + 1 :]
        if text[:cut].strip():
            yield Piece(text[:cut], "\n", plain=True)

    def again(self, piece: Piece, *, final: bool) -> Iterator[Piece]:
        """Cut a piece whose lines were no values, and hope no more."""
        self._hoping = False
        rest, self._rest = self._rest, ""
        yield from self._cut(piece.text + "\n" + rest, final=final)

    def _cut(self, text: str, *, final: bool) -> Iterator[Piece]:
        values = self._elements.feed(text, final=final)
        if values:
            yield Piece(
                SEPARATOR.join(MISSING if value is None else value for value in values), SEPARATOR
            )
