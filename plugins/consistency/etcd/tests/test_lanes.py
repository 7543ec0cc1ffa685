"""Reads that travel together, and keys between others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import Expired, Unavailable
from warp_etcd.lanes import SENDING_MAX, Lane
from warp_etcd.views import between


async def test_what_is_asked_at_once_travels_together() -> None:
    sent: list[list[int]] = []

    async def send(asked: list[int]) -> list[int]:
        sent.append(asked)
        await asyncio.sleep(0.01)
        return [10 * each for each in asked]

    lane = Lane(send, most=8)
    answers = await asyncio.gather(*(lane.ask(number) for number in range(20)))

    assert answers == [10 * number for number in range(20)]
    assert [len(each) for each in sent] == [8, 8, 4]
    assert await lane.ask(7) == 70


async def test_few_requests_are_on_their_way() -> None:
    now = most = 0

    async def send(asked: list[int]) -> list[int]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return asked

    lane = Lane(send, most=1)
    await asyncio.gather(*(lane.ask(number) for number in range(30)))

    assert most == SENDING_MAX


async def test_who_asks_again_in_the_moment_of_an_answer_is_answered() -> None:
    async def send(asked: list[int]) -> list[int]:
        return asked

    async def client(lane: Lane[int, int]) -> list[int]:
        return [await lane.ask(number) for number in range(20)]

    for most in (1, 8):
        lane = Lane(send, most=most)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(client(lane) for _ in range(5)))

        assert answers == [list(range(20))] * 5


async def test_an_error_is_told_to_those_who_asked_and_to_nobody_else() -> None:
    async def send(asked: list[int]) -> list[int]:
        await asyncio.sleep(0)
        if 13 in asked:
            raise Expired("13")
        return asked

    lane = Lane(send, most=1)
    answers = await asyncio.gather(*map(lane.ask, (12, 13, 14)), return_exceptions=True)

    assert [answers[0], answers[2]] == [12, 14]
    assert isinstance(answers[1], Expired)


async def test_who_gives_up_holds_nobody_up() -> None:
    async def send(asked: list[int]) -> list[int]:
        await asyncio.sleep(0.01)
        return asked

    lane = Lane(send, most=1)
    tasks = [asyncio.create_task(lane.ask(number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert answers[1::2] == [1, 3, 5]


async def test_closing_refuses_what_waits() -> None:
    async def send(asked: list[int]) -> list[int]:
        await asyncio.sleep(60)
        return asked

    lane = Lane(send, most=1)
    tasks = [asyncio.create_task(lane.ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await lane.close()

    for task in tasks:
        with pytest.raises(Unavailable):
            await task


@given(low=st.binary(min_size=1, max_size=6), high=st.binary(min_size=1, max_size=6))
def test_a_key_between_others_lies_between_them(low: bytes, high: bytes) -> None:
    low, high = sorted((low, high))
    found = between(low, high)

    if found is None:
        assert high.rstrip(b"\0") == low.rstrip(b"\0")  # only zeros lie between
    else:
        assert low < found < high
