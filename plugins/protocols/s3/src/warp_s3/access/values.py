"""The values of condition keys: what a policy may ask of a request."""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, unquote

from warp_core.interfaces.accounts import Account
from warp_core.interfaces.auth import ANONYMOUS

from warp_s3.access.members import Member
from warp_s3.call import Call
from warp_s3.locking import UNTIL, moment

# Headers that conditions know as `s3:NAME`.
_HEADERS: Final = frozenset(
    {
        "x-amz-acl",
        *("x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
        *("x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive"),
        *("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"),
        "x-amz-server-side-encryption-customer-algorithm",
        *("x-amz-storage-class", "x-amz-website-redirect-location", "x-amz-content-sha256"),
        "x-amz-object-ownership",
    }
)
_RENAMED: Final = {
    # condition key: header
    "s3:object-lock-mode": "x-amz-object-lock-mode",
    "s3:object-lock-retain-until-date": "x-amz-object-lock-retain-until-date",
    "s3:object-lock-legal-hold": "x-amz-object-lock-legal-hold",
    "s3:if-match": "if-match",
    "s3:if-none-match": "if-none-match",
    "aws:useragent": "user-agent",
    "aws:referer": "referer",
}
_PARAMETERS: Final = {
    # condition key: query parameter
    "s3:prefix": "prefix",
    "s3:delimiter": "delimiter",
    "s3:max-keys": "max-keys",
    "s3:versionid": "versionId",
}
_TIMESTAMP: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")


class RequestValues:
    """The values of one request for one resource; each is found when it is asked for."""

    def __init__(
        self,
        call: Call,
        account: Account,
        *,
        owner: Account,
        region: str,
        version: str = "",
        existing_tags: Mapping[str, str] | None = None,
        more: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Take the request, who asks, and whose the bucket is; `more` are values that come from elsewhere (a form)."""
        self._call = call
        self._account = account
        self._owner = owner
        self._region = region
        self._version = version
        self._existing = existing_tags
        self._more = more or {}

    def __call__(self, key: str) -> Sequence[str] | None:
        """Return the values of a key in lower case, None where it is absent."""
        if key in self._more:
            return self._more[key]
        call, headers = self._call, self._call.headers
        if isinstance(call.principal, Member) and key in call.principal.values:
            return call.principal.values[key] or None
        if key == "s3:versionid" and self._version:
            return (self._version,)
        if key in _PARAMETERS:
            return _one(call.query.get(_PARAMETERS[key]))
        if key in _RENAMED:
            return _one(headers.get(_RENAMED[key]))
        if key.startswith("s3:x-amz-") and key[3:] in _HEADERS:
            return _one(headers.get(key[3:]))
        if key == "s3:x-amz-copy-source":
            source = headers.get("x-amz-copy-source")
            return None if source is None else (unquote(source).removeprefix("/"),)
        if key.startswith("s3:requestobjecttag"):
            return self._request_tags(key)
        if key.startswith("s3:existingobjecttag/"):
            return _tag(self._existing or {}, key)
        if key.startswith("s3:"):
            return self._of_s3(key)
        return self._of_aws(key)

    def _of_s3(self, key: str) -> Sequence[str] | None:
        call = self._call
        if key == "s3:authtype":
            if call.principal.name == ANONYMOUS.name:
                return None
            if call.route.operation == "PostObject":
                return ("POST",)
            presigned = not call.query.keys().isdisjoint({"X-Amz-Signature", "AWSAccessKeyId"})
            return ("REST-QUERY-STRING" if presigned else "REST-HEADER",)
        if key == "s3:signatureversion":
            if call.principal.name == ANONYMOUS.name:
                return None
            old = call.headers.get("authorization", "").startswith("AWS ")
            return ("AWS" if old or "AWSAccessKeyId" in call.query else "AWS4-HMAC-SHA256",)
        if key == "s3:signatureage":
            return self._signature_age()
        if key == "s3:object-lock-remaining-retention-days":
            return self._retention_days()
        if key == "s3:tlsversion":
            return _one(call.body.client.tls_version)
        if key == "s3:resourceaccount":
            return (self._owner.number,)
        return None

    def _of_aws(self, key: str) -> Sequence[str] | None:
        call = self._call
        anonymous = call.principal.name == ANONYMOUS.name
        now = time.time()
        if key == "aws:sourceip":
            return _one(call.body.client.address)
        if key == "aws:securetransport":
            return ("true" if call.body.client.tls_version else "false",)
        if key == "aws:currenttime":
            return (datetime.fromtimestamp(now, UTC).isoformat(),)
        if key == "aws:epochtime":
            return (str(int(now)),)
        if key == "aws:principaltype":
            return ("Anonymous" if anonymous else "Account",)
        if key == "aws:userid":
            return ("anonymous" if anonymous else self._account.number,)
        if key == "aws:resourceaccount":
            return (self._owner.number,)
        if key == "aws:requestedregion":
            return (self._region,)
        if key in {"aws:viaawsservice", "aws:principalisawsservice"}:
            return ("false",)
        if anonymous:
            return None
        if key == "aws:principalaccount":
            return (self._account.number,)
        if key == "aws:principalarn":
            return (f"arn:aws:iam::{self._account.number}:root",)
        if key == "aws:username":
            return (self._account.name.removeprefix("account:"),)
        return None

    def _request_tags(self, key: str) -> Sequence[str] | None:
        tags = dict(parse_qsl(self._call.headers.get("x-amz-tagging", ""), keep_blank_values=True))
        if key == "s3:requestobjecttagkeys":
            return tuple(tags) or None
        return _tag(tags, key)

    def _retention_days(self) -> Sequence[str] | None:
        until_ns = moment(self._call.headers.get(UNTIL, ""))
        if until_ns is None:
            return None
        return (str(max(0, (until_ns - time.time_ns()) // (86_400 * 10**9))),)

    def _signature_age(self) -> Sequence[str] | None:
        call = self._call
        text = call.headers.get("x-amz-date") or call.query.get("X-Amz-Date", "")
        if not _TIMESTAMP.fullmatch(text):
            return None
        made = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return (str(int((time.time() - made.timestamp()) * 1000)),)


def _one(value: str | None) -> Sequence[str] | None:
    return None if value is None else (value,)


def _tag(tags: Mapping[str, str], key: str) -> Sequence[str] | None:
    name = key.partition("/")[2]
    found = [value for tag, value in tags.items() if tag.lower() == name]
    return found or None
