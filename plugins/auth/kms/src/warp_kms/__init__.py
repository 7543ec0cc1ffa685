"""WARP plugin: a key service whose keys lie wrapped in the metadata, under a master key in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_kms.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import AuthContext
    from warp_core.interfaces.auth import Authenticator
    from warp_core.interfaces.keys import KeyService

__all__ = ["Config", "build", "warp_register_auth"]


def build(config: Config, context: AuthContext) -> KeyService:
    """Make the key service."""
    from warp_kms.service import LocalKeys

    return LocalKeys(config, context)


@hookimpl
def warp_register_auth(registry: Registry[Authenticator | KeyService]) -> None:
    """Offer `kms`."""
    registry.add(
        Entry(
            "kms",
            build=build,
            config=Config,
            summary="keys for encrypted contents, wrapped by a master key in a file",
            key_files=lambda config, data: {"master_key": data / config.master_key},
        )
    )
