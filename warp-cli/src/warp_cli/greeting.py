"""The friendly table that `warp serve` shows on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from warp_core.config import Settings


def greet(settings: Settings, endpoints: Mapping[str, str], access_key: str) -> None:
    """Show where what is served, and how to get in."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False)
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, url in endpoints.items():
        table.add_row(name, f"[cyan]{url}[/]")
    table.add_row("data", str(settings.data))
    table.add_row("access key", access_key)
    where = "WARP_SECRET_KEY" if settings.root else f"{settings.data / 'root.key'}"
    table.add_row("secret key", f"in {where}")
    console.print(
        f"[green]●[/] warp serves as [bold]{settings.name}[/]; Ctrl-C drains and stops it"
    )
    console.print(table)
