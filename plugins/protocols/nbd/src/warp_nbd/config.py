"""Options of `[protocols.nbd]`."""

from typing import Annotated, Literal

from msgspec import Meta
from warp_core.config import Address, Between, Duration, Listening, Size


class Config(Listening, frozen=True, kw_only=True):
    """Where disks are served, which ones, to whom, and what a client may cost."""

    # A socket in the data directory, which only its owner can open: NBD itself knows no identity.
    listen: Address = Address("unix:nbd.sock")
    # Who may come over TCP: "none" says that whoever reaches the port may read and write every disk, "certificate" that a
    # client shows one of `tls_client_ca`. A Unix socket asks the file system.
    auth: Literal["", "none", "certificate"] = ""
    tls_client_ca: str = ""  # PEM file with the authorities of clients' certificates
    # Patterns of VOLUME/PATH; what none fits is not there.
    exports: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...], Meta(max_length=256)
    ] = ("*",)
    # What a client gets that asks for no name; "" is the only disk, if there is exactly one.
    default_export: Annotated[str, Meta(max_length=4096)] = ""
    read_only: bool = False
    # Each costs about 10 KiB while it is idle.
    connections_max: Annotated[int, Meta(ge=1, le=10_000)] = 256
    # Payloads on their way in or out, of all connections; beyond it requests wait in their sockets.
    memory_max: Annotated[Size, Between("64MiB", "64GiB")] = Size(256 * 1024 * 1024)
    # Without a byte from a client that negotiates.
    handshake_timeout: Annotated[Duration, Between("100ms", "1h")] = Duration(30)
    # Without a byte from a client in the middle of a request, or to one that does not take its replies.
    stall_timeout: Annotated[Duration, Between("100ms", "1h")] = Duration(60)
    # In a cluster: how long requests wait for a new home of their disk. A takeover takes the lease's time and a second or two.
    home_timeout: Annotated[Duration, Between("100ms", "1h")] = Duration(20)

    def __post_init__(self) -> None:
        """Refuse disks for everybody where nobody said so.

        Raises:
            ValueError: Names the option and what is allowed.
        """
        if self.auth == "certificate" and not (self.tls_client_ca and self.tls_certificate):
            raise ValueError(
                'auth: "certificate" needs `tls_client_ca`, `tls_certificate` and `tls_key`'
            )
        if self.tls_client_ca and self.auth != "certificate":
            raise ValueError('auth: with `tls_client_ca` it has to be "certificate"')
        if not self.listen.path and not self.auth:
            raise ValueError(
                "auth: over TCP whoever reaches the port can read and write every disk; allowed: "
                'auth = "none" if that is meant, auth = "certificate" with `tls_client_ca`, '
                'or listen = "unix:nbd.sock"'
            )
