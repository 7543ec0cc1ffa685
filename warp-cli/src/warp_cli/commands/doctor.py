"""`warp doctor`: check host and data, and say what to fix."""

from __future__ import annotations

from warp_cli.examine import Finding, examine
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, say
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()

_SHOWN = {"fine": "[green]fine[/]", "note": "[yellow]note[/]", "bad": "[red]bad [/]"}


@app.command()
def doctor(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Check host, installation, configuration, data and node; exits with 1 when something is bad."""

    def run() -> int:
        found = list(examine(config, data))
        if json:
            as_json(found)
        else:
            _show(found)
        return FAILURE if any(each.verdict == "bad" for each in found) else 0

    return reported(run, json=json)


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    made = Table.grid(padding=(0, 2))
    rows = [
        (_SHOWN[each.verdict], each.check, f"{_plain(each.found)}{_arrow(each.advice)}")
        for each in found
    ]
    if not console.is_terminal:  # a pipe has no width
        width = max(len(each.check) for each in found)
        for verdict, check, text in rows:
            indented = text.replace("\n", f"\n{'':<{width + 8}}")
            say(f"{verdict}  {check:<{width}}  {indented}")
        return
    for row in rows:
        made.add_row(*row)
    console.print(made)


def _arrow(advice: str) -> str:
    return f"\n[dim]→ {_plain(advice)}[/]" if advice else ""


def _plain(text: str) -> str:
    """Keep brackets from being taken for markup."""
    return text.replace("[", r"\[")
