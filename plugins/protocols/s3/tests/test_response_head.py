"""Response heads."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_s3.errors import CODES
from warp_s3.http import REASONS, http_date, response_head


def test_a_head_is_complete_and_in_order() -> None:
    head = response_head(
        200, [("ETag", '"e"')], second=784111777, request_id="ID", length=5, close=True
    )

    assert head == (
        b"HTTP/1.1 200 OK\r\nServer: WARP\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"x-amz-request-id: ID\r\nContent-Length: 5\r\nConnection: close\r\n"
        b'ETag: "e"\r\n\r\n'
    )


def test_an_answer_without_content_has_no_length() -> None:
    assert b"Content-Length" not in response_head(204, [], second=0, request_id="ID", length=None)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "\r\n\r\nbody"])
def test_no_value_can_split_a_response(value: str) -> None:
    head = response_head(200, [("x-amz-meta-a", value)], second=0, request_id="ID", length=0)

    assert head.count(b"\r\n") == 7
    assert head.endswith(b"\r\n\r\n")
    assert b"\0" not in head


@given(st.integers(0, 4102444800))
def test_dates_are_those_of_the_standard_library(second: int) -> None:
    assert http_date(second) == email.utils.formatdate(second, usegmt=True)


def test_every_status_of_an_error_has_a_reason() -> None:
    assert {status for status, _ in CODES.values()} <= REASONS.keys()
