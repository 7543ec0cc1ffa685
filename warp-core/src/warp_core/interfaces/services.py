"""Services: background work over the namespace, started and stopped with the node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from warp_core.containers import Containers
    from warp_core.interfaces.targets import Target
    from warp_core.metrics import Metrics
    from warp_core.namespace.namespace import Namespace


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What a service works on."""

    namespace: Namespace
    containers: Containers
    metrics: Metrics
    targets: Mapping[str, Target] = field(default_factory=dict)  # where events may go


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did: counters by name, and whether there is nothing left to do now."""

    counts: dict[str, int]
    idle: bool


class Service(ABC):
    """Work in passes: each is short, resumable, and safe to kill."""

    interval_s: float = 10.0

    async def __aenter__(self) -> Self:
        """Get ready for passes; what goes on between them is begun here or in a pass, and ends with `__aexit__`."""
        return self

    async def __aexit__(  # noqa: B027
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what goes on; no pass is under way any more."""

    @abstractmethod
    async def work(self, context: ServiceContext) -> Report:
        """Do one bounded pass. Called again at once while it is not idle, else after `interval_s`."""
