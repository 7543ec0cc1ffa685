"""Event targets that keep what they get, or get nothing."""

from __future__ import annotations

import json
from typing import Any, Self

from warp_core.errors import Unavailable
from warp_core.interfaces.targets import Message, Target, TargetHealth


class Sink(Target):
    """Keeps messages; one that is `away` takes none."""

    kind = "sink"
    health = TargetHealth()

    def __init__(self, name: str, *, away: bool = False) -> None:
        self.name = name
        self.away = away
        self.taken: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, message: Message) -> None:
        if self.away:
            raise Unavailable("nobody listens")
        self.taken.append(json.loads(message.body))
