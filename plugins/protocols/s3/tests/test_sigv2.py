"""Signature version 2, checked against AWS's published examples and against botocore as the signer."""

from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1Auth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.http import Request, parse_head
from warp_s3.router import parse_query
from warp_s3.sigv2 import Claim, read_claim, signed, verify

ACCESS = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = 1_750_000_000


def request(method: str, target: str, fields: Mapping[str, str]) -> Request:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return parse_head("\r\n".join(lines).encode("latin-1"))


def check(made: Request, *, now: float = NOW, bucket: str = "", secret: str = SECRET) -> Claim:
    query = parse_query(made.query) if made.query else {}
    assert signed(made)
    claim = read_claim(made, query, now=now)
    verify(claim, made, query, bucket=bucket, secret=secret)
    return claim


def refusal(made: Request, *, now: float = NOW, secret: str = SECRET) -> str:
    with pytest.raises(S3Error) as caught:
        check(made, now=now, secret=secret)
    return caught.value.code


class Signer(HmacV1Auth):
    """Botocore's, at a time of the test's own."""

    def _get_date(self) -> str:
        return formatdate(NOW, usegmt=True)


def of_botocore(method: str, target: str, fields: Mapping[str, str]) -> Request:
    made = AWSRequest(method, f"http://h{target}", headers=dict(fields))
    Signer(Credentials(ACCESS, SECRET)).add_auth(made)
    return request(method, target, {"host": "h", **dict(made.headers.items())})


# "Signing and authenticating REST requests", section "Request signing examples"; the dates are 2007's.
EXAMPLES = [
    # method, path, bucket of the host, minute and second, further fields, signature
    (
        "GET",
        "/photos/puppy.jpg",
        "awsexamplebucket1",
        "19:36:42",
        {},
        "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=",
    ),
    (
        "PUT",
        "/photos/puppy.jpg",
        "awsexamplebucket1",
        "21:15:45",
        {"Content-Type": "image/jpeg"},
        "iqRzw+ileNPu1fhspnRs8nOjjIA=",
    ),
    ("GET", "/?acl", "johnsmith", "19:44:46", {}, "c2WLPFtWHVgbEmeEG93a4cG37dM="),
]


@pytest.mark.parametrize(("method", "target", "bucket", "time", "fields", "signature"), EXAMPLES)
def test_published_examples_hold(
    method: str, target: str, bucket: str, time: str, fields: dict[str, str], signature: str
) -> None:
    date = f"Tue, 27 Mar 2007 {time} +0000"
    named = {"Host": f"{bucket}.s3.amazonaws.com", "Date": date}
    made = request(
        method, target, {**named, **fields, "Authorization": f"AWS {ACCESS}:{signature}"}
    )

    claim = check(made, now=parsedate_to_datetime(date).timestamp(), bucket=bucket)

    assert (claim.access_key, claim.presigned) == (ACCESS, False)


@given(
    st.sampled_from(["GET", "PUT", "DELETE", "POST", "HEAD"]),
    st.sampled_from(["/bucket/key", "/bucket/a%20b/%C3%A4", "/bucket/k?", "/bucket/?", "/?"]),
    st.lists(
        st.sampled_from(
            ["acl", "versionId=a%2Fb", "prefix=x", "uploads", "response-expires=a%20b", "tagging"]
        ),
        unique=True,
    ),
    st.dictionaries(
        st.sampled_from(["x-amz-acl", "x-amz-meta-a", "Content-Type", "Content-MD5", "Range"]),
        st.text("abcXYZ019/=", min_size=1, max_size=12),
    ),
)
def test_what_botocore_signs_holds_and_nothing_else(
    method: str, path: str, parameters: list[str], fields: dict[str, str]
) -> None:
    target = path.removesuffix("?") + ("?" + "&".join(parameters) if parameters else "")
    made = of_botocore(method, target, fields)

    check(made)
    assert refusal(made, secret="another-secret") == "SignatureDoesNotMatch"
    other = request("PATCH", target, made.headers)
    assert refusal(other) == "SignatureDoesNotMatch"


def test_a_presigned_request_holds_until_it_expires() -> None:
    made = AWSRequest("PUT", "http://h/bucket/key?acl", headers={"x-amz-acl": "private"})
    HmacV1QueryAuth(Credentials(ACCESS, SECRET), expires=60).add_auth(made)
    parts = urlsplit(made.url)
    query = parse_query(parts.query)
    expires = int(query["Expires"])
    sent = request("PUT", f"{parts.path}?{parts.query}", {"host": "h"})

    assert check(sent, now=expires - 1).presigned
    assert refusal(sent, now=expires) == "AccessDenied"
    assert refusal(sent, now=expires - 1, secret="another") == "SignatureDoesNotMatch"


DATE = {"host": "h", "authorization": f"AWS {ACCESS}:c2ln"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"authorization": "AWS HAHAHA"}, "InvalidArgument"),
        ({"authorization": "AWS :c2ln"}, "InvalidArgument"),
        ({"x-amz-date": "Bad Date"}, "AccessDenied"),
        ({"x-amz-date": ""}, "AccessDenied"),
        ({"x-amz-date": "Tue, 07 Jul 1950 21:53:04 GMT"}, "AccessDenied"),
        ({"x-amz-date": "Tue, 07 Jul 2010 21:53:04 GMT"}, "RequestTimeTooSkewed"),
        ({"x-amz-date": "Tue, 07 Jul 9999 21:53:04 GMT"}, "RequestTimeTooSkewed"),
        ({}, "AccessDenied"),
        ({"date": formatdate(NOW, usegmt=True)}, "SignatureDoesNotMatch"),
        ({"date": "Tue, 07 Jul 2010 21:53:04"}, "AccessDenied"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, str], code: str) -> None:
    assert refusal(request("GET", "/b/k", {**DATE, **fields})) == code


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("AWSAccessKeyId=a", "AccessDenied"),
        ("AWSAccessKeyId=a&Signature=b", "AccessDenied"),
        ("AWSAccessKeyId=a&Signature=b&Expires=soon", "AccessDenied"),
        (f"AWSAccessKeyId=a&Signature=b&Expires={NOW - 1}", "AccessDenied"),
        (f"AWSAccessKeyId=a&Signature=b&Expires={NOW + 1}", "SignatureDoesNotMatch"),
        (f"AWSAccessKeyId=a&Signature=%C3%A4&Expires={NOW + 1}", "SignatureDoesNotMatch"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(query: str, code: str) -> None:
    assert refusal(request("GET", f"/b/k?{query}", {"host": "h"})) == code


def test_other_requests_are_not_of_this_version() -> None:
    assert not signed(request("GET", "/b?prefix=AWSAccessKeyId%3Da", {"host": "h"}))
    assert not signed(request("GET", "/b?xAWSAccessKeyId=a", {"host": "h"}))
    assert not signed(request("GET", "/b", {"host": "h", "authorization": "AWS4-HMAC-SHA256 x"}))
