"""Progress of long work, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Progress = Callable[[Mapping[str, Any]], None]


@contextmanager
def shown(what: str, *, quiet: bool) -> Iterator[Progress]:
    """Yield what is to be told of progress; a spinner with figures shows it on stderr."""
    if quiet or not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("[dim]{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None, figures="")

        def tell(progress: Mapping[str, Any]) -> None:
            figures = "  ".join(
                f"{key.replace('_', ' ')} {human(key, value)}" for key, value in progress.items()
            )
            bar.update(task, figures=figures)

        yield tell


def human(key: str, value: object) -> str:
    """Return a figure for people: bytes with a unit, counts with separators."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "bytes" in key or key in ("total", "free", "reserve", "size"):
            return bytes_text(value)
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    return str(value)


def bytes_text(count: float) -> str:
    """Return a number of bytes with three digits and a unit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1000 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.3g} {unit}"
