"""Streams: a payload of any size goes through a few pooled buffers into containers of its own."""

from __future__ import annotations

from warp_core.containers.format import Chunk
from warp_core.interfaces.stores import Buffer


class ChunkWriter:
    """Content on its way in, made by `Containers.writer`. One task uses it; it holds at most IN_FLIGHT buffers of 1 MiB."""

    size: int = 0  # bytes taken so far

    def buffer(self) -> memoryview:
        """Return the free rest of the current buffer (never empty): receive into it, then tell `wrote`."""
        raise NotImplementedError

    def wrote(self, length: int) -> bool:
        """Count bytes put into `buffer`; True means that `drain` must be awaited before the next `buffer`."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Hand the buffer on to the stores and get a free one; waits while too many are on their way.

        Raises:
            NoSpace, StoreFailed, Unavailable: The policy's copies cannot be written. Abort.
        """
        raise NotImplementedError

    async def write(self, data: Buffer) -> None:
        """Append bytes by copying, draining as needed; raises as `drain`."""
        raise NotImplementedError

    async def finish(self, *, journaled: bool = False) -> list[tuple[int, Chunk]]:
        """Return (offset in the stream, chunk) of everything written, once it is durable on all copies.

        Args:
            journaled: The caller commits through the node's journal next: what went there need not be synced before that.
        """
        raise NotImplementedError

    async def abort(self) -> None:
        """Drop what was written and give its space back; harmless when repeated and after `finish`."""
        raise NotImplementedError
