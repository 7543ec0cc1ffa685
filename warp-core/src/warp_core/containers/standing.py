"""Which stores every write has to reach before it is acknowledged.

A node alone keeps the copies that a policy wants, and refuses writes while there are fewer. A domain of a cluster keeps a copy on
each of its stores, and goes on without some of them after it got leave for that (`warp_core.cluster`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


class Standing:
    """Of a node alone."""

    def copies(self, wanted: int) -> int:
        """Return how many copies a container is meant to have, of which a policy wants `wanted`."""
        return wanted

    def enough(self, copies: int) -> int:
        """Return with how many of them writes are acknowledged now."""
        return copies

    def uses(self, store: str) -> bool:
        """Say whether a store gets anything now; one that does not need not even be there."""
        return True

    def complete(self, stores: Collection[str], wanted: int) -> bool:
        """Say whether what no copy of a container shows was never acknowledged; `wanted` are meant to be, these stores have one."""
        return len(stores) >= wanted

    def on_leave(self, forget: Callable[[frozenset[str]], None]) -> None:
        """Tell `forget` the ids of stores that are left behind from now on, when that happens."""

    async def leave(self, living: Sequence[str]) -> bool:
        """Go on with these stores only; say whether that changed how many are `enough`.

        Raises:
            WarpError: The others may not be left behind.
        """
        return False


ALONE = Standing()
