"""XML bodies: what they say, and what is refused before it can hurt."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.xml_input import (
    BODY_MAX,
    BUCKET_TAGS_MAX,
    DELETE_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    CompletedPart,
    DeletedKey,
    completed_parts,
    deleted_keys,
    location_constraint,
    parse,
    tag_set,
    versioning_status,
)

NS = b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def wrap(root: str, body: bytes, namespace: bytes = NS) -> bytes:
    return b"<%s%s>%s</%s>" % (root.encode(), namespace, body, root.encode())


@pytest.mark.parametrize("namespace", [NS, b""])
def test_parts_are_read_with_and_without_namespace(namespace: bytes) -> None:
    body = wrap(
        "CompleteMultipartUpload",
        b"<Part><ETag>&quot;e1&quot;</ETag><PartNumber>1</PartNumber></Part>"
        b"<Part><PartNumber>10000</PartNumber><ETag>e2</ETag>"
        b"<ChecksumCRC32>AAAAAQ==</ChecksumCRC32></Part>",
        namespace,
    )

    assert completed_parts(body) == [
        CompletedPart(1, "e1", {}),
        CompletedPart(10000, "e2", {"CRC32": b"\0\0\0\1"}),
    ]


def part(number: str) -> bytes:
    return b"<Part><PartNumber>%s</PartNumber><ETag>e</ETag></Part>" % number.encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (part("2") + part("1"), "InvalidPartOrder"),
        (part("1") + part("1"), "InvalidPartOrder"),
        (part("0"), "InvalidArgument"),
        (part("10001"), "InvalidArgument"),
        (part("-1"), "MalformedXML"),
        (part("one"), "MalformedXML"),
        (b"<Part><PartNumber>1</PartNumber></Part>", "MalformedXML"),
        (b"<Part><ETag>1</ETag></Part>", "MalformedXML"),
        (
            b"<Part><PartNumber>1</PartNumber><ETag>e</ETag><ChecksumSHA1>x</ChecksumSHA1></Part>",
            "InvalidRequest",
        ),
    ],
)
def test_wrong_parts_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        completed_parts(wrap("CompleteMultipartUpload", body))

    assert caught.value.code == code


def test_keys_to_delete_are_read() -> None:
    body = wrap(
        "Delete",
        b"<Object><Key>a &amp; b</Key></Object><Quiet>true</Quiet>"
        b"<Object><Key>c</Key><VersionId>v</VersionId></Object>",
    )

    assert deleted_keys(body) == (
        [DeletedKey("a & b", None, None), DeletedKey("c", "v", None)],
        True,
    )


@pytest.mark.parametrize("count", [0, DELETE_MAX + 1])
def test_too_few_or_many_keys_are_refused(count: int) -> None:
    with pytest.raises(S3Error) as caught:
        deleted_keys(wrap("Delete", b"<Object><Key>k</Key></Object>" * count))

    assert caught.value.code == "MalformedXML"


def tags(*pairs: tuple[str, str]) -> bytes:
    rows = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return wrap("Tagging", f"<TagSet>{rows}</TagSet>".encode())


def test_tags_are_read() -> None:
    assert tag_set(tags(("a", "b"), ("é", ""))) == {"a": "b", "é": ""}
    assert tag_set(wrap("Tagging", b"<TagSet/>")) == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (tags(("", "v")), "InvalidTag"),
        (tags(("k" * 129, "v")), "InvalidTag"),
        (tags(("k", "v" * 257)), "InvalidTag"),
        (tags(("k", "1"), ("k", "2")), "InvalidTag"),
        (tags(("aws:x", "1")), "InvalidTag"),
        (tags(*((str(i), "") for i in range(11))), "BadRequest"),
        (wrap("Tagging", b""), "MalformedXML"),
    ],
)
def test_tags_beyond_the_limits_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        tag_set(body)

    assert caught.value.code == code


def test_a_bucket_may_have_more_tags() -> None:
    body = tags(*((str(i), "") for i in range(BUCKET_TAGS_MAX)))

    assert len(tag_set(body, count_max=BUCKET_TAGS_MAX)) == BUCKET_TAGS_MAX


def test_versioning_is_enabled_or_suspended() -> None:
    body = "<Status>{}</Status>"

    assert versioning_status(wrap("VersioningConfiguration", body.format("Enabled").encode())) == (
        "Enabled"
    )
    for wrong in ("Off", "enabled", ""):
        with pytest.raises(S3Error):
            versioning_status(wrap("VersioningConfiguration", body.format(wrong).encode()))


def test_a_location_is_optional() -> None:
    body = wrap("CreateBucketConfiguration", b"<LocationConstraint>eu</LocationConstraint>")

    assert location_constraint(body) == "eu"
    assert location_constraint(b"") is None


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">'
    b"]><Delete><Object><Key>&b;</Key></Object></Delete>"
)
EXTERNAL = (
    b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    b"<Delete><Object><Key>&e;</Key></Object></Delete>"
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (BOMB, "MalformedXML"),
        (EXTERNAL, "MalformedXML"),
        (b"<!DOCTYPE Delete><Delete/>", "MalformedXML"),
        (b"", "MissingRequestBodyError"),
        (b"   ", "MalformedXML"),
        (b"<Delete>", "MalformedXML"),
        (b"<Delete></Other>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (b"<Delete/><Delete/>", "MalformedXML"),
        (b"<Delete>\0</Delete>", "MalformedXML"),
        (b"<Delete>\xff</Delete>", "MalformedXML"),
        (b"<Delete>&unknown;</Delete>", "MalformedXML"),
        (b'<?xml version="1.0" encoding="nonsense"?><Delete/>', "MalformedXML"),
        (b'<Delete xmlns="other"/>', "MalformedXML"),
        (b"<a>" * (DEPTH_MAX + 1), "MalformedXML"),
        (b"<Delete>" + b"<a/>" * ELEMENTS_MAX + b"</Delete>", "MalformedXML"),
        (b"<Delete>" + b" " * BODY_MAX + b"</Delete>", "MaxMessageLengthExceeded"),
        (b"{}", "MalformedXML"),
    ],
)
def test_dangerous_and_malformed_documents_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse(body, "Delete")

    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_garbage_gets_an_s3_error(body: bytes) -> None:
    with pytest.raises(S3Error):
        deleted_keys(body)


@given(
    st.lists(
        st.sampled_from(
            [b"<Delete>", b"</Delete>", b"<Object>", b"</Object>", b"<Key>", b"</Key>", b"k", b"<!"]
        )
    )
)
def test_shuffled_markup_gets_keys_or_an_s3_error(pieces: list[bytes]) -> None:
    with suppress(S3Error):
        keys, quiet = deleted_keys(b"".join(pieces))
        assert keys
        assert not quiet
