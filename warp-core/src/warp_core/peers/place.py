"""Where a peer's store is: what configurations of stores of peers have in common."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from warp_core.config.types import Between, Duration


class PeerPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a store that another node exports."""

    node: Annotated[
        str, Meta(min_length=1, max_length=64)
    ]  # who exports it, proved by its certificate
    address: Annotated[str, Meta(min_length=3, max_length=300)]  # where that node listens for peers
    export: Annotated[str, Meta(min_length=1, max_length=64)]  # under which name
    transport: str = "tcp"
    # A peer that does not answer for so long is taken for dead.
    deadline: Annotated[Duration, Between("100ms", "1h")] = Duration(30)
    # How long a start waits for it.
    wait: Annotated[Duration, Between("0s", "1h")] = Duration(30)

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return f"{self.node}/{self.export}"
