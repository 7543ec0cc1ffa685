"""Bucket policies as pure data: what is read, what is refused, and whom a request is allowed for."""

import contextlib
import fnmatch
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.access.conditions import arn_like, holds, like, operator_named
from warp_s3.access.policy import (
    Malformed,
    Verdict,
    Who,
    evaluate,
    expand,
    is_public,
    read,
)

ME = Who("c" * 64, "111111111111", frozenset({"arn:aws:iam::111111111111:user/me"}))
YOU = Who("d" * 64, "222222222222", frozenset({"arn:aws:iam::222222222222:user/you"}))
NOBODY = Who()
OBJECT = "arn:aws:s3:::b/k"


def statement(**more: Any) -> dict[str, Any]:
    made = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": OBJECT}
    return {key: value for key, value in {**made, **more}.items() if value is not None}


def policy(*statements: dict[str, Any]) -> Any:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return read(json.dumps(document).encode(), "b")


def judge(
    made: Any, who: Who = ME, action: str = "s3:GetObject", resource: str = OBJECT, **values: Any
) -> Verdict:
    known = {key.replace("__", ":").replace("_", "-").lower(): v for key, v in values.items()}
    return evaluate(made, who, action, resource, lambda key: known.get(key))


def test_a_policy_says_nothing_to_what_it_does_not_name() -> None:
    made = policy(statement())

    assert judge(made) is Verdict.ALLOW
    assert judge(made, action="s3:PutObject") is Verdict.NOTHING
    assert judge(made, resource="arn:aws:s3:::b/other") is Verdict.NOTHING


def test_deny_comes_first_wherever_it_stands() -> None:
    allow, deny = statement(), statement(Effect="Deny")

    assert judge(policy(allow, deny)) is Verdict.DENY
    assert judge(policy(deny, allow)) is Verdict.DENY


@pytest.mark.parametrize(
    ("principal", "me", "you", "nobody"),
    [
        ("*", True, True, True),
        ({"AWS": "*"}, True, True, True),
        ({"AWS": "111111111111"}, True, False, False),
        ({"AWS": ["arn:aws:iam::111111111111:root"]}, True, False, False),
        ({"AWS": "arn:aws:iam::222222222222:user/you"}, False, True, False),
        ({"CanonicalUser": "c" * 64}, True, False, False),
        ({"Service": "logging.s3.amazonaws.com"}, False, False, False),
    ],
)
def test_principals_and_their_negation(principal: Any, me: bool, you: bool, nobody: bool) -> None:
    plain = policy(statement(Principal=principal))
    but = policy(statement(Effect="Deny", Principal=None, NotPrincipal=principal))
    for who, fits in ((ME, me), (YOU, you), (NOBODY, nobody)):
        assert (judge(plain, who) is Verdict.ALLOW) == fits
        assert (judge(but, who) is Verdict.DENY) == (not fits)


def test_not_action_and_not_resource_name_the_rest() -> None:
    made = policy(statement(Action=None, NotAction="s3:Delete*"))
    assert judge(made) is Verdict.ALLOW
    assert judge(made, action="s3:DeleteObject") is Verdict.NOTHING
    made = policy(statement(Resource=None, NotResource="arn:aws:s3:::b/private/*"))
    assert judge(made) is Verdict.ALLOW
    assert judge(made, resource="arn:aws:s3:::b/private/x") is Verdict.NOTHING


