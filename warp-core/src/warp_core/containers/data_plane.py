"""The data plane of a node: where payloads go in and come out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from warp_core.containers.format import Chunk, Owner
from warp_core.containers.policy import DataPolicy
from warp_core.containers.reclaim import Pin, Refers
from warp_core.containers.writer import ChunkWriter
from warp_core.interfaces.stores import Buffer


class Containers:
    """Appends, reads and frees chunks. Open it with `async with`, after the journal and before the metadata engine."""

    async def __aenter__(self) -> Self:
        """Take the inventory of the stores."""
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Seal what is open."""
        raise NotImplementedError

    # In -------------------------------------------------------------------------------------------

    def append(self, payload: Buffer, *, owner: Owner, policy: DataPolicy) -> Chunk:
        """Queue a small payload (1 byte to 1 MiB; kept until it is durable, so do not change it) and return where it will be.

        It goes into the journal when the journal has the copies that the policy wants. It can be read at once, and is durable after
        `sync`, or after a commit of a `journaled` engine if `in_journal(chunk)`.

        Raises:
            ReadOnly: The node has stopped writing.
            Busy: Too much is queued; `sync` first.
            Unavailable, NoSpace: The policy's copies find no stores.
        """
        raise NotImplementedError

    def in_journal(self, chunk: Chunk) -> bool:
        """Say whether the chunk becomes durable with the next flush of the journal."""
        raise NotImplementedError

    async def sync(self) -> None:
        """Return when everything that was appended before is durable on all copies.

        Raises:
            StoreFailed: It is not and will not be.
        """
        raise NotImplementedError

    def writer(
        self, policy: DataPolicy, owner: Owner, *, size_hint: int | None = None
    ) -> ChunkWriter:
        """Begin a stream. `size_hint` is the whole length where it is known; a wrong one costs space, not correctness."""
        raise NotImplementedError

    # Out ------------------------------------------------------------------------------------------

    def read_now(
        self, chunk: Chunk, *, offset: int = 0, length: int | None = None
    ) -> Buffer | None:
        """Return verified payload bytes if no device has to be waited for, else None: then `read`. At most 1 MiB."""
        raise NotImplementedError

    async def read(self, chunk: Chunk, *, offset: int = 0, length: int | None = None) -> Buffer:
        """Return `length` payload bytes from `offset` (to the end by default), verified.

        Raises:
            OutOfRange: The range is not inside the chunk.
            Corrupt: No good copy is left; the message names container, offset and range.
            Unavailable: The stores that have it are not here.
        """
        raise NotImplementedError

    async def read_into(self, chunk: Chunk, *, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with verified payload bytes; raises as `read`."""
        raise NotImplementedError

    def pin(self) -> Pin:
        """Claim everything that is alive now: what is reclaimed from now on stays readable until the pin is released."""
        raise NotImplementedError

    # Freeing --------------------------------------------------------------------------------------

    async def reclaim(self, chunks: Sequence[Chunk]) -> None:
        """Note durably that nothing refers to these chunks any more. Repeating it is harmless, so: reclaim, then drop the row.

        Their space is reused when no pin older than this call is left, by `collect`.
        """
        raise NotImplementedError

    def discard(self, chunks: Sequence[Chunk]) -> None:
        """Note that these chunks were written and will never be linked. Durable later; after a crash before that, `recover` finds them."""
        raise NotImplementedError

    async def collect(self, *, budget: int) -> dict[str, int]:
        """Free space, copying at most about `budget` bytes; returns counters, all zero when there is nothing to do."""
        raise NotImplementedError

    async def recover(self, refers: Refers, *, budget: int) -> bool:
        """Ask the namespace about records of sessions that crashed; True when none is left to ask about. Bounded by `budget` bytes read.

        `refers(owner, chunk)` says whether a row leads to the chunk; commits must have been replayed before the first call.
        """
        raise NotImplementedError
