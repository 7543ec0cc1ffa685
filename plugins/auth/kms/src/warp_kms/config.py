"""What `[kms]` may say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9/_.-]{0,127}$"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the local key service."""

    # 32 random bytes, mode 0600, relative to node.data; made at the first use. Without it nothing that is encrypted can be read:
    # keep a copy where the data is not.
    master_key: str = "master.key"
    # Keys that are there from the start, by id.
    keys: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)], ...],
        msgspec.Meta(max_length=1000),
    ] = ()
    # What a request for a key that is not there gets: an error, or (on test-beds) the key.
    unknown_keys: Literal["refuse", "create"] = "refuse"
    # Of the key that is used where none is named.
    default_key: Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)] = "default"
    keys_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100_000
