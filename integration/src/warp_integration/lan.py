"""A small network of namespaces: hosts that can be cut off from each other, one way or both, and put back.

Every host is a network namespace with one address, on a bridge in this process's own namespace, from which clients reach all of them.
What is cut is dropped by the receiving or the sending host's packet filter, so connections hang as they do behind a dead cable.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from types import TracebackType

import pytest

from warp_integration.namespace import leashed
from warp_integration.requirements import require, require_root

_serial = itertools.count()


class Lan:
    """Hosts by name, at addresses ending in 1, 2, …; this process is at 254. Use it as a context manager.

    Skips the calling test where namespaces or packet filters cannot be had.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        require_root()
        require("ip", "iptables")
        number = os.getpid() * 7 + next(_serial)
        self._net = f"10.{200 + number // 250 % 50}.{number % 250}"
        self._bridge = f"wb{os.getpid()}x{number % 100}"[:13]
        self.hosts = {name: f"{self._net}.{at}" for at, name in enumerate(hosts, start=1)}

    def __enter__(self) -> Lan:
        try:
            _run("ip", "link", "add", self._bridge, "type", "bridge", "forward_delay", "0")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs the right to make networks: {error.stderr.strip()}")
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def _make(self) -> None:
        _run("ip", "address", "add", f"{self._net}.254/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for name, address in self.hosts.items():
            space, end = self._space(name), f"{self._bridge}{name[0]}"
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", end, "type", "veth", "peer", "eth0", "netns", space)
            _run("ip", "link", "set", end, "master", self._bridge, "up")
            self.run(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            self.run(name, "ip", "link", "set", "eth0", "up")
            self.run(name, "ip", "link", "set", "lo", "up")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down."""
        for name in self.hosts:
            subprocess.run(["ip", "netns", "del", self._space(name)], capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True)

    def _space(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def prefix(self, name: str) -> tuple[str, ...]:
        """Return the words that, before a command, run it on a host; it keeps its process id, and dies with this process."""
        return ("ip", "netns", "exec", self._space(name), *leashed())

    def run(self, name: str, *command: str) -> str:
        """Run a command on a host and return its output.

        Raises:
            CalledProcessError: It failed; `stderr` says why.
        """
        return _run("ip", "netns", "exec", self._space(name), *command)

    def cut(self, name: str, others: Sequence[str], *, hears: bool, speaks: bool) -> None:
        """Cut a host off from others: what they send does not arrive unless it `hears`, what it sends unless it `speaks`."""
        for other in others:
            if not hears:
                self.run(name, "iptables", "-A", "INPUT", "-s", self.hosts[other], "-j", "DROP")
            if not speaks:
                self.run(name, "iptables", "-A", "OUTPUT", "-d", self.hosts[other], "-j", "DROP")

    def mend(self, name: str) -> None:
        """Undo every cut that was made at a host."""
        self.run(name, "iptables", "-F")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
