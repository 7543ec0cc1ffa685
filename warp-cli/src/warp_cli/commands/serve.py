"""`warp serve`, as typer sees it: its help, and what is said about wrong options."""

from __future__ import annotations

from typing import Annotated

import typer

from warp_cli.failing import reported
from warp_cli.serving import Options
from warp_cli.serving import serve as run
from warp_cli.typing import ConfigOption, DataOption, SetOption, single

app = single()


@app.command()
def serve(
    config: ConfigOption = None,
    data: DataOption = None,
    set: SetOption = None,
    replace_stores: Annotated[
        bool,
        typer.Option(
            "--replace-stores",
            help="Take an empty store where a known one was, because its disk is gone for good.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Tell errors as JSON too.")] = False,
) -> int:
    """Run the node in the foreground.

    Without a configuration file the default server starts: every installed protocol that needs no
    privilege, on loopback, with a generated root key in DIR/root.key; DIR is ./warp-data.

    Once every endpoint accepts connections, one JSON line {"event": "ready", "endpoints": {...}} is
    printed. SIGTERM or Ctrl-C drains and ends it; a second one does not wait.
    """
    options = Options(config, data, tuple(set or ()), replace_stores, json)
    return reported(lambda: run(options), json=json)
