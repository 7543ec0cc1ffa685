"""Structured logs: events with fields, as JSON lines or coloured text on stderr.

```python
log = logs.get("warp_s3")
log.warning("connection ended", peer=address, error=str(error))
```

An event is a short constant phrase and what varies goes into fields, so that logs can be counted
and searched. An event below the level costs one comparison. A line of JSON is made here: structlog
costs more CPU to import than everything else that a server imports, so it is only asked for what
it does better, text for people and tracebacks.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS: Mapping[str, int] = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}

# A peer that provokes an error with every packet must not fill the disk: of one event, at most
# BURST_MAX a BURST_S are written, and the next one says how many were not.
BURST_MAX = 20
BURST_S = 10.0
_EVENTS_MAX = 1000  # distinct events remembered for that

# Fields whose value is never shown, whoever logs them.
SECRET_WORDS = ("secret", "password", "token", "authorization", "signature", "credential")

Format = Literal["auto", "json", "console"]


_Sink = Callable[[str, str, Mapping[str, object]], None]  # level, event, fields: writes one event


class _Settings:
    """What `configure` decided; one for the process, as stderr is."""

    def __init__(self) -> None:
        self.level = INFO
        self.format: Format = "auto"
        self.stream: TextIO | None = None
        self.sinks: dict[str, _Sink] = {}
        self.bursts: dict[tuple[str, str], _Burst] = {}
        self.lock = threading.Lock()
        self.monotonic: Callable[[], float] = time.monotonic


class _Burst:
    __slots__ = ("since", "suppressed", "written")

    def __init__(self, since: float) -> None:
        self.since = since
        self.written = 0
        self.suppressed = 0


_settings = _Settings()


def configure(
    *,
    level: int | str = INFO,
    format: Format = "auto",
    stream: TextIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Set what is written, how and where; "auto" is coloured text on a terminal, else JSON."""
    with _settings.lock:
        _settings.level = LEVELS[level] if isinstance(level, str) else level
        _settings.format = format
        _settings.stream = stream
        _settings.monotonic = monotonic
        _settings.sinks.clear()
        _settings.bursts.clear()


class Logger:
    """Writes events of one part. Make it with `get`, at import or later: making it costs nothing."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def debug(self, event: str, **fields: object) -> None:
        """Tell a developer what happens."""
        if _settings.level <= DEBUG:
            _write(self.name, "debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Tell the operator what happened."""
        if _settings.level <= INFO:
            _write(self.name, "info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Tell the operator what was odd, and dealt with."""
        if _settings.level <= WARNING:
            _write(self.name, "warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Tell the operator what went wrong and needs somebody."""
        _write(self.name, "error", event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """Tell of a defect, with its traceback."""
        _write(self.name, "error", event, {**fields, "exc_info": error})


def get(name: str) -> Logger:
    """Return the logger of a part, named by its import name."""
    return Logger(name)


def _write(name: str, level: str, event: str, fields: dict[str, object]) -> None:
    with _settings.lock:
        suppressed = _admit(name, event)
        if suppressed is None:
            return
        sink = _settings.sinks.get(name)
        if sink is None:
            sink = _settings.sinks[name] = _sink(name)
        if suppressed:
            fields = {**fields, "suppressed": suppressed}
        sink(level, event, fields)


def _admit(name: str, event: str) -> int | None:
    """Return how many of this event were left out since the last one written, or None to leave it out."""
    now = _settings.monotonic()
    burst = _settings.bursts.get((name, event))
    if burst is None:
        if len(_settings.bursts) >= _EVENTS_MAX:
            _settings.bursts.clear()
        burst = _settings.bursts[name, event] = _Burst(now)
    if now - burst.since >= BURST_S:
        burst.since, burst.written = now, 0
    if burst.written >= BURST_MAX:
        burst.suppressed += 1
        return None
    burst.written += 1
    suppressed, burst.suppressed = burst.suppressed, 0
    return suppressed


def _sink(name: str) -> _Sink:
    stream = _settings.stream or sys.stderr
    console = _settings.format == "console" or (_settings.format == "auto" and stream.isatty())
    return _console_sink(name, stream) if console else _json_sink(name, stream)


def _json_sink(name: str, stream: TextIO) -> _Sink:
    import msgspec

    encode = msgspec.json.Encoder(enc_hook=repr).encode

    def write(level: str, event: str, fields: Mapping[str, object]) -> None:
        line: dict[str, object] = {"part": name, **fields}
        error = line.pop("exc_info", None)
        line |= {"event": event, "level": level, "timestamp": _now()}
        if isinstance(error, BaseException):
            line["exception"] = _traceback(error)
        _hide_secrets(None, level, line)
        stream.write(encode(line).decode() + "\n")
        stream.flush()

    return write


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _traceback(error: BaseException) -> object:
    from structlog.tracebacks import ExceptionDictTransformer

    # Without locals: they hold keys, credentials and other people's bytes.
    transform = ExceptionDictTransformer(show_locals=False)
    return transform((type(error), error, error.__traceback__))


def _console_sink(name: str, stream: TextIO) -> _Sink:
    import structlog

    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
        _hide_secrets,
        # The plain formatter, as richer ones show locals: keys, credentials, other people's bytes.
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    ]
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.BoundLogger,
        part=name,
    )

    def write(level: str, event: str, fields: Mapping[str, object]) -> None:
        getattr(logger, level)(event, **fields)

    return write


def _hide_secrets(
    logger: object, method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "***"
    return event
