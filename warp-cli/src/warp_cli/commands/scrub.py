"""`warp scrub`: look for what is missing or damaged."""

from __future__ import annotations

from typing import Annotated

import typer
from warp_core.config.types import Size
from warp_core.errors import InvalidArgument

from warp_cli.asking import ask
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, counted, say
from warp_cli.progress import bytes_text, shown
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def scrub(
    deep: Annotated[bool, typer.Option("--deep", help="Read and verify every byte.")] = False,
    rate: Annotated[
        str, typer.Option("--rate", help="Bytes a second at most, such as 50MiB.")
    ] = "0",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Look at every container; with --deep, at every byte. Exits with 1 when something is wrong."""

    def run() -> int:
        try:
            limit = Size.parse(int(rate) if rate.isdecimal() else rate)
        except ValueError:
            raise InvalidArgument(f"--rate {rate}: allowed: {Size.ALLOWED}") from None
        with shown("scrubbing", quiet=json) as progress:
            found = ask(config, data, "scrub", progress=progress, deep=deep, rate=int(limit))
        wrong = found["damaged_copies"] + found["missing_copies"] + found["lost_count"]
        if json:
            as_json(found)
            return FAILURE if wrong else 0
        say(
            f"looked at {counted(found['containers'], 'container')},"
            f" {counted(found['records'], 'record')}, {bytes_text(found['bytes'])}"
        )
        if found["lost_count"]:
            say(f"[red]{found['lost_count']} ranges have no good copy left:[/]")
            for each in found["lost"]:
                print(f"  {each}")
        if found["damaged_copies"] or found["missing_copies"]:
            say(
                f"[yellow]{found['damaged_copies']} damaged and {found['missing_copies']} missing copies:"
                " `warp heal` writes them anew[/]"
            )
        if not wrong and not found["containers"]:
            say(
                "No container is complete yet: what is written now, a 64 MiB log each, is looked at"
                " once it is; `warp fsck --deep` reads all that names lead to."
            )
        elif not wrong:
            say("[green]everything is whole[/]")
        return FAILURE if wrong else 0

    return reported(run, json=json)
