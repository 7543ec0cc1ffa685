"""`warp serve` without typer: its options are few, and its start is what people wait for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp_core.config import Settings


@dataclass(frozen=True, slots=True)
class Options:
    """What `warp serve` was told."""

    config: Path | None = None
    data: Path | None = None
    sets: tuple[str, ...] = ()
    replace_stores: bool = False
    json: bool = False  # errors too are told as JSON, and nobody is greeted


def options_of(arguments: Sequence[str]) -> Options | None:
    """Read the options of `warp serve`; None where typer shall explain (help, or a mistake)."""
    values: dict[str, str] = {}
    sets: list[str] = []
    flags = {"--replace-stores": False, "--json": False}
    rest = list(arguments)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word in flags and not equals:
            flags[word] = True
            continue
        if word not in ("--config", "--data", "--set"):
            return None
        if not equals:
            if not rest:
                return None
            value = rest.pop(0)
        if word == "--set":
            sets.append(value)
        else:
            values[word] = value
    config = values.get("--config") or os.environ.get("WARP_CONFIG")
    data = values.get("--data")
    return Options(
        Path(config) if config else None,
        Path(data) if data else None,
        tuple(sets),
        flags["--replace-stores"],
        flags["--json"],
    )


def serve(options: Options) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    from warp_core.node.serve import serve as serve_node
    from warp_core.plugins import Plugins

    from warp_cli.settings import settings_of

    plugins = Plugins()
    settings = settings_of(options.config, options.data, options.sets, plugins=plugins)
    return serve_node(
        settings,
        plugins,
        replace_stores=options.replace_stores,
        out=sys.stdout,
        greet=_greet if sys.stderr.isatty() and not options.json else None,
    )


def _greet(settings: Settings, endpoints: Mapping[str, str], access_key: str) -> None:
    from warp_cli.greeting import greet

    greet(settings, endpoints, access_key)
