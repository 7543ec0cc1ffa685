"""The event targets of a node: opened once, for those that deliver and those that check what rules name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from warp_core.config import Settings
from warp_core.errors import ConfigError
from warp_core.interfaces.targets import EventTarget, TargetContext, Targets
from warp_core.layers.watched import WatchedTarget
from warp_core.metrics import Metrics
from warp_core.plugins import Plugins


@asynccontextmanager
async def open_targets(
    settings: Settings, plugins: Plugins, metrics: Metrics
) -> AsyncIterator[Targets]:
    """Open every `[[event_target]]`, by name.

    Raises:
        ConfigError: What it names is no event target.
    """
    async with AsyncExitStack() as exits:
        opened: dict[str, WatchedTarget] = {}
        for each in settings.targets:
            entry = plugins.registries["services"].get(each.part.name)
            inner = entry.build(each.part.config, TargetContext(each.name, settings.data))
            if not isinstance(inner, EventTarget):
                raise ConfigError(f'{each.part.key}: "{each.part.name}" is no event target')
            watched = WatchedTarget(each.name, each.part.name, inner, metrics)
            opened[each.name] = await exits.enter_async_context(watched)
        yield opened
