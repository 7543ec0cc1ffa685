"""What typer's commands share: common options, and how a command module is called."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from warp_cli.failing import FAILURE, INTERRUPTED
from warp_cli.table import EXAMPLES

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="WARP_CONFIG",
        readable=False,  # who cannot read it is told in a sentence of ours, not as wrong usage
        help="The configuration file.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", envvar="WARP_DATA", readable=False, help="The node's data directory."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
UnusedConfig = Annotated[
    Path | None,
    typer.Option("--config", envvar="WARP_CONFIG", help="Taken by every command; not needed here."),
]
UnusedData = Annotated[
    Path | None,
    typer.Option("--data", envvar="WARP_DATA", help="Taken by every command; not needed here."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated."),
]


def single() -> typer.Typer:
    """Return an app of one command."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def group(help: str) -> typer.Typer:
    """Return an app of subcommands."""
    return typer.Typer(
        help=help, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )


def command_of(name: str) -> Any:
    """Return the command of `warp_cli.commands.NAME` as click sees it, its help with examples and paragraphs that fill the line."""
    module = importlib.import_module(f"warp_cli.commands.{name}")
    command = typer.main.get_command(module.app)
    for words, each in walked(name, command):
        for option in (*each.params, each.get_help_option(typer.Context(each))):
            if getattr(option, "is_flag", False):
                option.metavar = " "  # else the help shows a <bool> that nobody may write
        each.help = re.sub(r"(?<=\S)\n(?=\S)", " ", each.help or "")
        if words in EXAMPLES:
            # One line each: paragraphs would be filled.
            each.epilog = "\n\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES[words])))
    return command


def walked(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield the words after `warp`, and the command that they mean, for it and its subcommands."""
    yield name, command
    for sub, each in getattr(command, "commands", {}).items():
        yield from walked(f"{name} {sub}", each)


def call(name: str, arguments: Sequence[str]) -> int:
    """Run the command of `warp_cli.commands.NAME`, whose `app` is a typer app; returns its status."""
    command = command_of(name)
    try:
        status = command.main(args=list(arguments), prog_name=f"warp {name}", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        # Errors of usage know how to show themselves; typer keeps click's classes to itself.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", FAILURE))
    return status if isinstance(status, int) else 0
