"""Services: background work over the namespace, started and stopped with the node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp_core.containers import Containers
    from warp_core.metrics import Metrics
    from warp_core.namespace.namespace import Namespace


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What a service works on."""

    namespace: Namespace
    containers: Containers
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did: counters by name, and whether there is nothing left to do now."""

    counts: dict[str, int]
    idle: bool


class Service(ABC):
    """Work in passes: each is short, resumable, and safe to kill."""

    interval_s: float = 10.0

    @abstractmethod
    async def work(self, context: ServiceContext) -> Report:
        """Do one bounded pass. Called again at once while it is not idle, else after `interval_s`."""
