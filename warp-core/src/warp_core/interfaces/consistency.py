"""MetaStore: an ordered key-value store with optimistic transactions.

Small enough that an engine is about 300 lines. Keys and values are bytes; keys sort as unsigned bytes. Core builds `Transaction` on
it (`warp_core.metadata`), with retries and buffered writes; an engine only has to judge and apply one `Commit` at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self

import msgspec

from warp_core.errors import Unsupported

KEY_MAX = 480  # bytes; LMDB keeps 511, and an engine may add a short prefix of its own
VALUE_MAX = 64 * 1024
WRITES_MAX = 100  # rows changed by one commit: etcd allows 128 operations, checks included
COMMIT_MAX = 1024 * 1024  # bytes of keys and values in one commit: etcd refuses 1.5 MiB
SCAN_MAX = 1000  # rows in one call
VIEW_MAX_S = 5.0  # a view older than this may answer `Expired`

Progress = Callable[[Mapping[str, object]], None]  # told counts by name, of work that takes long


class Row(NamedTuple):
    """One live row as a view shows it."""

    key: bytes
    value: bytes
    version: int  # of the commit that wrote it


class KeyCheck(NamedTuple):
    """Holds if the key was not written or deleted after `version`; 0 means that it does not exist."""

    key: bytes
    version: int


class RangeCheck(NamedTuple):
    """Holds if no key in [start, end) was written or deleted after the view of `version` was taken."""

    start: bytes
    end: bytes
    version: int


class Write(NamedTuple):
    """Sets a row, or deletes it where the value is None."""

    key: bytes
    value: bytes | None


class Merge(NamedTuple):
    """Changes a counter row without reading it, so that merges never conflict with one another.

    The row is a packed array of signed little-endian 64-bit integers: first the `add` fields, then the `max` fields. An absent row
    counts as all zeros (`add`) and the smallest integer (`max`). A check on a counter row fails like any other if it changed.
    """

    key: bytes
    add: tuple[int, ...] = ()
    max: tuple[int, ...] = ()


class Stamp(NamedTuple):
    """Writes a row whose key carries the commit's version: prefix + 8 bytes big endian + suffix.

    With `descending`, the 8 bytes are 2^64 - 1 - version, so that the newest row sorts first.
    """

    prefix: bytes
    suffix: bytes
    value: bytes
    descending: bool = False


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One atomic change: applied whole if every check holds, else not at all."""

    checks: Sequence[KeyCheck | RangeCheck] = ()
    writes: Sequence[Write] = ()
    merges: Sequence[Merge] = ()
    stamps: Sequence[Stamp] = ()
    request_id: bytes = b""  # 16 bytes; the same id is never applied twice
    # The first `seen` checks are of rows as a view of version `view` showed them. An engine that knows of every change since need not
    # read these rows again; one that does not ask loses nothing but time.
    seen: int = 0
    view: int = 0
    # It may be acknowledged before it is durable, in order with all others; only of an engine with the capability.
    relaxed: bool = False


class Change(NamedTuple):
    """One row changed by a commit, as a watcher sees it; `value` is None for a delete."""

    key: bytes
    value: bytes | None
    version: int


class EngineMember(NamedTuple):
    """One member of an engine that nodes run."""

    name: str  # "" before it was started for the first time
    address: str  # where the other members reach it
    state: str  # "voting", or "learning": it counts for no majority yet


class Lease(NamedTuple):
    """A grant that ends unless renewed. `token` grows with every grant of the name and fences older holders."""

    name: str
    holder: str
    token: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class MetaCapabilities:
    """What an engine claims; the kit proves what is claimed and that the rest is refused."""

    durable: bool = False  # a commit that returned survives kill -9 and a power cut
    journaled: bool = False  # commits share the node's journal: what was appended to it before is durable with them
    watch: bool = False
    lease: bool = False
    shared: bool = False  # several nodes may use it at once
    relaxed: bool = False  # commits may be acknowledged before they are durable: `latest`, `unsettled`, `settle`
    immediate: bool = False  # `get_now` answers, the engine's and that of its views
    rebuild: bool = (
        False  # what it answers reads from can be checked against what it logged, and made anew
    )
    promise: Literal["linearizable", "serializable"] = "linearizable"


