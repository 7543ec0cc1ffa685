"""WARP plugin: access keys and principals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_keys.config import WRAP_KEY, Config

if TYPE_CHECKING:
    from warp_core.contexts import AuthContext
    from warp_core.interfaces.auth import Authenticator
    from warp_core.interfaces.keys import KeyService

__all__ = ["Config", "build", "warp_register_auth"]


def build(config: Config, context: AuthContext) -> Authenticator:
    """Make the authenticator."""
    from warp_keys.keys import Keys

    return Keys(config, context)


@hookimpl
def warp_register_auth(registry: Registry[Authenticator | KeyService]) -> None:
    """Offer `keys`."""
    registry.add(
        Entry(
            "keys",
            build=build,
            config=Config,
            summary="access keys, principals and passwords, kept with the metadata",
            sample=lambda folder: Config(password_cost=10),
            key_files=lambda config, data: {"": data / WRAP_KEY},
        )
    )
