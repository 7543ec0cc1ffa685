"""The query protocol's bytes: forms of any kind are read or refused, answers are XML whatever they say."""

import contextlib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.iam import names, wire
from warp_s3.iam.errors import CODES, QueryError

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cn"]), max_size=40)
NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z.0-9]{1,20}\Z"), TEXT, max_size=10))
def test_fields_come_back_as_they_were_written(fields: dict[str, str]) -> None:
    form = wire.read_form(urlencode(fields).encode())

    assert {name: form.get(name) for name in fields} == fields
    assert not form.says("not/there")


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_body_is_a_form_or_refused(body: bytes, query: str) -> None:
    with contextlib.suppress(QueryError):
        form = wire.read_form(body, quote_plus(query))
        form.texts("a")
        form.structs("a", "Key", "Value")
        form.number("a", 1, least=1, most=9)


def test_lists_are_read_in_order_and_end_at_a_gap() -> None:
    form = wire.read_form(
        b"A.member.1=x&A.member.2=&A.member.4=z&T.member.1.Key=k&T.member.2.Value=v&E="
    )

    assert form.texts("A") == ["x", ""]
    assert form.structs("T", "Key", "Value") == [("k", ""), ("", "v")]
    assert form.texts("E") == []


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=%00",
        b"a=%ff",
        b"&".join(b"A.member.%d=x" % number for number in range(1, 600)),
    ],
)
def test_forms_that_say_two_things_or_too_much_are_refused(body: bytes) -> None:
    with pytest.raises(QueryError) as caught:
        wire.read_form(body).texts("A")

    assert caught.value.code == "ValidationError"


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["User", "Arn", "Tags"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["User", "Path"]), TREES), st.text(max_size=40))
def test_answers_and_errors_are_xml(tree: dict[str, Any], message: str) -> None:
    root = ElementTree.fromstring(wire.answer("GetUser", NAMESPACE, tree, "id"))
    failed = ElementTree.fromstring(
        wire.error(QueryError("NoSuchEntity", message), NAMESPACE, "id")
    )

    assert root.tag == f"{{{NAMESPACE}}}GetUserResponse"
    assert root.find(f".//{{{NAMESPACE}}}RequestId").text == "id"  # type: ignore[union-attr]
    assert failed.find(f".//{{{NAMESPACE}}}Code").text == "NoSuchEntity"  # type: ignore[union-attr]


def test_times_and_flags_are_written_as_clients_read_them() -> None:
    moment = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
    told = wire.answer("A", NAMESPACE, {"T": moment, "B": False, "N": None, "L": ["a&b"]}, "id")

    assert b"<T>2026-11-23T01:02:03Z</T><B>false</B><L><member>a&amp;b</member></L>" in told


@given(st.text(max_size=80))
def test_any_text_is_an_arn_or_refused(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert names.read_arn(text).service in {"iam", "sts"}


@pytest.mark.parametrize(
    ("arn", "kind", "path", "name"),
    [
        ("arn:aws:iam::123456789012:user/a/b/ada", "user", "/a/b/", "ada"),
        ("arn:aws:iam:::role/r", "role", "/", "r"),
        ("arn:aws:iam::aws:policy/P", "policy", "/", "P"),
        (
            "arn:aws:iam::123456789012:oidc-provider/h.example/a/b",
            "oidc-provider",
            "/",
            "h.example/a/b",
        ),
        ("arn:aws:sts::123456789012:assumed-role/r/s", "assumed-role", "/", "r/s"),
        ("arn:aws:iam::123456789012:root", "root", "/", ""),
    ],
)
def test_arns_are_taken_apart(arn: str, kind: str, path: str, name: str) -> None:
    assert names.read_arn(arn)[2:] == (kind, path, name)


def test_every_status_is_one_that_the_server_can_write() -> None:
    from warp_s3.http.response import response_head

    for status in set(CODES.values()):
        assert response_head(status, [], second=0, request_id="i", length=0)