class View(ABC):
    """A read view of one moment. Close it: an open view holds back checkpoints. Not used after `VIEW_MAX_S`."""

    version: int

    @abstractmethod
    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version of the row, or None.

        Raises:
            Expired: The view is too old.
        """

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """Return what `get` does without waiting.

        Raises:
            Expired: The view is too old.
            Unsupported: Without the engine's capability `immediate`.
        """
        raise Unsupported("this engine does not answer without waiting")

    @abstractmethod
    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """Return up to `limit` (at most SCAN_MAX) rows of [start, end), ascending unless `reverse`."""

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        """Return the keys, and apart from them the values, of what `scan` returns: for pages of many small rows."""
        rows = await self.scan(start, end, limit=limit)
        return [row[0] for row in rows], [row[1] for row in rows]

    def close(self) -> None:  # noqa: B027
        """Release the view; harmless when repeated."""


class MetaStore(ABC):
    """An engine. Open it with `async with`."""

    capabilities: MetaCapabilities
    # Of what it keeps, once it is entered: made up when it is first written, and the same for ever. A node whose data belongs to
    # another refuses to go on. Engines that keep everything in the node's own stores need none.
    identity: str = ""

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
    def view(self) -> View:
        """Take a read view; it shows every commit that returned before this call."""

    def latest(self) -> View:
        """Take a read view that also shows commits which are not durable yet, acknowledged or not.

        What is told of it to somebody who was promised durability is told after `reach`.
        """
        return self.view()

    async def reach(self, version: int) -> None:  # noqa: B027
        """Return when everything that a view of this version shows is durable, and `view` shows it.

        Raises:
            Unavailable: It never will be: the engine has stopped writing.
        """

    @property
    def unsettled(self) -> bool:
        """Whether a relaxed commit was acknowledged that is not durable yet."""
        return False

    async def settle(self) -> None:  # noqa: B027
        """Return when every commit that was acknowledged before the call is durable, and `view` shows it.

        It returns as well when that will never be: the engine has stopped writing, and `view` shows what is durable.
        """

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version of a row, or None, as a view taken now would: without waiting, without a view.

        Several calls with nothing awaited in between see one moment.

        Raises:
            Unsupported: Without the capability `immediate`.
        """
        raise Unsupported("this engine does not answer without waiting")

    @abstractmethod
    async def commit(self, commit: Commit) -> int:
        """Apply a commit and return its version, greater than every version before it.

        Raises:
            Conflict: A check does not hold; nothing was applied.
            Ambiguous: It may have been applied; `outcome` tells.
            TooLarge: Beyond WRITES_MAX, KEY_MAX, VALUE_MAX or COMMIT_MAX.
        """

    async def outcome(self, request_id: bytes) -> int | None:
        """Return the version that a request id was applied under, or None if it was not and will not be."""
        raise Unsupported("this engine never leaves a commit ambiguous")

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """Yield changes of rows below `prefix` with a version above `since`, in commit order, each once.

        Raises:
            Expired: `since` is older than what the engine remembers: scan anew.
            Unsupported: Without the capability `watch`.
        """
        raise Unsupported("this engine cannot watch")

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Grant a lease that nobody else holds; the grant's token is greater than all earlier ones of the name.

        Raises:
            Locked: Another holder's lease is alive.
            Unsupported: Without the capability `lease`.
        """
        raise Unsupported("this engine cannot lease")

    async def renew(self, lease: Lease) -> Lease:
        """Extend a lease by its ttl.

        Raises:
            Fenced: It ended or was granted to another.
        """
        raise Unsupported("this engine cannot lease")

    async def release(self, lease: Lease) -> None:
        """End a lease early; harmless when it ended already."""
        raise Unsupported("this engine cannot lease")

    async def members(self) -> Sequence[EngineMember]:
        """Return the engine's own members, where nodes run them.

        Raises:
            Unsupported: They do not, or this node's is alone.
        """
        raise Unsupported("the nodes run no members of this engine")

    async def invite(self, name: str, address: str) -> Mapping[str, object]:
        """Make room for a member that the node `name` will run, reached by others at `address`; return the options it starts with.

        Raises:
            Unsupported: As `members`.
            Conflict: It is a member already.
            Unavailable: Not now.
        """
        raise Unsupported("the nodes run no members of this engine")

    async def expel(self, name: str) -> None:
        """Remove a member for good.

        Raises:
            Unsupported, NotFound
        """
        raise Unsupported("the nodes run no members of this engine")

    async def examine(self, progress: Progress) -> list[str]:
        """Verify what the engine keeps, of an engine that is not entered: every row against what was logged.

        Return what is wrong, a sentence each.

        Raises:
            Unsupported: Without the capability `rebuild`.
        """
        raise Unsupported("this engine cannot be examined from outside")

    async def rebuild(self, progress: Progress) -> Mapping[str, object]:
        """Make anew what reads are answered from, of an engine that is not entered; what was there is moved aside.

        Return what was done.

        Raises:
            Corrupt: What would be needed is damaged or gone; nothing was changed.
            Unsupported: Without the capability `rebuild`.
        """
        raise Unsupported("this engine cannot be rebuilt")
