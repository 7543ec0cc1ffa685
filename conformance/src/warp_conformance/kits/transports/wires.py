"""Peers that speak no protocol: raw bytes, silence, and a relay that looks at and changes what passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

GARBAGE = [
    b"\0",
    b"\xff" * 64,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    bytes.fromhex("16030100a5010000a10303") + b"x" * 154,  # the beginning of a TLS ClientHello
    b"\x7fELF" * 5000,
    bytes(range(256)) * 4096,
]


@asynccontextmanager
async def raw(address: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Connect without speaking the protocol."""
    _, writer = await asyncio.open_connection(*place_of(address))
    try:
        yield writer
    finally:
        writer.transport.abort()


async def throw(address: str, garbage: bytes) -> None:
    """Send garbage and wait a moment for the connection to be ended."""
    reader, writer = await asyncio.open_connection(*place_of(address))
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(garbage)
        async with asyncio.timeout(0.05):
            await writer.drain()
            await reader.read()
    writer.transport.abort()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """Accept connections and say nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


def place_of(address: str) -> tuple[str, int]:
    """Return host and port; skip the test for addresses of another form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        pytest.skip(f"no raw connection to {address}")
    return host.strip("[]"), int(port)


class Wire:
    """What passes between two ends; `flip_at` and `cut_at` count the bytes of both directions."""

    def __init__(self) -> None:
        self.address = ""
        self.seen = bytearray()
        self.flip_at = -1
        self.cut_at = -1


@asynccontextmanager
async def relay(address: str) -> AsyncIterator[Wire]:
    """Stand between a dialer and a listener."""
    wire, place = Wire(), place_of(address)
    tasks: set[asyncio.Task[Any] | None] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := bytearray(await reader.read(8192)):
            start = len(wire.seen)
            wire.seen += data
            if start <= wire.flip_at < len(wire.seen):
                data[wire.flip_at - start] ^= 4
            if 0 <= wire.cut_at < len(wire.seen):
                for each in writers:
                    each.transport.abort()
                return
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        target_reader, target_writer = await asyncio.open_connection(*place)
        writers.extend((writer, target_writer))
        with contextlib.suppress(ConnectionError, RuntimeError):
            await asyncio.gather(pass_on(reader, target_writer), pass_on(target_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            if task is not None:
                task.cancel()
