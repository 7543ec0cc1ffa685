"""A campaign: record a workload once, cut its power many times, judge each time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from warp_integration.namespace import MountRefused
from warp_integration.powercut.bench import Recording, Remains, after_cut
from warp_integration.powercut.cut import Cut, choose_cuts
from warp_integration.powercut.disks import EXT4, MIB, FileSystem
from warp_integration.powercut.ledger import Finding


class Unreadable(Exception):
    """The system under test does not open what the cut left; says why."""


class Promises(Protocol):
    """What a workload was promised, with positions: a `Ledger`, or another that judges what it noted."""

    def acks(self) -> Sequence[int]:
        """Return the positions of acknowledgements that a cut may prove wrong."""

    def acknowledged(self) -> int:
        """Return the number of acknowledged operations."""

    def judge(self, seen: Mapping[str, str], at: int) -> Sequence[Finding]:
        """Return what is wrong with what was seen after a cut at position `at`."""


class Workload(ABC):
    """Something that keeps data on disks and says what of it is durable."""

    disks: int = 1
    size: int = 64 * MIB

    @abstractmethod
    def run(self, recording: Recording) -> Promises:
        """Work on the mounted disks and return what was promised, with trace positions.

        Every process that uses the disks has ended on return.
        """

    @abstractmethod
    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Return the content of every key that is there after a cut.

        Raises:
            Unreadable: Nothing can be read at all.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cut did."""

    cut: Cut
    findings: tuple[Finding, ...]
    refused: str = ""  # why the file system itself could not be mounted


@dataclass(frozen=True, slots=True)
class Report:
    """What all cuts of a campaign did."""

    acknowledged: int
    records: int
    outcomes: tuple[Outcome, ...]

    @property
    def harmful(self) -> tuple[Outcome, ...]:
        """The cuts after which something acknowledged was lost or something was mixed."""
        return tuple(outcome for outcome in self.outcomes if outcome.findings)

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """The cuts that the file system did not survive: they say nothing about the workload."""
        return tuple(outcome for outcome in self.outcomes if outcome.refused)

    def kinds(self) -> set[str]:
        """Return the kinds of all findings."""
        return {finding.kind for outcome in self.outcomes for finding in outcome.findings}

    def __str__(self) -> str:
        lines = [
            f"{self.acknowledged} acknowledged, {self.records} disk requests, "
            f"{len(self.outcomes)} cuts: {len(self.harmful)} harmful, {len(self.refused)} refused"
        ]
        for outcome in self.harmful[:5]:
            lines.append(f"  {outcome.cut}")
            lines += [f"    {finding}" for finding in outcome.findings[:5]]
        lines += [f"  {outcome.cut}\n    {outcome.refused}" for outcome in self.refused[:3]]
        return "\n".join(lines)


def campaign(
    workload: Workload,
    directory: Path,
    *,
    cuts: int,
    seed: int,
    torn: float = 0.0,
    filesystem: FileSystem = EXT4,
) -> Report:
    """Record `workload` in `directory`, then cut the power `cuts` times, chosen by `seed`.

    `torn` is the chance that a surviving unflushed block is torn into sectors.
    """
    recording = Recording(
        directory, disks=workload.disks, size=workload.size, filesystem=filesystem
    )
    with recording:
        ledger = workload.run(recording)
        recording.stop()
    replay = recording.replay()
    chosen = [
        Cut(cut.position, cut.seed, cut.survival, torn)
        for cut in choose_cuts(
            first=recording.first,
            last=recording.last,
            count=cuts,
            seed=seed,
            acks=ledger.acks(),
            flushes=replay.flushes(),
        )
    ]
    outcomes = [
        _judge(workload, ledger, cut, images, directory, filesystem)
        for cut, images in replay.images(chosen)
    ]
    return Report(ledger.acknowledged(), recording.last, tuple(outcomes))


def _judge(
    workload: Workload,
    ledger: Promises,
    cut: Cut,
    images: tuple[Path, ...],
    directory: Path,
    filesystem: FileSystem,
) -> Outcome:
    try:
        with after_cut(images, directory, filesystem) as remains:
            seen = workload.read_back(remains)
    except MountRefused as error:
        return Outcome(cut, (), refused=str(error))
    except Unreadable as error:
        return Outcome(cut, (Finding("lost", "everything", str(error), ("readable",)),))
    return Outcome(cut, tuple(ledger.judge(seen, cut.position)))
