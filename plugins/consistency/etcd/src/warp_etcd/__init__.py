"""WARP plugin: MetaStore on etcd, for clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.interfaces.consistency import MetaStore
from warp_core.registry import Entry, Registry

from warp_etcd.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import MetaContext

    from warp_etcd.engine import Etcd


def build(config: Config, context: MetaContext) -> Etcd:
    """Make the engine."""
    from warp_etcd.engine import Etcd

    return Etcd(config, context.data, monotonic=context.monotonic, metrics=context.metrics)


@hookimpl
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer `etcd`."""
    registry.add(
        Entry(
            "etcd",
            build=build,
            config=Config,
            summary="an etcd cluster, or a member of its own: for several nodes",
        )
    )


__all__ = ["Config", "build", "warp_register_consistency"]
