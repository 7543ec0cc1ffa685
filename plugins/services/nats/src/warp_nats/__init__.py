"""WARP plugin: event notifications go to NATS JetStream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_nats.config import Config

if TYPE_CHECKING:
    from warp_core.interfaces.services import Service
    from warp_core.interfaces.targets import EventTarget, TargetContext

__all__ = ["Config", "build", "warp_register_services"]


def build(config: Config, context: TargetContext) -> EventTarget:
    """Make the target; the client is imported here, for those who use it."""
    from warp_nats.target import Nats

    return Nats(config, context)


@hookimpl
def warp_register_services(registry: Registry[Service | EventTarget]) -> None:
    """Offer the target `nats`."""
    registry.add(
        Entry(
            "nats",
            build=build,
            config=Config,
            summary="event target: a stream of NATS JetStream",
            sample=lambda folder: Config(servers=("nats://127.0.0.1:9",)),
            by_default=False,
            takes_events=True,
        )
    )
