"""Read views: a moment is a revision of etcd, fixed by the first thing that is read.

The first read also reads the head, linearizably, so it shows every commit that any node was told of before; all further reads name
the revision, so any member may answer them. A view that has read nothing when this node commits again is fixed first: it
shows the moment at which it was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakSet

from warp_core.errors import Expired
from warp_core.interfaces.consistency import SCAN_MAX, VIEW_MAX_S, Row, View

from warp_etcd import messages
from warp_etcd.client import RANGE, TXN, Client
from warp_etcd.errors import Behind
from warp_etcd.layout import Layout, unpack_head, unpack_row
from warp_etcd.past import Past
from warp_etcd.wire import etcd_pb2 as pb

PROBE = 64  # keys more than wanted that one look for the end of a range may find


class Reader:
    """What all views of an engine share."""

    def __init__(
        self,
        client: Client,
        layout: Layout,
        past: Past,
        *,
        serializable: bool,
        monotonic: Callable[[], float],
    ) -> None:
        self.client = client
        self.layout = layout
        self.past = past
        self.serializable = serializable
        self.monotonic = monotonic
        self.unfixed: WeakSet[EtcdView] = WeakSet()

    def view(self) -> View:
        """Take a view."""
        view = EtcdView(self)
        self.unfixed.add(view)
        return view

    async def fix_all(self) -> None:
        """Fix the views that have read nothing yet."""
        await asyncio.gather(*(view.fix() for view in list(self.unfixed)))

    async def moment(self, *ranges: pb.RangeRequest) -> tuple[int, int, list[pb.RangeResponse]]:
        """Read now; return the revision, the version, and what was asked for."""
        request = messages.read(messages.get(self.layout.head), *ranges)
        known = self.past.version
        if self.serializable:
            for op in request.success:
                op.request_range.serializable = True
        while True:
            answer = await self.client.call(TXN, request)
            head, *found = [op.response_range for op in answer.responses]
            version = unpack_head(head.kvs[0].value).version if head.kvs else 0
            if version >= known or not self.serializable:
                return answer.header.revision, version, found
            for op in request.success:  # this member is behind what this node knows
                op.request_range.serializable = False


class EtcdView(View):
    """See `View`. `version` is what is known when it is taken, until the first read makes it exact."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._revision = 0
        self._fixing: asyncio.Lock | None = None
        self._taken_s = reader.monotonic()
        self.version = reader.past.version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get`."""
        reader = self._reader
        found = await self._read(messages.get(reader.layout.row(key)))
        if not found.kvs:
            reader.past.saw(key, 0, self.version)
            return None
        row = unpack_row(found.kvs[0].value)
        reader.past.saw(key, row[1], self.version)
        return row

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """See `View.scan`."""
        limit = min(limit, SCAN_MAX)
        if limit <= 0 or start >= end:
            return []
        layout = self._reader.layout
        first, last = layout.row(start), layout.row(end)
        if reverse:
            return (await self._tail(first, last, limit))[::-1][:limit]
        return self._rows(await self._read(messages.scan(first, last, limit=limit)))

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        """See `View.columns`."""
        rows = await self.scan(start, end, limit=limit)
        return [row[0] for row in rows], [row[1] for row in rows]

    def close(self) -> None:
        """See `View.close`."""
        self._reader.unfixed.discard(self)

    async def fix(self) -> None:
        """Fix the moment without reading anything."""
        if not self._revision:
            await self._first()

    # Moments ----------------------------------------------------------------------------------------

    async def _read(self, request: pb.RangeRequest) -> pb.RangeResponse:
        if not self._revision:
            found = await self._first(request)
            if found is not None:
                return found
        reader = self._reader
        request.revision = self._revision
        request.serializable = True  # what was at a revision never changes
        try:
            return await reader.client.call(RANGE, request)
        except Behind:
            request.serializable = False
            return await reader.client.call(RANGE, request)
        except Expired as error:
            age_s = reader.monotonic() - self._taken_s
            raise Expired(
                f"view taken {age_s:.1f} s ago (VIEW_MAX {VIEW_MAX_S} s): {error}"
            ) from error

    async def _first(self, *ranges: pb.RangeRequest) -> pb.RangeResponse | None:
        """Fix the moment by reading; return what was read, or None if another task was faster."""
        if self._fixing is None:
            self._fixing = asyncio.Lock()
        async with self._fixing:
            if self._revision:
                return None
            self._reader.unfixed.discard(self)
            try:
                revision, version, found = await self._reader.moment(*ranges)
            except BaseException:
                self._reader.unfixed.add(self)
                raise
            self._revision, self.version = revision, version
            return found[0] if found else None

    # Scans ------------------------------------------------------------------------------------------

    def _rows(self, found: pb.RangeResponse) -> list[Row]:
        key_of = self._reader.layout.key
        return [Row(key_of(pair.key), *unpack_row(pair.value)) for pair in found.kvs]

    async def _tail(self, start: bytes, end: bytes, limit: int) -> list[Row]:
        """Return at least the last `limit` rows of a range, ascending.

        etcd would read the whole range to sort it; so the start of a short tail is searched for instead.
        """
        most = limit + PROBE
        found = await self._read(messages.scan(start, end, limit=most))
        if not found.more:
            return self._rows(found)
        low, high = found.kvs[-1].key, end  # the tail begins in [low, high]
        while True:
            middle = between(low, high)
            if middle is None:
                break
            found = await self._read(messages.scan(middle, end, limit=most, keys_only=True))
            if found.more:
                low = max(middle, found.kvs[-1 - limit].key)
            elif len(found.kvs) >= limit:
                low = middle
                break
            else:
                high = middle
        return self._rows(await self._read(messages.scan(low, end, limit=most + PROBE)))


def between(low: bytes, high: bytes) -> bytes | None:
    """Return a key between two, about halfway, or None if there is none worth a look."""
    size = max(len(low), len(high)) + 1
    first = int.from_bytes(low.ljust(size, b"\0"), "big")
    last = int.from_bytes(high.ljust(size, b"\0"), "big")
    middle = (first + last) // 2
    if middle in (first, last):
        return None
    for kept in range(1, size):  # a short key halves as well as a long one
        cut = middle.to_bytes(size, "big")[:kept]
        if low < cut < high:
            return cut
    return middle.to_bytes(size, "big")
