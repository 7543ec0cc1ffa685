"""`warp fsck`: check that every name leads to content that is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from warp_core.errors import Corrupt

from warp_cli.asking import ask, mend
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, counted, say, table
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
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct counters that differ from what there is.")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="First make the metadata index anew from its image and the journal."
        ),
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check every row, name, chunk and counter of every volume, and every container; the node may go on meanwhile.

    Where no node runs, the metadata index is compared with its image and the journal as well, row by row.
    Exits with 1 when something is wrong. It changes nothing unless told to; `warp heal` mends copies.
    """

    def run() -> int:
        made = None
        if rebuild:
            with shown("rebuilding the index", quiet=json) as progress:
                made = mend(config, data, rebuild=True, progress=progress)
            if not json:
                _tell_rebuilt(made)
        with shown("checking the index", quiet=json) as progress:
            index = mend(config, data, rebuild=False, progress=progress)
        unsound = index or []
        if unsound and not json:
            table(("index", "finding"), [("!", each) for each in unsound])
        try:
            with shown("checking", quiet=json) as progress:
                found = ask(
                    config,
                    data,
                    "fsck",
                    progress=progress,
                    deep=deep,
                    salvage=salvage,
                    repair=repair,
                )
        except Corrupt as error:
            if not unsound:
                raise
            if json:
                as_json({"index": unsound, "rebuilt": made, "error": str(error)})
            else:
                say(f"[red]{error}[/]")
            return FAILURE
        containers = found["containers"]
        copies = containers["damaged_copies"] + containers["missing_copies"]
        wrong = found["problem_count"] + containers["lost_count"] + copies + len(unsound)
        if json:
            as_json({**found, "index": index, "rebuilt": made})
            return FAILURE if wrong else 0
        if index is None:
            say(
                "[dim]the index was not compared with its log: stop the node for that; only an"
                " engine with a log, such as local, can[/]"
            )
        checked = [counted(found[f"{noun}s"], noun) for noun in ("volume", "name", "row", "chunk")]
        say(f"checked {', '.join(checked)}; {bytes_text(found['bytes'])} read")
        if found["counters_corrected"]:
            say(
                f"[yellow]counters were corrected: {counted(found['counters_corrected'], 'volume')}[/]"
            )
        if salvage:
            say(
                f"{found['salvaged']:,} contents without rows are named lost+found/..., "
                f"{bytes_text(found['salvaged_bytes'])}; {found['salvage_unreadable']} unreadable"
            )
        findings = [("namespace", each) for each in found["problems"]]
        findings += [("container", each) for each in containers["lost"]]
        if findings:
            table(("where", "finding"), findings)
        told = len(found["problems"]) + len(containers["lost"])
        if wrong - copies - len(unsound) > told:
            say(f"[red]... and {wrong - copies - len(unsound) - told} more[/]")
        if copies:
            say(f"[yellow]{copies} copies are damaged or missing: `warp heal` writes them anew[/]")
        if not wrong:
            say("[green]everything is as it should be[/]")
        return FAILURE if wrong else 0

    return reported(run, json=json)


def _tell_rebuilt(made: Mapping[str, Any]) -> None:
    began = f"image {made['image']} and the journal" if made["image"] else "the journal alone"
    say(f"[green]the index was made anew from {began}, up to commit {made['version']:,}[/]")
    for each in made["moved"]:
        say(f"what was there is in {each}: remove it when all is well")
