"""Signature Version 4: who signed a request, and whether the signature holds.

A request is signed in its Authorization header or, presigned, in its query. Either way `read_claim`
gives a `Claim`, what the sender says; the caller finds the secret of the claimed access key, and
`verify` recomputes the signature over the request as it came. Bodies in signed chunks continue the
chain of signatures, see `warp_s3.aws_chunked`.

Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API reference.
"""

import hmac
import re
from calendar import timegm
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from warp_s3.errors import S3Error
from warp_s3.http.request import Request

SKEW_MAX_S: Final = 15 * 60
"""How far a header-signed request's time may be from ours; S3's own figure."""

EXPIRES_MAX_S: Final = 7 * 24 * 3600
"""Longest life of a presigned request; S3's own figure."""

SIGNING_KEYS_MAX: Final = 4096
"""Derived keys kept, about 700 bytes each: one per secret, day and region in use."""

AUTHORIZATION_MAX: Final = 2048
"""Characters of an Authorization header before its signature: a credential, 100 header names."""

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING: Final = frozenset(
    {STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER}
)

S3: Final = frozenset({"s3"})
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([!-+\--~]+), *SignedHeaders=([!-+\--~]+), *Signature="
)
_CREDENTIAL: Final = re.compile(
    r"(?P<key>.+)/(?P<date>[0-9]{8})/(?P<region>[A-Za-z0-9_-]*)/(?P<service>[a-z0-9-]+)/aws4_request"
)
_TIMESTAMP: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_is_hash: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_is_plain_path: Final = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch
_PRESIGNED: Final = re.compile(r"(?:^|&)(X-Amz-Algorithm|X-Amz-Signature|AWSAccessKeyId)=")
_SPACES: Final = re.compile(r" {2,}")

_BLOCK: Final = 64  # bytes that SHA-256 takes at a time
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a signed request says about itself; nothing in it is verified yet."""

    access_key: str
    timestamp: str  # YYYYMMDDTHHMMSSZ
    scope: str  # YYYYMMDD/region/s3/aws4_request
    signed_headers: str  # as sent: lower-case names joined by ";"
    signature: str  # 64 hexadecimal digits
    payload: str  # hexadecimal SHA-256 of the body, UNSIGNED-PAYLOAD or one of STREAMING
    presigned: bool

    @property
    def date(self) -> str:
        """Day of the scope, YYYYMMDD."""
        return self.scope[:8]

    @property
    def region(self) -> str:
        """Region of the scope, whatever the client was configured with."""
        return self.scope.split("/")[1]


class SigningKey:
    """A derived key, ready to sign: HMAC-SHA256 (RFC 2104) whose two hashes have taken the padded key already.

    Copying them costs 0.7 us a signature where `hmac.digest`, which begins anew with the key, costs 1.6.
    """

    __slots__ = ("_inner", "_outer", "secret")

    def __init__(self, secret: bytes) -> None:
        """Take the derived key's 32 bytes."""
        self.secret = secret
        padded = secret.ljust(_BLOCK, b"\0")
        self._inner = sha256(padded.translate(_INNER))
        self._outer = sha256(padded.translate(_OUTER))

    def sign(self, text: str) -> str:
        """Return the HMAC of Latin-1 text in hexadecimal digits."""
        inner = self._inner.copy()
        inner.update(text.encode("latin-1"))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class SigningKeys:
    """Derived signing keys, the most recently used `SIGNING_KEYS_MAX` of them."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, str], SigningKey] = OrderedDict()

    def get(self, secret: str, scope: str) -> SigningKey:
        """Derive, or remember, the key that signs for a secret within a scope."""
        known = self._keys.get((secret, scope))
        if known is not None:
            return known
        key = SigningKey(signing_key(secret, scope))
        self._keys[secret, scope] = key
        if len(self._keys) > SIGNING_KEYS_MAX:
            self._keys.popitem(last=False)
        return key


def signing_key(secret: str, scope: str) -> bytes:
    """Derive the key of a scope: one HMAC for each of date, region, service and terminator."""
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def read_claim(
    request: Request, *, now: float, services: frozenset[str] = S3, payload: str = ""
) -> Claim | None:
    """Read who claims to have signed a request, and check all that needs no secret.

    Args:
        request: The head as it came.
        now: Seconds since the epoch.
        services: Those that it may be signed for.
        payload: The body's hash where the head need not say it: only S3 wants it there.

    Returns:
        The claim, or None if the request is anonymous.

    Raises:
        S3Error: A malformed, outdated or unsupported authentication.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None:
        if request.query and _PRESIGNED.search(request.query) is not None:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                "Signature query string parameter or the Authorization header should be specified",
                details={"ArgumentName": "Authorization"},
            )
        return _header_claim(request, authorization, now, services, payload)
    match = _PRESIGNED.search(request.query)
    if match is None:
        return None
    if match[1] == "AWSAccessKeyId":  # version 2
        raise _unsupported_mechanism()
    return _query_claim(request, now, services, payload or UNSIGNED_PAYLOAD)


