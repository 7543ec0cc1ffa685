"""`warp config`: check the configuration, show what is in effect."""

from __future__ import annotations

from warp_core.config.show import effective

from warp_cli.failing import reported
from warp_cli.output import as_json, counted, say, table
from warp_cli.settings import settings_of
from warp_cli.typing import ConfigOption, DataOption, JsonOption, SetOption, group

app = group("Check the configuration, or show the effective settings.")


@app.command()
def check(
    config: ConfigOption = None,
    data: DataOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> int:
    """Validate the configuration; every problem is told with file, line, key and what is allowed."""

    def run() -> None:
        settings = settings_of(config, data, set or ())
        served = [part.name for part in settings.protocols]
        if json:
            as_json(
                {
                    "ok": True,
                    "file": settings.file,
                    "data": settings.data,
                    "stores": len(settings.stores),
                    "protocols": served,
                }
            )
            return
        source = settings.file or "the defaults (there is no warp.toml here)"
        stores = counted(len(settings.stores), "store")
        say(f"[green]fine[/]: {source}: {', '.join(served)} on {stores}")

    return reported(run, json=json)


@app.command()
def show(
    config: ConfigOption = None,
    data: DataOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> int:
    """Print every setting in effect, and where it comes from; secrets are not shown."""

    def run() -> None:
        found = effective(settings_of(config, data, set or ()))
        if json:
            as_json([setting._asdict() for setting in found])
        else:
            table(("key", "value", "from"), found)

    return reported(run, json=json)
