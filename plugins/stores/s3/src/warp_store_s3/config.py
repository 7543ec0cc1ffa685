"""What `[[store]] kind = "s3"` may say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from warp_core.config.types import Between, Duration, Size

# What a blob's name may be made of, so that prefixes never have to be escaped.
_PREFIX = r"^([a-z0-9._-]+/)*[a-z0-9._-]*$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[store]]` with `kind = "s3"`. The keys are never in the file: they come from the environment or from a file of their own."""

    endpoint: Annotated[str, Meta(pattern=r"^https?://", max_length=512)]  # https://HOST:PORT
    bucket: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    # What the keys of this store begin with: several stores share a bucket where each has its own.
    prefix: Annotated[str, Meta(pattern=_PREFIX, max_length=200)] = ""
    region: Annotated[str, Meta(min_length=1, max_length=64)] = "us-east-1"
    # https://HOST/BUCKET/KEY, or https://BUCKET.HOST/KEY.
    style: Literal["path", "virtual"] = "path"
    # A file as AWS's tools have it (`[default]`, aws_access_key_id, aws_secret_access_key), relative to node.data, mode 0600;
    # without one, the environment.
    credentials: str = ""
    profile: Annotated[str, Meta(min_length=1, max_length=128)] = "default"
    access_key_variable: Annotated[str, Meta(pattern=_VARIABLE)] = "AWS_ACCESS_KEY_ID"
    secret_key_variable: Annotated[str, Meta(pattern=_VARIABLE)] = "AWS_SECRET_ACCESS_KEY"
    token_variable: Annotated[str, Meta(pattern=_VARIABLE)] = "AWS_SESSION_TOKEN"
    authorities: str = ""  # PEM file of who signed its certificate; empty: the system's
    storage_class: Annotated[str, Meta(pattern=r"^[A-Z_]{0,32}$")] = (
        ""  # there; empty: the bucket's
    )
    # Blobs beyond this are sent in parts of it.
    part: Annotated[Size, Between("5MiB", "64MiB")] = Size(8 << 20)
    connections: Annotated[int, Meta(ge=1, le=64)] = 8
    # How long nothing may come or go before a request is given up.
    timeout: Annotated[Duration, Between("100ms", "10min")] = Duration(30)
    # Further attempts of a request that found nobody, or an endpoint that is busy; 0.1 s before the first, then twice as long each.
    retries: Annotated[int, Meta(ge=0, le=10)] = 4
    # How long a start waits for the endpoint.
    wait: Annotated[Duration, Between("0s", "10min")] = Duration(10)
    # What may lie there: an endpoint does not say how much room it has.
    capacity: Annotated[Size, Between("1MiB", "1024PiB")] = Size(1 << 50)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return "/".join(
            filter(None, (self.endpoint.rstrip("/"), self.bucket, self.prefix.strip("/")))
        )
