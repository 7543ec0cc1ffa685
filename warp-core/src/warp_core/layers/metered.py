"""Counting and timing every call of a store or a metadata engine."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.stores import BlobStore
from warp_core.layers.forward import MetaLayer, StoreLayer
from warp_core.metrics import Metrics

T = TypeVar("T")


class MeteredStore(StoreLayer):
    """A store whose calls are counted by name, with their bytes, failures and latency."""

    def __init__(
        self,
        inner: BlobStore,
        metrics: Metrics,
        store: str,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(inner)
        self._store = store
        self._clock = clock
        self._latency = metrics.histograms(
            "warp_store_call_seconds", "Time of a store's calls", labels=("store", "call")
        )
        self._bytes = metrics.counters(
            "warp_store_bytes_total", "Bytes moved by a store's calls", labels=("store", "call")
        )
        self._failures = metrics.counters(
            "warp_store_failures_total", "Calls that raised", labels=("store", "call", "error")
        )
        reads = metrics.counters(
            "warp_store_reads_now_total",
            "Reads asked of the cache, and whether it had them",
            labels=("store", "found"),
        )
        self._found, self._missed = reads.labels(store, "yes"), reads.labels(store, "no")
        self._found_bytes = self._bytes.labels(store, "read_now")

    async def _call(self, call: str, name: str, size: int, run: Callable[[], Awaitable[T]]) -> T:
        started = self._clock()
        try:
            result = await run()
        except Exception as error:
            self._failures.labels(self._store, call, type(error).__name__).add()
            raise
        self._latency.labels(self._store, call).observe(self._clock() - started)
        if size:
            self._bytes.labels(self._store, call).add(size)
        return result

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """As the inner store, counted but not timed: it does not wait."""
        data = self.inner.read_now(name, offset=offset, length=length)
        if data is None:
            self._missed.value += 1
        else:
            self._found.value += 1
            self._found_bytes.value += len(data)
        return data

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """As the inner store, counted but not timed: it does not wait."""
        length = self.inner.read_into_now(name, offset=offset, buffer=buffer)
        if length is None:
            self._missed.value += 1
        else:
            self._found.value += 1
            self._found_bytes.value += length
        return length


class MeteredMeta(MetaLayer):
    """A metadata engine whose calls, and those of its views, are counted and timed."""

    def __init__(
        self,
        inner: MetaStore,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._latency = metrics.histograms(
            "warp_meta_call_seconds", "Time of the metadata engine's calls", labels=("call",)
        )
        self._failures = metrics.counters(
            "warp_meta_failures_total", "Calls that raised", labels=("call", "error")
        )

    async def _call(self, call: str, run: Callable[[], Awaitable[T]]) -> T:
        started = self._clock()
        try:
            result = await run()
        except Exception as error:
            self._failures.labels(call, type(error).__name__).add()
            raise
        self._latency.labels(call).observe(self._clock() - started)
        return result
