"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import AuthContext
    from warp_core.interfaces.auth import Authenticator

__all__ = ["Config", "build", "warp_register_auth"]


def build(config: Config, context: AuthContext) -> Authenticator:
    """Make it; resources open when it is entered."""
    from warp_skeleton.authenticator import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_auth(registry: Registry[Authenticator]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
