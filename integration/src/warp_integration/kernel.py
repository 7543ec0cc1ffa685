"""A Linux kernel as client: a guest that mounts what a server on this host's loopback offers, without root.

The guest is `kernel_client.py`, a program of its own that is no part of the project. It is sought where WARP_TEST_KERNEL_CLIENT
says, then in `shared/kernel-client` beside the checkout. Its `Guest` boots a user-mode kernel that sees this host's files,
read-only, and this host's loopback under `$HOST_IP`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

import pytest

VARIABLE = "WARP_TEST_KERNEL_CLIENT"


class Outcome(Protocol):
    """What a script did."""

    rc: int
    out: str
    err: str


class Machine(Protocol):
    """A booted kernel: each script is a shell of its own, mounts and devices stay."""

    def run(self, script: str, timeout: float = 120) -> Outcome:
        """Run a shell script in it."""


class Kernel:
    """A booted kernel whose scripts must succeed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(self, script: str, *, timeout_s: float = 60, fails: bool = False) -> str:
        """Run a shell script and return its output.

        Args:
            script: Stops at its first command that fails.
            timeout_s: Then it failed.
            fails: It must not succeed, instead.
        """
        done = self._machine.run(f"set -e\n{script}", timeout=timeout_s)
        told = f"{script}\n→ {done.rc}\n{done.out[-3000:]}\n{done.err[-3000:]}"
        assert (done.rc != 0) == fails, told
        return done.out + done.err


@contextmanager
def kernel(*modules: str, share: Sequence[Path] = (), kind: str = "uml") -> Iterator[Kernel]:
    """Boot a kernel for the block, with modules loaded and folders of the host to write to; skips the test where there is none."""
    path = _client()
    if path is None:
        pytest.skip(f"missing: kernel_client.py (the variable {VARIABLE} says where it is)")
    spec = importlib.util.spec_from_file_location("kernel_client", path)
    assert spec is not None
    assert spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    sys.modules["kernel_client"] = client
    spec.loader.exec_module(client)
    if not client.ready(kind):
        pytest.skip(f"missing: the kernel {kind} (kernel_client.py prepare {kind})")
    with client.Guest(kind, modules=modules, share=[str(each) for each in share]) as machine:
        yield Kernel(cast("Machine", machine))


def _client() -> Path | None:
    chosen = os.environ.get(VARIABLE)
    beside = Path(__file__).parents[4] / "shared/kernel-client/kernel_client.py"
    path = Path(chosen) if chosen else beside
    return path if path.is_file() else None
