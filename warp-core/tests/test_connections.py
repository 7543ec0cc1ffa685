"""Connections of a server: a limit, and an end that waits for them."""

from __future__ import annotations

import asyncio

from warp_core.connections import Connections


async def test_no_more_than_the_limit_are_open() -> None:
    connections = Connections[str](2)

    assert [connections.enter(name) for name in "abc"] == [True, True, False]
    connections.leave("a")
    assert connections.enter("c")
    assert sorted(connections) == ["b", "c"]


async def test_at_the_end_each_is_asked_and_none_is_taken() -> None:
    connections = Connections[str](9)
    asked: list[str] = []
    for name in "ab":
        connections.enter(name)

    def ask(name: str) -> None:
        asked.append(name)
        asyncio.get_running_loop().call_soon(connections.leave, name)

    assert await connections.end(ask, 5)
    assert sorted(asked) == ["a", "b"]
    assert len(connections) == 0
    assert not connections.enter("c")


async def test_who_does_not_leave_is_counted_and_may_be_asked_again() -> None:
    connections = Connections[str](9)
    connections.enter("a")

    assert not await connections.end(lambda name: None, 0.01)
    assert len(connections) == 1
    assert await connections.end(connections.leave, 5)


async def test_without_connections_the_end_is_at_once() -> None:
    assert await Connections[str](9).end(lambda name: None, 0)
