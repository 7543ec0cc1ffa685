"""Options of `[protocols.fuse]`."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from warp_core.config import Between, Duration


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Which volumes are mounted where, and who may enter."""

    # Directory = volume. What is missing of either is made; a directory that is not empty is refused.
    mounts: Annotated[
        Mapping[str, Annotated[str, Meta(min_length=1, max_length=255)]], Meta(max_length=64)
    ] = {}
    # Other users than the one who runs the server. Without root, /etc/fuse.conf has to say `user_allow_other`.
    allow_other: bool = True
    read_only: bool = False
    # When names and attributes are durable. "ordered": soon after the call returns, in the order of the calls, or with the next
    # fsync of whatever file, as on local file systems; "durable": when the call returns.
    names: Literal["ordered", "durable"] = "ordered"
    # How long the kernel may answer from memory while nobody else changes a file; changes by others call it back at once.
    cached: Annotated[Duration, Between("0s", "1d")] = Duration(3600)
    # How long calls wait while the node that has a volume is away, before they fail with EHOSTDOWN.
    patience: Annotated[Duration, Between("0s", "1h")] = Duration(5)
    # Away for so long, its mounts are taken away; "0s": never.
    give_up: Annotated[Duration, Between("0s", "30d")] = Duration(0)
    # After it, the kernel is no longer waited for to let go of a name: see the guide on coherence.
    recall_wait: Annotated[Duration, Between("1ms", "10s")] = Duration(0.1)
