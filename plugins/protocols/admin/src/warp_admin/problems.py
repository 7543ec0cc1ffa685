"""What goes wrong, as RFC 9457 tells it: a status, a kind for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from warp_core import errors
from warp_core.errors import WarpError

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:warp:error:"
"""Kinds of problems are the classes of `warp_core.errors`, and a few of HTTP's own."""

STATUS: Final[Mapping[type[WarpError], int]] = {
    errors.InvalidArgument: 422,  # its shape was right: that is 400
    errors.Unsupported: 422,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.NotADirectory: 409,
    errors.IsADirectory: 409,
    errors.NotEmpty: 409,
    errors.TooManyLinks: 409,
    errors.CrossesVolumes: 409,
    errors.PreconditionFailed: 412,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.Retained: 409,
    errors.ReadOnly: 409,
    errors.WritesStopped: 503,
    errors.Conflict: 409,
    errors.Locked: 423,
    errors.Deadlock: 409,
    errors.Busy: 409,
    errors.InGrace: 503,
    errors.StaleHandle: 410,
    errors.Fenced: 409,
    errors.Expired: 410,
    errors.NoSpace: 507,
    errors.QuotaExceeded: 409,
    errors.Corrupt: 500,
    errors.StoreFailed: 500,
    errors.Unavailable: 503,
    errors.TimedOut: 504,
    errors.Ambiguous: 500,
    errors.ConfigError: 422,
    errors.PluginError: 422,
    errors.NewerFormat: 409,
    errors.AlreadyRunning: 409,
    errors.RemoteProtocolError: 502,
    errors.LocalProtocolError: 500,
    WarpError: 500,
}

TITLES: Final[Mapping[int, str]] = {
    400: "The request is wrong",
    401: "Who asks is not known",
    403: "Not allowed",
    404: "There is no such thing",
    405: "Not this way",
    408: "The request took too long",
    409: "Not as things are now",
    410: "It is gone",
    412: "A condition does not hold",
    413: "The request is too large",
    415: "A body has to be JSON",
    422: "It cannot be done like this",
    423: "Somebody else has it",
    429: "Too many wrong tokens",
    431: "The head of the request is too large",
    500: "The node failed",
    501: "Not known here",
    502: "Another server failed",
    503: "Not now",
    504: "It took too long",
    505: "Not this version of HTTP",
    507: "No space left",
}

RETRY_S: Final = 1  # when to come again, where nothing better is known


class Problem(Exception):
    """A request that is answered with a problem.

    Attributes:
        status: Of HTTP.
        kind: For programs, such as `VolumeNotFound`.
        detail: A sentence for people.
        headers: Further ones.
        closes: The connection cannot go on.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        closes: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = list(headers)
        self.closes = closes

    def document(self) -> dict[str, object]:
        """Return what the body says."""
        return {
            "type": TYPE + self.kind,
            "title": TITLES.get(self.status, "Something is wrong"),
            "status": self.status,
            "kind": self.kind,
            "detail": self.detail,
        }


def from_error(error: WarpError) -> Problem:
    """Return what an error of core is here."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = [("Retry-After", str(RETRY_S))] if status == 503 else []
    return Problem(status, type(error).__name__, str(error), headers=headers)
