"""CORS as browsers see it."""

import http.client
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.cors import Rule, answer_headers, from_xml, rules_of, to_xml

RULES = [
    {
        "ID": "one",
        "AllowedOrigins": ["https://*.example", "https://exact.test"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*", "content-type"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 60,
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
]


def ask(url: str, method: str, path: str, **headers: str) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.fixture
def crossing(s3: Any, bucket: str) -> str:
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    return bucket


def test_rules_are_told_as_they_were_set_and_taken_away(s3: Any, crossing: str) -> None:
    assert s3.get_bucket_cors(Bucket=crossing)["CORSRules"] == RULES
    s3.delete_bucket_cors(Bucket=crossing)
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=crossing)


@pytest.mark.parametrize(
    ("origin", "method", "headers", "allowed"),
    [
        ("https://a.example", "PUT", "", "https://a.example"),
        ("https://exact.test", "GET", "X-Amz-Date, Content-Type", "https://exact.test"),
        ("https://a.example", "PUT", "authorization", None),
        ("https://a.example", "DELETE", "", None),
        ("https://other", "GET", "", None),
        ("https://other", "HEAD", "", "*"),
    ],
)
def test_a_preflight_is_answered_by_the_first_rule_that_fits(
    shared: Any, crossing: str, origin: str, method: str, headers: str, allowed: str | None
) -> None:
    answer = ask(
        shared.url,
        "OPTIONS",
        f"/{crossing}/k",
        Origin=origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers=headers,
    )

    assert answer.status == (403 if allowed is None else 200)
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    if allowed not in (None, "*"):
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, PUT"
        assert answer.headers["Access-Control-Max-Age"] == "60"
        assert answer.headers["Access-Control-Expose-Headers"] == "ETag"
        assert "Origin" in answer.headers["Vary"]


def test_a_preflight_that_says_too_little_is_refused(shared: Any, crossing: str) -> None:
    assert ask(shared.url, "OPTIONS", f"/{crossing}/k").status == 400
    assert ask(shared.url, "OPTIONS", f"/{crossing}/k", Origin="https://a.example").status == 400
    assert (
        ask(
            shared.url,
            "OPTIONS",
            "/nothing-here/k",
            Origin="https://a.example",
            Access_Control_Request_Method="GET",
        ).status
        == 403
    )


def test_answers_and_errors_say_who_may_read_them(s3: Any, shared: Any, crossing: str) -> None:
    s3.put_object(Bucket=crossing, Key="k", Body=b"1")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": crossing, "Key": "k"})
    path = link.removeprefix(shared.url)
    found = ask(shared.url, "GET", path, Origin="https://a.example")
    assert found.status == 200
    assert found.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert found.headers["Access-Control-Allow-Credentials"] == "true"
    refused = ask(shared.url, "GET", f"/{crossing}/k", Origin="https://a.example")
    assert refused.status == 403
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"
    other = ask(shared.url, "GET", path, Origin="https://other")
    assert other.status == 200
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["a*b*"], "AllowedMethods": ["GET"]},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*x*"]},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "ExposeHeaders": ["a\nb"]},
    ],
)
def test_wrong_rules_are_refused(s3: Any, bucket: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="InvalidRequest"):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [wrong]})


words = st.text(alphabet="ab.-", min_size=1, max_size=6)


@given(
    st.lists(
        st.builds(
            Rule,
            origins=st.lists(words, min_size=1, max_size=3).map(tuple),
            methods=st.lists(st.sampled_from(["GET", "PUT"]), min_size=1).map(tuple),
            headers=st.lists(words, max_size=2).map(tuple),
            max_age_s=st.none() | st.integers(0, 10**8),
        ),
        min_size=1,
        max_size=4,
    ),
    words,
)
def test_rules_survive_xml_and_never_let_in_another_origin(rules: list[Rule], origin: str) -> None:
    assert list(rules_of(from_xml(to_xml(rules)))) == rules
    fits = any(origin in rule.origins and "GET" in rule.methods for rule in rules)
    assert (answer_headers(rules, origin, "GET") is not None) == fits
