"""What `warp fsck` does below the namespace, while no node runs: the metadata engine against its log, and made anew from it."""

from __future__ import annotations

from collections.abc import Mapping

from warp_core.config import Settings
from warp_core.errors import Unsupported
from warp_core.interfaces.consistency import Progress
from warp_core.node.data import open_below
from warp_core.plugins import Plugins


async def examine(settings: Settings, plugins: Plugins, progress: Progress) -> list[str] | None:
    """Say, in a sentence each, what is wrong with what the metadata engine keeps; None where the engine cannot be examined.

    Raises:
        AlreadyRunning: A node has the data open.
        WarpError: The stores or the journal cannot be opened.
    """
    async with open_below(settings, plugins) as below:
        if not below.engine.capabilities.rebuild:
            return None
        return await below.engine.examine(progress)


async def rebuild(settings: Settings, plugins: Plugins, progress: Progress) -> Mapping[str, object]:
    """Make anew what the metadata engine answers reads from, and return what was done; the old one is moved aside.

    Raises:
        AlreadyRunning: A node has the data open.
        Unsupported: The engine has nothing to make it from.
        Corrupt: What would be needed is damaged or gone; nothing was changed.
    """
    async with open_below(settings, plugins) as below:
        if not below.engine.capabilities.rebuild:
            raise Unsupported(
                f'metadata engine "{settings.engine.name}" keeps nothing that an index could be made from'
            )
        return await below.engine.rebuild(progress)
