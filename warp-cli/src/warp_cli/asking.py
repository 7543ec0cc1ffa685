"""Asking a node: through its control socket, or on its data where no node runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warp_core.errors import Unavailable
from warp_core.node.client import Control
from warp_core.node.data_directory import CONTROL, is_data

from warp_cli.settings import data_of, settings_of

Progress = Callable[[Mapping[str, Any]], None]


def ask(
    config: Path | None,
    data: Path | None,
    verb: str,
    *,
    progress: Progress | None = None,
    **arguments: Any,
) -> Any:
    """Return what the node answers; without a running one, its data is opened for this request.

    Raises:
        Unavailable: There is neither a node nor data; the message says how to begin.
        WarpError: What the node refuses.
    """
    folder = data_of(config, data)
    if (folder / CONTROL).exists():
        control = _connected(folder / CONTROL)
        if control is not None:
            try:
                return control.call(verb, progress=progress, **arguments)
            finally:
                control.close()
    if not is_data(folder):
        raise Unavailable(
            f"there is no data in {folder}: begin with `warp serve`, or name another directory with"
            " --data"
        )
    return _offline(config, data, verb, progress, arguments)


def ask_running(config: Path | None, data: Path | None, verb: str, **arguments: Any) -> Any:
    """Return what the running node answers.

    Raises:
        Unavailable: No node runs; the message says how to start one.
    """
    with running(config, data) as control:
        return control.call(verb, **arguments)


def running(config: Path | None, data: Path | None) -> Control:
    """Return the connection to the running node, to be entered; raises as `ask_running`."""
    folder = data_of(config, data)
    if not (folder / CONTROL).exists():
        what = "no node runs on" if is_data(folder) else "there is no data in"
        raise Unavailable(
            f"{what} {folder}: start it with `warp serve`, or name another with --data"
        )
    return Control(folder / CONTROL)


def _connected(path: Path) -> Control | None:
    """Connect; None where a killed node left its socket behind: then the lock of the data decides."""
    try:
        return Control(path).__enter__()
    except Unavailable:
        return None


def _offline(
    config: Path | None,
    data: Path | None,
    verb: str,
    progress: Progress | None,
    arguments: Mapping[str, object],
) -> Any:
    from warp_core import logs
    from warp_core.node.assembly import open_node
    from warp_core.node.control import own_user, perform
    from warp_core.node.verbs import VERBS
    from warp_core.plugins import Plugins

    plugins = Plugins()
    settings = settings_of(config, data, plugins=plugins)
    logs.configure(level="warning", format=settings.log.format)

    async def run() -> Any:
        async with open_node(settings, plugins, serve=False) as node:
            return await perform(
                VERBS,
                node,
                verb,
                arguments,
                progress or _ignore,
                audit=node.audit,
                caller=own_user("command"),
            )

    return asyncio.run(run())


def mend(config: Path | None, data: Path | None, *, rebuild: bool, progress: Progress) -> Any:
    """Examine the metadata below a node that does not run, or make it anew; None where a node runs and nothing was asked of it.

    Raises:
        AlreadyRunning: A node runs, and it should be made anew.
        Unavailable: There is no data.
    """
    from warp_core import logs
    from warp_core.errors import AlreadyRunning
    from warp_core.node import mending
    from warp_core.plugins import Plugins

    folder = data_of(config, data)
    if not is_data(folder):
        raise Unavailable(f"there is no data in {folder}: name another directory with --data")
    plugins = Plugins()
    settings = settings_of(config, data, plugins=plugins)
    logs.configure(level="warning", format=settings.log.format)
    if rebuild:
        return asyncio.run(mending.rebuild(settings, plugins, progress))
    try:
        return asyncio.run(mending.examine(settings, plugins, progress))
    except AlreadyRunning:
        return None


def _ignore(progress: Mapping[str, Any]) -> None:
    """Nobody watches."""
