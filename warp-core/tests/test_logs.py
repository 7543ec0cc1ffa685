"""Logs: what is written, what is left out, what never shows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from warp_core import logs


@pytest.fixture(autouse=True)
def defaults_after() -> Iterator[None]:
    yield
    logs.configure()


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.get("warp_s3").warning("connection ended", peer=("127.0.0.1", 5), size=b"\xff", at={1: 2})

    (event,) = written(stream)
    assert event["event"] == "connection ended"
    assert event["level"] == "warning"
    assert event["part"] == "warp_s3"
    assert event["peer"] == ["127.0.0.1", 5]
    assert str(event["timestamp"]).endswith("Z")


def test_events_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure(level="warning", stream=stream)
    log = logs.get("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")

    assert [event["event"] for event in written(stream)] == ["c", "d"]


def test_secrets_are_never_written() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.get("x").error("bad", secret_key="hunter2", Authorization="hunter2", user="ada")

    assert "hunter2" not in stream.getvalue()
    assert written(stream)[0]["user"] == "ada"


def test_an_exception_carries_its_traceback() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        logs.get("x").exception("failed", error)

    assert "ZeroDivisionError" in stream.getvalue()
    assert written(stream)[0]["level"] == "error"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str) -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, format=form)  # type: ignore[arg-type]
    key = "hunter" + "2"
    try:
        raise RuntimeError(f"a key of {len(key)} characters")
    except RuntimeError as error:
        logs.get("x").exception("failed", error)

    assert "a key of 7 characters" in stream.getvalue()
    assert "test_logs" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_the_console_form_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure(format="console", stream=stream)
    logs.get("x").info("ready", endpoint="http://127.0.0.1:9000")

    assert "ready" in stream.getvalue()
    assert "endpoint=http://127.0.0.1:9000" in stream.getvalue()


def test_a_flood_of_one_event_is_cut_and_counted() -> None:
    stream, now = io.StringIO(), [0.0]
    logs.configure(stream=stream, monotonic=lambda: now[0])
    log = logs.get("x")
    for _ in range(1000):
        log.warning("garbage received")
    log.warning("another event")
    now[0] = logs.BURST_S
    log.warning("garbage received")

    events = written(stream)
    assert len(events) == logs.BURST_MAX + 2
    assert events[-1]["suppressed"] == 1000 - logs.BURST_MAX


def test_writing_a_line_does_not_import_structlog() -> None:
    code = "import sys; from warp_core import logs; logs.get('x').info('y'); print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)

    assert done.stdout.strip() == "False"
    assert json.loads(done.stderr)["event"] == "y"
