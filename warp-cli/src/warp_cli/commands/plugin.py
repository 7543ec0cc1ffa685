"""`warp plugin`: what is installed, what loaded, what failed and why; a skeleton for a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from warp_core.errors import NotFound
from warp_core.plugins import Plugins, State, Status, describe

from warp_cli.failing import reported
from warp_cli.output import as_json, say, table
from warp_cli.typing import JsonOption, UnusedConfig, UnusedData, group

app = group("List what is installed, explain one plugin, or begin a new one.")


@app.command("list")
def list_(config: UnusedConfig = None, data: UnusedData = None, json: JsonOption = False) -> int:
    """List every installed plugin; each is loaded, and what fails is told why and what to do."""

    def run() -> int:
        found = Plugins().load_all()
        if json:
            as_json([describe(status) for status in found])
        else:
            table(
                ("kind", "name", "state", "distribution", "what it does"),
                [
                    (
                        status.found.kind,
                        status.found.name,
                        status.state.value,
                        status.found.distribution.name,
                        status.summary or status.reason,
                    )
                    for status in found
                ],
                empty="No plugin is installed: `pip install warp` brings the usual ones.",
            )
        return int(any(status.state is State.FAILED for status in found))

    return reported(run, json=json)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="NAME, or KIND/NAME where two kinds share it.")],
    config: UnusedConfig = None,
    data: UnusedData = None,
    json: JsonOption = False,
) -> int:
    """Explain one plugin: where it comes from, whether it loads, and its options."""

    def run() -> int:
        plugins = Plugins()
        status = _find(plugins, name)
        options = _options(plugins, status) if status.state is State.LOADED else []
        if json:
            as_json({**describe(status), "options": options})
        else:
            for key, value in describe(status).items():
                if value:
                    say(f"[bold]{key:<13}[/] {value}")
            if options:
                table(("option", "default", "allowed"), [tuple(each.values()) for each in options])
        return int(status.state is State.FAILED)

    return reported(run, json=json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="KIND/NAME, such as codecs/lz4.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Where; default: plugins/KIND/NAME in a WARP workspace, else warp-NAME.",
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option("--shape", help="Of a codec: filter, chunker, fingerprint or striper.")
    ] = "filter",
    config: UnusedConfig = None,
    data: UnusedData = None,
    json: JsonOption = False,
) -> int:
    """Write the skeleton of a plugin: package, configuration, README, and its kit as the first test."""

    def run() -> None:
        from warp_cli.skeleton import write

        written = write(name, folder, shape=shape)
        if json:
            as_json({"folder": written.folder, "files": written.files})
            return
        say(f"[green]written[/] to {written.folder}:")
        for file in written.files:
            print(f"  {file}")
        say(f"Next: pip install -e {written.folder} and fill the methods in {written.part};")
        say(f"then pytest {written.folder} tells when it keeps what its interface promises.")

    return reported(run, json=json)


def _find(plugins: Plugins, name: str) -> Status:
    kind, _, last = name.rpartition("/")
    found = [
        status
        for status in plugins.status()
        if status.found.name == last and kind in ("", status.found.kind)
    ]
    if not found:
        from difflib import get_close_matches

        names = sorted({status.found.name for status in plugins.status()})
        near = get_close_matches(last, names, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f" (installed: {', '.join(names)})"
        raise NotFound(f'no plugin "{name}" is installed{hint}')
    if len(found) > 1:
        choices = " or ".join(f"{status.found.kind}/{last}" for status in found)
        raise NotFound(f'"{last}" is the name of several plugins: say {choices}')
    return plugins.load(found[0].found.kind, found[0].found.name)


def _options(plugins: Plugins, status: Status) -> list[dict[str, str]]:
    from warp_core.config.decode import describe as allowed
    from warp_core.config.source import toml
    from warp_core.config.types import Duration, Size

    entry = plugins.registries[status.found.kind].get(status.found.name)
    options = []
    for field in msgspec.structs.fields(entry.config):
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(default, Size | Duration):
            default = str(default)
        shown = "(required)" if field.required else toml(default)
        options.append(
            {"option": field.encode_name, "default": shown, "allowed": allowed(field.type)}
        )
    return options
