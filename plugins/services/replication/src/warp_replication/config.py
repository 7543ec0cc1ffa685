"""Options of the replication service."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from warp_core.config.types import Between, Duration, Secret


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a bucket that rules name as their destination is, and as whom to write there."""

    bucket: Annotated[str, Meta(min_length=1, max_length=63)]  # of arn:aws:s3:::BUCKET in a rule
    endpoint: Annotated[str, Meta(pattern=r"^https?://")]  # https://HOST:PORT
    access_key: Annotated[str, Meta(min_length=1, max_length=128)]
    secret_key: Secret
    region: str = "us-east-1"
    there: str = ""  # the bucket's name there; empty: the same
    authorities: str = ""  # PEM file of who signed its certificate; empty: the system's


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.replication]`."""

    # How often volumes are asked for what is new.
    interval: Annotated[Duration, Between("100ms", "1h")] = Duration(1.0)
    # Objects on their way at once, each 1 MiB of memory.
    jobs: Annotated[int, Meta(ge=1, le=64)] = 8
    destination: Annotated[tuple[Destination, ...], Meta(max_length=1024)] = ()
