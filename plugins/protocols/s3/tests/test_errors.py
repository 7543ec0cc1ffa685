"""Core's errors in the words of S3."""

import pytest
from warp_core import errors as core
from warp_s3.errors import CODES, FROM_CORE, S3Error, delete_marker, from_core
from warp_s3.http import REASONS

# Without those of other packages, which happen to be imported or not.
LEAVES = sorted(
    (kind for kind in core.leaves() if kind.__module__.startswith("warp_core.")),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_of_core_has_an_answer(kind: type[core.WarpError]) -> None:
    error = from_core(kind("what happened"))

    assert error.code in CODES
    assert error.status in REASONS
    if not any(parent in FROM_CORE for parent in kind.__mro__[1:]):
        assert kind in FROM_CORE


@pytest.mark.parametrize(
    "kind", [kind for kind in LEAVES if FROM_CORE.get(kind) == "InternalError"]
)
def test_what_went_wrong_inside_stays_inside(kind: type[core.WarpError]) -> None:
    assert "secret" not in from_core(kind("a secret path")).message


def test_limits_are_told() -> None:
    assert "1024" in from_core(core.InvalidArgument("length 2000 > 1024")).message


def test_a_node_that_stopped_writing_is_no_refusal_of_who_asks() -> None:
    stopped, forbidden = from_core(core.WritesStopped("a journal")), from_core(core.ReadOnly("v"))

    assert (stopped.code, stopped.status) == ("ServiceUnavailable", 503)
    assert "journal" not in stopped.message
    assert (forbidden.code, forbidden.status) == ("AccessDenied", 403)


def test_a_failed_condition_is_named() -> None:
    error = from_core(core.PreconditionFailed("no", condition="If-Match"))

    assert (error.status, error.details) == (412, {"Condition": "If-Match"})


def test_markers_are_told_apart() -> None:
    current = from_core(core.IsDeleteMarker("m", version="v"))
    named = delete_marker("v", named=True)

    assert (current.code, current.headers["x-amz-version-id"]) == ("NoSuchKey", "v")
    assert (named.code, named.headers["Allow"]) == ("MethodNotAllowed", "DELETE")


def test_every_code_can_be_raised() -> None:
    for code, (status, message) in CODES.items():
        error = S3Error(code)
        assert (error.status, error.message) == (status, message)
