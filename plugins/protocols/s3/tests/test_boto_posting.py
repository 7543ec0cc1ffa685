"""Forms: posted as a browser would, signed by boto3 and by hand."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import time
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3 import post_policy
from warp_s3.errors import S3Error
from warp_s3.form import Form, boundary_of

BOUNDARY = "xYzZY"


def body_of(fields: dict[str, str], content: bytes, *, filename: str = "a.txt") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    parts.append(head.encode() + b"Content-Type: text/plain\r\n\r\n" + content)
    return b"".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(
    url: str, bucket: str, fields: dict[str, str], content: bytes = b"bar", **more: str
) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    body = body_of(fields, content, **more)
    connection.request(
        "POST",
        f"/{bucket}",
        body=body,
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def code(found: Any) -> tuple[int, str]:
    answer, text = found
    return answer.status, ElementTree.fromstring(text).findtext("Code", "") if text else ""


def policy_of(*conditions: Any, seconds: int = 600) -> str:
    moment = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {"expiration": moment, "conditions": list(conditions)}
    return base64.b64encode(json.dumps(made).encode()).decode()


def signed_v2(policy: str, **fields: str) -> dict[str, str]:
    digest = hmac.digest(b"root-secret", policy.encode(), "sha1")
    signature = base64.b64encode(digest).decode()
    return {**fields, "AWSAccessKeyId": "ROOTKEY", "signature": signature, "policy": policy}


def test_a_form_signed_by_boto3_stores_its_file(s3: Any, bucket: str, shared: Any) -> None:
    form = s3.generate_presigned_post(
        bucket,
        "dir/${filename}",
        Fields={"Content-Type": "text/x", "x-amz-meta-who": "me", "tagging": TAGGING},
        Conditions=[
            ["starts-with", "$key", "dir/"],
            {"Content-Type": "text/x"},
            {"x-amz-meta-who": "me"},
            {"tagging": TAGGING},
            ["content-length-range", 1, 2_000_000],
        ],
    )
    for size in (3, 70_000, 1_500_000):
        content = bytes(range(256)) * (size // 256 + 1)
        answer, text = post(shared.url, bucket, form["fields"], content[:size], filename="ä.txt")
        assert (answer.status, text) == (204, "")
        found = s3.get_object(Bucket=bucket, Key="dir/ä.txt")
        same = found["Body"].read() == content[:size]
        assert same
        assert found["ContentType"] == "text/x"
        assert found["Metadata"] == {"who": "me"}
        assert found["TagCount"] == 1
        assert answer.headers["ETag"] == found["ETag"]
    assert code(post(shared.url, bucket, form["fields"], b"")) == (400, "EntityTooSmall")
    assert code(post(shared.url, bucket, form["fields"], b"x" * 2_000_001)) == (
        400,
        "EntityTooLarge",
    )


TAGGING = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"
PLAIN: list[Any] = [["starts-with", "$key", "foo"]]


@pytest.mark.parametrize(("fields", "status"), [({}, 204), ({"success_action_status": "200"}, 200)])
def test_what_a_form_may_have_answered(
    s3: Any, bucket: str, shared: Any, fields: dict[str, str], status: int
) -> None:
    conditions = [{"bucket": bucket}, *PLAIN, *({name: value} for name, value in fields.items())]
    form = signed_v2(policy_of(*conditions), key="foo.txt", **fields)

    assert post(shared.url, bucket, form)[0].status == status
    assert s3.get_object(Bucket=bucket, Key="foo.txt")["Body"].read() == b"bar"


def test_a_form_may_ask_for_a_document_or_another_page(bucket: str, shared: Any) -> None:
    fields = {"success_action_status": "201"}
    form = signed_v2(policy_of(*PLAIN, fields), key="foo.txt", **fields)
    answer, text = post(shared.url, bucket, form)
    assert answer.status == 201
    assert ElementTree.fromstring(text).findtext("Key") == "foo.txt"
    fields = {"success_action_redirect": "https://page.test/done?a=b"}
    form = signed_v2(policy_of(*PLAIN, fields), key="foo.txt", **fields)
    answer, _ = post(shared.url, bucket, form)
    assert answer.status == 303
    expected = f"https://page.test/done?a=b&bucket={bucket}&key=foo.txt&etag=%22"
    assert answer.headers["Location"].startswith(expected)


def test_names_and_operators_do_not_look_at_case(bucket: str, shared: Any) -> None:
    form = signed_v2(policy_of({"bUcKeT": bucket}, ["sTaRtS-wItH", "$KeY", "foo"]), kEy="foo.txt")

    assert post(shared.url, bucket, form)[0].status == 204


@pytest.mark.parametrize(
    ("conditions", "fields", "answer"),
    [
        ([{"key": "other"}], {}, (403, "AccessDenied")),
        ([{"bucket": "other"}, *PLAIN], {}, (403, "AccessDenied")),
        (PLAIN, {"x-amz-meta-extra": "1"}, (403, "AccessDenied")),
        (PLAIN, {"x-ignore-extra": "1"}, (204, "")),
        ([*PLAIN, {"x-amz-meta-must": "1"}], {}, (403, "AccessDenied")),
        ([*PLAIN, ["content-length-range", 0]], {}, (400, "InvalidPolicyDocument")),
        ([*PLAIN, ["content-length-range", 0, 1]], {}, (400, "EntityTooLarge")),
        ([*PLAIN, ["between", "$key", "a"]], {}, (400, "InvalidPolicyDocument")),
        ([], {}, (400, "InvalidPolicyDocument")),
        (PLAIN, {"signature": "AAAA"}, (403, "SignatureDoesNotMatch")),
        (PLAIN, {"AWSAccessKeyId": "NOBODY"}, (403, "InvalidAccessKeyId")),
        (PLAIN, {"key": ""}, (400, "InvalidArgument")),
    ],
)
def test_a_form_that_its_policy_does_not_cover_is_refused(
    bucket: str, shared: Any, conditions: Any, fields: dict[str, str], answer: tuple[int, str]
) -> None:
    form = {**signed_v2(policy_of(*conditions), key="foo.txt"), **fields}

    assert code(post(shared.url, bucket, form)) == answer


def test_an_old_policy_and_half_a_signature_are_refused(bucket: str, shared: Any) -> None:
    old = signed_v2(policy_of(*PLAIN, seconds=-1), key="foo.txt")
    assert code(post(shared.url, bucket, old)) == (403, "AccessDenied")
    for missing in ("policy", "signature", "AWSAccessKeyId"):
        form = signed_v2(policy_of(*PLAIN), key="foo.txt")
        del form[missing]
        assert code(post(shared.url, bucket, form)) == (400, "InvalidArgument")


def test_nobody_may_post_only_where_everybody_may_write(serve: Any, connect: Any) -> None:
    running = serve(object_ownership="ObjectWriter", block_public_access=False)
    root = connect(running.url)
    root.create_bucket(Bucket="open", ACL="public-read-write")
    root.create_bucket(Bucket="shut")

    assert post(running.url, "open", {"key": "foo"})[0].status == 204
    assert code(post(running.url, "shut", {"key": "foo"})) == (403, "AccessDenied")
    assert code(post(running.url, "none", {"key": "foo"})) == (404, "NoSuchBucket")


def test_a_field_cannot_put_a_header_into_answers(s3: Any, bucket: str, shared: Any) -> None:
    form = s3.generate_presigned_post(
        bucket, "k", Conditions=[["starts-with", "$x-amz-meta-a", ""]]
    )
    fields = {**form["fields"], "x-amz-meta-a": "1\r\nSet-Cookie: x"}

    assert code(post(shared.url, bucket, fields)) == (400, "InvalidArgument")


def test_what_is_no_form_is_refused(bucket: str, shared: Any) -> None:
    connection = http.client.HTTPConnection(shared.url.removeprefix("http://"))
    connection.request("POST", f"/{bucket}", body=b"x", headers={"Content-Type": "text/plain"})
    assert connection.getresponse().status == 412
    connection.close()
    assert code(post(shared.url, bucket, {"key": "k" * 30_000})) == (
        400,
        "MaxPostPreDataLengthExceeded",
    )


# Pure ---------------------------------------------------------------------------------------------

values = st.text(alphabet="ab-\r\n", max_size=20).filter(lambda text: BOUNDARY not in text)


@given(
    st.dictionaries(st.sampled_from(["key", "acl", "x-amz-meta-a"]), values, max_size=3),
    st.binary(max_size=300) | st.text(alphabet="\r\n-xYzZ", max_size=60).map(str.encode),
    st.lists(st.integers(1, 40), max_size=40),
)
def test_a_form_is_the_same_however_it_is_cut(
    fields: dict[str, str], content: bytes, cuts: list[int]
) -> None:
    if f"\r\n--{BOUNDARY}".encode() in content:
        return
    whole = body_of(fields, content)
    form, found = Form(BOUNDARY.encode()), b""
    while whole:
        cut = cuts.pop() if cuts else len(whole)
        found += form.feed(whole[:cut])
        whole = whole[cut:]

    assert form.done
    assert form.fields == fields
    assert found == content


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(data: bytes) -> None:
    form = Form(b"b")
    with contextlib.suppress(S3Error):
        form.feed(b"--b\r\n" + data)

    assert len(form.fields) <= len(data)


@given(
    st.binary(max_size=200)
    | st.builds(json.dumps, st.dictionaries(st.text(), st.integers())).map(str.encode)
)
def test_any_policy_is_judged_or_refused(data: bytes) -> None:
    with pytest.raises(S3Error) as refused:
        post_policy.check(base64.b64encode(data).decode(), {}, "b", now=0)
    assert refused.value.code in {"InvalidPolicyDocument", "AccessDenied"}


def test_boundaries_may_be_quoted() -> None:
    assert boundary_of('multipart/form-data; charset=x; boundary="a b"') == b"a b"


def test_a_policy_may_escape_dollars_and_need_not_name_checksums(
    s3: Any, bucket: str, shared: Any
) -> None:
    moment = datetime.fromtimestamp(time.time() + 600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def form(start: str, key: str, **more: str) -> Any:
        text = f'{{"expiration": "{moment}", "conditions": [["starts-with", "$key", "{start}"]]}}'
        made = signed_v2(base64.b64encode(text.encode()).decode(), key=key, **more)
        return post(shared.url, bucket, made)

    assert code(form(r"\$foo", "$foo.txt")) == (204, "")
    assert code(form(r"\\$foo", r"\$foo.txt")) == (204, "")
    assert code(form(r"\\$foo", "$foo.txt")) == (403, "AccessDenied")
    right = base64.b64encode(hashlib.sha256(b"bar").digest()).decode()
    assert code(form("foo", "foo", **{"x-amz-checksum-sha256": right})) == (204, "")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert code(form("foo", "foo", **{"x-amz-checksum-sha256": wrong})) == (400, "BadDigest")
    assert code(form("foo", "foo", **{"x-amz-checksum-sha256": "no"})) == (400, "InvalidRequest")


def test_a_field_that_may_have_any_value_may_be_left_out(bucket: str, shared: Any) -> None:
    any_value = policy_of(*PLAIN, ["starts-with", "$x-amz-meta-a", ""])
    some_value = policy_of(*PLAIN, ["starts-with", "$x-amz-meta-a", "b"])

    assert code(post(shared.url, bucket, signed_v2(any_value, key="foo"))) == (204, "")
    wrong = code(post(shared.url, bucket, signed_v2(some_value, key="foo")))
    assert wrong == (403, "AccessDenied")
