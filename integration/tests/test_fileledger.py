"""The judgement of directories after a crash, on histories written by hand."""

from __future__ import annotations

from warp_integration.fileledger import FileLedger
from warp_integration.powercut.ledger import Finding

OLD, NEW = {"w": "directory", "w/a": "old"}, {"w": "directory", "w/a": "new"}
BOTH = {**NEW, "w/b": "there"}


def ledger() -> FileLedger:
    """`w` writes old, new, another file; a sync begins after the second call, at positions 10, 20, 30 and so on."""
    position = [0]
    noted = FileLedger(lambda: position[0])
    for what, state, sync in (
        ("old", OLD, False),
        ("new", NEW, False),
        ("fsync", NEW, True),
        ("b", BOTH, False),
    ):
        position[0] += 10
        step = noted.begin("w", what, state, sync=sync)
        position[0] += 5
        noted.acknowledge(step)
    return noted


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def test_before_a_sync_any_prefix_may_be_there() -> None:
    for seen in ({}, OLD, NEW):
        assert not ledger().judge(seen, at=40)


def test_what_was_synced_stays() -> None:
    assert kinds(ledger().judge(OLD, at=45)) == ["lost"]
    assert not ledger().judge(NEW, at=45)
    assert not ledger().judge(BOTH)


def test_what_had_not_begun_cannot_be_there() -> None:
    assert kinds(ledger().judge(BOTH, at=45)) == ["mixed"]


def test_a_later_change_without_an_earlier_one_is_mixed() -> None:
    assert kinds(ledger().judge({**BOTH, "w/a": "old"})) == ["mixed"]


def test_a_sync_that_was_never_acknowledged_promises_nothing() -> None:
    noted = FileLedger()
    noted.acknowledge(noted.begin("w", "old", OLD))
    noted.begin("w", "fsync", OLD, sync=True)

    assert not noted.judge({})


def test_a_sync_covers_what_others_did_before() -> None:
    noted = FileLedger()
    noted.acknowledge(noted.begin("w", "old", OLD))
    noted.acknowledge(noted.begin("v", "fsync", {}, sync=True))

    assert kinds(noted.judge({})) == ["lost"]


def test_what_one_did_is_not_lost_beside_what_another_did_later() -> None:
    noted = FileLedger()
    noted.acknowledge(noted.begin("w", "old", OLD))
    noted.acknowledge(noted.begin("v", "mkdir", {"v": "directory"}))

    assert kinds(noted.judge({"v": "directory"})) == ["lost"]
    assert not noted.judge(OLD)


def test_what_was_settled_stays_and_nothing_else_appears() -> None:
    noted = FileLedger(settled={"k": "directory"})

    assert not noted.judge({"k": "directory"})
    assert kinds(noted.judge({})) == ["lost"]
    assert kinds(noted.judge({"k": "directory", "S3: k/x": "404"})) == ["mixed"]
