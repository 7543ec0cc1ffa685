"""WARP plugin: volumes as file systems on this machine (FUSE)."""

from pathlib import Path

import msgspec
from warp_core.contexts import ProtocolContext
from warp_core.hooks import hookimpl
from warp_core.interfaces.protocols import Protocol
from warp_core.registry import Entry, Registry

from warp_fuse.config import Config

__all__ = ["Config", "warp_register_protocols"]


def _build(config: Config, context: ProtocolContext) -> Protocol:
    # Imported here: listing plugins must not cost what serving does.
    from warp_fuse.server import Server

    return Server(config, context)


def _sample(folder: Path) -> msgspec.Struct:
    return Config()


@hookimpl
def warp_register_protocols(registry: Registry[Protocol]) -> None:
    """Offer FUSE."""
    registry.add(
        Entry(
            "fuse",
            build=_build,
            config=Config,
            summary="volumes as file systems on this machine",
            sample=_sample,
        )
    )
