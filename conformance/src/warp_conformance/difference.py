"""Comparing what may be large: `assert same(got, want)` says in one line where two contents part.

Under pytest, `assert got == want` on bytes is cheap while it holds. When it fails, with `-v` or the variable CI set, pytest lays
both sides out in lines and looks for the nicest alignment of them: a minute for 64 KiB, hours for a MiB. So whatever can be longer
than a few hundred bytes is compared by `same`. Where a test says `==` all the same, our pytest plugin explains large contents in its
place (`explained`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

SHOWN = 16  # bytes of each side, from the first that differs: enough to recognize content by
REPR_MAX = 60  # characters of what is no content
EXPLAINED_MAX = 4096  # bytes and items that pytest may explain in its own way: takes it a second

Content = TypeVar("Content", bytes, str)

Explain = Callable[[str, object, object], str | None]  # operator, left, right


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """Says where two things differ; is false."""

    told: str

    def __bool__(self) -> Literal[False]:
        """Return False: `assert same(...)` fails."""
        return False

    def __repr__(self) -> str:
        """Return one line of at most about 250 characters."""
        return f"<{self.told}>"


def same(got: object, want: object) -> Literal[True] | Difference:
    """Compare contents, also within lists, tuples and dictionaries.

    Buffers (bytes, bytearray, memoryview) are equal if their bytes are; everything else as `==` says. What is no buffer where one is
    wanted is different, whatever it is, so that a subject that answers None fails its test as it should.

    Returns:
        True, or what differs first: item or key, offset, and a few bytes of both sides.
    """
    told = _difference(got, want)
    return True if told is None else Difference(told)


def explained(explain: Explain | None) -> Explain | None:
    """Wrap what explains failing comparisons, so that large ones are explained by `same`."""
    if explain is None:
        return None
    usual = explain

    def briefly(op: str, left: object, right: object) -> str | None:
        if op == "==" and max(_weight(left), _weight(right)) > EXPLAINED_MAX:
            told = _difference(left, right) or "the contents agree, their types do not"
            return f"{_short(left)} == {_short(right)}\n~{told}".replace("%", "%%")
        return usual(op, left, right)

    return briefly


def _weight(value: object) -> int:
    """Return how many bytes, characters and items there are, those within included."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return memoryview(value).nbytes
    if isinstance(value, Mapping):
        return sum(1 + _weight(key) + _weight(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return sum(1 + _weight(each) for each in value)
    return 0


def _difference(got: object, want: object) -> str | None:
    if isinstance(want, str) and isinstance(got, str):
        return _parting(got, want, "characters")
    ours, theirs = _content(got), _content(want)
    if ours is not None and theirs is not None:
        return _parting(ours, theirs, "bytes")
    if ours is None and theirs is None:
        if isinstance(got, Mapping) and isinstance(want, Mapping):
            return _first_key(got, want)
        if isinstance(got, list | tuple) and isinstance(want, list | tuple):
            return _first_item(got, want)
        if got == want:
            return None
    return f"got {_short(got)}, wanted {_short(want)}"


def _content(value: object) -> bytes | None:
    """Return a buffer's bytes, None for anything else."""
    if isinstance(value, bytes):
        return value
    return bytes(value) if isinstance(value, bytearray | memoryview) else None


def _parting(got: Content, want: Content, unit: str) -> str | None:
    if got == want:
        return None
    at = _first_difference(got, want)
    ours, theirs = got[at : at + SHOWN], want[at : at + SHOWN]
    return (
        f"differ at {at}: got {ours!r} (of {len(got)} {unit}), wanted {theirs!r} (of {len(want)})"
    )


def _first_difference(one: Content, two: Content) -> int:
    """Return the first offset at which they differ: where the shorter one ends, if it begins the other."""
    same_to, end = 0, min(len(one), len(two))
    while same_to < end:  # halves are compared by memcmp
        middle = (same_to + end + 1) // 2
        if one[same_to:middle] == two[same_to:middle]:
            same_to = middle
        else:
            end = middle - 1
    return same_to


def _first_item(got: Sequence[object], want: Sequence[object]) -> str | None:
    if isinstance(got, list) != isinstance(want, list):
        return f"got a {type(got).__name__}, wanted a {type(want).__name__}"
    for at, (one, two) in enumerate(zip(got, want, strict=False)):
        if told := _difference(one, two):
            return f"item {at}: {told}"
    if len(got) != len(want):
        return f"got {len(got)} items, wanted {len(want)}"
    return None


def _first_key(got: Mapping[object, object], want: Mapping[object, object]) -> str | None:
    for key in want:
        if key not in got:
            return f"{_short(key)} is missing"
        if told := _difference(got[key], want[key]):
            return f"{_short(key)}: {told}"
    more = next((key for key in got if key not in want), None)
    return None if len(got) == len(want) else f"{_short(more)} is too much"


def _short(value: object) -> str:
    content = _content(value)
    if content is not None:
        return f"{content[:SHOWN]!r} (of {len(content)} bytes)"
    if isinstance(value, list | tuple | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= REPR_MAX else shown[: REPR_MAX - 3] + "..."
