"""Signature Version 2: what appliances and old clients still sign with. Pure.

A request is signed in its Authorization header (`AWS KEY:SIGNATURE`) or in its query (`AWSAccessKeyId`, `Expires`, `Signature`).
HMAC-SHA1 covers the method, the date, the `x-amz-*` headers and what is asked for; neither the body nor other headers.

Source: "Signing and authenticating REST requests" in the Amazon S3 user guide.
"""

import hmac
import re
from base64 import b64encode
from email.utils import parsedate_to_datetime
from itertools import product
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from warp_s3.errors import S3Error
from warp_s3.http.request import Request
from warp_s3.sigv4 import SKEW_MAX_S, UNSIGNED_PAYLOAD, check_payload, iso

_SCHEME: Final = "AWS "
_CREDENTIAL: Final = re.compile(r"AWS ([!-9;-~]{1,128}):([A-Za-z0-9+/=]{1,64})")
_IN_QUERY: Final = re.compile(r"(?:^|&)AWSAccessKeyId=")
_EXPIRES: Final = re.compile(r"[0-9]{1,12}")

# Parameters that are part of what is signed; all others anybody may add.
_SIGNED: Final = frozenset(
    {
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "encryption"),
        *("inventory", "legal-hold", "lifecycle", "location", "logging", "metrics"),
        *("notification", "object-lock", "partNumber", "policy", "replication"),
        *("requestPayment", "response-cache-control", "response-content-disposition"),
        *("response-content-encoding", "response-content-language", "response-content-type"),
        *("response-expires", "restore", "retention", "select", "select-type", "storageClass"),
        *("tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions"),
        "website",
    }
)
# Settings younger than this signature, which some clients sign and most do not.
_YOUNG: Final = frozenset({"encryption", "legal-hold", "retention"})


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a signed request says about itself; nothing in it is verified yet."""

    access_key: str
    signature: str  # base64
    date: str  # the line of the date: what Date says, empty where x-amz-date does, or when a presigned request expires
    payload: str  # what x-amz-content-sha256 says, else UNSIGNED-PAYLOAD
    presigned: bool


def signed(request: Request) -> bool:
    """Say whether a request is signed by this version, well or badly."""
    authorization = request.headers.get("authorization")
    if authorization is not None:
        return authorization.startswith(_SCHEME)
    return "AWSAccessKeyId=" in request.query and _IN_QUERY.search(request.query) is not None


def read_claim(request: Request, query: dict[str, str], *, now: float) -> Claim:
    """Read who claims to have signed a request, and check all that needs no secret.

    Args:
        request: The head as it came, of which `signed` is true.
        query: Its decoded parameters.
        now: Seconds since the epoch.

    Raises:
        S3Error: `InvalidArgument`, `AccessDenied` or `RequestTimeTooSkewed`.
    """
    headers = request.headers
    payload = headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
    check_payload(payload)
    authorization = headers.get("authorization")
    if authorization is None:
        return _query_claim(query, payload, now)
    match = _CREDENTIAL.fullmatch(authorization)
    if match is None or "AWSAccessKeyId" in query or "X-Amz-Algorithm" in query:
        raise S3Error(
            "InvalidArgument",
            "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
            details={"ArgumentName": "Authorization", "ArgumentValue": authorization},
        )
    said = headers.get("x-amz-date")
    moment = _moment(headers.get("date", "") if said is None else said)
    if abs(moment - now) > SKEW_MAX_S:
        raise S3Error(
            "RequestTimeTooSkewed",
            details={
                "RequestTime": said or headers.get("date", ""),
                "ServerTime": iso(now),
                "MaxAllowedSkewMilliseconds": str(SKEW_MAX_S * 1000),
            },
        )
    date = headers.get("date", "") if said is None else ""
    return Claim(match[1], match[2], date, payload, presigned=False)


def verify(
    claim: Claim, request: Request, query: dict[str, str], *, bucket: str, secret: str
) -> None:
    """Check the signature of a request in constant time.

    Args:
        claim: What `read_claim` gave for this request.
        request: The head as it came.
        query: Its decoded parameters.
        bucket: The bucket that its Host names; empty where the path does.
        secret: Of the claimed access key.

    Raises:
        S3Error: `SignatureDoesNotMatch`.
    """
    path = f"/{bucket}{request.path}" if bucket else request.path
    # A bucket's own path is signed with a slash behind it, however it is sent.
    paths = [path] if path.count("/") > 1 else [path + "/", path]
    for resource, names in product(paths, (_SIGNED, _SIGNED - _YOUNG)):
        text = _string_to_sign(claim, request, query, resource, names)
        digest = hmac.digest(secret.encode(), text.encode("latin-1"), "sha1")
        if hmac.compare_digest(b64encode(digest).decode(), claim.signature):
            return
    raise S3Error(
        "SignatureDoesNotMatch",
        details={
            "AWSAccessKeyId": claim.access_key,
            "StringToSign": text,
            "SignatureProvided": claim.signature,
        },
    )


def _query_claim(query: dict[str, str], payload: str, now: float) -> Claim:
    expires, signature = query.get("Expires", ""), query.get("Signature", "")
    if not expires or not signature:
        raise S3Error(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId "
            "parameters",
        )
    if _EXPIRES.fullmatch(expires) is None:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires}")
    if int(expires) <= now:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            details={"Expires": iso(int(expires)), "ServerTime": iso(now)},
        )
    if not signature.isascii():
        raise S3Error("SignatureDoesNotMatch")
    return Claim(query["AWSAccessKeyId"], signature, expires, payload, presigned=True)


def _moment(text: str) -> float:
    """Read a date of a header as seconds since the epoch."""
    try:
        moment = parsedate_to_datetime(text)
        seconds = moment.timestamp() if moment.tzinfo is not None else -1.0
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if seconds < 0:
        raise S3Error(
            "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header"
        )
    return seconds


def _string_to_sign(
    claim: Claim, request: Request, query: dict[str, str], resource: str, signed: frozenset[str]
) -> str:
    headers = dict(request.headers)
    if claim.presigned:  # signers put headers into the query, and sign them as headers
        for name, text in query.items():
            if name.lower().startswith("x-amz-") or name.lower() in {"content-md5", "content-type"}:
                headers.setdefault(name.lower(), text.encode("utf-8").decode("latin-1"))
    lines = [
        request.method,
        headers.get("content-md5", ""),
        headers.get("content-type", ""),
        claim.date,
    ]
    lines += [
        f"{name}:{headers[name].strip()}" for name in sorted(headers) if name.startswith("x-amz-")
    ]
    parameters = sorted(part.partition("=") for part in request.query.split("&"))
    chosen = [
        f"{name}{equals}{unquote_to_bytes(value).decode('latin-1')}"
        for name, equals, value in parameters
        if name in signed
    ]
    return "\n".join([*lines, resource + ("?" + "&".join(chosen) if chosen else "")])
