"""Talking to the node: through its control socket, or on its data where no node runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warp_core.errors import Unavailable
from warp_core.node.client import Control
from warp_core.node.data_directory import CONTROL, is_data

from warp_cli.settings import data_of


def control_of(config: Path | None, data: Path | None) -> Control:
    """Return the (unentered) connection to the node of a data directory.

    Raises:
        Unavailable: No node runs there; the message says how to start one.
    """
    folder = data_of(config, data)
    if not (folder / CONTROL).exists():
        what = "no node runs on" if is_data(folder) else "there is no data in"
        raise Unavailable(
            f"{what} {folder}: start it with `warp serve`, or name another with --data"
        )
    return Control(folder / CONTROL)


def status_of(config: Path | None, data: Path | None) -> Any:
    """Return the running node's status."""
    with control_of(config, data) as control:
        return control.call("status")
