"""`warp doctor`: check host and data, and say what to fix."""

from __future__ import annotations

from warp_cli.examine import examine
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
            width = max(len(each.check) for each in found)
            for each in found:
                say(f"{_SHOWN[each.verdict]}  {each.check:<{width}}  {_plain(each.found)}")
                if each.advice:
                    say(f"      {'':<{width}}  [dim]→ {_plain(each.advice)}[/]")
        return FAILURE if any(each.verdict == "bad" for each in found) else 0

    return reported(run, json=json)


def _plain(text: str) -> str:
    """Keep brackets from being taken for markup."""
    return text.replace("[", r"\[")
