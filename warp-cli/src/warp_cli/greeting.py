"""The friendly table that `warp serve` shows on a terminal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from warp_core.config import Settings


def greet(settings: Settings, endpoints: Mapping[str, str], access_key: str) -> None:
    """Show where what is served, how to get in, and what to try next."""
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
    for line in _next(settings, endpoints):
        console.print(line, soft_wrap=True)


def _next(settings: Settings, endpoints: Mapping[str, str]) -> list[str]:
    """Return what a person can paste into another terminal."""
    warp = "uv run warp" if "UV" in os.environ else "warp"  # `uv run` says so to what it runs
    lines = [f"Next, in another terminal: [bold]{warp} status[/], [bold]{warp} bench[/]"]
    if "s3" not in endpoints:
        return lines
    lines[0] += ", or any S3 client:"
    if not settings.root:
        lines.append(f"  . {_shell(settings.data / 'root.key')}")
    lines.append("  export AWS_ACCESS_KEY_ID=$WARP_ACCESS_KEY")
    lines.append("  export AWS_SECRET_ACCESS_KEY=$WARP_SECRET_KEY AWS_DEFAULT_REGION=us-east-1")
    lines.append(f"  aws --endpoint-url {endpoints['s3']} s3 ls")
    return lines


def _shell(path: Path) -> str:
    """Return a path as a shell takes it, short where it lies below the folder that the command runs in."""
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(near))
