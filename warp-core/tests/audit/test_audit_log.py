"""The log of a running node: what is on record when, and what happens where it cannot be written."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from warp_conformance.reference.consistency import Plain
from warp_core.audit import files as audit_files
from warp_core.audit.anchor import Anchor, read_anchor
from warp_core.audit.entries import open_line
from warp_core.audit.files import Head, log_files
from warp_core.audit.log import AuditLog
from warp_core.audit.reading import Change, Verified, list_changes, verify
from warp_core.errors import Ambiguous, NoSpace, NotFound
from warp_core.interfaces.audit import Audit, Caller
from warp_core.interfaces.consistency import Commit, MetaStore

ADA = Caller("account:ada", "s3", "10.0.0.7")


@pytest.fixture
async def store() -> AsyncIterator[Plain]:
    async with Plain() as store:
        yield store


def opened(
    folder: Path,
    store: MetaStore,
    *,
    required: bool = True,
    file_size: int = 1 << 20,
    files_max: int = 8,
) -> AuditLog:
    return AuditLog(
        folder / "audit",
        store,
        node="a",
        identity="id",
        required=required,
        file_size=file_size,
        files_max=files_max,
    )


async def changed(audit: Audit, *names: str) -> None:
    for name in names:
        async with audit.change(ADA, "volume.create", {"name": name, "secret": "sesame!!"}):
            pass


def listed(folder: Path, limit: int = 100, **fitting: str) -> Sequence[Change]:
    return list_changes(folder / "audit", limit=limit, **fitting)


async def verified(folder: Path, store: MetaStore) -> Verified:
    return verify(folder / "audit", await read_anchor(store, "id"))


async def test_a_change_is_on_record_before_it_begins_and_with_its_result(
    tmp_path: Path, store: Plain
) -> None:
    async with opened(tmp_path, store) as log:
        async with log.change(ADA, "volume.create", {"name": "photos", "secret": "sesame!!"}):
            [begun] = listed(tmp_path)
        [done] = listed(tmp_path)

    assert (begun.result, done.result) == ("unfinished", "ok")
    entry = done.entry
    assert (entry.by, entry.via, entry.address) == ("account:ada", "s3", "10.0.0.7")
    assert (entry.what, entry.of) == ("volume.create", {"name": "photos", "secret": "***"})
    assert b"sesame" not in (tmp_path / "audit" / f"{1:020}.jsonl").read_bytes()


async def test_refusals_defects_and_cancellations_are_told_apart(
    tmp_path: Path, store: Plain
) -> None:
    async def ends(error: BaseException) -> None:
        async with log.change(ADA, "x", {}):
            raise error

    async with opened(tmp_path, store) as log:
        with pytest.raises(NotFound):
            await ends(NotFound("no volume"))
        with pytest.raises(ZeroDivisionError):
            await ends(ZeroDivisionError("defect"))
        with pytest.raises(asyncio.CancelledError):
            await ends(asyncio.CancelledError())
        await log.note(ADA, "y", {"name": "z"}, error=NotFound("not yours"))

    told = [(each.entry.what, each.result, each.error) for each in listed(tmp_path)]
    assert told == [
        ("x", "refused", "NotFound"),
        ("x", "failed", "ZeroDivisionError"),
        ("x", "cancelled", ""),
        ("y", "refused", "NotFound"),
    ]
    assert listed(tmp_path)[0].message == "no volume"


async def test_many_at_once_form_one_chain_with_few_syncs(
    tmp_path: Path, store: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync
    monkeypatch.setattr(audit_files.os, "fsync", lambda file: (synced.append(file), fsync(file)))
    async with opened(tmp_path, store) as log:
        await asyncio.gather(*(changed(log, f"v{number}") for number in range(100)))
    found = await verified(tmp_path, store)

    assert (found.broken, found.lines, found.anchored) == (None, 200, found.head)
    assert len(synced) < 40


@pytest.mark.parametrize("fails", ["pwrite", "fsync"])
async def test_what_cannot_be_put_on_record_is_not_done(
    tmp_path: Path, store: Plain, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    done = []
    async with opened(tmp_path, store) as log:
        await changed(log, "before")
        with monkeypatch.context() as patch:
            patch.setattr(audit_files.os, fails, full)
            with pytest.raises(NoSpace, match="No space left"):
                async with log.change(ADA, "volume.create", {}):
                    done.append("it was done")
        await changed(log, "after")
    found = await verified(tmp_path, store)

    assert done == []
    assert (found.broken, found.lines) == (None, 4)
    assert [each.entry.of["name"] for each in listed(tmp_path)] == ["before", "after"]


async def test_half_a_line_on_a_full_disk_leaves_no_trace(
    tmp_path: Path, store: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def half(file: int, data: memoryview, at: int) -> int:
        pwrite(file, data[:40], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    async with opened(tmp_path, store) as log:
        await changed(log, "before")
        with monkeypatch.context() as patch:
            patch.setattr(audit_files.os, "pwrite", half)
            with pytest.raises(NoSpace):
                await changed(log, "meanwhile")
        await changed(log, "after")

    assert (await verified(tmp_path, store)).broken is None


async def test_a_change_whose_result_cannot_be_written_is_not_called_a_success(
    tmp_path: Path, store: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, store) as log:
        with pytest.raises(Ambiguous, match="was done"):
            async with log.change(ADA, "volume.create", {}):
                monkeypatch.setattr(audit_files.os, "pwrite", _refused)
        monkeypatch.undo()

    assert [each.result for each in listed(tmp_path)] == ["unfinished"]


def _refused(*_: object) -> int:
    raise OSError(errno.EIO, "Input/output error")


async def test_with_best_effort_changes_go_on(
    tmp_path: Path, store: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, store, required=False) as log:
        with monkeypatch.context() as patch:
            patch.setattr(audit_files.os, "pwrite", _refused)
            await changed(log, "unseen")
        await changed(log, "seen")
    found = await verified(tmp_path, store)

    assert (found.broken, found.lines) == (None, 2)


async def test_a_line_that_a_crash_cut_short_is_taken_off(tmp_path: Path, store: Plain) -> None:
    async with opened(tmp_path, store) as log:
        await changed(log, "before")
    [file] = log_files(tmp_path / "audit")
    whole = file.path.read_bytes()
    for torn in (whole[:-1][-40:], b'{"v":1,"seq":3', b"\0" * 100):
        file.path.write_bytes(whole + torn)
        async with opened(tmp_path, store) as log:
            await changed(log, "after")
        found = await verified(tmp_path, store)

        assert found.broken is None
        whole = file.path.read_bytes()


async def test_lines_behind_the_anchor_count(tmp_path: Path, store: Plain) -> None:
    class Deaf(Plain):
        async def commit(self, commit: Commit) -> int:
            raise NotFound("no metadata today")

    async with opened(tmp_path, store) as log:
        await changed(log, "before")
    deaf = Deaf()
    deaf.rows, deaf.version = store.rows, store.version
    async with opened(tmp_path, deaf) as log:
        await changed(log, "unanchored")
    async with opened(tmp_path, store) as log:
        await changed(log, "after")
    found = await verified(tmp_path, store)

    assert (found.broken, found.lines, found.anchored) == (None, 6, found.head)


@pytest.mark.parametrize("left", [0, 1, 3])
async def test_a_log_that_was_cut_off_goes_on_and_stays_broken(
    tmp_path: Path, store: Plain, left: int
) -> None:
    async with opened(tmp_path, store) as log:
        await changed(log, "one", "two")
    [file] = log_files(tmp_path / "audit")
    lines = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(b"".join(lines[:left]))
    if not left:
        file.path.unlink()
    for _ in range(2):
        async with opened(tmp_path, store) as log:
            await changed(log, "after")
        found = await verified(tmp_path, store)

        assert found.broken is not None
        assert found.broken.seq == left + 1
    assert [each.entry.of["name"] for each in listed(tmp_path)][-2:] == ["after", "after"]


async def test_a_damaged_end_is_kept_as_it_is_and_stays_broken(
    tmp_path: Path, store: Plain
) -> None:
    async with opened(tmp_path, store) as log:
        await changed(log, "one", "two")
    [file] = log_files(tmp_path / "audit")
    damaged = file.path.read_bytes().replace(b'"two"', b'"too"')
    file.path.write_bytes(damaged)
    async with opened(tmp_path, store) as log:
        await changed(log, "after")
    found = await verified(tmp_path, store)

    assert file.path.read_bytes() == damaged
    assert found.broken is not None
    assert found.broken.seq == 3


async def test_without_an_anchor_the_chain_goes_on_where_the_files_end(tmp_path: Path) -> None:
    for name in ("one", "two"):
        async with Plain() as forgetful, opened(tmp_path, forgetful) as log:
            await changed(log, name)

    found = verify(tmp_path / "audit", None)
    assert (found.broken, found.lines, found.anchored) == (None, 4, None)


async def test_rotation_goes_on_in_one_chain_and_drops_the_oldest(
    tmp_path: Path, store: Plain
) -> None:
    for turn in range(3):
        async with opened(tmp_path, store, file_size=2000, files_max=3) as log:
            await changed(log, *(f"{turn}-{number}" for number in range(20)))
            await log.anchored(10)
    files = log_files(tmp_path / "audit")
    found = await verified(tmp_path, store)

    assert len(files) <= 4
    assert files[0].first > 1
    assert (found.broken, found.first, found.head.seq) == (None, files[0].first, 120)
    assert found.anchored == found.head
    newest = listed(tmp_path, limit=5)
    assert [each.entry.of["name"] for each in newest] == [f"2-{n}" for n in range(15, 20)]
    files[0].path.unlink()
    broken = (await verified(tmp_path, store)).broken
    assert broken is not None
    assert broken.seq == found.first


async def test_a_list_is_narrowed_by_who_what_when_and_how(tmp_path: Path, store: Plain) -> None:
    bob = Caller("unix:0", "control", "pid 1")
    async with opened(tmp_path, store, file_size=700) as log:
        await changed(log, "one", "two", "three")
        async with log.change(bob, "key.create", {"account": "ada"}):
            pass
        await log.note(bob, "key.revoke", {}, error=NotFound("no key"))
    everything = listed(tmp_path)

    assert len(everything) == 5
    assert [each.entry.what for each in listed(tmp_path, by="unix:")] == [
        "key.create",
        "key.revoke",
    ]
    assert [each.entry.of["name"] for each in listed(tmp_path, 2, what="volume.")] == [
        "two",
        "three",
    ]
    assert [each.entry.what for each in listed(tmp_path, result="refused")] == ["key.revoke"]
    assert listed(tmp_path, since=everything[3].entry.time) == everything[3:]
    assert listed(tmp_path, since="2999-01-01") == []


async def test_a_check_beside_a_writing_node_sees_what_was_there_when_it_began(
    tmp_path: Path, store: Plain
) -> None:
    async with opened(tmp_path, store, file_size=600) as log:
        await changed(log, "one", "two")
        await log.anchored(10)
        anchor, end = await log.anchor(), log.head
        await changed(log, "three")
        found = verify(tmp_path / "audit", anchor, end=end)
        emptied = verify(tmp_path / "audit", Anchor(), end=Head(99, "0" * 64))

    assert (found.broken, found.lines, found.head) == (None, 4, end)
    assert emptied.broken is not None


async def test_the_files_are_their_owners_alone(tmp_path: Path, store: Plain) -> None:
    async with opened(tmp_path, store) as log:
        await changed(log, "one")
    [file] = log_files(tmp_path / "audit")

    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert open_line(file.path.read_bytes().splitlines()[0])[0].seq == 1