def test_actions_do_not_look_at_case_and_resources_do() -> None:
    made = policy(statement(Action="S3:getOBJECT"))

    assert judge(made) is Verdict.ALLOW
    assert judge(made, resource="arn:aws:s3:::b/K") is Verdict.NOTHING


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "fits"),
    [
        ("StringEquals", ["a", "b"], ["b"], True),
        ("StringEquals", "a", ["A"], False),
        ("StringEqualsIgnoreCase", "a", ["A"], True),
        ("StringNotEquals", ["a", "b"], ["b"], False),
        ("StringNotEquals", ["a", "b"], ["c"], True),
        ("StringNotEquals", "a", None, True),
        ("StringEquals", "a", None, False),
        ("StringEqualsIfExists", "a", None, True),
        ("StringLike", "pub*", ["public"], True),
        ("StringNotLike", "pub*", ["public"], False),
        ("NumericLessThan", 10, ["9"], True),
        ("NumericLessThan", "10", ["10"], False),
        ("NumericLessThanEquals", "10", ["10"], True),
        ("NumericGreaterThan", "10", ["x"], False),
        ("NumericEquals", "10", ["10.0"], True),
        ("NumericNotEquals", "10", ["11"], True),
        ("DateGreaterThan", "2020-01-01T00:00:00Z", ["2021-01-01T00:00:00+00:00"], True),
        ("DateLessThan", "2020-01-01", ["2021-01-01T00:00:00Z"], False),
        ("DateEquals", "0", ["1970-01-01T00:00:00Z"], True),
        ("Bool", True, ["true"], True),
        ("Bool", "false", ["true"], False),
        ("IpAddress", "10.0.0.0/8", ["10.1.2.3"], True),
        ("IpAddress", ["192.0.2.1", "::1"], ["::1"], True),
        ("IpAddress", "127.0.0.0/8", ["::ffff:127.0.0.1"], True),
        ("NotIpAddress", "10.0.0.0/8", ["10.1.2.3"], False),
        ("NotIpAddress", "10.0.0.0/8", ["11.1.2.3"], True),
        ("ArnLike", "arn:aws:iam::*:user/*", ["arn:aws:iam::1:user/a"], True),
        ("ArnEquals", "arn:aws:iam::*", ["arn:aws:iam::1:user/a"], False),
        ("ArnNotLike", "arn:aws:iam::1:user/*", ["arn:aws:iam::1:user/a"], False),
        ("Null", "true", None, True),
        ("Null", True, ["x"], False),
        ("Null", "false", ["x"], True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["c", "b"], True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["c"], False),
        ("ForAnyValue:StringEquals", ["a"], None, False),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
        ("ForAllValues:StringEquals", ["a"], None, True),
        ("ForAllValues:StringNotEquals", ["a"], ["b", "c"], True),
        ("BinaryEquals", "YQ==", ["YQ=="], True),
    ],
)
def test_condition_operators(operator: str, wanted: Any, value: Any, fits: bool) -> None:
    found = wanted
    if operator.startswith("ArnEquals"):
        found = "arn:aws:iam::1:user/b"
    made = policy(statement(Condition={operator: {"aws:x": found}}))

    assert (judge(made, aws__x=value) is Verdict.ALLOW) == fits


def test_all_operators_and_all_keys_have_to_hold() -> None:
    made = policy(
        statement(Condition={"StringEquals": {"aws:a": "1", "aws:b": "2"}, "Bool": {"aws:c": True}})
    )

    assert judge(made, aws__a=["1"], aws__b=["2"], aws__c=["true"]) is Verdict.ALLOW
    assert judge(made, aws__a=["1"], aws__b=["3"], aws__c=["true"]) is Verdict.NOTHING
    assert judge(made, aws__a=["1"], aws__b=["2"], aws__c=["false"]) is Verdict.NOTHING


def test_variables_stand_for_the_requests_values() -> None:
    made = policy(
        statement(Resource="arn:aws:s3:::b/home/${aws:username}/*"),
        statement(
            Action="s3:ListBucket",
            Resource="arn:aws:s3:::b",
            Condition={"StringLike": {"s3:prefix": "home/${aws:username}/*"}},
        ),
    )
    home = "arn:aws:s3:::b/home/ada/x"

    assert judge(made, resource=home, aws__username=["ada"]) is Verdict.ALLOW
    assert judge(made, resource=home, aws__username=["bob"]) is Verdict.NOTHING
    assert judge(made, resource=home) is Verdict.NOTHING
    assert judge(made, resource=home, aws__username=["*"]) is Verdict.NOTHING
    listing = {"action": "s3:ListBucket", "resource": "arn:aws:s3:::b"}
    assert judge(made, **listing, aws__username=["ada"], s3__prefix=["home/ada/x"]) is Verdict.ALLOW
    assert (
        judge(made, **listing, aws__username=["ada"], s3__prefix=["home/bob/"]) is Verdict.NOTHING
    )