def verify(claim: Claim, request: Request, key: SigningKey) -> None:
    """Check the signature of a request in constant time.

    Args:
        claim: What `read_claim` gave for this request.
        request: The head as it came.
        key: The signing key of the claimed access key's secret, see `SigningKeys`.

    Raises:
        S3Error: `SignatureDoesNotMatch`, or `AccessDenied` if an `x-amz-*` or `x-warp-*` header is not signed.
    """
    expected, canonical = _signature(claim, request, key, _canonical_path(request.path))
    if hmac.compare_digest(expected, claim.signature):
        return
    # Some clients sign the path exactly as they send it, where S3's own rule would escape more or
    # less of it. Both name the same key, so either is proof.
    raw, _ = _signature(claim, request, key, request.path)
    if hmac.compare_digest(raw, claim.signature):
        return
    raise S3Error(
        "SignatureDoesNotMatch",
        details={
            "AWSAccessKeyId": claim.access_key,
            "StringToSign": _string_to_sign(claim, canonical),
            "SignatureProvided": claim.signature,
            "CanonicalRequest": canonical,
        },
    )


def _header_claim(
    request: Request, authorization: str, now: float, services: frozenset[str], payload: str
) -> Claim:
    # Everything before the signature is the same for a client's requests of one kind and day.
    prefix, signature = authorization[:-64], authorization[-64:]
    parsed = _authorization(prefix, services) if len(prefix) <= AUTHORIZATION_MAX else None
    if parsed is None:
        raise _authorization_error(authorization)
    access_key, scope, signed = parsed
    if _is_hash(signature) is None:
        raise S3Error("AuthorizationHeaderMalformed")
    headers = request.headers
    timestamp = headers.get("x-amz-date")
    if timestamp is None:
        timestamp = _timestamp_of_date(headers.get("date"))
    if abs(_epoch_of_header(timestamp) - now) > SKEW_MAX_S:
        raise S3Error(
            "RequestTimeTooSkewed",
            details={
                "RequestTime": timestamp,
                "ServerTime": iso(now),
                "MaxAllowedSkewMilliseconds": str(SKEW_MAX_S * 1000),
            },
        )
    if not timestamp.startswith(scope[:8]):
        raise S3Error(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; Invalid credential date "
            f'"{scope[:8]}". This date is not the same as X-Amz-Date: "{timestamp[:8]}".',
        )
    payload = headers.get("x-amz-content-sha256", payload)
    if not payload:
        raise S3Error(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    check_payload(payload)
    _check_signed(signed, headers)
    return Claim(access_key, timestamp, scope, signed, signature, payload, presigned=False)


def _query_claim(request: Request, now: float, services: frozenset[str], unsaid: str) -> Claim:
    fields: dict[str, str] = {}
    for name, value in _pairs(request.query):
        if name.startswith(b"X-Amz-"):
            text = name.decode("ascii", "replace")
            if text in fields:
                raise _query_error(f"{text} occurs more than once")
            fields[text] = value.decode("latin-1")
    algorithm = fields.get("X-Amz-Algorithm")
    if algorithm != _ALGORITHM:
        raise _query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    missing = [
        name
        for name in ("Credential", "Signature", "Date", "SignedHeaders", "Expires")
        if f"X-Amz-{name}" not in fields
    ]
    if missing:
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, "
            "X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires "
            "parameters."
        )
    access_key, scope = _credential(
        fields["X-Amz-Credential"], "AuthorizationQueryParametersError", services
    )
    timestamp = fields["X-Amz-Date"]
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise _query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if not timestamp.startswith(scope[:8]):
        raise _query_error(f'Invalid credential date "{scope[:8]}"')
    if _is_hash(fields["X-Amz-Signature"]) is None:
        raise S3Error("SignatureDoesNotMatch", details={"AWSAccessKeyId": access_key})
    expires = fields["X-Amz-Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 9):
        raise _query_error("X-Amz-Expires must be a non-negative number")
    if int(expires) > EXPIRES_MAX_S:
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            f"X-Amz-Expires must be less than {EXPIRES_MAX_S} seconds"
        )
    signed_at = _epoch(timestamp)
    if signed_at - now > SKEW_MAX_S:
        raise S3Error("AccessDenied", "Request is not valid yet")
    if signed_at + int(expires) < now:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            details={
                "X-Amz-Expires": expires,
                "Expires": iso(signed_at + int(expires)),
                "ServerTime": iso(now),
            },
        )
    payload = request.headers.get("x-amz-content-sha256") or fields.get(
        "X-Amz-Content-Sha256", unsaid
    )
    check_payload(payload)
    signed = fields["X-Amz-SignedHeaders"]
    _check_signed(signed, request.headers)
    return Claim(
        access_key, timestamp, scope, signed, fields["X-Amz-Signature"], payload, presigned=True
    )


