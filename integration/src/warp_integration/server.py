"""Run `warp serve` as its users do, and stop it as users never would.

The contract is the command line's: one JSON line `{"event": "ready", "endpoints": {...}}` on standard output once every endpoint
accepts connections, SIGTERM drains and exits 0.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from warp_integration.namespace import leashed
from warp_integration.requirements import locate

ACCESS_KEY = "WARPTESTACCESSKEY000"
SECRET_KEY = "warp/test/secret/key/of/forty/characters"
REPLACE_STORES = "--replace-stores"
"""The option that lets a server start with a disk that was lost and replaced by an empty one."""
_POLL_S = 0.01
_LOG_TAIL = 4000  # characters of the log that an error shows


class ServerFailed(Exception):
    """The server ended or stayed silent where it should have become ready; shows the end of its log."""


class WarpServer:
    """One server on one data directory, started and stopped any number of times.

    Leaving the context kills what still runs; the death of the starting thread does so as well.

    Args:
        data: The data directory, created by the server.
        config: Its `warp.toml`; without one the server's defaults hold.
        prefix: Words before the command, such as `MountNamespace.prefix` or a tracer.
        environment: Added to this process's own.
        logs: Where standard output and error go, one pair of files for each start; default: beside `data`.
        command: What to run instead of `warp`; it gets the same arguments.
    """

    def __init__(
        self,
        data: Path,
        *,
        config: Path | None = None,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        logs: Path | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.data = data.absolute()
        self._logs = (logs or data.parent).absolute()
        self.prefix = tuple(prefix) or _die_with_parent()
        self._environment = {
            **os.environ,
            "WARP_ACCESS_KEY": ACCESS_KEY,
            "WARP_SECRET_KEY": SECRET_KEY,
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        words = [*(command or [str(_warp())]), "serve", "--data", str(data.absolute())]
        self._command = words + (["--config", str(config.absolute())] if config else [])
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.endpoints: Mapping[str, str] = {}
        """Protocol → URL, of the latest start."""

    def __enter__(self) -> WarpServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def launch(self, *options: str) -> None:
        """Start the process, with more options of `warp serve` for this once, without waiting for it."""
        if self.running:
            raise RuntimeError(f"server {self.pid} still runs")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*self.prefix, *self._command, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=self._environment,
            )

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait for the line that says every endpoint accepts connections.

        Raises:
            ServerFailed: It ended first, or said nothing for `timeout_s`.
        """
        assert self._process
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self._process.poll()
            ready = self._ready_line()
            if ready is not None:
                self.endpoints = ready
                return
            if ended is not None:
                raise ServerFailed(f"ended with {ended} before it was ready\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"not ready after {timeout_s} s\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def start(self, *options: str, timeout_s: float = 120.0) -> None:
        """Start, with more options for this once, and wait until it is ready."""
        self.launch(*options)
        self.wait_ready(timeout_s)

    def _ready_line(self) -> dict[str, str] | None:
        lines = self._output.read_bytes().split(b"\n")
        for line in lines[:-1]:
            if line.startswith(b"{"):
                event = json.loads(line)
                if event.get("event") == "ready":
                    return dict(event["endpoints"])
        return None

    def kill(self) -> None:
        """SIGKILL, at once."""
        if self.running:
            assert self._process
            self._process.kill()
        if self._process:
            self._process.wait()

    def close(self) -> None:
        """Kill what still runs, for `contextlib.closing` around servers that are started later."""
        self.kill()

    def terminate(self, timeout_s: float = 90.0) -> int:
        """SIGTERM, and return the exit status.

        Raises:
            ServerFailed: It did not end in time.
        """
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"still running {timeout_s} s after SIGTERM\n{self.log_tail()}"
            raise ServerFailed(message) from None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        assert self._process
        return self._process.pid

    @property
    def s3(self) -> str:
        """The URL of the S3 endpoint."""
        return self.endpoints["s3"]

    def rss_anon(self) -> int:
        """Return the bytes of memory that are the process's own (RssAnon): heap and stacks, no file pages."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise LookupError("this kernel does not report RssAnon")

    def log(self) -> str:
        """Return what the latest start wrote to standard error."""
        return self._errors.read_text(errors="replace")

    def log_tail(self) -> str:
        """Return the end of the log, for messages."""
        return self.log()[-_LOG_TAIL:]

    @property
    def _output(self) -> Path:
        return self._logs / f"server-{self._starts}.out"

    @property
    def _errors(self) -> Path:
        return self._logs / f"server-{self._starts}.err"


def config_text(
    *,
    stores: Sequence[Path] = (),
    copies: int | None = None,
    redundancy: str | None = None,
    listen: str = "127.0.0.1:0",
    extra: str = "",
    metadata: str | None = None,
) -> str:
    """Return a `warp.toml` with S3 on `listen`; what is left out keeps the server's default.

    `metadata` are lines of its table; the variable WARP_TEST_METADATA gives them to tests that do not care, such as
    `WARP_TEST_METADATA='engine = "etcd"' pytest integration/tests/test_kills.py`. `{unique}` in them is another word each time:
    servers that share a database need a schema each.
    """
    chosen = os.environ.get("WARP_TEST_METADATA", "") if metadata is None else metadata
    lines = ["[metadata]", chosen.replace("{unique}", uuid.uuid4().hex)]
    if copies is not None:
        lines += [f"copies = {copies}"]
    for store in stores:
        lines += ["[[store]]", 'kind = "disk"', f"path = {json.dumps(str(store))}"]
    if redundancy is not None:
        lines += ["[policy.default]", f"redundancy = {json.dumps(redundancy)}"]
    lines += ["[protocols.s3]", f"listen = {json.dumps(listen)}", extra]
    return "\n".join(lines) + "\n"


def _warp() -> Path:
    found = locate("warp")
    if found is None:
        raise LookupError("the command `warp` is not installed beside this Python: uv sync")
    return found


def _die_with_parent() -> tuple[str, ...]:
    return leashed() if shutil.which("setpriv") else ()
