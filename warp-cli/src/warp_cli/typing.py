"""What typer's commands share: common options, and how a command module is called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from warp_cli.failing import FAILURE, INTERRUPTED

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="WARP_CONFIG", help="The configuration file."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", envvar="WARP_DATA", help="The node's data directory."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
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


def call(name: str, arguments: Sequence[str]) -> int:
    """Run the command of `warp_cli.commands.NAME`, whose `app` is a typer app; returns its status."""
    module = importlib.import_module(f"warp_cli.commands.{name}")
    app: typer.Typer = module.app
    try:
        status = typer.main.get_command(app).main(
            args=list(arguments), prog_name=f"warp {name}", standalone_mode=False
        )
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