def credential_of(text: str) -> tuple[str, str]:
    """Split a form's x-amz-credential into access key and scope.

    Raises:
        S3Error: `InvalidArgument`.
    """
    return _credential(text, "InvalidArgument", S3)


def _signature(claim: Claim, request: Request, key: SigningKey, path: str) -> tuple[str, str]:
    headers = request.headers
    template, values = _canonical_headers(claim.signed_headers)
    try:
        lines = template % values(headers)
    except KeyError:
        # An empty Expect or Content-Length that a proxy dropped is signed as empty.
        names = claim.signed_headers.split(";")
        lines = template % tuple([headers.get(name, "") for name in names])
    if "  " in lines:  # in a value: names have no spaces
        lines = _SPACES.sub(" ", lines)
    query = _canonical_query(request.query, claim.presigned) if request.query else ""
    canonical = (
        f"{request.method}\n{path}\n{query}\n{lines}\n{claim.signed_headers}\n{claim.payload}"
    )
    return key.sign(_string_to_sign(claim, canonical)), canonical


def _string_to_sign(claim: Claim, canonical: str) -> str:
    digest = sha256(canonical.encode("latin-1")).hexdigest()
    return f"{_ALGORITHM}\n{claim.timestamp}\n{claim.scope}\n{digest}"


def _canonical_path(path: str) -> str:
    """Escape a path as S3 does: once, everything but unreserved characters and slashes."""
    if _is_plain_path(path) is not None:
        return path
    return quote_from_bytes(unquote_to_bytes(path), safe="/-_.~")


def _canonical_query(query: str, presigned: bool) -> str:
    pairs = sorted(
        (quote_from_bytes(name, safe="-_.~"), quote_from_bytes(value, safe="-_.~"))
        for name, value in _pairs(query)
        if not (presigned and name == b"X-Amz-Signature")
    )
    return "&".join([f"{name}={value}" for name, value in pairs])


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    """Take a query apart; a plus is a space, as S3 reads it."""
    pairs = []
    for part in query.replace("+", "%20").split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


