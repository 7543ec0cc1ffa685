"""`warp init`: a commented configuration, and the root access key."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from warp_core.errors import AlreadyExists, StoreFailed
from warp_core.node.data_directory import DataDirectory
from warp_core.node.root_key import FILE, root_key

from warp_cli.failing import reported
from warp_cli.output import as_json, say
from warp_cli.settings import DEFAULT_FILE
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def init(
    config: ConfigOption = None,
    data: DataOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a warp.toml that exists.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Write a commented warp.toml, make the data directory, and generate the root access key."""

    def run() -> None:
        file = (config or Path(DEFAULT_FILE)).absolute()
        folder = (data or Path("warp-data")).absolute()
        if file.exists() and not force:
            raise AlreadyExists(f"{file} exists: edit it, or overwrite it with --force")
        with DataDirectory(folder):
            access, _ = root_key(folder, None)
        shown = folder.relative_to(file.parent) if folder.is_relative_to(file.parent) else folder
        template = files("warp_cli").joinpath("templates/warp.toml").read_text(encoding="utf-8")
        text = template.replace("{{data}}", str(shown).replace("\\", "\\\\").replace('"', '\\"'))
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreFailed(f"{file} cannot be written ({error.strerror})") from None
        if json:
            as_json({"config": file, "data": folder, "access_key": access, "key": folder / FILE})
            return
        say(f"[green]written[/]: {file}")
        say(f"root key: {access}, its secret is in {folder / FILE}")
        say(f"next: warp serve --config {file}")

    return reported(run, json=json)
