"""WARP plugin: embedded, durable MetaStore for one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.interfaces.consistency import MetaStore
from warp_core.registry import Entry, Registry

from warp_local.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import MetaContext

    from warp_local.engine import Local


def build(config: Config, context: MetaContext) -> Local:
    """Make the engine."""
    from warp_local.engine import Local

    return Local(config, context.stores, context.journal, context.monotonic)


@hookimpl
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer `local`."""
    registry.add(
        Entry(
            "local",
            build=build,
            config=Config,
            summary="embedded: the node's journal and an index on each of its copies",
            sample=lambda folder: Config(checkpoint_rows=500),
        )
    )


__all__ = ["Config", "build", "warp_register_consistency"]