@lru_cache(maxsize=1024)
def _authorization(prefix: str, services: frozenset[str]) -> tuple[str, str, str] | None:
    """Split an Authorization header without its signature: access key, scope, signed headers."""
    match = _AUTHORIZATION.fullmatch(prefix)
    if match is None:
        return None
    access_key, scope = _credential(match[1], "AuthorizationHeaderMalformed", services)
    return access_key, scope, match[2]


def _credential(credential: str, error: str, services: frozenset[str]) -> tuple[str, str]:
    """Split a credential into access key and scope."""
    match = _CREDENTIAL.fullmatch(credential)
    if match is None:
        raise S3Error(
            error,
            "The credential is malformed; expecting "
            '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    if match["service"] not in services:
        raise S3Error(
            error,
            f'The credential is malformed; incorrect service "{match["service"]}". '
            f'This endpoint belongs to "{", ".join(sorted(services))}".',
        )
    return match["key"], credential[len(match["key"]) + 1 :]


@lru_cache(maxsize=256)
def _epoch(timestamp: str) -> int:
    """Read a timestamp as seconds since the epoch; requests of one second share the work."""
    try:
        return timegm(datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").timetuple())
    except ValueError as error:
        raise S3Error("AccessDenied", "The request's date is not a date.") from error


@lru_cache(maxsize=256)
def _epoch_of_header(timestamp: str) -> int:
    """Read a timestamp of a header, which may be anything."""
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise S3Error(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    return _epoch(timestamp)


def _timestamp_of_date(date: str | None) -> str:
    try:
        moment = parsedate_to_datetime(date or "")
    except (TypeError, ValueError) as error:
        raise S3Error(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        ) from error
    if moment.tzinfo is None or moment.utcoffset():
        raise S3Error("AccessDenied", "The Date header must be in GMT.")
    return moment.strftime("%Y%m%dT%H%M%SZ")


def check_payload(payload: str) -> None:
    """Check what x-amz-content-sha256 says.

    Raises:
        S3Error: `InvalidArgument`, or `NotImplemented` for a streaming form that is not known.
    """
    if payload != UNSIGNED_PAYLOAD and _is_hash(payload) is None:
        if payload in STREAMING:
            return
        if payload.startswith("STREAMING-"):
            raise S3Error("NotImplemented", f"{payload} is not supported.")
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, "
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
            details={"ArgumentName": "x-amz-content-sha256", "ArgumentValue": payload},
        )


def _check_signed(signed: str, headers: dict[str, str]) -> None:
    """Refuse requests whose meaning could be changed on the way: host and x-amz-* are signed."""
    names = _names(signed)
    if "host" not in names:
        raise S3Error("AccessDenied", "The host header must be signed.")
    for name in headers.keys() - names:
        if name.startswith(("x-amz-", "x-warp-")) and name != "x-amz-content-sha256":
            raise S3Error(
                "AccessDenied",
                "There were headers present in the request which were not signed",
                details={"HeadersNotSigned": name},
            )


@lru_cache(maxsize=1024)
def _names(signed: str) -> frozenset[str]:
    return frozenset(signed.split(";"))


@lru_cache(maxsize=1024)
def _canonical_headers(signed: str) -> tuple[str, Callable[[dict[str, str]], object]]:
    """Return how the signed headers are written for the signature, a template and what takes its values from the headers."""
    names = signed.split(";")
    template = "".join([f"{name.replace('%', '%%')}:%s\n" for name in names])
    return template, itemgetter(*names)


def _authorization_error(authorization: str) -> S3Error:
    scheme = authorization.partition(" ")[0]
    if scheme != _ALGORITHM:
        return _unsupported_mechanism()
    for field in ("Credential", "SignedHeaders", "Signature"):
        if f"{field}=" not in authorization:
            return S3Error(
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; {field} is missing.",
            )
    return S3Error("AuthorizationHeaderMalformed")


def _unsupported_mechanism() -> S3Error:
    return S3Error(
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. "
        "Please use AWS4-HMAC-SHA256.",
    )


def _query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def iso(second: float) -> str:
    """Write a moment, in seconds since the epoch, as errors tell it."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
