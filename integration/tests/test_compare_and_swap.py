"""Conditional writes as the only lock: one winner of each race, and a counter that is exact, also when the server is killed."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from warp_integration.s3client import ConnectionLost, Response, S3Connection
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

LOST = {409, 412}  # ConditionalRequestConflict, PreconditionFailed
BACKOFF_S = 0.002
BACKOFF_MAX_S = 0.1
COUNTER = "/races/counter"


@pytest.fixture
def own_server(tmp_path: Path) -> WarpServer:
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    return WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs")


async def create_bucket(server: WarpServer) -> None:
    async with S3Connection(server.s3) as connection:
        assert (await connection.request("PUT", "/races")).status == 200


@pytest.mark.parametrize(
    ("writers", "rounds"), [(16, 10), pytest.param(64, 200, marks=pytest.mark.slow)]
)
async def test_of_writers_that_create_an_object_one_wins(
    own_server: WarpServer, writers: int, rounds: int
) -> None:
    with own_server as server:
        await create_bucket(server)
        connections = [S3Connection(server.s3) for _ in range(writers)]

        async def race(number: int) -> None:
            key = f"/races/round {number}"
            tries = [
                connection.request("PUT", key, headers={"If-None-Match": "*"}, body=b"%d" % writer)
                for writer, connection in enumerate(connections)
            ]
            statuses = [answer.status for answer in await asyncio.gather(*tries)]
            assert set(statuses) <= {200, *LOST}
            winners = [writer for writer, status in enumerate(statuses) if status == 200]
            found = await connections[0].request("GET", key)
            assert [int(found.body)] == winners

        for number in range(rounds):
            await race(number)
        for connection in connections:
            connection.close()


class Client:
    """Counts by If-Match; the object says how often each client did, so that one that lost an answer finds out."""

    def __init__(self, number: int, server: WarpServer, up: asyncio.Event) -> None:
        self.name = f"{number}"
        self.tries = 0
        self._server = server
        self._up = up
        self._chance = random.Random(number)
        self._connection: S3Connection | None = None

    async def _ask(self, method: str, body: bytes = b"", etag: str = "") -> Response:
        await self._up.wait()
        if self._connection is None:
            self._connection = S3Connection(self._server.s3)
        try:
            headers = {"If-Match": etag} if etag else {}
            return await self._connection.request(method, COUNTER, headers=headers, body=body)
        except ConnectionLost:
            self._connection.close()
            self._connection = None
            raise

    async def count(self, times: int) -> None:
        """Add one so many times."""
        done, delay = 0, BACKOFF_S
        while done < times:
            try:
                found = await self._ask("GET")
                counts = json.loads(found.body)
                done = counts.get(self.name, 0)
                if done == times:
                    break
                counts[self.name] = done + 1
                self.tries += 1
                body = json.dumps(counts).encode()
                answer = await self._ask("PUT", body, found.headers["etag"])
            except ConnectionLost:
                await asyncio.sleep(BACKOFF_MAX_S)
                continue
            assert answer.status in {200, *LOST}, answer
            if answer.status == 200:
                delay = BACKOFF_S
            else:
                await asyncio.sleep(delay * self._chance.random())
                delay = min(2 * delay, BACKOFF_MAX_S)
        if self._connection is not None:
            self._connection.close()


@pytest.mark.parametrize(
    ("clients", "total", "kills"),
    [
        (4, 40, 1),
        pytest.param(16, 10_000, 0, marks=pytest.mark.slow),
        pytest.param(16, 10_000, 10, marks=pytest.mark.slow),
    ],
)
async def test_a_counter_is_exact(
    own_server: WarpServer, clients: int, total: int, kills: int
) -> None:
    with own_server as server:
        await create_bucket(server)
        async with S3Connection(server.s3) as connection:
            assert (await connection.request("PUT", COUNTER, body=b"{}")).status == 200
        up = asyncio.Event()
        up.set()
        counting = [Client(number, server, up) for number in range(clients)]

        async def counted() -> int:
            async with S3Connection(server.s3) as connection:
                found = await connection.request("GET", COUNTER)
                return sum(json.loads(found.body).values())

        async def kill() -> None:
            for number in range(kills):
                while await counted() < total * (number + 1) // (kills + 1):
                    await asyncio.sleep(0.01)
                up.clear()
                server.kill()
                await asyncio.to_thread(server.start)
                up.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill())
            for client in counting:
                tasks.create_task(client.count(total // clients))

        tries = sum(client.tries for client in counting)
        print(f"{total} increments by {clients} clients in {tries} tries, {kills} kills")
        assert await counted() == total
