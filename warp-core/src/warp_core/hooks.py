"""Hooks: one for each kind of plugin, called once with a typed registry to fill.

They are historic: a plugin that is loaded later is called when it is.
"""

from __future__ import annotations

import pluggy

from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.codecs import Codec
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.keys import KeyService
from warp_core.interfaces.protocols import Protocol
from warp_core.interfaces.services import Service
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.transports import Transport
from warp_core.registry import Registry

hookspec = pluggy.HookspecMarker("warp")
hookimpl = pluggy.HookimplMarker("warp")


@hookspec(historic=True)
def warp_register_protocols(registry: Registry[Protocol]) -> None:
    """Offer protocols by name. `build(config, ProtocolContext)`."""


@hookspec(historic=True)
def warp_register_codecs(registry: Registry[Codec]) -> None:
    """Offer codecs by name. `build(config, CodecContext)`."""


@hookspec(historic=True)
def warp_register_transports(registry: Registry[Transport]) -> None:
    """Offer transports by name. `build(config, TransportContext)`."""


@hookspec(historic=True)
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer metadata engines by name. `build(config, MetaContext)`."""


@hookspec(historic=True)
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer blob stores by name. `build(config, StoreContext)`."""


@hookspec(historic=True)
def warp_register_auth(registry: Registry[Authenticator | KeyService]) -> None:
    """Offer authenticators and key services by name. `build(config, AuthContext)`."""


@hookspec(historic=True)
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer background services by name. `build(config, ServiceContext)`."""
