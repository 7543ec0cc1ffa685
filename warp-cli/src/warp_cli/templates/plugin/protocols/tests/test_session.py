"""The session, without sockets: requests are the same however the bytes were cut."""

from __future__ import annotations

import pytest
from warp_skeleton.session import Request, Session

# A request as a client sends it, and what it means.
EXAMPLE = b"replace this by the bytes of a real request\r\n"
MEANING = Request(b"replace this by the bytes of a real request")


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_requests_do_not_depend_on_how_the_bytes_were_cut(step: int) -> None:
    session = Session()
    pieces = [EXAMPLE[start : start + step] for start in range(0, len(EXAMPLE), step)]

    assert [request for piece in pieces for request in session.receive(piece)] == [MEANING]


def test_a_request_is_answered() -> None:
    assert Session().answer(MEANING)
