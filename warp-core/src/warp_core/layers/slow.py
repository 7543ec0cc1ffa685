"""A slow device: every call waits before it is made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.stores import BlobStore
from warp_core.layers.forward import MetaLayer, StoreLayer

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow. `jitter_s` is added evenly at random; a transfer takes its bytes / `bytes_per_s` more."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = float("inf")

    def wait_s(self, size: int, draw: random.Random) -> float:
        """Return how long a call that moves `size` bytes waits."""
        return self.latency_s + self.jitter_s * draw.random() + size / self.bytes_per_s


class SlowStore(StoreLayer):
    """A store whose calls wait. Calls wait beside each other, as in a device with a deep queue."""

    def __init__(
        self, inner: BlobStore, pace: Pace, *, seed: int = 0, sleep: Sleep = asyncio.sleep
    ) -> None:
        super().__init__(inner)
        self.pace = pace
        self._draw = random.Random(seed)
        self._sleep = sleep

    async def _call(self, call: str, name: str, size: int, run: Callable[[], Awaitable[T]]) -> T:
        await self._sleep(self.pace.wait_s(size, self._draw))
        return await run()

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """Return None: the device has to be waited for."""
        return None

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """Return None: the device has to be waited for."""
        return None


class SlowMeta(MetaLayer):
    """A metadata engine whose calls wait, as one behind a network does."""

    def __init__(
        self, inner: MetaStore, pace: Pace, *, seed: int = 0, sleep: Sleep = asyncio.sleep
    ) -> None:
        super().__init__(inner)
        self.pace = pace
        self._draw = random.Random(seed)
        self._sleep = sleep

    async def _call(self, call: str, run: Callable[[], Awaitable[T]]) -> T:
        await self._sleep(self.pace.wait_s(0, self._draw))
        return await run()
