"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec


def as_json(what: Any) -> None:
    """Print one JSON document on stdout."""
    data = msgspec.json.format(msgspec.json.encode(what, enc_hook=str), indent=2)
    sys.stdout.write(data.decode() + "\n")


def as_json_line(what: Any) -> None:
    """Print one JSON document as one line, for output that goes on."""
    sys.stdout.write(msgspec.json.encode(what, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", empty: str = ""
) -> None:
    """Print a table; `empty` is said where there are no rows. Piped, it is plain and unwrapped."""
    if not rows and empty:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        # A pipe has no width: what is cut cannot be searched.
        widths = [
            max(len(str(row[number])) for row in (columns, *rows)) for number in range(len(columns))
        ]
        for row in (columns, *rows):
            line = "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True))
            print(line.rstrip())
        return
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for number, name in enumerate(columns):
        figures = bool(rows) and all(_figure(str(row[number])) for row in rows)
        made.add_column(name, overflow="fold", justify="right" if figures else "left")
    for row in rows:
        made.add_row(*map(str, row))
    console.print(made)


def print_ranges(page: Callable[[int], Any], *, json: bool) -> None:
    """Print ranges that a node tells page by page: `page` takes an offset."""
    offset: int | None = 0
    count = 0
    while offset is not None:
        found = page(offset)
        for each in found["ranges"]:
            count += 1
            if json:
                as_json_line(each)
            else:
                hole = "  hole" if each["hole"] else ""
                print(f"{each['offset']:>16}  {each['length']:>12}{hole}")
        offset = found["next"]
    if not count and not json:
        print("No difference.")


_FIGURE = re.compile(r"[-+]?[\d,.]+(%| ?[KMGT]i?B| B)?")


def _figure(cell: str) -> bool:
    return not cell or _FIGURE.fullmatch(cell) is not None


def counted(count: int, noun: str) -> str:
    """Return `1 volume`, `2 volumes`, `1,000 copies`."""
    many = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else many}"


def minute(time: str) -> str:
    """Return a time of the node's (`2026-11-22T17:36:47Z`) as people read it, in UTC, to the minute."""
    return f"{time[:10]} {time[11:16]}"


def say_unreachable(reasons: Mapping[str, str]) -> None:
    """Tell which rows of a table are of domains that have no home now, and so are told as they were last noted."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        print(f"not reachable now: {', '.join(names)} ({reason})")


def say(text: str) -> None:
    """Print one sentence for a person, with rich's markup where it is a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(text)
    else:
        from rich.text import Text

        print(Text.from_markup(text).plain)
