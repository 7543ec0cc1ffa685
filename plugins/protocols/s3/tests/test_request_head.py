"""The head parser: what it reads, and everything it must refuse."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import S3Error
from warp_s3.http import HEAD_MAX, check_partial_head, head_end, parse_head
from warp_s3.http.request import FIELDS_MAX

PLAIN = b"GET /bucket/key?versionId=1 HTTP/1.1\r\nHost: localhost:9000\r\nX-Amz-Meta-A:  b \t"


def head(*fields: bytes, line: bytes = b"PUT /b/k HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join((line, host, *fields))


def refusal(raw: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        parse_head(raw)
    assert caught.value.closes
    return caught.value.code


def test_a_head_is_read_as_it_was_written() -> None:
    request = parse_head(PLAIN)

    assert (request.method, request.path, request.query) == ("GET", "/bucket/key", "versionId=1")
    assert request.headers == {"host": "localhost:9000", "x-amz-meta-a": "b"}
    assert request.keep_alive
    assert not request.has_body
    assert not request.expects_continue


def test_the_raw_path_is_kept_for_the_signature() -> None:
    assert parse_head(head(line=b"GET /b/%2e%2E//k%20+ HTTP/1.1")).path == "/b/%2e%2E//k%20+"


def test_bytes_beyond_ascii_survive_in_values() -> None:
    value = parse_head(head(b"x-amz-meta-n: \xc3\xa9\xff")).headers["x-amz-meta-n"]

    assert value.encode("latin-1") == b"\xc3\xa9\xff"


@pytest.mark.parametrize(
    ("fields", "length", "chunked"),
    [
        ((), None, False),
        ((b"Content-Length: 0",), 0, False),
        ((b"content-length: 5497558138880",), 5497558138880, False),
        ((b"Transfer-Encoding: chunked",), None, True),
        ((b"Transfer-Encoding: Chunked",), None, True),
    ],
)
def test_a_body_is_framed_one_way(
    fields: tuple[bytes, ...], length: int | None, chunked: bool
) -> None:
    request = parse_head(head(*fields))

    assert (request.content_length, request.chunked) == (length, chunked)


@pytest.mark.parametrize(
    "raw",
    [
        head(b"Content-Length: 1", b"Content-Length: 1"),
        head(b"Content-Length: 1", b"Content-Length: 2"),
        head(b"Content-Length: 1, 1"),
        head(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        head(b"Transfer-Encoding: chunked", line=b"PUT /b/k HTTP/1.0"),
        head(b"Content-Length: +1"),
        head(b"Content-Length: -1"),
        head(b"Content-Length: 1_0"),
        head(b"Content-Length: 0x10"),
        head(b"Content-Length: \xb2"),
        head(b"Content-Length:"),
        head(b"Content-Length: 1 1"),
        head(b"Content-Length: 1000000000000000000000"),
        head(b"Content-Length : 1"),
        head(b"Content-Length\t: 1"),
        head(b" Content-Length: 1"),
        head(b"A: b", b" folded"),
        head(b"A: b", b"\tfolded"),
        head(b"A: b\nContent-Length: 1"),
        head(b"A: b\rContent-Length: 1"),
        head(b"A: b\r\r\nC: d"),
        head(b"A: b\0"),
        head(b"A\0: b"),
        head(b"A: b\x7f"),
        head(b"no colon"),
        head(b": no name"),
        head(b"n\xc3\xa4me: x"),
        head(b"a b: x"),
        head(b"Host: other"),
        head(b"Authorization: a", b"Authorization: b"),
        head(b"x-amz-date: a", b"X-Amz-Date: b"),
        head(host=b"A: b"),
        head(host=b"Host:"),
        head(host=b"Host: a/b"),
        head(host=b"Host: a@b"),
        head(host=b"Host: a, b"),
        head(host=b"Host: a:b"),
        head(b""),
        head(line=b""),
        head(line=b"GET /"),
        head(line=b"GET  / HTTP/1.1"),
        head(line=b"GET / HTTP/1.1 "),
        head(line=b" GET / HTTP/1.1"),
        head(line=b"GET / http/1.1"),
        head(line=b"GET / HTTP/1.2"),
        head(line=b"GET / HTTP/11"),
        head(line=b"get / HTTP/1.1"),
        head(line=b"GET /a b HTTP/1.1"),
        head(line=b"GET /\xc3\xa9 HTTP/1.1"),
        head(line=b"GET\t/ HTTP/1.1"),
        head(line=b"G(T / HTTP/1.1"),
        head(line=b"ABCDEFGHIJKLMNOPQ / HTTP/1.1"),
    ],
)
def test_what_could_be_read_two_ways_is_refused(raw: bytes) -> None:
    assert refusal(raw) == "BadRequest"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (head(line=b"GET http://evil/ HTTP/1.1"), "InvalidURI"),
        (head(line=b"OPTIONS * HTTP/1.1"), "InvalidURI"),
        (head(line=b"GET / HTTP/2.0"), "UnsupportedHttpVersion"),
        (head(b"Transfer-Encoding: gzip, chunked"), "NotImplemented"),
        (head(b"Transfer-Encoding: identity"), "NotImplemented"),
        (head(b"Transfer-Encoding: \x0bchunked"), "BadRequest"),
        (head(b"A: " + b"x" * HEAD_MAX), "RequestHeaderSectionTooLarge"),
        (head(*[b"A: b"] * (FIELDS_MAX + 1)), "RequestHeaderSectionTooLarge"),
    ],
)
def test_a_refusal_says_what_is_wrong(raw: bytes, code: str) -> None:
    assert refusal(raw) == code


@pytest.mark.parametrize("value", [b"200-maybe", b"200", b""])
def test_an_expectation_that_nobody_knows_is_none(value: bytes) -> None:
    request = parse_head(head(b"Expect: " + value))

    assert not request.expects_continue


def test_repeated_fields_are_joined_in_order() -> None:
    assert parse_head(head(b"X-Amz-Meta-A: 1", b"x-amz-meta-a: 2")).headers["x-amz-meta-a"] == "1,2"


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (head(), True),
        (head(b"Connection: close"), False),
        (head(b"Connection: Keep-Alive, Close"), False),
        (head(b"Connection: upgrade"), True),
        (head(line=b"GET / HTTP/1.0"), False),
        (head(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), True),
        (b"GET / HTTP/1.0", False),
    ],
)
def test_connections_stay_open_as_the_version_says(raw: bytes, keep_alive: bool) -> None:
    assert parse_head(raw).keep_alive is keep_alive


def test_only_http_1_1_may_wait_for_100_continue() -> None:
    assert parse_head(head(b"Expect: 100-Continue")).expects_continue
    assert not parse_head(head(b"Expect: 100-continue", line=b"PUT /b/k HTTP/1.0")).expects_continue


@pytest.mark.parametrize("host", [b"a", b"a.b-c:9000", b"[::1]:9000", b"127.0.0.1", b"a_b"])
def test_hosts_of_every_form_are_taken(host: bytes) -> None:
    assert parse_head(head(host=b"Host: " + host)).headers["host"] == host.decode()


def test_the_end_of_a_head_is_its_first_empty_line() -> None:
    assert head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n") == 23
    assert head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\n") == -1


@pytest.mark.parametrize(
    "partial", [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nA: b\n\n", b"\x16\x03\x01", b"a\rb"]
)
def test_a_hopeless_beginning_is_refused_before_its_end_comes(partial: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        check_partial_head(partial)

    assert caught.value.code == "BadRequest"


def test_an_endless_head_is_refused_at_the_limit() -> None:
    with pytest.raises(S3Error) as caught:
        check_partial_head(b"G" * (HEAD_MAX + 1))

    assert caught.value.code == "RequestHeaderSectionTooLarge"


@given(st.integers(0, len(PLAIN)))
def test_no_beginning_of_a_good_head_is_refused(cut: int) -> None:
    check_partial_head(PLAIN[:cut])


@given(st.binary(max_size=300))
def test_garbage_gets_a_refusal_or_a_request(raw: bytes) -> None:
    with suppress(S3Error):
        assert parse_head(raw).path.startswith("/")


@given(
    st.lists(
        st.tuples(
            st.text("abcdefghijklmnopqrstuvwxyzABC-_.09", min_size=1, max_size=20),
            st.binary(max_size=40).map(lambda b: b.translate(None, bytes(range(32)) + b"\x7f")),
        ),
        max_size=20,
        unique_by=lambda field: field[0].lower(),
    )
)
def test_fields_come_back_with_their_values(fields: list[tuple[str, bytes]]) -> None:
    fields = [(f"X-Amz-Meta-{name}", value) for name, value in fields]

    request = parse_head(head(*[name.encode() + b":" + value for name, value in fields]))

    for name, value in fields:
        assert request.headers[name.lower()].encode("latin-1") == value.strip(b" \t")


@given(st.binary(max_size=30), st.integers(0, 200))
def test_a_mutated_head_never_hides_a_second_length(noise: bytes, at: int) -> None:
    raw = head(b"Content-Length: 3", b"X-Amz-Date: 20260101T000000Z")
    raw = raw[: at % len(raw)] + noise + raw[at % len(raw) :]
    try:
        request = parse_head(raw)
    except S3Error:
        return
    lengths = [line for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length:")]

    assert len(lengths) <= 1
    assert (request.content_length is None) == (not lengths)
