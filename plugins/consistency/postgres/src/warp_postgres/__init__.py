"""WARP plugin: MetaStore on PostgreSQL, for clusters with very many objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.interfaces.consistency import MetaStore
from warp_core.registry import Entry, Registry

from warp_postgres.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from warp_core.contexts import MetaContext

    from warp_postgres.engine import Postgres


def build(config: Config, context: MetaContext) -> Postgres:
    """Make the engine."""
    from warp_postgres.engine import Postgres

    return Postgres(config, folder=context.data, node=context.node, monotonic=context.monotonic)


def sample(folder: Path) -> Config:
    """Return a schema of its own on a server that is there to be tried, or on one started for this process."""
    from warp_postgres.throwaway import trial

    return trial(folder)


@hookimpl
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer `postgres`."""
    registry.add(
        Entry(
            "postgres",
            build=build,
            config=Config,
            summary="a PostgreSQL server: for several nodes and very many objects",
            sample=sample,
        )
    )


__all__ = ["Config", "build", "sample", "warp_register_consistency"]
