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
    "volume": Command("Manage", "make, show, change, snapshot and remove volumes"),
    "disk": Command("Manage", "make, show, resize, copy and remove disks"),
    "key": Command("Manage", "make, list and revoke access keys"),
    "status": Command("Look after", "show the health of the running node"),
    "top": Command("Look after", "watch requests, latencies and stores live"),
    "doctor": Command("Look after", "check host and data, and say what to fix"),
    "scrub": Command("Look after", "look for what is missing or damaged"),
    "heal": Command("Look after", "write missing and damaged copies anew"),
    "fsck": Command("Look after", "check that every name leads to content that is there"),
    "bench": Command("Measure", "put load on an S3 endpoint, and print a table"),
    "conformance": Command("Measure", "run the kits that fit a plugin, and report"),
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
