"""Requests that need not wait are answered in the call that brought them; the others go on in the connection's task."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from warp_s3.call import Answer
from warp_s3.connection import Connection

HEAD = b"GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


class Service:
    """Answers at once, or when told to."""

    def __init__(self) -> None:
        self.gate: asyncio.Future[None] | None = None
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.ended: list[str] = []
        self.plain = False

    def start(self, request: Any, body: Any) -> Any:
        if self.plain:
            self.ended.append(request.path)
            return Answer(200, [], b"x", 1)
        return self.answer(request, body)

    async def answer(self, request: Any, body: Any) -> Answer:
        self.tasks.append(asyncio.current_task())
        try:
            if self.gate is not None:
                await self.gate
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append(request.path)
        return Answer(200, [], b"x", 1)


@pytest.fixture
async def wire() -> Any:
    service = Service()
    loop = asyncio.get_running_loop()
    server: Any = SimpleNamespace(
        loop=loop, service=service, scratch=memoryview(bytearray(65536)), draining=False,
        stall_s=9.0, idle_s=9.0, head_s=9.0, now=lambda: 0, next_request_id=lambda: "0",
        connected=lambda one: True, disconnected=lambda one: None, count=lambda *of: None,
    )  # fmt: skip
    connection = Connection(server)
    transport = Transport()
    connection.connection_made(transport)
    await asyncio.sleep(0)
    yield SimpleNamespace(connection=connection, transport=transport, service=service, loop=loop)
    connection.cancel()
    await asyncio.sleep(0)


def bring(wire: Any, data: bytes) -> None:
    wire.connection.get_buffer(0)[: len(data)] = data
    wire.connection.buffer_updated(len(data))


async def from_loop(wire: Any, data: bytes) -> int:
    """Bring bytes as the loop does, outside any task; return how many answers were sent by then."""
    sent = wire.loop.create_future()

    def readable() -> None:
        bring(wire, data)
        sent.set_result(len(wire.transport.sent))

    wire.loop.call_soon(readable)
    return int(await sent)


async def test_an_answer_that_is_there_is_sent_in_the_call_that_brought_the_request(
    wire: Any,
) -> None:
    wire.service.plain = True

    assert await from_loop(wire, HEAD) == 1
    assert await from_loop(wire, b"\r\n" + HEAD * 3 + HEAD[:10]) == 4
    await asyncio.sleep(0)
    assert not wire.connection.idle
    await from_loop(wire, HEAD[10:])
    await asyncio.sleep(0)
    assert wire.connection.idle
    assert len(wire.transport.sent) == 5
    assert wire.transport.sent[0].endswith(b"Content-Length: 1\r\n\r\nx")
    assert wire.service.ended == ["/b/k"] * 5


async def test_after_an_answer_that_the_client_does_not_take_the_next_request_waits(
    wire: Any,
) -> None:
    wire.service.plain = True
    wire.transport.get_write_buffer_size = lambda: int(wire.connection._writer is not None)
    write = wire.transport.write

    def full(data: bytes) -> None:
        write(data)
        wire.connection.pause_writing()

    wire.transport.write = full

    assert await from_loop(wire, HEAD * 2) == 1
    await asyncio.sleep(0)
    assert len(wire.transport.sent) == 1
    wire.transport.write = write
    wire.connection.resume_writing()
    await asyncio.sleep(0.01)
    assert len(wire.transport.sent) == 2


async def test_what_need_not_wait_is_answered_in_the_call_that_brought_it(wire: Any) -> None:
    assert await from_loop(wire, HEAD) == 1
    assert await from_loop(wire, HEAD * 3) == 4
    assert await from_loop(wire, HEAD[:10]) == 4
    await asyncio.sleep(0)
    await from_loop(wire, HEAD[10:])
    await asyncio.sleep(0)

    assert len(wire.transport.sent) == 5
    assert set(wire.service.tasks) == {wire.connection._task}


async def test_what_waits_goes_on_in_the_task_and_keeps_its_turn(wire: Any) -> None:
    wire.service.gate = wire.loop.create_future()
    assert await from_loop(wire, HEAD + HEAD.replace(b"/k", b"/later")) == 0
    assert not wire.connection.idle
    wire.service.gate.set_result(None)
    for _ in range(9):
        await asyncio.sleep(0)

    assert wire.service.ended == ["/b/k", "/b/later"]
    assert wire.connection.idle
    assert await from_loop(wire, HEAD) == 3


@pytest.mark.parametrize("steps", [0, 1, 5])
async def test_a_request_that_waits_is_told_of_its_cancellation(wire: Any, steps: int) -> None:
    wire.service.gate = wire.loop.create_future()
    await from_loop(wire, HEAD)
    for _ in range(steps):
        await asyncio.sleep(0)
    wire.connection.cancel()
    for _ in range(9):
        await asyncio.sleep(0)

    assert wire.service.ended == ["cancelled"]


async def test_bytes_that_a_task_brings_are_answered_all_the_same(wire: Any) -> None:
    bring(wire, HEAD)
    for _ in range(3):
        await asyncio.sleep(0)

    assert len(wire.transport.sent) == 1


async def test_the_end_of_a_connection_ends_its_task(wire: Any) -> None:
    await from_loop(wire, HEAD)
    wire.connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)

    assert wire.connection._task.done()
