"""Options of `[protocols.admin]`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from warp_core.config import Address, Between, Duration, Listening, Size


class Config(Listening, frozen=True, kw_only=True):
    """Where the API is served, who is known by a certificate, and what a client may cost."""

    # A socket in the data directory, which only its owner can open: who can needs no token.
    listen: Address = Address("unix:admin.sock")
    tls_client_ca: str = (
        ""  # PEM file; with it clients have to show a certificate of these authorities
    )
    # What certificates of these names may do: their common name, DNS name, address of mail, or URI.
    clients: Annotated[
        dict[
            Annotated[str, Meta(min_length=1, max_length=255)],
            Literal["viewer", "operator", "admin"],
        ],
        Meta(max_length=1000),
    ] = msgspec.field(default_factory=dict)
    # Whether anybody who reaches the address may read /metrics.
    open_metrics: bool = False
    # Each costs about 20 KiB while it is idle.
    connections_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
    # Requests that work at once; others are told to come again.
    requests_max: Annotated[int, Meta(ge=1, le=1000)] = 16
    # The longest that a verb takes carries a policy or a document.
    body_max: Annotated[Size, Between("1KiB", "64MiB")] = Size(1024 * 1024)
    # Between two requests of a connection.
    idle_timeout: Annotated[Duration, Between("1s", "1h")] = Duration(75)
    # From the first byte of a head to its last.
    head_timeout: Annotated[Duration, Between("100ms", "10min")] = Duration(10)
    # From the head to the end of the body, and without an answer being taken.
    stall_timeout: Annotated[Duration, Between("100ms", "1h")] = Duration(30)
    # Wrong tokens from one address in a minute; then it has to wait.
    failures_max: Annotated[int, Meta(ge=1, le=10_000)] = 10

    def __post_init__(self) -> None:
        """Refuse tokens on the open wire, and names that nothing proves.

        Raises:
            ValueError: Names the option and what is allowed.
        """
        if not self.listen.loopback and not self.tls_certificate:
            raise ValueError(
                "listen: beyond loopback the admin API is served over TLS only; allowed: a loopback address,"
                ' listen = "unix:admin.sock", or `tls_certificate` and `tls_key`'
            )
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca: needs `tls_certificate` and `tls_key`")
        if self.clients and not self.tls_client_ca:
            raise ValueError(
                "clients: needs `tls_client_ca`, which says who signs their certificates"
            )
