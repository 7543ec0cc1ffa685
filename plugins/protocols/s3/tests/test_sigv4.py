"""Signatures, checked against AWS's published examples and against botocore as the signer."""

import calendar
import datetime
import time
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.http import Request, parse_head
from warp_s3.sigv4 import (
    EXPIRES_MAX_S,
    SIGNING_KEYS_MAX,
    SKEW_MAX_S,
    Claim,
    SigningKey,
    SigningKeys,
    read_claim,
    signing_key,
    verify,
)

ACCESS = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
THEN = calendar.timegm((2013, 5, 24, 0, 0, 0))
NOW = 1_750_000_000


def check(request: Request, *, now: float = NOW, secret: str = SECRET) -> Claim:
    claim = read_claim(request, now=now)
    assert claim is not None
    verify(claim, request, SigningKey(signing_key(secret, claim.scope)))
    return claim


def refusal(request: Request, *, now: float = NOW, secret: str = SECRET) -> S3Error:
    with pytest.raises(S3Error) as caught:
        check(request, now=now, secret=secret)
    return caught.value


def example(line: str, signature: str, **fields: str) -> Request:
    """Build one of the examples of "Authenticating Requests (AWS Signature Version 4)"."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    headers.setdefault("x-amz-content-sha256", EMPTY)
    headers |= {"host": "examplebucket.s3.amazonaws.com", "x-amz-date": "20130524T000000Z"}
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={';'.join(sorted(headers))},Signature={signature}"
    )
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return parse_head("\r\n".join(lines).encode())


@pytest.mark.parametrize(
    "request_",
    [
        example(
            "GET /test.txt",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            range="bytes=0-9",
        ),
        example(
            "PUT /test$file.text",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            date="Fri, 24 May 2013 00:00:00 GMT",
            x_amz_storage_class="REDUCED_REDUNDANCY",
            x_amz_content_sha256="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        ),
        example(
            "GET /?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        ),
        example(
            "GET /?max-keys=2&prefix=J",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_published_examples_verify(request_: Request) -> None:
    assert check(request_, now=THEN).access_key == ACCESS


def test_the_published_presigned_example_verifies() -> None:
    request = parse_head(
        b"GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F"
        b"20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
        b"&X-Amz-SignedHeaders=host&X-Amz-Signature="
        b"aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1\r\n"
        b"Host: examplebucket.s3.amazonaws.com"
    )

    assert check(request, now=THEN + 86400).presigned
    assert refusal(request, now=THEN + 86401).code == "AccessDenied"


def signed(
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    expires: int | None = None,
    body: bytes = b"",
    region: str = "us-east-1",
) -> Request:
    """Sign a request with botocore and parse it as it would be sent."""
    aws = AWSRequest(
        method=method, url=f"http://localhost:9000{target}", headers=headers or {}, data=body
    )
    credentials = Credentials(ACCESS, SECRET)
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        if expires is None:
            S3SigV4Auth(credentials, "s3", region).add_auth(aws)
        else:
            S3SigV4QueryAuth(credentials, "s3", region, expires=expires).add_auth(aws)
    parts = urlsplit(aws.url)
    target = parts.path + ("?" + parts.query if parts.query else "")
    fields = {**aws.headers, "Host": "localhost:9000"}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return parse_head("\r\n".join(lines).encode("latin-1"))


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
VALUES = st.text("abc XYZ019-_.~/+=&?%:,;é", max_size=30).map(str.strip)


@given(
    st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"]),
    KEYS,
    st.dictionaries(st.text("abcXYZ-_", min_size=1, max_size=8), VALUES, max_size=4),
    st.dictionaries(
        st.text("abcdef-09", min_size=1, max_size=12).map("x-amz-meta-{}".format),
        st.text("abc XYZ019", min_size=1, max_size=20).filter(str.strip),
        max_size=4,
    ),
    st.sampled_from(["us-east-1", "eu-central-1", "default"]),
)
def test_what_botocore_signs_verifies(
    method: str, key: str, query: dict[str, str], metadata: dict[str, str], region: str
) -> None:
    target = "/bucket/" + quote(key, safe="/-_.~")
    if query:
        target += "?" + "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in query.items()
        )

    claim = check(signed(method, target, metadata, region=region))

    assert (claim.access_key, claim.region) == (ACCESS, region)


@given(
    KEYS,
    st.integers(1, EXPIRES_MAX_S),
    st.dictionaries(st.sampled_from(["versionId", "response-content-type"]), VALUES),
)
def test_what_botocore_presigns_verifies(key: str, expires: int, query: dict[str, str]) -> None:
    target = "/bucket/" + quote(key, safe="/-_.~")
    if query:
        target += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())

    claim = check(signed("GET", target, expires=expires), now=NOW + expires)

    assert claim.presigned
    assert claim.payload == "UNSIGNED-PAYLOAD"


def replaced(request: Request, **changes: Any) -> Request:
    fields = {name: getattr(request, name) for name in Request.__struct_fields__} | changes
    return Request(**fields)


def with_header(request: Request, name: str, value: str | None) -> Request:
    headers = {**request.headers, name: value or ""}
    if value is None:
        del headers[name]
    return replaced(request, headers=headers)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"path": "/bucket/other"},
        {"path": "/bucket/KEY"},
        {"query": "versionId=2"},
        {"query": ""},
    ],
)
def test_changing_what_was_signed_is_noticed(change: dict[str, str]) -> None:
    request = signed("GET", "/bucket/key?versionId=1")
    check(request)

    assert refusal(replaced(request, **change)).code == "SignatureDoesNotMatch"


def test_every_bit_of_the_signature_counts() -> None:
    request = signed("GET", "/bucket/key")
    authorization = request.headers["authorization"]
    for at in range(1, 65):
        flipped = "0" if authorization[-at] != "0" else "1"
        changed = authorization[: len(authorization) - at] + flipped
        changed += authorization[len(authorization) - at + 1 :]

        assert refusal(with_header(request, "authorization", changed)).code == (
            "SignatureDoesNotMatch"
        )


def test_a_wrong_secret_is_told_what_was_signed() -> None:
    error = refusal(signed("GET", "/bucket/key"), secret="other")

    assert error.code == "SignatureDoesNotMatch"
    assert error.details["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert error.details["CanonicalRequest"].startswith("GET\n/bucket/key\n\nhost:")


def test_an_unsigned_amz_header_is_refused() -> None:
    request = with_header(signed("PUT", "/bucket/key"), "x-amz-acl", "public-read")

    assert refusal(request).details == {"HeadersNotSigned": "x-amz-acl"}


def test_headers_that_proxies_change_need_no_signature() -> None:
    check(with_header(signed("GET", "/bucket/key"), "user-agent", "proxy"))


@pytest.mark.parametrize("offset", [-SKEW_MAX_S - 1, SKEW_MAX_S + 1])
def test_a_wrong_clock_is_told_the_time(offset: int) -> None:
    error = refusal(signed("GET", "/bucket/key"), now=NOW + offset)

    assert error.code == "RequestTimeTooSkewed"
    assert error.details["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize("offset", [-SKEW_MAX_S, 0, SKEW_MAX_S])
def test_a_clock_within_the_limit_is_fine(offset: int) -> None:
    check(signed("GET", "/bucket/key"), now=NOW + offset)


def test_a_presigned_request_is_not_valid_before_its_time() -> None:
    request = signed("GET", "/bucket/key", expires=60)

    assert refusal(request, now=NOW - SKEW_MAX_S - 1).message == "Request is not valid yet"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=604801", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=60", "X-Amz-Expires=6_0", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires=60", "X-Amz-Expires=61", "SignatureDoesNotMatch"),
        ("X-Amz-Expires=60", "", "AuthorizationQueryParametersError"),
        (
            "X-Amz-Expires=60",
            "X-Amz-Expires=60&X-Amz-Expires=61",
            "AuthorizationQueryParametersError",
        ),
        ("HMAC-SHA256", "HMAC-SHA512", "AuthorizationQueryParametersError"),
        ("%2Fs3%2F", "%2Fsts%2F", "AuthorizationQueryParametersError"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date", "AccessDenied"),
        ("X-Amz-Signature=", "X-Amz-Signature=zz", "SignatureDoesNotMatch"),
    ],
)
def test_a_changed_presigned_query_is_refused(old: str, new: str, code: str) -> None:
    request = signed("GET", "/bucket/key", expires=60)
    assert old in request.query

    assert refusal(replaced(request, query=request.query.replace(old, new))).code == code


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS AKID:signature", "InvalidRequest"),
        ("Basic YTpi", "InvalidRequest"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "InvalidRequest"),
        ("AWS4-HMAC-SHA256 nonsense", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("", "InvalidRequest"),
        (
            f"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature={'0' * 64}",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/20250101/r/s3/aws4_request, SignedHeaders=host, "
            f"Signature={'0' * 64}",
            "AuthorizationHeaderMalformed",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/20250615/r/s3/aws4_request, SignedHeaders=host, "
            f"Signature={'G' * 64}",
            "AuthorizationHeaderMalformed",
        ),
    ],
)
def test_a_malformed_authorization_is_refused(authorization: str, code: str) -> None:
    request = with_header(signed("GET", "/bucket/key"), "authorization", authorization)

    assert refusal(request).code == code


def test_a_payload_must_be_declared() -> None:
    request = signed("GET", "/bucket/key")

    assert refusal(with_header(request, "x-amz-content-sha256", None)).code == "InvalidRequest"
    assert refusal(with_header(request, "x-amz-content-sha256", "x")).code == "InvalidArgument"


def test_two_mechanisms_at_once_are_refused() -> None:
    request = signed("GET", "/bucket/key?X-Amz-Signature=1")

    assert refusal(request).code == "InvalidArgument"


def test_a_query_value_that_looks_like_a_signature_is_none() -> None:
    check(signed("GET", "/bucket?prefix=AWSAccessKeyId%3DSignature%3D"))


def test_an_unsigned_request_claims_nothing() -> None:
    request = parse_head(b"GET /bucket/key?versionId=1 HTTP/1.1\r\nHost: h")

    assert read_claim(request, now=NOW) is None


def test_version_2_is_named_as_unsupported() -> None:
    request = parse_head(b"GET /b/k?AWSAccessKeyId=a&Signature=b&Expires=1 HTTP/1.1\r\nHost: h")

    assert refusal(request).code == "InvalidRequest"


def test_a_date_header_stands_in_for_x_amz_date() -> None:
    moment = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW))
    request = with_header(signed("GET", "/bucket/key"), "x-amz-date", None)

    assert refusal(with_header(request, "date", moment)).code == "SignatureDoesNotMatch"
    assert refusal(with_header(request, "date", "yesterday")).code == "AccessDenied"
    assert refusal(request).code == "AccessDenied"


def test_derived_keys_are_bounded_and_differ_by_secret_and_scope() -> None:
    keys = SigningKeys()
    scope = "20130524/us-east-1/s3/aws4_request"

    first = keys.get("a", scope)

    assert first != keys.get("b", scope)
    assert first != keys.get("a", scope.replace("east", "west"))
    assert first is keys.get("a", scope)
    for number in range(SIGNING_KEYS_MAX + 1):
        keys.get(str(number), scope)
    assert len(keys._keys) == SIGNING_KEYS_MAX


@given(st.text(max_size=100), st.text(max_size=100))
def test_garbage_in_authentication_gets_an_answer(authorization: str, query: str) -> None:
    request = Request(
        "GET",
        "/b/k",
        query.encode("ascii", "ignore").decode(),
        {
            "host": "h",
            "authorization": authorization.encode("latin-1", "replace").decode("latin-1"),
        },
        None,
        chunked=False,
        keep_alive=True,
        expects_continue=False,
    )
    with pytest.raises(S3Error):
        read_claim(request, now=NOW)
