"""Two storing nodes and a witness on hosts of their own, made by the commands of `warp node`, and what can happen to each.

A host has its own network (`Lan`), so it can be cut off one way or both; its clock can be moved while it runs (libfaketime; the member
of etcd that the node runs is no C program and keeps its clock); its processes can be killed or stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from warp_integration.lan import Lan
from warp_integration.requirements import locate, require
from warp_integration.s3client import ConnectionLost, S3Connection
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
STORING = ("a", "b")
WITNESS = "w"
HOUR_S = 3600


class Trio:
    """The cluster. Use it as a context manager; `form` makes it."""

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float = 2.0,
        storing: Sequence[str] = STORING,
        later: Collection[str] = (),
        more: str = "",
    ):
        """Take where everything lies, which hosts keep data, which of them `join` when they are told to, and more for their files."""
        require("etcd")
        self.folder = folder
        self.lease_s = lease_s
        self.storing = tuple(storing)
        self.later = frozenset(later)
        self._more = more
        self.names = (*self.storing, WITNESS)
        self.lan = Lan(self.names)
        self.nodes: dict[str, WarpServer] = {}
        self._exits = ExitStack()

    def __enter__(self) -> Trio:
        self._exits.enter_context(self.lan)
        for name in self.names:
            self.nodes[name] = WarpServer(
                self.folder / name,
                config=self.folder / f"{name}.toml",
                prefix=self.lan.prefix(name),
                logs=self.folder / f"{name}-logs",
                environment=self._environment(name),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, node in self.nodes.items():
            if node.running:
                self.signal(name, signal.SIGCONT)
            node.close()
        self._exits.close()

    def _environment(self, name: str) -> dict[str, str]:
        self.move_clock(name, 0)
        if not FAKETIME.exists():
            return {}
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    # Making it ------------------------------------------------------------------------------------

    def form(self) -> None:
        """Found the cluster at the first host, let the others join, and wait until everything has its copies."""
        first, *others = self.names
        self.warp(first, "node", "found", *self._place(first))
        file = self.folder / f"{first}.toml"
        cluster = f'[cluster]\nlease = "{self.lease_s:g}s"\nwait = "1s"\nfailback = true'
        file.write_text(file.read_text().replace("[cluster]", cluster))
        self._plaintext(first)
        self.nodes[first].start()
        for name in others:
            if name not in self.later:
                self.join(name, first)
        self.until_healthy(60)

    def join(self, name: str, at: str) -> None:
        """Let a host join with a token of another, which becomes its partner, and start it."""
        token = str(self.at(at, "node", "token")["token"])
        options = ("--witness",) if name == WITNESS else ()
        self.warp(name, "node", "join", token, *self._place(name), *options)
        if name != WITNESS:
            file = self.folder / f"{name}.toml"
            file.write_text(file.read_text().replace("[cluster]", "[cluster]\nfailback = true"))
            self._plaintext(name)
        self.nodes[name].start()
        self.later -= {name}

    def _plaintext(self, name: str) -> None:
        file = self.folder / f"{name}.toml"
        text = file.read_text()
        for protocol in ("s3", "nbd"):
            table = f"[protocols.{protocol}]"
            text = text.replace(table, f"{table}\nallow_plaintext = true")
        file.write_text(text + self._more)

    def _place(self, name: str) -> list[str]:
        address = self.lan.hosts[name]
        served = [f"--protocol=s3={address}:9000", f"--protocol=nbd={address}:10809"]
        served = [] if name == WITNESS else served
        return ["--name", name, "--listen", address, *served, *self._files(name)]

    def _files(self, name: str) -> list[str]:
        return [
            *("--config", str(self.folder / f"{name}.toml")),
            *("--data", str(self.folder / name)),
        ]

    def warp(self, name: str, *words: str, timeout_s: float = 60) -> dict[str, object]:
        """Run a command on a host and return what it prints as JSON."""
        command = [*self.lan.prefix(name), str(locate("warp")), *words, "--json"]
        keys = {"WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **keys}
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def at(self, name: str, *words: str) -> dict[str, object]:
        """Run a command about a node on its host."""
        return self.warp(name, *words, *self._files(name))

    @property
    def here(self) -> list[str]:
        """The hosts that keep data and have joined."""
        return [name for name in self.storing if name not in self.later]

    # What can happen ------------------------------------------------------------------------------

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a node and to what it runs."""
        node = self.nodes[name]
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        for pid in (node.pid, *map(int, children)):
            os.kill(pid, number)

    def move_clock(self, name: str, seconds: int) -> None:
        """Move a host's wall clock; its processes see it within a second or two."""
        draft = self._clock(name).with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._clock(name))

    def others(self, name: str) -> list[str]:
        """Return the other hosts."""
        return [each for each in self.names if each not in (name, *self.later)]

    # What is seen ---------------------------------------------------------------------------------

    def describe(self, name: str) -> dict[str, object]:
        """Return what `warp node list` says at a node."""
        return self.at(name, "node", "list")

    def until_healthy(self, within_s: float) -> float:
        """Wait until `warp node list` finds nothing wrong and every domain is where it was made; return how long that took."""
        began = time.monotonic()
        said: object = None
        while time.monotonic() < began + within_s:
            try:
                said = self.describe(self.storing[0])
            except (AssertionError, subprocess.TimeoutExpired) as error:
                said = error
            else:
                domains: list[dict[str, object]] = said["domains"]  # type: ignore[assignment]
                home = all(each["home"] == each["origin"] for each in domains)
                if not said["problems"] and home and len(domains) == len(self.here):
                    return time.monotonic() - began
            time.sleep(0.3)
        logs = "\n".join(f"--- {name}\n{node.log_tail()}" for name, node in self.nodes.items())
        raise AssertionError(f"not healthy within {within_s} s: {said}\n{logs}")

    def until_served(self, names: Sequence[str], buckets: Sequence[str], within_s: float) -> float:
        """Wait until an object can be put into each bucket through one of these nodes; return how long that took."""
        began = time.monotonic()

        async def served(bucket: str) -> None:
            asked = [asyncio.create_task(served_by(name, bucket)) for name in names]
            try:
                await next(asyncio.as_completed(asked))
            finally:
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

        async def served_by(name: str, bucket: str) -> None:
            said: object = None
            while time.monotonic() < began + within_s:
                try:
                    async with asyncio.timeout(within_s), S3Connection(self.nodes[name].s3) as s3:
                        answer = await s3.request("PUT", f"/{bucket}/probe", body=b"probe")
                except (ConnectionLost, TimeoutError) as error:
                    said = error
                else:
                    if answer.status == 200:
                        return
                    said = answer
                await asyncio.sleep(0.05)
            raise AssertionError(f"{bucket} is not served by {name} within {within_s} s: {said}")

        async def all_served() -> None:
            async with asyncio.TaskGroup() as group:
                for bucket in buckets:
                    group.create_task(served(bucket))

        asyncio.run(all_served())
        return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to a node and is put right again."""

    name: str
    node: str
    begin: Callable[[], None]
    end: Callable[[], None]
    apart: bool = (
        False  # the storing nodes reach the witness and not each other: each serves its own
    )


def faults(trio: Trio, node: str, rng: random.Random) -> list[Fault]:
    """Return everything that may happen to a node."""
    others = trio.others(node)
    partner = rng.choice([each for each in others if each != WITNESS])

    def cut(whom: Sequence[str], *, hears: bool, speaks: bool) -> Callable[[], None]:
        return lambda: trio.lan.cut(node, whom, hears=hears, speaks=speaks)

    def mend() -> None:
        trio.lan.mend(node)

    def nothing() -> None:
        pass

    server = trio.nodes[node]
    found = [
        Fault("killed", node, server.kill, server.start),
        Fault(
            "stopped",
            node,
            lambda: trio.signal(node, signal.SIGSTOP),
            lambda: trio.signal(node, signal.SIGCONT),
        ),
        Fault(
            "stopped, its etcd not",
            node,
            lambda: os.kill(server.pid, signal.SIGSTOP),
            lambda: os.kill(server.pid, signal.SIGCONT),
        ),
        Fault("ended in order", node, lambda: _ended(server), server.start),
        Fault("deaf", node, cut(others, hears=False, speaks=True), mend),
        Fault("mute", node, cut(others, hears=True, speaks=False), mend),
        Fault("cut off", node, cut(others, hears=False, speaks=False), mend),
        Fault(
            f"deaf to {partner}",
            node,
            cut([partner], hears=False, speaks=True),
            mend,
            apart=True,
        ),
        Fault(
            f"cut off from {partner}",
            node,
            cut([partner], hears=False, speaks=False),
            mend,
            apart=True,
        ),
    ]
    if FAKETIME.exists():
        by = rng.choice((HOUR_S, -HOUR_S))
        found.append(
            Fault(
                f"clock moved by {by} s",
                node,
                lambda: trio.move_clock(node, by),
                lambda: trio.move_clock(node, 0),
            )
        )
    return found


def _ended(server: WarpServer) -> None:
    assert server.terminate() == 0, server.log_tail()


__all__ = ["FAKETIME", "STORING", "WITNESS", "Fault", "Trio", "faults"]
