"""Histories of S3 requests that compete for a few keys, and the object that they should have been made on.

Every body is different, so an ETag tells which write it was. A request whose answer did not arrive, or was a 5xx, may have happened
or not.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from warp_conformance.linearizability import NEVER, Model, Operation, Verdict, check

from warp_integration.s3client import ConnectionLost, Response, S3Connection

BUCKET = "histories"
PREPARED_TRIES = 100  # until a bucket is made, with a pause between
PREPARED_AGAIN_S = 0.5
_RETRY_S = 0.02  # until a killed server is tried again
_HANG_S = 120.0  # within which there are as many answers as were wished, on any machine
_REFUSED_S = (
    0.2  # after a 5xx: each leaves a request of which nobody knows, and those make judging hard
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request for one key.

    `new` is the ETag that it would leave; `expected` its condition: an ETag, "*" for If-None-Match, or "".
    """

    verb: str  # put, get, head, delete
    new: str = ""
    expected: str = ""


def _after(state: str, operation: Operation) -> str | None:
    """Return the ETag of an object ("" for none) after a request, or None where the answer does not fit. The model of one key."""
    asked: Request = operation.asked
    if asked.verb in ("get", "head"):
        return state if operation.answer == state else None
    if asked.verb == "delete":
        return ""
    allowed = not asked.expected or (
        state == "" if asked.expected == "*" else state == asked.expected
    )
    if not operation.answered:
        return asked.new if allowed else state
    if operation.answer != allowed:
        return None
    return asked.new if allowed else state


OBJECT = Model("", _after)


class Histories:
    """Clients that ask for the same few keys at once, and what they were answered."""

    def __init__(
        self, seed: int, *, keys: int = 3, bucket: str = BUCKET, prefix: str = "k"
    ) -> None:
        self.operations: dict[str, list[Operation]] = {
            f"{prefix}{number}": [] for number in range(keys)
        }
        self._bucket = bucket
        self._rng = random.Random(seed)
        self._serial = 0
        self._seen: dict[str, str] = dict.fromkeys(self.operations, "")

    async def prepare(self, endpoint: str) -> None:
        """Create the bucket, as soon as somebody can."""
        async with S3Connection(endpoint) as s3:
            for _ in range(PREPARED_TRIES):
                answer = await s3.request("PUT", f"/{self._bucket}")
                if answer.status < 500:
                    break
                await asyncio.sleep(PREPARED_AGAIN_S)  # a busy machine's home moves
            assert answer.status == 200, answer

    async def run(
        self,
        endpoints: Callable[[], list[str]],
        *,
        clients: int,
        seconds: float,
        pause_s: float = 0.0,
        answers: int = 0,
    ) -> None:
        """Let `clients` ask for some time, each with a pause in between; `endpoints` returns where servers listen now.

        They go on until each key has so many `answers`, and, with any, conditional overwrites that won and that lost: a busy
        machine takes longer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()

        def over() -> bool:
            passed = loop.time() - began
            return passed >= seconds and (self._suffices(answers) or passed >= _HANG_S)

        async def client(name: str, rng: random.Random) -> None:
            while not over():
                async with S3Connection(rng.choice(endpoints())) as s3:
                    while not over():
                        if not await self._ask(s3, name, rng):
                            await asyncio.sleep(_RETRY_S)
                            break
                        await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(f"c{number}", random.Random(self._rng.random())))

    def _suffices(self, answers: int) -> bool:
        """Say whether each key has so many answers; a history with any needs what the judges of conditions look for, too."""
        return not answers or all(
            sum(each.answered for each in history) >= answers and swaps(history) >= {True, False}
            for history in self.operations.values()
        )

    async def _ask(self, s3: S3Connection, name: str, rng: random.Random) -> bool:
        key = rng.choice(list(self.operations))
        self._serial += 1
        body = f"{name} {self._serial}".encode() * rng.choice((1, 1, 500, 20_000))
        new = hashlib.md5(body, usedforsecurity=False).hexdigest()
        verb = rng.choice(("put", "put", "swap", "swap", "first", "get", "get", "head", "delete"))
        if verb == "swap":
            asked = Request("put", new, self._seen[key] or "0" * 32)
        elif verb == "first":
            asked = Request("put", new, "*")
        else:
            asked = Request(verb, new if verb == "put" else "")
        loop = asyncio.get_running_loop()
        called_at = loop.time()
        try:
            response = await s3.request(
                "PUT" if verb in ("put", "swap", "first") else verb.upper(),
                f"/{self._bucket}/{key}",
                headers=_condition(asked),
                body=body if asked.verb == "put" else b"",
            )
        except ConnectionLost as error:
            if isinstance(error.__cause__, ConnectionRefusedError):
                return False  # nobody was asked
            self._note(key, Operation(called_at, NEVER, asked, answered=False, client=name))
            return False
        if response.status == 403:
            return True  # the server's clock was moved; nothing was done
        if response.status >= 500:
            await asyncio.sleep(_REFUSED_S)
        answer = self._understood(asked, response)
        until = NEVER if answer is None else loop.time()
        self._note(key, Operation(called_at, until, asked, answer, answer is not None, name))
        if isinstance(answer, str):
            self._seen[key] = answer
        elif answer and asked.verb == "put":
            self._seen[key] = new
        return True

    def ended(self) -> None:
        """Take it that no server lives: what was asked and has not happened by now never will."""
        now = asyncio.get_running_loop().time()
        for history in self.operations.values():
            history[:] = [replace(each, until=min(each.until, now)) for each in history]

    def _note(self, key: str, operation: Operation) -> None:
        if operation.answered or operation.asked.verb in ("put", "delete"):
            self.operations[key].append(operation)

    @staticmethod
    def _understood(asked: Request, response: Response) -> str | bool | None:
        """Return what an answer says: an ETag ("" for none) of reads, whether it was done of writes; None if it says neither."""
        if response.status >= 500:
            return None
        if asked.verb in ("get", "head"):
            if response.status == 404:
                return ""
            assert response.status == 200, response
            etag = response.headers["etag"].strip('"')
            if asked.verb == "get":
                body = hashlib.md5(response.body, usedforsecurity=False).hexdigest()
                assert etag == body, "a body that is not its ETag's"
            return etag
        if asked.verb == "delete":
            assert response.status == 204, response
            return True
        if asked.expected and response.status in (404, 412):
            return False
        assert response.status == 200, response
        return True

    def verdicts(self) -> dict[str, Verdict]:
        """Judge the history of each key."""
        return {key: check(history, OBJECT) for key, history in self.operations.items()}


def swaps(history: Iterable[Operation]) -> set[object]:
    """Return how the conditional overwrites of a history ended that were answered: True, False, or both."""
    return {
        each.answer for each in history if each.answered and each.asked.expected not in ("", "*")
    }


def _condition(asked: Request) -> dict[str, str]:
    if asked.expected == "*":
        return {"If-None-Match": "*"}
    return {"If-Match": f'"{asked.expected}"'} if asked.expected else {}
