"""`warp unmount`: take a mount away, whoever serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from warp_core.errors import InvalidArgument, NotFound, Unavailable, WarpError

from warp_cli.asking import ask_running
from warp_cli.failing import reported
from warp_cli.output import as_json, say
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

app = single()

UNMOUNT_S = 60.0


@app.command()
def unmount(
    directory: Annotated[Path, typer.Argument(help="Where a volume is mounted.")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Take a mount away: of the node that runs here, or of a process that mounted a volume of another."""

    def run() -> None:
        place = Path(os.path.abspath(directory.expanduser()))
        try:
            ask_running(config, data, "mount.remove", directory=str(place))
        except (NotFound, Unavailable) as error:
            _by_system(place, error)
        if json:
            as_json({"unmounted": str(place)})
        else:
            say(f"[green]unmounted[/]: {place}")

    return reported(run, json=json)


def _by_system(place: Path, error: WarpError) -> None:
    """Unmount what no node here has mounted; the process that serves it ends by that."""
    if not _is_mount(place):
        raise NotFound(f"nothing of WARP is mounted on {place}") from error
    names = ("umount",) if os.geteuid() == 0 else ("fusermount3", "fusermount")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise InvalidArgument("unmounting without root needs fusermount3: apt install fuse3")
    words = [program, str(place)] if os.geteuid() == 0 else [program, "-u", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=UNMOUNT_S, check=False)
    if done.returncode:
        raise InvalidArgument(f"{done.stderr.strip()} (umount -l {place} does not wait for users)")


def _is_mount(place: Path) -> bool:
    """Say whether a mount of ours is there; mountinfo escapes blanks."""
    escaped = str(place).replace("\\", "\\134").replace(" ", "\\040")
    return any(
        words[4] == escaped and "fuse.warp" in words
        for words in map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())
    )
