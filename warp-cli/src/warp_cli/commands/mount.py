"""`warp mount`: volumes as directories, of this machine's node or of one elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from warp_core.errors import InvalidArgument, Unavailable

from warp_cli.asking import ask_running
from warp_cli.failing import fail, reported
from warp_cli.output import as_json, as_json_line, say, table
from warp_cli.typing import ConfigOption, DataOption, JsonOption

if TYPE_CHECKING:
    from warp_core.node.away import Place

HERE = "at"  # the command that `warp mount WHAT DIR` means


class _OrHere(typer.core.TyperGroup):
    """A group whose first word may be a volume, a place or a token."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] == "--list":
            args = ["list", *args[1:]]
        elif args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [HERE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_OrHere,
    help="Mount a volume: VOLUME of the node that runs here, warp://HOST:PORT/VOLUME of another, or what a TOKEN is for.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command(HERE)
def at(
    what: Annotated[
        str, typer.Argument(help="A volume, warp://HOST:PORT/VOLUME, or a token for one.")
    ],
    directory: Annotated[Path, typer.Argument(help="Where: an empty directory, made if missing.")],
    read_only: Annotated[bool, typer.Option("--read-only", help="Change nothing.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Of this node: mount it again at the next start.")
    ] = False,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Of another node: return when it is mounted.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Of another node: a folder that keeps what was read."),
    ] = None,
    cache_size: Annotated[
        str, typer.Option("--cache-size", help="How large that may become.")
    ] = "10GiB",
    patience: Annotated[
        str, typer.Option("--patience", help="How long calls wait while the node is away.")
    ] = "5s",
    give_up: Annotated[
        str,
        typer.Option("--give-up", help="Unmount when it was away for so long; 0s: never."),
    ] = "5min",
    private: Annotated[
        bool, typer.Option("--private", help="Of another node: for this user alone.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Mount a volume on a directory."""

    def run() -> None:
        from warp_core import logs
        from warp_core.node import away
        from warp_core.plugins import Plugins

        place = directory.expanduser().absolute()
        if away.is_token(what) or away.is_url(what):
            if keep:
                raise InvalidArgument("--keep is for volumes of this node: /etc/fstab keeps others")
            options: dict[str, object] = {
                "patience": patience,
                "give_up": give_up,
                "allow_other": not private,
            }
            if cache is not None:
                options |= {"cache": str(cache.expanduser().absolute()), "cache_size": cache_size}
            plugins = Plugins()
            chosen = away.config_of(plugins, options)  # before a token is used up
            folder = asyncio.run(away.enroll(what)) if away.is_token(what) else away.known(what)

            def serve(told: Callable[[Place], None]) -> None:
                logs.configure(level="warning", format="auto")
                work = away.serve(folder, place, chosen, plugins, read_only=read_only, ready=told)
                if why := asyncio.run(work):
                    raise Unavailable(why)

            if daemon:
                _detached(serve, json)
            else:
                serve(lambda where: _told(where, place, json))
            return
        if daemon or cache is not None or private:
            raise InvalidArgument(
                f"{what!r} is a volume of the node that runs here, which serves the mount itself:"
                " --daemon, --cache and --private are for others"
            )
        made = ask_running(
            config,
            data,
            "mount.add",
            volume=what,
            directory=str(place),
            read_only=read_only,
            keep=keep,
        )
        if json:
            as_json(made)
        else:
            say(f"[green]mounted[/]: {what} on {place}")

    return reported(run, json=json)


def _told(where: Place, directory: Path, json: bool) -> None:
    if json:
        as_json_line({"event": "ready", "directory": str(directory), "from": where.url})
    else:
        say(
            f"[green]mounted[/]: {where.url} on {directory}, until ^C or `warp unmount {directory}`"
        )


def _detached(serve: Callable[[Callable[[Place], None]], None], json: bool) -> None:
    """Serve in a process of its own; return when it has mounted, or raise what it failed with."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child:
        os.close(sending)
        with open(receiving, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        if not said.startswith("ready"):
            os.waitpid(child, 0)
            raise InvalidArgument(said.strip() or "the process that mounts ended without a word")
        if json:
            as_json({"event": "ready", "pid": child})
        return
    os.close(receiving)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.chdir("/")
    status = 1
    try:

        def told(where: Place) -> None:
            os.write(sending, b"ready")
            os.close(sending)

        serve(told)
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):  # it was mounted, and ended: the node's log says why
            os.write(sending, str(error).encode())
    finally:
        os._exit(status)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show what the node that runs here has mounted."""

    def run() -> None:
        found = ask_running(config, data, "mount.list")
        if json:
            as_json(found)
            return
        table(
            ("directory", "volume", "", "at the next start"),
            [
                (
                    each["directory"],
                    each["volume"],
                    "read only" if each["read_only"] else "",
                    {"kept": "again", "configuration": "again (configuration)"}.get(
                        each["origin"], "not"
                    ),
                )
                for each in found
            ],
        )

    return reported(run, json=json)


@app.command()
def token(
    volume: Annotated[str, typer.Argument(help="The volume.")],
    read_only: Annotated[bool, typer.Option("--read-only", help="To be read only.")] = False,
    hours: Annotated[float, typer.Option("--hours", help="How long the token is good.")] = 1.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Make a token that lets one other machine mount a volume. It works once; what it brings lasts until it is revoked."""

    def run() -> None:
        made = ask_running(
            config, data, "mount.token", volume=volume, read_only=read_only, ttl_s=hours * 3600.0
        )
        if json:
            as_json(made)
        else:
            print(made["token"])  # one line, however narrow the terminal

    return reported(run, json=json)


@app.command()
def clients(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Show which other machines may mount what."""

    def run() -> None:
        found = ask_running(config, data, "mount.clients")
        if json:
            as_json(found)
            return
        table(
            ("client", "volume", "", "host", "since"),
            [
                (
                    each["client"],
                    each["volume"],
                    "read only" if each["read_only"] else "",
                    each["host"],
                    each["since"],
                )
                for each in found
            ],
        )

    return reported(run, json=json)


@app.command()
def revoke(
    client: Annotated[str, typer.Argument(help="As `warp mount clients` shows it.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Let another machine mount nothing any more."""

    def run() -> None:
        done = ask_running(config, data, "mount.revoke", client=client)
        if json:
            as_json(done)
        else:
            say(f"[green]revoked[/]: {client}")

    return reported(run, json=json)


def helper() -> int:
    """Be `mount.warp`, which mount(8) runs for lines of type `warp` in /etc/fstab: SOURCE DIR [-sfnv] [-o OPTIONS]."""
    words, options, dry = [], "", False
    rest = sys.argv[1:]
    while rest:
        word = rest.pop(0)
        if word in ("-o", "-t", "-N"):
            value = rest.pop(0) if rest else ""
            options = value if word == "-o" else options
        elif word.startswith("-") and len(word) > 1:
            dry |= "f" in word
        else:
            words.append(word)
    if len(words) != 2:
        return fail(InvalidArgument("mount.warp SOURCE DIR [-o OPTIONS]"), json=False)
    arguments = ["--daemon", *words]
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name == "ro":
            arguments.append("--read-only")
        elif name in ("cache", "cache_size", "patience", "give_up") and value:
            arguments.append(f"--{name.replace('_', '-')}={value}")
        elif name == "private":
            arguments.append("--private")
        # The others are mount(8)'s own (rw, auto, _netdev, nofail, x-systemd.*, ...).
    if dry:
        return 0
    from warp_cli.typing import call

    return call("mount", arguments)
