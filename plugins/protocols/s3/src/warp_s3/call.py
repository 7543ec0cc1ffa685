"""One request on its way through the server, and what it is answered with."""

from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
from warp_core.interfaces.auth import Principal
from warp_core.views.objects import Reader

from warp_s3.body import Body
from warp_s3.http import Request
from warp_s3.router import Route

XML: Final = ("Content-Type", "application/xml")


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request whose sender is known."""

    request: Request
    route: Route
    principal: Principal
    body: Body
    payload: str  # what x-amz-content-sha256 says of the body, or UNSIGNED-PAYLOAD

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.route.bucket

    @property
    def key(self) -> bytes:
        """Key of the object."""
        return self.route.key

    @property
    def query(self) -> Mapping[str, str]:
        """Decoded query parameters."""
        return self.route.query

    @property
    def headers(self) -> Mapping[str, str]:
        """Request headers, names in lower case."""
        return self.request.headers


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A response: a head and either a small body or a range of an open object.

    With a `reader`, whoever sends the answer closes it. `length` is what Content-Length says:
    None for 204 and 304, and more than the body for answers to HEAD. A `stream` is a body whose
    length nobody knows yet; it is closed by whoever sends it, also when the client is gone.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""
    length: int | None = None
    reader: Reader | None = None
    offset: int = 0
    fields: str = ""  # further header lines, written by `http.field_lines`
    stream: AsyncGenerator[bytes, None] | None = None


Outcome = Answer | Coroutine[Any, Any, Answer]
"""An answer, or what makes one where something has to be waited for."""


async def finished(outcome: Outcome) -> Answer:
    """Wait for an answer, if it has to be waited for."""
    return outcome if isinstance(outcome, Answer) else await outcome


def empty(status: int = 200, headers: list[tuple[str, str]] | None = None) -> Answer:
    """Answer without a body."""
    return Answer(status, headers or [], length=None if status in {204, 304} else 0)


def xml(body: bytes, *, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Answer:
    """Answer with an XML document."""
    return Answer(status, [XML, *(headers or ())], body, len(body))
