"""`warp heal`: write missing and damaged copies anew."""

from __future__ import annotations

from warp_cli.asking import ask
from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, counted, say
from warp_cli.progress import bytes_text, shown
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()


@app.command()
def heal(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> int:
    """Write missing and damaged copies anew, fewest good copies first. Exits with 1 when some remain."""

    def run() -> int:
        with shown("healing", quiet=json) as progress:
            found = ask(config, data, "heal", progress=progress)
        if json:
            as_json(found)
        else:
            wrote = counted(found["written_copies"], "copy")
            say(f"wrote {wrote}, {bytes_text(found['written_bytes'])}")
            for problem in found["problems"]:
                say(f"  [red]![/] {problem}")
            if found["waiting"]:
                waiting = counted(found["waiting"], "container")
                say(f"[yellow]without all copies still: {waiting}; add or mend stores[/]")
            else:
                say("[green]every container has its copies[/]")
        return FAILURE if found["waiting"] else 0

    return reported(run, json=json)
