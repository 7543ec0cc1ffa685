"""Options of a NATS target."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from warp_core.config.types import Between, Duration, Secret

# Tokens of a subject, with {bucket} anywhere in them; wildcards are for subscribers.
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_{}-]+(\.[A-Za-z0-9_{}-]+)*")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[event_target]]` with `kind = "nats"`."""

    servers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)] = (
        "nats://127.0.0.1:4222",
    )
    subject: Annotated[str, Meta(max_length=200)] = "warp.events.{bucket}"
    # The stream that has to have the subject; empty: whichever has it.
    stream: Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    user: str = ""
    password: Secret = Secret("")
    token: Secret = Secret("")
    creds_file: str = ""  # of `nsc`, relative to node.data
    ca_file: str = ""  # PEM, relative to node.data: trusted instead of the system's
    timeout: Annotated[Duration, Between("100ms", "5min")] = Duration(10.0)
    # Messages that wait for their acknowledgement; those of one key never wait together.
    at_once: Annotated[int, Meta(ge=1, le=256)] = 64
    # Sending a password or a token beyond this machine without TLS.
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        from urllib.parse import urlsplit

        if not _SUBJECT.fullmatch(self.subject.replace("{bucket}", "b")):
            raise ValueError("subject: tokens of letters, digits, _ and -, between dots")
        if bool(self.user) != bool(self.password):
            raise ValueError("user: and `password` go together")
        if sum(map(bool, (self.user, self.token, self.creds_file))) > 1:
            raise ValueError("user: one of user and password, token, and creds_file")
        for server in self.servers:
            parts = urlsplit(server)
            if parts.scheme not in ("nats", "tls") or not parts.hostname:
                raise ValueError("servers: each is nats://HOST:PORT or tls://HOST:PORT")
            if parts.username is not None or parts.password is not None:
                raise ValueError("servers: has a password in it; `user` and `password` take it")
            if (
                parts.scheme == "nats"
                and (self.password or self.token)
                and not self.allow_plaintext
                and not _loopback(parts.hostname)
            ):
                raise ValueError(
                    "servers: a secret would go to another machine without TLS: say tls://, or"
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
