"""WARP plugin: node to node over TCP with mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_tcp.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import TransportContext
    from warp_core.interfaces.transports import Transport

__all__ = ["SAMPLE_NODE", "Config", "warp_register_transports"]

SAMPLE_NODE = "sample"  # the node that `Entry.sample` makes a certificate for


def build(config: Config, context: TransportContext) -> Transport:
    """Make the transport."""
    from warp_tcp.transport import Tcp

    return Tcp(config, context)


def sample(folder: Path) -> Config:
    """Make an authority and a certificate for the node `sample` inside a folder."""
    from warp_core.certificates import issue, make_authority

    make_authority(folder / "authority")
    identity = issue(folder / "authority", SAMPLE_NODE, folder / "tls")
    return Config(
        authority=str(identity.authority),
        certificate=str(identity.certificate),
        key=str(identity.key),
    )


@hookimpl
def warp_register_transports(registry: Registry[Transport]) -> None:
    """Offer `tcp`."""
    registry.add(
        Entry(
            "tcp",
            build=build,
            config=Config,
            summary="TCP with mutual TLS 1.3, bulk payloads received in place",
            sample=sample,
        )
    )
