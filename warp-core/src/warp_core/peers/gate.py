"""The fence of an exported store: which links may use it now.

A store of a domain is used by one home after another. Each says the token of its lease in its greeting; from the first greeting with a
greater one on, or when the exporting node becomes the home itself, whoever came with a smaller token is refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from warp_core.errors import Fenced


class Gate:
    """`token`: the greatest that was seen. `shut` while nobody but this node may use the store."""

    def __init__(self, token: int = 0) -> None:
        """Begin open, for links with at least this token."""
        self.token = token
        self.shut = False
        self._inside: Counter[int] = Counter()  # requests that are worked on, by token
        self._left: asyncio.Future[None] | None = None

    def demand(self, token: int) -> None:
        """Refuse an old home.

        Raises:
            Fenced: Another took over with a greater token.
        """
        if self.shut or token < self.token:
            raise Fenced(f"token {token} is not that of the home any more (now {self.token})")

    @contextmanager
    def passing(self, token: int) -> Iterator[None]:
        """Let one request through; raises as `demand`."""
        self.demand(token)
        self._inside[token] += 1
        try:
            yield
        finally:
            self._inside[token] -= 1
            if not self._inside[token]:
                del self._inside[token]
            if self._left is not None and not self._left.done():
                self._left.set_result(None)

    async def admit(self, token: int) -> None:
        """Take a greeting; one with a greater token than all before fences those off, and waits for what they are doing.

        Raises:
            Fenced: It is an old home's.
        """
        self.demand(token)
        await self._raise(token)

    async def close(self, token: int) -> None:
        """Fence everybody off, and wait for what they are doing: this node uses the store from now on, with this token."""
        self.shut = True
        await self._raise(token)
        await self._wait(lowest=None)

    def open(self) -> None:
        """Let in those again whose token is not too old."""
        self.shut = False

    async def _raise(self, token: int) -> None:
        if token > self.token:
            self.token = token
        await self._wait(lowest=self.token)

    async def _wait(self, lowest: int | None) -> None:
        while any(lowest is None or token < lowest for token in self._inside):
            if self._left is None or self._left.done():
                self._left = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._left)
