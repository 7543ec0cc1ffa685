"""`warp events`: which bucket's events go where, and what waits."""

from __future__ import annotations

from typing import Any

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Show which bucket's events go where, and what waits.")


@app.callback()
def events() -> None:
    """Show which bucket's events go where, and what waits."""


@app.command()
def status(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show every bucket with a notification configuration, and every target."""

    def run() -> None:
        found = ask(config, data, "events.status")
        if json:
            as_json(found)
            return
        table(
            ("bucket", "target", "state", "waiting", "oldest", "sent", "failed", "last error"),
            [_row(each) for each in found],
        )

    return reported(run, json=json)


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    waiting, oldest_s = told["waiting"], told["oldest_s"]
    return (
        told["name"] or "-",
        told["target"],
        told["state"],
        f"{waiting:,}" if waiting < 1000 else "1,000 or more",
        f"{oldest_s:,.0f} s" if waiting else "-",
        f"{told['sent']:,}",
        f"{told['failed']:,}",
        told["error"],
    )
