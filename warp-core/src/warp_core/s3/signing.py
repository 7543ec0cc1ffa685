"""Signatures of version 4 for requests with any headers (AWS General Reference, "Create a signed request")."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlsplit

from warp_core.errors import InvalidArgument

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to ask."""

    host: str
    port: int
    secure: bool
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    token: str = field(default="", repr=False)  # of a session

    @classmethod
    def parse(
        cls,
        url: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        token: str = "",
    ) -> Endpoint:
        """Read an endpoint's URL.

        Raises:
            InvalidArgument: It is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
            raise InvalidArgument(f'endpoint "{url}": allowed: http://HOST:PORT, https://HOST:PORT')
        default = _PORTS[parts.scheme]
        return cls(
            parts.hostname,
            port or default,
            parts.scheme == "https",
            access_key,
            secret_key,
            region,
            token,
        )

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = _PORTS["https" if self.secure else "http"]
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The endpoint as it is written."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


class Signer:
    """Makes the heads of signed requests; the key derived for a day is kept."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._day = ""
        self._key = b""

    def head(
        self,
        method: str,
        path: str | bytes,
        *,
        query: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
        payload: str = EMPTY_SHA256,
        length: int = 0,
        now_s: float | None = None,
    ) -> bytes:
        """Return the signed head of a request; its body follows.

        Args:
            method: Such as "PUT".
            path: `/bucket/key` as it is, not escaped.
            query: Parameters, not escaped.
            headers: Further fields, names in lower case, values Latin-1; all of them are signed.
            payload: SHA-256 of the body in hex, or UNSIGNED.
            length: Of the body.
            now_s: The time, for tests.
        """
        endpoint = self._endpoint
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        day = moment[:8]
        escaped = quote(path, safe="/-_.~")
        pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query.items())
        text = "&".join(f"{name}={value}" for name, value in pairs)
        fields = {
            **headers,
            "host": endpoint.authority,
            "x-amz-content-sha256": payload,
            "x-amz-date": moment,
        }
        if endpoint.token:
            fields["x-amz-security-token"] = endpoint.token
        fields = {name: _one_line(value) for name, value in fields.items()}
        names = sorted(fields)
        signed = ";".join(names)
        lines = "".join(f"{name}:{' '.join(fields[name].split())}\n" for name in names)
        canonical = f"{method}\n{escaped}\n{text}\n{lines}\n{signed}\n{payload}"
        scope = f"{day}/{endpoint.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(day), to_sign.encode(), "sha256").hex()
        target = f"{escaped}?{text}" if text else escaped
        sent = "".join(f"{name}: {fields[name]}\r\n" for name in names)
        return (
            f"{method} {target} HTTP/1.1\r\n{sent}content-length: {length}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={endpoint.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}\r\n\r\n"
        ).encode("latin-1")

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._endpoint.secret_key}".encode()
            for part in (day, self._endpoint.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key


def _one_line(value: str) -> str:
    """Return a header's value as it can be sent: text beyond Latin-1 as its UTF-8 bytes, no line ends."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        value = value.encode().decode("latin-1")
    return value.translate({0: " ", 10: " ", 13: " "}).strip()
