"""The node's key service, by its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from warp_core.config import Settings
from warp_core.contexts import AuthContext
from warp_core.errors import ConfigError
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.keys import KeyService
from warp_core.node.root_key import root_key
from warp_core.plugins import Plugins


@asynccontextmanager
async def key_service(
    settings: Settings, plugins: Plugins, metastore: MetaStore
) -> AsyncIterator[KeyService | None]:
    """Open the key service; None where none is installed.

    Raises:
        ConfigError: What `[kms]` names is none, or refuses its configuration.
    """
    part = settings.kms.part
    if part is None:
        yield None
        return
    entry = plugins.registries["auth"].get(part.name)
    root = root_key(settings.data, settings.root)
    service = entry.build(part.config, AuthContext(settings.data, metastore, root))
    if not isinstance(service, KeyService):
        raise ConfigError(f'"{part.name}" is no key service: [auth] takes it')
    async with service:
        yield service
