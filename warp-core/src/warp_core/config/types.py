"""Types of option values: what a person writes, checked, with its unit resolved.

Each is a subclass of what it stands for, so that code which uses an option needs no unpacking:
`Size` is an int of bytes, `Duration` a float of seconds, the others are the text that was written.
`parse` raises ValueError; `ALLOWED` completes the sentence "allowed: ...".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h|d)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_CODEC = re.compile(r"[a-z0-9][a-z0-9._-]*(:[^\s]*)?")
_REPLICA = re.compile(r"replica:(\d+)")
_RS = re.compile(r"rs:(\d+)\+(\d+)")

COPIES_MAX = 8  # more copies of everything protect from nothing that fewer do not
SHARDS_MAX = 255  # Reed-Solomon over GF(2^8)


class Size(int):
    """A number of bytes, written as `"8MiB"`, `"10GB"` or 4096."""

    ALLOWED: ClassVar[str] = 'a size such as "64KiB", "8MiB", "10GB" or a whole number of bytes'

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a size."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("not a size")
        number, prefix, binary = match.groups()
        bytes_ = float(number) * (1024 if binary else 1000) ** " kmgtp".index(prefix.lower() or " ")
        if bytes_ != int(bytes_):
            raise ValueError("not a whole number of bytes")
        return cls(int(bytes_))

    def __str__(self) -> str:
        for power, unit in ((5, "PiB"), (4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
            if self and self % 1024**power == 0:
                return f"{int(self) // 1024**power}{unit}"
        return f"{int(self)}"


class Duration(float):
    """A time span in seconds, written as `"10s"`, `"250ms"` or `"1h"`."""

    ALLOWED: ClassVar[str] = 'a duration such as "250ms", "10s", "5min", "1h" or "7d"'

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a duration; a number without unit is refused, because nobody can tell its unit."""
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("not a duration")
        return cls(float(match[1]) * _SECONDS[match[2]])

    def __str__(self) -> str:
        for unit in ("d", "h", "min", "s"):
            if self and self % _SECONDS[unit] == 0:
                return f"{int(self / _SECONDS[unit])}{unit}"
        return f"{float(self) * 1000:g}ms" if self else "0s"


class Address(str):
    """Where to listen: `"127.0.0.1:9000"`, `"[::1]:9000"` or `"unix:name.sock"` inside the data."""

    ALLOWED: ClassVar[str] = '"HOST:PORT", "[IPV6]:PORT" or "unix:PATH"'
    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read an address; the host is not resolved."""
        if not isinstance(value, str) or value != value.strip() or len(value) > 300:
            raise ValueError("not an address")
        if value.startswith("unix:"):
            if len(value) == len("unix:") or len(value.encode()) > 104:  # sun_path: 108 bytes
                raise ValueError("not a socket path")
            return cls(value)
        import ipaddress  # costs more than the rest of this module, and defaults are not parsed

        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError("not an address")
        if host.startswith("["):
            if not host.endswith("]"):
                raise ValueError("not an address")
            ipaddress.IPv6Address(host[1:-1])
        elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
            raise ValueError("not an address")
        elif re.fullmatch(r"[0-9.]+", host):
            ipaddress.IPv4Address(host)
        return cls(value)

    @property
    def path(self) -> str:
        """The socket's path, "" for TCP."""
        return self[len("unix:") :] if self.startswith("unix:") else ""

    @property
    def host(self) -> str:
        """The host without brackets, "" for a Unix socket."""
        return "" if self.path else self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The TCP port; 0 lets the system choose, and is what a Unix socket has."""
        return 0 if self.path else int(self.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host in ("localhost", "127.0.0.1", "::1"):
            return True
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Secret(str):
    """Text that no log, repr or `warp config show` reveals; use it where the secret is needed."""

    ALLOWED: ClassVar[str] = "text, at least 8 characters"
    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a secret."""
        if not isinstance(value, str) or len(value) < 8:
            raise ValueError("too short for a secret")
        return cls(value)

    def __repr__(self) -> str:
        return "Secret('***')"


class Codec(str):
    """A codec with its arguments: `"zstd:3"`."""

    ALLOWED: ClassVar[str] = 'the name of a codec, with arguments after a colon, such as "zstd:3"'
    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a codec; whether it is installed is judged later."""
        if not isinstance(value, str) or not _CODEC.fullmatch(value):
            raise ValueError("not a codec")
        return cls(value)

    @property
    def name(self) -> str:
        """The codec's registered name."""
        return self.partition(":")[0]

    @property
    def arguments(self) -> str:
        """What follows the colon, "" without one."""
        return self.partition(":")[2]


class Redundancy(str):
    """How content survives lost stores: `"none"`, `"replica:3"` or `"rs:4+2"`."""

    ALLOWED: ClassVar[str] = (
        f'"none", "replica:N" (N from 2 to {COPIES_MAX}) or "rs:K+M" (at most {SHARDS_MAX} shards)'
    )
    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a redundancy; whether there are stores enough is judged later."""
        if not isinstance(value, str):
            raise ValueError("not a redundancy")
        if value == "none":
            return cls(value)
        if (match := _REPLICA.fullmatch(value)) and 2 <= int(match[1]) <= COPIES_MAX:
            return cls(value)
        if match := _RS.fullmatch(value):
            data, parity = int(match[1]), int(match[2])
            if data >= 2 and parity >= 1 and data + parity <= SHARDS_MAX:
                return cls(value)
        raise ValueError("not a redundancy")

    @property
    def shards(self) -> tuple[int, int]:
        """Data and parity shards; copies are 1 + (N - 1)."""
        if match := _RS.fullmatch(self):
            return int(match[1]), int(match[2])
        match = _REPLICA.fullmatch(self)
        return 1, int(match[1]) - 1 if match else 0

    @property
    def striped(self) -> bool:
        """Whether content is striped over shards, instead of copied."""
        return self.shards[0] > 1

    @property
    def tolerates(self) -> int:
        """Stores that may be lost."""
        return self.shards[1]

    @property
    def stores(self) -> int:
        """Stores that it takes."""
        return sum(self.shards)


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a `Size` or `Duration`, both included: `Annotated[Size, Between("4KiB", "1GiB")]`."""

    low: str
    high: str


CUSTOM: tuple[type[Any], ...] = (Size, Duration, Address, Secret, Codec, Redundancy)


def convert(kind: type, value: object) -> object:
    """Make an option's value of what the file says: msgspec's `dec_hook`."""
    if kind in CUSTOM:
        return kind.parse(value)
    raise NotImplementedError(f"no conversion to {kind!r}")
