"""Load on an S3 endpoint: phases of one operation each, with rate, latency and the server's CPU."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from warp_core.errors import Unavailable, WarpError
from warp_core.s3.signing import Endpoint, Signer

from warp_cli.s3_client import Answer, Connection

OPERATIONS = ("put", "get", "head", "list", "delete")
TELL_EVERY = 100  # requests, so that telling costs nothing beside them
REMOVALS = 5  # times that a bucket is emptied before it is left
REMOVALS_S = 0.1  # between them
PAYLOADS = 8  # different bodies, hashed beforehand, so that the load costs less than the server


class Plan(msgspec.Struct, frozen=True):
    """What to do: for each size the operations in order, each for `seconds` or until `bytes_max`."""

    size: int
    connections: int = 16
    seconds: float = 5.0
    bytes_max: int = 1 << 30
    operations: tuple[str, ...] = OPERATIONS


class Result(msgspec.Struct, frozen=True):
    """What one phase measured."""

    operation: str
    size: int
    connections: int
    requests: int
    errors: int
    seconds: float
    rate: float  # requests a second
    bytes_per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float | None  # for each request; None where the server is not on this machine


Ask = Callable[[Connection, Signer, int], Awaitable[Answer]]


async def run(
    endpoint: Endpoint, plan: Plan, *, pid: int | None, tell: Callable[[str, int], None]
) -> list[Result]:
    """Carry out a plan on a bucket of its own, which is removed afterwards.

    Args:
        endpoint: Where.
        plan: What.
        pid: The server's process, where its CPU time can be read.
        tell: Called now and then with what is being done, and how many requests of it were answered.

    Raises:
        Unavailable: The server is not there, or refuses the bucket.
    """
    bucket = f"warp-bench-{secrets.token_hex(4)}"
    control = await Connection.open(endpoint)
    signer = Signer(endpoint)
    load = _Load(endpoint, plan, bucket, pid)
    made = False
    try:
        await _expect(
            control.request(signer.head("PUT", f"/{bucket}"), keep=True), f"create {bucket}"
        )
        made = True
        return [await load.phase(operation, tell) for operation in plan.operations]
    finally:
        control.close()  # it may be in the middle of a request
        control = await Connection.open(endpoint)
        await load.clean(tell)
        for _ in range(REMOVALS):
            gone = await control.request(signer.head("DELETE", f"/{bucket}"), keep=True)
            if gone.status == 409:
                # Interrupted: what was on its way is stored, although nobody saw the answer.
                await _emptied(control, signer, bucket)
            elif made or gone.status != 404:
                break
            else:
                await asyncio.sleep(REMOVALS_S)  # the bucket itself may be on its way
        control.close()


async def _emptied(control: Connection, signer: Signer, bucket: str) -> None:
    listed = await control.request(signer.head("GET", f"/{bucket}"), keep=True)
    for key in re.findall(r"<Key>([^<]*)</Key>", listed.body.decode()):
        await control.request(signer.head("DELETE", f"/{bucket}/{key}"))


class _Load:
    def __init__(self, endpoint: Endpoint, plan: Plan, bucket: str, pid: int | None) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._bucket = bucket
        self._pid = pid
        self._keys: list[str] = []
        self._draw = random.Random(1)
        bodies = [
            os.urandom(min(plan.size, 64)) + bytes(max(0, plan.size - 64)) for _ in range(PAYLOADS)
        ]
        self._bodies = [(memoryview(body), hashlib.sha256(body).hexdigest()) for body in bodies]

    async def phase(self, operation: str, tell: Callable[[str, int], None]) -> Result:
        """Run one operation on all connections."""
        ask: Ask = getattr(self, f"_{operation}")
        moved = self._plan.size if operation in ("put", "get") else 0
        limit = max(1, self._plan.bytes_max // moved) if moved else 1 << 62
        if operation == "delete":
            limit = len(self._keys)
        elif operation != "put" and not self._keys:
            raise Unavailable(f"{operation} needs objects: put comes first")
        latencies: list[float] = []
        errors = 0
        number = iter(range(limit))
        deadline = time.perf_counter() + self._plan.seconds

        async def worker() -> None:
            nonlocal errors
            connection = await Connection.open(self._endpoint)
            signer = Signer(self._endpoint)
            try:
                for index in number:
                    started = time.perf_counter()
                    if started > deadline and operation != "delete":
                        return
                    try:
                        answer = await ask(connection, signer, index)
                        errors += answer.status >= 300
                    except WarpError:
                        errors += 1
                        connection.close()
                        connection = await Connection.open(self._endpoint)
                    latencies.append(time.perf_counter() - started)
                    if len(latencies) % TELL_EVERY == 1:
                        tell(operation, len(latencies))
            finally:
                connection.close()

        cpu = _cpu_s(self._pid)
        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(self._plan.connections)))
        took = time.perf_counter() - started
        spent = _cpu_s(self._pid)
        latencies.sort()
        count = len(latencies)
        return Result(
            operation=operation,
            size=self._plan.size,
            connections=self._plan.connections,
            requests=count,
            errors=errors,
            seconds=took,
            rate=count / took,
            bytes_per_s=count * moved / took,
            p50_ms=latencies[count // 2] * 1e3 if count else 0.0,
            p99_ms=latencies[count * 99 // 100] * 1e3 if count else 0.0,
            server_cpu_us=(spent - cpu) / count * 1e6
            if count and spent is not None and cpu is not None
            else None,
        )

    async def clean(self, tell: Callable[[str, int], None]) -> None:
        """Delete what is left of the objects."""
        if not self._keys:
            return
        left = iter(list(self._keys))
        removed = 0

        async def worker() -> None:
            connection = await Connection.open(self._endpoint)
            signer = Signer(self._endpoint)
            nonlocal removed
            for key in left:
                await connection.request(signer.head("DELETE", f"/{self._bucket}/{key}"))
                removed += 1
                if removed % TELL_EVERY == 1:
                    tell("remove", removed)
            connection.close()

        await asyncio.gather(*(worker() for _ in range(min(16, len(self._keys)))))
        self._keys.clear()

    async def _put(self, connection: Connection, signer: Signer, index: int) -> Answer:
        body, sha256 = self._bodies[index % PAYLOADS]
        key = f"{index % 256:02x}/{index:08d}"
        head = signer.head("PUT", f"/{self._bucket}/{key}", payload=sha256, length=len(body))
        answer = await connection.request(head, body)
        if answer.status < 300:
            self._keys.append(key)
        return answer

    async def _get(self, connection: Connection, signer: Signer, index: int) -> Answer:
        return await connection.request(signer.head("GET", self._any()))

    async def _head(self, connection: Connection, signer: Signer, index: int) -> Answer:
        return await connection.request(signer.head("HEAD", self._any()), no_body=True)

    async def _list(self, connection: Connection, signer: Signer, index: int) -> Answer:
        query = {"list-type": "2", "max-keys": "1000"}
        return await connection.request(signer.head("GET", f"/{self._bucket}", query=query))

    async def _delete(self, connection: Connection, signer: Signer, index: int) -> Answer:
        return await connection.request(
            signer.head("DELETE", f"/{self._bucket}/{self._keys.pop()}")
        )

    def _any(self) -> str:
        return f"/{self._bucket}/{self._draw.choice(self._keys)}"


async def _expect(answer: Awaitable[Answer], what: str) -> None:
    got = await answer
    if got.status < 300:
        return
    code, message = (_of(tag, got.body) for tag in ("Code", "Message"))
    said = f"{code}: {message}" if code else f"status {got.status}"
    hint = "; are WARP_ACCESS_KEY and WARP_SECRET_KEY this server's?" if got.status == 403 else ""
    raise Unavailable(f"cannot {what}: {said}{hint}")


def _of(tag: str, xml: bytes) -> str:
    """Return the text of an element of S3's error answer, "" where there is none."""
    found = re.search(rf"<{tag}>([^<]*)</{tag}>", xml[:4096].decode(errors="replace"))
    return found[1] if found else ""


def _cpu_s(pid: int | None) -> float | None:
    """Return the CPU time of a process of this machine."""
    if pid is None:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
