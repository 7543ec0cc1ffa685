"""`warp status`: is the node well, what does it serve, what is on which store."""

from __future__ import annotations

from typing import Any

from warp_cli.asking import ask_running
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, counted, say, table
from warp_cli.progress import bytes_text
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def status(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show the health of the running node; exits with 1 when something needs attention."""

    def run() -> int:
        found = ask_running(config, data, "status")
        if json:
            as_json(found)
        else:
            _show(found)
        return 0 if found["healthy"] else FAILURE

    return reported(run, json=json)


def _show(found: dict[str, Any]) -> None:
    state = "[green]healthy[/]" if found["healthy"] else "[red]needs attention[/]"
    say(
        f"node [bold]{found['node']}[/] is {state}; up {_span(found['uptime_s'])}, pid {found['pid']}"
    )
    for problem in found["problems"]:
        say(f"  [red]![/] {problem}")
    for name, url in found["endpoints"].items():
        say(f"  {name:<8} {url}")
    if found.get("cluster"):
        from warp_cli.commands.node import show

        show(found["cluster"])
    meta = found["metadata"]
    say(f"  {'data':<8} {found['data']}, {counted(found['volumes'], 'volume')}")
    say(f"  {'metadata':<8} {meta['engine']}, {meta['alive']} of {counted(meta['copies'], 'copy')}")
    table(
        ("store", "kind", "place", "free", "of", "used"),
        [
            (
                each["store"],
                each["kind"],
                each["place"],
                bytes_text(each["free"]) if "free" in each else each["error"],
                bytes_text(each.get("total", 0)),
                f"{1 - each['free'] / each['total']:.0%}" if each.get("total") else "",
            )
            for each in found["stores"]
        ],
    )


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
