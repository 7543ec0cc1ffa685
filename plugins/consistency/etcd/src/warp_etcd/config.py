"""What `[metadata] engine = "etcd"` may say."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from warp_core.config.types import Between, Duration, Secret, Size

SCHEMES = ("http://", "https://", "unix://")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the engine `etcd`; relative paths start at the node's data folder."""

    endpoints: tuple[
        str, ...
    ] = ()  # of the cluster; none: WARP runs a member of its own in its data folder
    prefix: str = "warp/"  # everything lies below it, so that a cluster may be shared
    reads: Literal["linearizable", "serializable"] = (
        "linearizable"  # serializable: from any one member, perhaps a moment old
    )
    timeout: Annotated[Duration, Between("100ms", "1min")] = Duration(
        5.0
    )  # after which an unanswered request is given up
    quota: Annotated[Size, Between("64MiB", "64GiB")] = Size(
        2 << 30
    )  # of etcd's database (its --quota-backend-bytes): near it nothing more is set
    authority: str = ""  # certificates that sign those of the endpoints, PEM; empty: the system's
    certificate: str = ""  # this node's, PEM
    key: str = ""  # its private key
    user: str = ""
    password: Secret = Secret("")
    program: str = "etcd"  # that a member of WARP's own is run with
    listen: str = (
        ""  # HOST:PORT where members of other nodes reach this node's own one; empty: it is alone
    )
    name: str = ""  # of this node's own member, as it joined
    members: dict[str, str] = {}  # name → HOST:PORT of all members when this one joined

    def __post_init__(self) -> None:
        """Check what the types do not tell."""
        for endpoint in self.endpoints:
            if not endpoint.startswith(SCHEMES) or endpoint in SCHEMES:
                raise ValueError(
                    f'endpoints: "{endpoint}" does not begin with {", ".join(SCHEMES)}'
                )
        secure = {endpoint.startswith("https://") for endpoint in self.endpoints}
        if len(secure) > 1:
            raise ValueError("endpoints: all with https:// or none")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate: it comes with a key, and a key with it")
        if (self.authority or self.certificate) and secure != {True} and not self.listen:
            raise ValueError("certificate: certificates are for endpoints with https://")
        if self.listen and self.endpoints:
            raise ValueError("listen: it is for a member of the node's own, not beside endpoints")
        if self.listen and not _is_address(self.listen):
            raise ValueError(f'listen: "{self.listen}" is not HOST:PORT')
        if self.members and not (self.name and self.listen):
            raise ValueError("members: they come with a name and listen")
        if self.name and not self.listen:
            raise ValueError("name: it comes with listen")
        if self.members and self.members.get(self.name) != self.listen:
            raise ValueError(f'members: "{self.name}" is not at {self.listen} there')
        if bool(self.user) != bool(self.password):
            raise ValueError("user: it comes with a password, and a password with it")
        if not self.prefix or len(self.prefix.encode()) > 256:
            raise ValueError("prefix: 1 to 256 bytes are needed")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536
