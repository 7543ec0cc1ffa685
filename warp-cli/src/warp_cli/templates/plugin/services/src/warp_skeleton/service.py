"""The service: background work over the namespace, in short passes that may be killed at any time."""

from __future__ import annotations

from warp_core.interfaces.services import Report, Service, ServiceContext

from warp_skeleton.config import Config


class Skeleton(Service):
    """Say what it looks after."""

    interval_s = 10.0

    def __init__(self, config: Config, context: ServiceContext) -> None:
        self._config = config

    async def work(self, context: ServiceContext) -> Report:
        """Do one bounded pass; `idle` says that nothing is left to do now."""
        raise NotImplementedError
