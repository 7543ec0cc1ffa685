"""Read views: a moment is a revision of etcd, fixed by the first thing that is read.

The first read also reads the head, linearizably, so it shows every commit that any node was told of before; all further reads name
the revision, so any member may answer them. A view that has read nothing when this node commits again is fixed first: it
shows the moment at which it was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakSet

from warp_core.errors import Expired, WarpError
from warp_core.interfaces.consistency import SCAN_MAX, VIEW_MAX_S, Row, View

from warp_etcd import messages
from warp_etcd.client import RANGE, TXN, Client
from warp_etcd.errors import Behind
from warp_etcd.lanes import Lane
from warp_etcd.layout import Layout, unpack_head, unpack_row
from warp_etcd.past import Past
from warp_etcd.wire import etcd_pb2 as pb

GETS_MAX = 100  # rows asked for at once: etcd's limit is 128 operations
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
        self.now = Lane(self._get_now, most=GETS_MAX)
        self.then = Lane(self._get_then, most=GETS_MAX)

    def view(self) -> View:
        """Take a view."""
        view = EtcdView(self)
        self.unfixed.add(view)
        return view

    async def fix_all(self) -> None:
        """Fix the views that have read nothing yet."""
        await asyncio.gather(*(view.fix() for view in list(self.unfixed)))

    async def close(self) -> None:
        """End the reads that are on their way."""
        await asyncio.gather(self.now.close(), self.then.close())

    async def _get_now(
        self, requests: list[pb.RangeRequest]
    ) -> list[tuple[int, int, pb.RangeResponse]]:
        """Answer the first reads of several views: they share the moment."""
        revision, version, found = await self.moment(*requests)
        return [(revision, version, each) for each in found]

    async def _get_then(
        self, requests: list[pb.RangeRequest]
    ) -> list[pb.RangeResponse | WarpError]:
        """Answer reads of any revisions."""
        if len(requests) == 1:
            return [await self._get_alone(requests[0])]
        try:
            answer = await self.client.call(TXN, messages.read(*requests))
        except (Behind, Expired):  # some of them; each is told its own
            return await asyncio.gather(*map(self._get_alone, requests))
        return [op.response_range for op in answer.responses]

    async def _get_alone(self, request: pb.RangeRequest) -> pb.RangeResponse | WarpError:
        try:
            return await self.at_revision(request)
        except WarpError as error:
            return error

    async def at_revision(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """Answer a read of a revision; what was there never changes, so any member may."""
        request.serializable = True
        try:
            return await self.client.call(RANGE, request)
        except Behind:
            request.serializable = False
            return await self.client.call(RANGE, request)

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
        found = await self._read(messages.get(reader.layout.row(key)), small=True)
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

    async def _read(self, request: pb.RangeRequest, *, small: bool = False) -> pb.RangeResponse:
        """Answer at the view's moment; what is `small` may travel with others."""
        if not self._revision:
            found = await self._first(request, small=small)
            if found is not None:
                return found
        reader = self._reader
        request.revision = self._revision
        try:
            if not small:
                return await reader.at_revision(request)
            request.serializable = True
            told = await reader.then.ask(request)
            if isinstance(told, WarpError):
                raise told
            return told
        except Expired as error:
            age_s = reader.monotonic() - self._taken_s
            raise Expired(
                f"view taken {age_s:.1f} s ago (VIEW_MAX {VIEW_MAX_S} s): {error}"
            ) from error

    async def _first(
        self, request: pb.RangeRequest | None = None, *, small: bool = False
    ) -> pb.RangeResponse | None:
        """Fix the moment by reading; return what was read, or None if another task was faster."""
        if self._fixing is None:
            self._fixing = asyncio.Lock()
        async with self._fixing:
            if self._revision:
                return None
            reader = self._reader
            reader.unfixed.discard(self)
            found: pb.RangeResponse | None = None
            try:
                if request is not None and small:
                    revision, version, found = await reader.now.ask(request)
                elif request is not None:
                    revision, version, (found,) = await reader.moment(request)
                else:
                    revision, version, _ = await reader.moment()
            except BaseException:
                reader.unfixed.add(self)
                raise
            self._revision, self.version = revision, version
            return found

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
