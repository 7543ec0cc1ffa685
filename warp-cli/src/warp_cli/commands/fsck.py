"""`warp fsck`: check that every name leads to content that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from warp_cli.asking import ask
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, say
from warp_cli.progress import bytes_text, shown
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def fsck(
    deep: Annotated[bool, typer.Option("--deep", help="Read and verify every byte.")] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="First name content whose rows are lost: lost+found/..."),
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check every row, name and chunk of every volume, and every container; the node may go on meanwhile.

    Exits with 1 when something is wrong. Without --salvage it changes nothing; `warp heal` mends copies.
    """

    def run() -> int:
        with shown("checking", quiet=json) as progress:
            found = ask(config, data, "fsck", progress=progress, deep=deep, salvage=salvage)
        containers = found["containers"]
        copies = containers["damaged_copies"] + containers["missing_copies"]
        wrong = found["problem_count"] + containers["lost_count"] + copies
        if json:
            as_json(found)
            return FAILURE if wrong else 0
        say(
            f"checked {found['volumes']:,} volumes, {found['names']:,} names, {found['rows']:,} rows,"
            f" {found['chunks']:,} chunks, {bytes_text(found['bytes'])} read"
        )
        if salvage:
            say(
                f"{found['salvaged']:,} contents without rows are named lost+found/..., "
                f"{bytes_text(found['salvaged_bytes'])}; {found['salvage_unreadable']} unreadable"
            )
        for problem in [*found["problems"], *containers["lost"]]:
            print(f"! {problem}")
        told = len(found["problems"]) + len(containers["lost"])
        if wrong - copies > told:
            say(f"[red]... and {wrong - copies - told} more[/]")
        if copies:
            say(f"[yellow]{copies} copies are damaged or missing: `warp heal` writes them anew[/]")
        if not wrong:
            say("[green]everything is as it should be[/]")
        return FAILURE if wrong else 0

    return reported(run, json=json)
