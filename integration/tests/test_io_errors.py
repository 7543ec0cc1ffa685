"""A disk that fails or fills up at any file call: clean errors, reads go on, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from warp_integration.faults import EVER, Call, Faults, Rule
from warp_integration.powercut import Finding, Ledger
from warp_integration.s3load import S3Load, read_everything, settle
from warp_integration.server import WarpServer, config_text

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
NEVER = EVER - 1_000_000

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

COMMON = [
    (Call.WRITE, errno.EIO),
    (Call.SYNC, errno.EIO),
    (Call.WRITE, errno.ENOSPC),
    (Call.ALLOCATE, errno.ENOSPC),
]
RARE = [
    (Call.SYNC_DIRECTORY, errno.EIO),
    (Call.CREATE, errno.EIO),
    (Call.CREATE, errno.ENOSPC),
    (Call.RENAME, errno.EIO),
    (Call.UNLINK, errno.EIO),
    (Call.ALLOCATE, errno.EIO),
]


def name(case: object) -> str:
    return errno.errorcode[case] if isinstance(case, int) else str(case)


class Patient:
    """A server whose disk can be made to fail while it runs, and the load on it."""

    def __init__(self, tmp_path: Path, rule: Rule, parts: int) -> None:
        config = tmp_path / "warp.toml"
        config.write_text(config_text())
        self.faults = Faults(tmp_path / "faults", [rule])
        self.server = WarpServer(
            tmp_path / "data",
            config=config,
            logs=tmp_path / "logs",
            environment=self.faults.environment,
        )
        self.load = S3Load(Ledger(), seed=SEED, parts=parts)

    def run(self, seconds: float, *, acknowledged: int = 0) -> None:
        asyncio.run(self.load.run(self.server.s3, seconds=seconds, acknowledged=acknowledged))

    def run_until_it_fails(self, limit_s: float) -> bool:
        """Load until the failing call was made, and a moment on; return whether it was, within the limit."""
        deadline = time.monotonic() + limit_s
        while not self.has_failed() and time.monotonic() < deadline:
            self.run(0.3)
        self.run(0.5)
        return self.has_failed()

    def has_failed(self) -> bool:
        return self.faults.count() >= NEVER

    def judge(self) -> list[Finding]:
        """Read everything from the running server and judge; during the load it was judged as well."""
        seen = asyncio.run(read_everything(self.server.s3, self.load.ledger.used_keys()))
        return self.load.findings + self.load.ledger.judge(seen)

    def fail_after(self, calls: int) -> None:
        self.faults.reset(count=NEVER - 1 - calls)

    def unclean_answers(self) -> list[str]:
        """Return the errors that did not say what they are in S3's terms, or put a disk's fault on who asked."""
        return [
            answer
            for answer in self.load.answers
            if (
                not answer.startswith("HEAD")
                and answer.split()[1] >= "400"
                and answer.count(" ") < 2
            )
            or answer.split()[1] in ("400", "401", "403")
        ]


def treat(
    tmp_path: Path, call: Call, code: int, *, lasting: bool, after: int, limit_s: float
) -> bool:
    """Let a disk fail under load, judge, heal it, restart, judge; return whether the failing call was ever made."""
    last = EVER if lasting else NEVER
    rule = Rule(call, code, NEVER, last, str(tmp_path / "data"))
    # Files are made when what is there is full, so those calls need uploads that fill it.
    rare = call not in (Call.WRITE, Call.SYNC)
    patient = Patient(tmp_path, rule, parts=3 if rare else 0)
    with patient.faults, patient.server as server:
        asyncio.run(patient.load.prepare(server.s3))
        patient.run(0.3)
        patient.fail_after(after)
        fired = patient.run_until_it_fails(limit_s)
        print(f"fired: {fired}", dict(patient.load.answers), sep="\n")

        assert server.running, server.log_tail()
        assert not patient.judge()
        assert not patient.unclean_answers()

        patient.faults.reset()  # the disk is well again
        server.kill()
        server.start()
        found = asyncio.run(settle(patient.load, server.s3))
        before = patient.load.ledger.acknowledged()
        patient.run(0.3, acknowledged=1)

        assert not found, [str(finding) for finding in found]
        assert patient.load.ledger.acknowledged() > before, "it does not recover"
    return fired


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize(("call", "code"), COMMON, ids=name)
def test_a_failing_disk_gives_clean_errors_and_loses_nothing(
    tmp_path: Path, call: Call, code: int, lasting: bool
) -> None:
    after = 0 if call is Call.ALLOCATE else random.Random(SEED).randrange(20)
    failed = treat(tmp_path, call, code, lasting=lasting, after=after, limit_s=30)

    assert failed, "the disk never failed"


def sweep() -> Iterator[object]:
    for call, code in COMMON + RARE:
        for lasting in (False, True):
            for after in range(12):
                how = "on" if lasting else "once"
                yield pytest.param(
                    call, code, lasting, after, id=f"{call} {errno.errorcode[code]} {how} {after}"
                )


@pytest.mark.slow
@pytest.mark.parametrize(("call", "code", "lasting", "after"), list(sweep()))
def test_any_file_call_may_fail(
    tmp_path: Path, call: Call, code: int, lasting: bool, after: int
) -> None:
    treat(tmp_path, call, code, lasting=lasting, after=after, limit_s=4)
