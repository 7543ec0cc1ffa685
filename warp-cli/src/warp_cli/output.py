"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
            max(len(str(cell)) for cell in (name, *column))
            for name, column in zip(columns, zip(*rows, strict=True), strict=True)
        ]
        for row in (columns, *rows):
            line = "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True))
            print(line.rstrip())
        return
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    console.print(made)


def say(text: str) -> None:
    """Print one sentence for a person, with rich's markup where it is a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(text)
    else:
        from rich.text import Text

        print(Text.from_markup(text).plain)
