"""WARP plugin: S3 Select, SQL over one object."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_select.config import Config

__all__ = ["Config", "warp_register_services"]


def _build(config: Config, context: object) -> Service:
    # Imported here: listing plugins must not cost what queries do.
    from warp_select.engine import Engine

    return Engine(config)


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `select`."""
    registry.add(
        Entry(
            "select",
            build=_build,
            config=Config,
            summary="S3 Select: SQL over one object",
            answers_queries=True,
        )
    )