def test_variables_have_defaults_and_escapes() -> None:
    assert expand("a${$}{b}${*}", lambda key: None) == "a${b}*"
    assert expand("${aws:username, 'guest'}", lambda key: None) == "guest"
    assert expand("${aws:username}", lambda key: None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{",
        b'{"Version": "2012-10-17"}',
        b'{"Version": "2012-10-17", "Statement": []}',
        b'{"Version": "2012-10-17", "Statement": [], "Statement": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_policy_is_refused(wrong: bytes) -> None:
    with pytest.raises(Malformed):
        read(wrong, "b")


@pytest.mark.parametrize(
    "wrong",
    [
        {"Effect": "Perhaps"},
        {"Principal": None},
        {"Principal": {"AWS": "me"}},
        {"Principal": {"Somebody": "*"}},
        {"NotPrincipal": "*", "Principal": None},  # with Allow
        {"NotAction": "s3:*"},  # beside Action
        {"Action": "GetObject"},
        {"Action": "ec2:Run"},
        {"Action": []},
        {"Resource": "arn:aws:s3:::other/*"},
        {"Resource": "b/k"},
        {"Condition": {"StringSomehow": {"aws:x": "1"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "1.2.3"}}},
        {"Condition": {"NumericEquals": {"s3:max-keys": "many"}}},
        {"Condition": {"StringEquals": {"nokey": "1"}}},
        {"Condition": {"StringEquals": {"aws:x": {"deep": "1"}}}},
        {"Condition": {"ForAllValues:Null": {"aws:x": "true"}}},
        {"Unknown": "field"},
    ],
)
def test_a_wrong_statement_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        policy(statement(**wrong))


def test_unknown_principals_are_refused() -> None:
    document = json.dumps({"Statement": statement(Principal={"AWS": "333333333333"})}).encode()
    with pytest.raises(Malformed, match="Invalid principal"):
        read(document, "b", known=lambda kind, name: name != "333333333333")


@pytest.mark.parametrize(
    ("more", "public"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Principal": {"AWS": "111111111111"}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
        ({"Condition": {"StringEquals": {"aws:PrincipalAccount": "111111111111"}}}, False),
        ({"Condition": {"StringLike": {"aws:PrincipalAccount": "*"}}}, True),
        ({"Condition": {"StringEqualsIfExists": {"aws:SourceVpc": "v"}}}, True),
        ({"Condition": {"StringEquals": {"s3:prefix": "x"}}}, True),
    ],
)
def test_what_counts_as_public(more: dict[str, Any], public: bool) -> None:
    assert is_public(policy(statement(**more))) == public


# Properties ---------------------------------------------------------------------------------------

patterns = st.text(alphabet="ab*?:", max_size=12)
texts = st.text(alphabet="ab:", max_size=12)


@given(patterns, texts)
def test_patterns_match_as_a_regular_expression_would(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)

    assert like(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))
    assert like(pattern, text) == fnmatch.fnmatchcase(text, pattern)
    if arn_like(pattern, text):
        assert like(pattern, text)


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not like("a*" * 200 + "b", "a" * 4000)


choices = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Principal": st.sampled_from(["*", {"AWS": "111111111111"}, {"AWS": "222222222222"}]),
        "Action": st.sampled_from(["s3:*", "s3:GetObject", "s3:PutObject"]),
        "Resource": st.sampled_from(["arn:aws:s3:::b/*", "arn:aws:s3:::b/k", "arn:aws:s3:::b/x*"]),
        "Condition": st.sampled_from(
            [{}, {"StringEquals": {"aws:x": "1"}}, {"StringNotEquals": {"aws:x": "1"}}]
        ),
    }
)


@given(
    st.lists(choices, min_size=1, max_size=6),
    st.sampled_from([ME, YOU, NOBODY]),
    st.sampled_from([["1"], ["2"], None]),
    st.randoms(),
)
def test_order_is_of_no_matter_and_each_statement_counts_alone(
    statements: list[dict[str, Any]], who: Who, value: Any, random: Any
) -> None:
    alone = {judge(policy(one), who, aws__x=value) for one in statements}
    expected = next(
        each for each in (Verdict.DENY, Verdict.ALLOW, Verdict.NOTHING) if each in alone
    )
    shuffled = random.sample(statements, len(statements))

    assert judge(policy(*statements), who, aws__x=value) is expected
    assert judge(policy(*shuffled), who, aws__x=value) is expected


@given(st.sampled_from(["String", "Date", "Arn"]), st.lists(texts, min_size=1), texts)
def test_a_negated_operator_says_the_opposite(kind: str, wanted: list[str], value: str) -> None:
    plain, negated = operator_named(f"{kind}Equals"), operator_named(f"{kind}NotEquals")
    assert plain is not None
    assert negated is not None

    assert holds(plain, wanted, [value]) != holds(negated, wanted, [value])


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        read(data, "b")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("Effect", "Principal", "Action", "Resource", "Condition", "Sid"), json_values
        ),
    )
)
def test_any_statement_is_read_or_refused(made: dict[str, Any]) -> None:
    document = json.dumps({"Statement": [statement(**made)]}).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Malformed):
        read(document, "b")
