"""Object lock: what is retained or held stays, whatever is tried."""

from __future__ import annotations

import time

import pytest
from warp_core.errors import InvalidArgument, NotEmpty, Retained
from warp_core.views.objects import Attributes, LockMode, Objects, PartInfo, VolumeLock

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import ALICE, ObjectsStage, digests, get, noise, put

HOUR_NS = 3600 * 10**9


def retained(mode: LockMode, hours: int = 1) -> Attributes:
    """Return attributes that retain what is stored with them."""
    return Attributes(retain_mode=mode, retain_until_ns=time.time_ns() + hours * HOUR_NS)


class Locks(ObjectsStage, kit=True):
    """Object lock."""

    async def test_a_locked_volume_says_so_and_keeps_versions(
        self, subject: Objects, volume: str
    ) -> None:
        made = await subject.create_volume("locked", owner=ALICE, locked=True)
        assert (made.lock, made.versioning) == (VolumeLock(), "on")
        with pytest.raises(InvalidArgument):
            await subject.set_versioning("locked", "suspended")
        assert (await subject.volume("locked")).versioning == "on"
        assert (await subject.volume(volume)).lock is None
        with pytest.raises(InvalidArgument):
            await subject.set_lock(volume, VolumeLock())

    async def test_a_volume_with_versions_can_become_a_locked_one(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_versioning(volume, "on")
        await subject.set_lock(volume, VolumeLock("GOVERNANCE", days=1))
        assert (await subject.volume(volume)).lock == VolumeLock("GOVERNANCE", 1)
        with pytest.raises(InvalidArgument):
            await subject.set_lock(volume, VolumeLock("GOVERNANCE", days=1, years=1))
        made = await put(subject, volume, b"k", b"1")
        found = (await subject.head(volume, b"k", version=made.version)).attributes
        assert found.retain_mode == "GOVERNANCE"
        # A subject may have a clock of its own.
        first, last = sorted((made.modified_ns, time.time_ns()))
        assert first + 23 * HOUR_NS < found.retain_until_ns < last + 25 * HOUR_NS

    async def test_without_object_lock_nothing_is_locked(
        self, subject: Objects, volume: str
    ) -> None:
        with pytest.raises(InvalidArgument):
            await put(subject, volume, b"k", b"1", retained("GOVERNANCE"))
        await put(subject, volume, b"k", b"1")
        with pytest.raises(InvalidArgument):
            await subject.set_legal_hold(volume, b"k", True)
        with pytest.raises(InvalidArgument):
            await subject.set_retention(volume, b"k", "GOVERNANCE", time.time_ns() + HOUR_NS)

    async def test_what_is_retained_stays_until_somebody_may_bypass(self, subject: Objects) -> None:
        await subject.create_volume("locked", owner=ALICE, locked=True)
        weak = await put(subject, "locked", b"k", noise(2000), retained("GOVERNANCE"))
        strong = await put(subject, "locked", b"k", noise(3000), retained("COMPLIANCE"))
        marker = await subject.delete("locked", b"k")
        assert marker.marker
        for version in (weak.version, strong.version):
            with pytest.raises(Retained):
                await subject.delete("locked", b"k", version=version)
        with pytest.raises(Retained):
            await subject.delete("locked", b"k", version=strong.version, bypass=True)
        await subject.delete("locked", b"k", version=weak.version, bypass=True)
        assert same(await get(subject, "locked", b"k", strong.version), noise(3000))
        with pytest.raises(NotEmpty):
            await subject.delete_volume("locked")

    async def test_a_legal_hold_knows_no_bypass_and_has_an_end(self, subject: Objects) -> None:
        await subject.create_volume("locked", owner=ALICE, locked=True)
        one = await put(subject, "locked", b"k", b"1")
        two = await put(subject, "locked", b"k", b"2")
        assert (await subject.head("locked", b"k")).attributes.legal_hold is None
        held = await subject.set_legal_hold("locked", b"k", True, version=one.version)
        assert held == one.version
        with pytest.raises(Retained):
            await subject.delete("locked", b"k", version=one.version, bypass=True)
        await subject.delete("locked", b"k", version=two.version)
        await subject.set_legal_hold("locked", b"k", False)
        assert (await subject.head("locked", b"k")).attributes.legal_hold is False
        await subject.delete("locked", b"k", version=one.version)

    async def test_retention_grows_for_all_and_shrinks_for_few(self, subject: Objects) -> None:
        await subject.create_volume("locked", owner=ALICE, locked=True)
        await put(subject, "locked", b"k", b"1", retained("GOVERNANCE", 4))
        now_ns = time.time_ns()
        shorter, longer = now_ns + HOUR_NS, now_ns + 8 * HOUR_NS
        change = subject.set_retention
        for mode, until_ns in (("GOVERNANCE", shorter), ("COMPLIANCE", longer), ("", 0)):
            with pytest.raises(Retained):
                await change("locked", b"k", mode, until_ns)  # type: ignore[arg-type]
        await change("locked", b"k", "GOVERNANCE", longer)
        await change("locked", b"k", "GOVERNANCE", shorter, bypass=True)
        await change("locked", b"k", "COMPLIANCE", longer, bypass=True)
        for mode, until_ns in (("COMPLIANCE", shorter), ("GOVERNANCE", longer), ("", 0)):
            with pytest.raises(Retained):
                await change("locked", b"k", mode, until_ns, bypass=True)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            await change("locked", b"k", "COMPLIANCE", 1)
        said = (await subject.head("locked", b"k")).attributes
        assert (said.retain_mode, said.retain_until_ns) == ("COMPLIANCE", longer)

    async def test_a_lock_is_not_copied_and_comes_with_an_upload(self, subject: Objects) -> None:
        await subject.create_volume("locked", owner=ALICE, locked=True)
        await put(subject, "locked", b"k", noise(3000), retained("COMPLIANCE"))
        copied = await subject.copy("locked", b"k", "locked", b"copy")
        said = (await subject.head("locked", b"copy")).attributes
        assert (said.retain_mode, said.legal_hold) == ("", None)
        await subject.delete("locked", b"copy", version=copied.version)
        upload = await subject.create_upload("locked", b"u", retained("COMPLIANCE"))
        writer = await subject.part_writer("locked", b"u", upload.upload, 1)
        await writer.write(b"part")
        part = await writer.commit(digests(b"part"))
        info = PartInfo(number=1, size=4, etag=part.etag)
        made = await subject.complete_upload(
            "locked", b"u", upload.upload, [info], digests(b"part")
        )
        with pytest.raises(Retained):
            await subject.delete("locked", b"u", version=made.version, bypass=True)
