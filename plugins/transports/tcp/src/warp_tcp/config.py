"""Options of the TCP transport."""

from __future__ import annotations

from typing import Annotated

import msgspec
from warp_core.config.types import Between, Duration


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[transports.tcp]`; relative paths start at the node's data folder."""

    authority: str = "tls/ca.pem"  # certificates of those who may name nodes
    certificate: str = "tls/node.pem"  # this node's, with its name
    key: str = "tls/node.key"  # its private key, mode 0600
    plaintext: bool = False  # no TLS and no names; between loopback addresses only
    stall: Annotated[Duration, Between("100ms", "1h")] = Duration(
        30
    )  # a message that does not move for so long ends its link
    links: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = (
        1024  # accepted at once; two or three for each node of a cluster
    )
    congestion: str = "cubic"  # TCP's congestion control, "" for the system's: BBR costs 20 to 60 % more CPU within a rack
