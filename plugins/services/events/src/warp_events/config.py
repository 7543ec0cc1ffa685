"""Options of the events service, and of a webhook."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from warp_core.config.types import Between, Duration, Secret


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[services.events]`."""

    # How long an idle bucket's events wait at most until somebody looks; of more than 250 such buckets 1 ms each.
    interval: Annotated[Duration, Between("10ms", "1min")] = Duration(0.25)
    # After an attempt that failed; doubled up to `retry_max`, each a little at random.
    retry: Annotated[Duration, Between("10ms", "1min")] = Duration(0.2)
    retry_max: Annotated[Duration, Between("10ms", "1h")] = Duration(60.0)
    # What records say of where they come from.
    region: Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9-]+$")] = "us-east-1"


class WebhookConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[event_target]]` with `kind = "webhook"`."""

    url: Annotated[str, Meta(max_length=2048)]
    # Sent as it is in the header Authorization: "Bearer 6f9e..."
    authorization: Secret = Secret("")
    # Signs each message: header X-Warp-Signature, t=SECONDS,v1=HMAC-SHA256 of "SECONDS." and the body, in hex.
    secret: Secret = Secret("")
    timeout: Annotated[Duration, Between("100ms", "5min")] = Duration(10.0)
    # Messages under way at once; those of one key never are.
    connections: Annotated[int, Meta(ge=1, le=64)] = 8
    # Events in one message at most. AWS sends one.
    batch: Annotated[int, Meta(ge=1, le=100)] = 1
    # Certificates to trust instead of the system's: a PEM file, relative to node.data.
    ca_file: str = ""
    # Sending `authorization` beyond this machine without TLS.
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: not an http:// or https:// URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: has a password in it; `authorization` takes the header's value")
        if not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise ValueError("url: not a URL: percent-encode what is not ASCII")
        if not (self.authorization.isascii() and self.authorization.isprintable()):
            raise ValueError("authorization: not the value of a header")
        if (
            parts.scheme == "http"
            and self.authorization
            and not self.allow_plaintext
            and not _loopback(parts.hostname)
        ):
            raise ValueError(
                "authorization: would go to another machine without TLS: say https://, or"
                " `allow_plaintext = true`"
            )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # a start without targets does without

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
