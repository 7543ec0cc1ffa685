"""`warp kms`: keys that encrypted contents are kept under."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warp_cli.asking import ask
from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption, group

app = group("Make, list, rotate and disable keys for encrypted contents.")

MASTER = "master.key"  # what `[kms] master_key` is where it is not said

KeyArgument = Annotated[str, typer.Argument(help="Its id. Default: the default key.")]


@app.command()
def master(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Where to write it; it must not exist. Default: master.key with the data."
        ),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Write a new master key: 32 random bytes in a file that only its owner may read."""

    def run() -> None:
        from warp_core.key_files import make_key_file

        from warp_cli.settings import data_of

        path = file.expanduser().absolute() if file else data_of(config, data) / MASTER
        make_key_file(path)
        if json:
            as_json({"master_key": str(path)})
            return
        say(f"[green]made[/] {path}")
        say(
            "[dim]keep a copy where the data is not: nothing that it wraps is readable without it[/]"
        )

    return reported(run, json=json)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """List keys."""

    def run() -> None:
        found = ask(config, data, "kms.list")
        if json:
            as_json(found)
            return
        rows = [
            (
                each["key"],
                each["created"],
                str(each["versions"]),
                "" if each["enabled"] else "disabled",
            )
            for each in found
        ]
        none = "no key yet: the first use of encryption makes one, and so does: warp kms create"
        table(("key", "created", "versions", ""), rows, empty=none)

    return reported(run, json=json)


@app.command()
def create(
    key: Annotated[str, typer.Argument(help="Its id. Default: generated.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a key."""
    return _done("kms.create", "made", key, config, data, json=json)


@app.command()
def rotate(
    key: KeyArgument = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Use new key material from now on; what is encrypted already stays readable and is not rewritten."""
    return _done("kms.rotate", "rotated", key, config, data, json=json)


@app.command()
def disable(
    key: Annotated[str, typer.Argument(help="Its id.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Let nobody use a key: what is encrypted under it cannot be read until it is enabled again."""
    return _done("kms.disable", "disabled", key, config, data, json=json)


@app.command()
def enable(
    key: Annotated[str, typer.Argument(help="Its id.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Let a key be used again."""
    return _done("kms.enable", "enabled", key, config, data, json=json)


def _done(verb: str, word: str, key: str, config: Any, data: Any, *, json: bool) -> int:
    def run() -> None:
        told = ask(config, data, verb, key=key)
        if json:
            as_json(told)
        else:
            say(f"[green]{word}[/] {told['key']} [dim](version {told['versions']})[/]")

    return reported(run, json=json)
