"""Options of `[protocols.sftp]`."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from warp_core.config import Address, Between, Duration

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Pattern = Annotated[str, Meta(min_length=1, max_length=255)]
Login = Literal["password", "key", "certificate"]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Where files are served, what an account finds, who gets in how, and what a client may cost.

    No `Listening`: SSH is encrypted without certificates of TLS, so other machines may reach it as it is.
    """

    listen: Address = Address("127.0.0.1:2022")
    # Where an account is: "" shows the volumes that it may use as directories; VOLUME or VOLUME/PATH is all that it sees, and
    # {account} in it is its name. A directory that is missing is made, a volume is not.
    home: Annotated[str, Meta(max_length=1024)] = ""
    # Volumes of others: pattern of volumes = patterns of accounts that find them as well. There owners and modes of files decide.
    shared: Annotated[
        Mapping[Pattern, Annotated[tuple[Pattern, ...], Meta(max_length=1024)]],
        Meta(max_length=256),
    ] = {}
    read_only: bool = False
    # Bits that new files and directories do not get.
    umask: Annotated[str, Meta(pattern=r"^[0-7]{3}$")] = "022"
    # How accounts prove who they are.
    logins: Annotated[tuple[Login, ...], Meta(min_length=1, max_length=3)] = (
        "password",
        "key",
        "certificate",
    )
    # Private keys of this server in OpenSSH's format, from the node's data; () is one of its own, made when it is missing.
    host_keys: Annotated[tuple[Path, ...], Meta(max_length=8)] = ()
    # Authorities of users' certificates: files of public keys, one a line, from the node's data. Principals are accounts' names.
    user_authorities: Annotated[tuple[Path, ...], Meta(max_length=8)] = ()
    # Public keys and certificates that are refused: a file of public keys, one a line, from the node's data.
    revoked_keys: Annotated[str, Meta(max_length=4096)] = ""
    # Shown before the login.
    banner: Annotated[str, Meta(max_length=4096)] = ""
    # Each costs about 100 KiB, and up to 8 MiB while it transfers.
    connections_max: Annotated[int, Meta(ge=1, le=10_000)] = 512
    # Of them, of one account; 0: all.
    account_connections_max: Annotated[int, Meta(ge=0, le=10_000)] = 128
    # Sessions of one connection: sshfs and multiplexing clients open several.
    sessions_max: Annotated[int, Meta(ge=1, le=256)] = 16
    # Open files and directories of one session.
    handles_max: Annotated[int, Meta(ge=16, le=65_536)] = 1024
    # Failed attempts of one connection, after which it ends.
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 6
    # Wrong passwords from one address (of IPv6: its /64) before it is not let in for a while; each is answered later than the last.
    address_attempts_max: Annotated[int, Meta(ge=1, le=100_000)] = 100
    # From the first byte to the login.
    login_timeout: Annotated[Duration, Between("1s", "1h")] = Duration(60)
    # Without any byte from a client; one that answers keep-alives is not silent.
    idle_timeout: Annotated[Duration, Between("1s", "7d")] = Duration(3600)
