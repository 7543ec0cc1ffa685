"""Event targets: where notifications go. A message is taken for good, or sent again later.

Whoever sends has what it sends in the change feed: a target queues nothing, and answers only when the other side has the message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

BODY_MAX = 1024 * 1024  # bytes of one message; brokers take no more by default


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is sent: a JSON document, and what a target may need to address it."""

    id: str  # the same whenever it is sent again, and no other message's: ASCII without spaces
    body: bytes
    bucket: str = ""
    event: str = ""  # "ObjectCreated:Put"; of several events in one message, the first one's
    key: str = ""  # likewise
    count: int = 1  # events in it


@dataclass(frozen=True, slots=True)
class TargetCapabilities:
    """What a target claims."""

    at_once: int = 1  # messages that may be under way; each `send` is for itself
    batch_max: int = 1  # events that one message may have
    deduplicates: bool = False  # a message that is sent again with its id is there once


@dataclass(frozen=True, slots=True)
class TargetContext:
    """For event targets: what they are called; relative paths of their configuration start at `data`."""

    name: str
    data: Path


class EventTarget(ABC):
    """Takes messages. Open it with `async with`, which waits for nobody: a target that is away is no reason not to start."""

    capabilities: TargetCapabilities = TargetCapabilities()

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Return when the other side has taken a message for good.

        It tries once, within a time limit of its own, and may be called again after any error, and after it was cancelled.

        Raises:
            Unavailable: It was not taken, or nobody knows; the message says what happened, and no secret.
        """


class TargetHealth(msgspec.Struct, frozen=True):
    """How a target did since the node started."""

    sent: int = 0  # messages that were taken
    failed: int = 0  # attempts that failed
    failing_since_ns: int = 0  # 0: the last attempt succeeded, or there was none
    error: str = ""  # of the last attempt, while it is failing


class Target(EventTarget):
    """A target under the name that rules find it by, with what is known of its health."""

    name: str
    kind: str

    @property
    @abstractmethod
    def health(self) -> TargetHealth:
        """How it did."""


Targets = Mapping[str, Target]
