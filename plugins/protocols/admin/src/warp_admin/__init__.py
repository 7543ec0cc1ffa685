"""WARP plugin: administration over HTTP."""

from pathlib import Path

import msgspec
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.hooks import hookimpl
from warp_core.interfaces.protocols import Protocol
from warp_core.registry import Entry, Registry

from warp_admin.config import Config

__all__ = ["Config", "warp_register_protocols"]


def _build(config: Config, context: ProtocolContext) -> Protocol:
    # Imported here: listing plugins must not cost what serving does.
    from warp_admin.server import Server

    return Server(config, context)


def _sample(folder: Path) -> msgspec.Struct:
    return Config(listen=Address("127.0.0.1:0"))


@hookimpl
def warp_register_protocols(registry: Registry[Protocol]) -> None:
    """Offer the admin API."""
    registry.add(
        Entry(
            "admin", build=_build, config=Config, summary="administration over HTTP", sample=_sample
        )
    )
