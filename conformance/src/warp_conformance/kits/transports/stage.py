"""What the parts of the kit for transports share: links, and services at their other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from warp_core.errors import WarpError
from warp_core.interfaces.transports import PAYLOAD_MAX, Link, Listener, Transport

from warp_conformance.kit import Kit

NODE = "sample"  # the node that `Entry.sample` of a transport configures
BUFFERED_MAX = 32 * PAYLOAD_MAX  # accepted without a reader: more is no backpressure
Pair = tuple[Link, Link]


async def echo(link: Link) -> None:
    """Send back what comes, until the link ends."""
    with contextlib.suppress(WarpError):
        while True:
            message = await link.receive()
            await link.send(message.header, [message.payload])


async def forever(link: Link) -> None:
    """Keep a link open."""
    await asyncio.Event().wait()


def pattern(length: int) -> bytes:
    """Return bytes in which any shift shows."""
    return b"".join(number.to_bytes(4) for number in range(length // 4 + 1))[:length]


def descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


class TransportPart(Kit):
    """What every part of the kit stands on: a transport, and links between two ends."""

    anywhere: ClassVar[str] = "127.0.0.1:0"
    node: ClassVar[str] = NODE

    @pytest.fixture
    def stranger(self) -> Transport:
        """Yield a transport of another cluster."""
        raise NotImplementedError(
            "a transport that claims `authenticated` is tried with a `stranger`"
        )

    @asynccontextmanager
    async def listening(
        self, subject: Transport, serve: Callable[[Link], Any]
    ) -> AsyncIterator[Listener]:
        """Listen until the block ends."""
        listener = await subject.listen(self.anywhere, serve)
        try:
            yield listener
        finally:
            await listener.close()

    @asynccontextmanager
    async def pair(self, subject: Transport) -> AsyncIterator[Pair]:
        """Yield the dialing and the accepting end of a link."""
        accepted: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        done = asyncio.Event()

        async def serve(link: Link) -> None:
            accepted.set_result(link)
            await done.wait()

        async with self.listening(subject, serve) as listener:
            link = await subject.dial(listener.address)
            try:
                yield link, await accepted
            finally:
                done.set()
                await link.close()

    async def echoes(self, subject: Transport, listener: Listener) -> None:
        """Prove that a listener serves."""
        link = await subject.dial(listener.address)
        await link.send(b"are you there", [b"?"])
        message = await link.receive()
        assert (message.header, bytes(message.payload)) == (b"are you there", b"?")
        await link.close()

    async def unused(self, subject: Transport) -> str:
        """Return an address at which nobody listens."""
        async with self.listening(subject, echo) as listener:
            return listener.address
