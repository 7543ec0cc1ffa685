"""Every command, by name; `warp --help` shows this table."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: the group it is shown in, and what it does in a few words."""

    group: str
    summary: str


COMMANDS = {
    "serve": Command("Run", "run the node in the foreground"),
    "init": Command("Run", "write a commented warp.toml and the root access key"),
    "config": Command("Run", "check the configuration, or show the effective settings"),
    "plugin": Command("Run", "list what is installed, explain one, or begin a new one"),
    "bench": Command("Develop", "measure an S3 endpoint under load"),
}


def overview() -> str:
    """Return the text of `warp --help`."""
    width = max(map(len, COMMANDS))
    lines = [
        "Usage: warp COMMAND [OPTIONS]",
        "",
        "One namespace served as S3 objects, files and disks.",
    ]
    groups = dict.fromkeys(command.group for command in COMMANDS.values())
    for group in groups:
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:<{width}}  {command.summary}"
            for name, command in COMMANDS.items()
            if command.group == group
        ]
    lines += [
        "",
        'Begin with "warp serve"; "warp COMMAND --help" explains one. Every command takes --config, --data',
        "(or WARP_CONFIG, WARP_DATA) and --json.",
    ]
    return "\n".join(lines)
