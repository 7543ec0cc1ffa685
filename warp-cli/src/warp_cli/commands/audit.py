"""`warp audit`: who changed what, and whether the record of it is whole."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, counted, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Show who changed what, and check that the record is whole.")

BROKEN = 1  # exit status
OF_MAX = 60  # characters of what a change is about, in a table


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, the newest.")] = 50,
    by: Annotated[str, typer.Option("--by", help="Only of whom this is a part of the name.")] = "",
    what: Annotated[
        str, typer.Option("--what", help="Only verbs and operations that this is a part of.")
    ] = "",
    since: Annotated[
        str,
        typer.Option("--since", help='Since when: "2026-11-22", "2026-11-22T17:00:00Z" or "7d".'),
    ] = "",
    result: Annotated[
        str,
        typer.Option("--result", help="Only ok, refused, failed, cancelled or unfinished ones."),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """List changes, the newest last, with who made them and what came of it."""

    def run() -> None:
        found = ask(
            config,
            data,
            "audit.entry.list",
            limit=limit,
            by=by,
            what=what,
            since=_moment(since),
            result=result,
        )
        if json:
            as_json(found)
            return
        table(
            ("time (UTC)", "by", "from", "what", "about", "result"),
            [_row(each) for each in found],
            empty="nothing was changed" + (" that fits" if by or what or since or result else ""),
        )

    return reported(run, json=json)


@app.command()
def verify(
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="NUMBER:HASH",
            help="A line that the record has to contain, as an earlier check printed it.",
        ),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check every line, that none is missing, and that the end is where the metadata says."""
    status = 0

    def run() -> None:
        nonlocal status
        found = ask(config, data, "audit.entry.verify", head=head)
        status = 0 if found["whole"] else BROKEN
        if json:
            as_json(found)
            return
        _say_verified(found)

    return reported(run, json=json) or status


def _say_verified(found: dict[str, Any]) -> None:
    broken = found["broken"]
    if broken is not None:
        place = f" ({broken['file']}, line {broken['line']})" if broken["file"] else ""
        say(f"[red]broken[/] at entry {broken['seq']}{place}: {broken['reason']}")
        print(f"{counted(found['lines'], 'line')} before it as written, in {found['folder']}")
        return
    if not found["lines"]:
        say(f"[green]whole[/]: nothing is recorded yet, in {found['folder']}")
        return
    say(
        f"[green]whole[/]: {counted(found['lines'], 'line')} in {counted(found['files'], 'file')}"
        f" of {found['folder']}"
    )
    if found["first"] > 1:
        print(f"begins with line {found['first']:,}: older files were removed by rotation")
    if found["anchored"] is None:
        print("the metadata knows no end of it: lines that are missing at the end cannot be found")
    print(f"head {found['head']}")


def _row(change: dict[str, Any]) -> tuple[str, ...]:
    result = change["result"]
    if change["error"]:
        result = f"{result}: {change['error']}"
    return (
        change["time"][:19].replace("T", " "),
        change["by"],
        " ".join(filter(None, (change["via"], change["address"]))),
        change["what"],
        _about(change["of"]),
        result,
    )


def _about(of: dict[str, Any]) -> str:
    """Return what a change is about in a few words: `photos snapshot=monday`."""
    words = []
    for name, value in of.items():
        if isinstance(value, dict):
            words += [f"{key}={each}" for key, each in value.items()]
        else:
            bare = not words and isinstance(value, str)
            words.append(str(value) if bare else f"{name}={_plain(value)}")
    text = " ".join(words)
    return text if len(text) <= OF_MAX else text[: OF_MAX - 3] + "..."


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _moment(since: str) -> str:
    """Return a time as entries have it."""
    if not since or (since[:1].isdigit() and "-" in since):
        return since
    from warp_core.config import Duration
    from warp_core.errors import InvalidArgument

    try:
        ago = float(Duration.parse(since))
    except ValueError:
        raise InvalidArgument(
            f'--since {since}: allowed: a time such as "2026-11-22T17:00:00Z", or {Duration.ALLOWED}'
        ) from None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))
