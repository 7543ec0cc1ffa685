"""Snapshots and clones of a disk beside its writers, and a server that is killed: each is the disk of one moment, for ever."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from warp_cli.asking import ask_running
from warp_core.errors import WarpError
from warp_integration.nbd import BLOCK, NbdDisk, content, disk, export, warp
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
BLOCKS = 600
APART = 1 << 20  # each block in a window of its own: folds take long
DEPTH = 16  # writes sent at once; the next are sent when all are answered


@dataclass
class Writer:
    """Writes blocks in rounds until the connection breaks, and remembers which round wrote what."""

    random: random.Random
    rounds: list[dict[int, int]] = field(default_factory=list)  # block → count
    answered: int = 0  # rounds
    durable: int = 0  # rounds that a flush followed
    count: int = 0

    def run(self, uri: str) -> None:
        """Write until the server is gone."""
        with suppress(OSError, struct.error), NbdDisk(uri) as connection:
            while True:
                self.write_round(connection)
                if self.random.random() < 0.05:
                    seen = self.answered
                    connection.flush()
                    self.durable = seen

    def write_round(self, connection: NbdDisk) -> None:
        """Send some writes to different blocks, and wait for their answers."""
        sent: dict[int, int] = {}
        for block in self.random.sample(range(BLOCKS), DEPTH):
            self.count += 1
            sent[block] = self.count
        self.rounds.append(sent)
        for block, count in sent.items():
            connection.send(1, count, block * APART, BLOCK, content(block, count), 0)
        for _ in sent:
            _, error = connection.reply()
            assert not error
        self.answered = len(self.rounds)


def read_all(uri: str) -> list[int]:
    """Return which count each block holds.

    Raises:
        AssertionError: A block holds what nobody wrote.
    """
    found = [0] * BLOCKS
    with NbdDisk(uri) as connection:
        for first in range(0, BLOCKS, DEPTH):
            some = range(first, min(first + DEPTH, BLOCKS))
            for block in some:
                connection.send(0, block, block * APART, BLOCK)
            for _ in some:
                block, error = connection.reply()
                assert not error
                data = connection.take(BLOCK)
                found[block] = int.from_bytes(data[8:16], "big")
                assert data == content(block, found[block]), f"block {block} is torn"
    return found


def moment(writer: Writer, found: list[int], least: int, most: int) -> str:
    """Return why blocks are not the disk of one moment after `least` rounds and before `most`, "" if they are."""
    seen = max(
        (
            number
            for number, sent in enumerate(writer.rounds)
            if any(found[block] == count for block, count in sent.items())
        ),
        default=-1,
    )
    whole = max(least, seen)  # rounds that must be there: the next was sent after their answers
    state = [0] * BLOCKS
    for sent in writer.rounds[:whole]:
        for block, count in sent.items():
            state[block] = count
    partly = writer.rounds[whole] if whole < len(writer.rounds) else {}
    for block in range(BLOCKS):
        if found[block] not in (state[block], partly.get(block, state[block])):
            return (
                f"block {block}: {found[block]}, not {state[block]}; rounds {least}, {seen}, {most}"
            )
    return "" if seen < most else f"round {seen} is there, which was sent after {most}"


@dataclass
class Taken:
    """What was made of the disk, and between which rounds."""

    export: str
    least: int
    most: int
    found: list[int] | None = None  # what it showed when it was looked at first


def rounds_of_kills(folder: Path, kills: int) -> list[Taken]:
    """Kill a server again and again while its disk is written, snapshotted and cloned; judge all that was made after each kill."""
    config = folder / "warp.toml"
    config.write_text(config_text(extra="[protocols.nbd]\n"))
    rng = random.Random(SEED)
    writer = Writer(rng)
    taken: list[Taken] = []
    with WarpServer(folder / "data", config=config, logs=folder / "logs") as server:

        def uri(name: str) -> str:
            return export(server.endpoints["nbd"], name)

        def make(name: str, verb: str) -> None:
            words = {"snapshot": name} if verb == "disk.snapshot" else {"target": name, "snapshot": ""}  # fmt: skip
            least = writer.answered
            ask_running(None, folder / "data", verb, volume="v", path="disk", **words)
            shown = f"v/disk@{name}" if verb == "disk.snapshot" else f"v/{name}"
            taken.append(Taken(shown, least, len(writer.rounds)))

        warp(folder / "data", "volume", "create", "v")
        disk(folder / "data", "create", "v/disk", "--size", "100G")
        for turn in range(kills):
            writing = threading.Thread(target=writer.run, args=(uri("v/disk"),))
            before = writer.answered
            writing.start()
            deadline = time.monotonic() + 120
            while writer.answered < before + 20:
                assert writing.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            make(f"first-{turn}", "disk.snapshot")
            end = threading.Timer(rng.uniform(0.1, 2), server.kill)
            end.start()
            with suppress(WarpError, OSError):  # one that is under way then may be there or not
                for number in range(4):
                    verb = rng.choice(["disk.snapshot", "disk.clone"])
                    make(f"{verb[5:]}-{turn}-{number}", verb)
                    time.sleep(rng.uniform(0, 0.5))
            end.join()
            writing.join(60)
            assert not writing.is_alive()
            server.start()
            for each in taken:
                found = read_all(uri(each.export))
                if each.found is None:
                    each.found = found
                    wrong = moment(writer, found, each.least, each.most)
                    assert not wrong, f"{each.export}: {wrong}"
                assert found == each.found, f"{each.export} changed"
            del taken[:-4]
            live = read_all(uri("v/disk"))
            wrong = moment(writer, live, writer.durable, len(writer.rounds))
            assert not wrong, f"the disk: {wrong}"
            # What was lost is as if it had never been sent.
            kept = [{b: c for b, c in sent.items() if live[b] == c} for sent in writer.rounds]
            lost = max(number for number, sent in enumerate(kept) if sent)
            writer.rounds[lost:] = [kept[lost]]
            writer.answered = writer.durable = len(writer.rounds)
        assert server.running, server.log_tail()
    return taken


def test_a_snapshot_beside_writers_is_of_one_moment_also_after_a_kill(tmp_path: Path) -> None:
    assert rounds_of_kills(tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_snapshots_beside_writers_stay_what_they_are_over_many_kills(tmp_path: Path) -> None:
    assert rounds_of_kills(tmp_path, 20)
