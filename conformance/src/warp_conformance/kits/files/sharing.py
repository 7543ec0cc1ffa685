"""Several at once: share modes, locks, leases, clones."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import Deadlock, Locked, StaleHandle
from warp_core.namespace.leases import ALL, FOR_WRITE, Kind
from warp_core.namespace.opens import END, Access, Owner
from warp_core.views.claims import Recalled
from warp_core.views.files import SetInfo

from warp_conformance.difference import same
from warp_conformance.kits.files.stage import (
    BOTH,
    ME,
    MIB,
    NONE,
    READ,
    WRITE,
    YOU,
    FilesPart,
    FilesStage,
)


class Sharing(FilesPart, kit=True):
    """Several at once: share modes, locks, leases, clones."""

    async def test_share_modes_refuse_opens(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        await file.close()
        files = subject.files
        held = await files.open(file.ref, owner=ME, access=READ, deny=WRITE | Access.DELETE)

        with pytest.raises(Locked):
            await files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)
        with pytest.raises(Locked):
            await files.unlink(await self.root(subject), b"a")
        with pytest.raises(Locked):
            await files.rename(await self.root(subject), b"a", await self.root(subject), b"b")
        await files.open(file.ref, owner=YOU, access=READ, deny=NONE)
        await held.close()
        await files.unlink(await self.root(subject), b"a")

    async def test_byte_range_locks_exclude_and_wait(self, subject: FilesStage) -> None:
        file = await self.make(subject, b"a")
        claims, ref = subject.files.claims, file.ref
        await claims.lock(ref, ME, 0, 100, exclusive=True)

        with pytest.raises(Locked):
            await claims.lock(ref, YOU, 50, 60, exclusive=False)
        found = await claims.test_lock(ref, YOU, 50, 60, exclusive=False)
        assert found is not None
        assert (found.owner, found.start, found.end, found.exclusive) == (ME, 0, 100, True)
        assert await claims.test_lock(ref, YOU, 100, END, exclusive=True) is None
        await claims.lock(ref, YOU, 100, END, exclusive=True)
        waiting = asyncio.create_task(claims.lock(ref, YOU, 0, 10, exclusive=True, wait=True))
        await asyncio.sleep(0)
        with pytest.raises(Deadlock):
            await claims.lock(ref, ME, 200, 210, exclusive=True, wait=True)
        assert not waiting.done()
        await claims.unlock(ref, ME, 0, 10)
        await waiting

    async def test_a_lock_that_nobody_waits_for_any_more_is_not_taken(
        self, subject: FilesStage
    ) -> None:
        ref = (await self.make(subject, b"a")).ref
        claims = subject.files.claims
        await claims.lock(ref, ME, 0, 100, exclusive=True)
        waiting = asyncio.create_task(claims.lock(ref, YOU, 0, 10, exclusive=True, wait=True))
        await claims.test_lock(ref, YOU, 0, 10, exclusive=True)

        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await claims.unlock_all(ref, ME)

        assert waiting.cancelled()
        assert await claims.test_lock(ref, ME, 0, 100, exclusive=True) is None

    async def test_a_client_that_is_dropped_holds_nothing(self, subject: FilesStage) -> None:
        ref = (await self.make(subject, b"a")).ref
        claims = subject.files.claims
        client = await claims.add_client("one", ttl_s=60.0)
        other = await claims.add_client("two")
        await claims.lock(ref, Owner(client, b"p"), 5, 6, exclusive=False)
        await claims.renew(client)
        with pytest.raises(Locked):
            await claims.lock(ref, Owner(other, b"p"), 0, END, exclusive=True)

        await claims.drop_client(client)

        await claims.lock(ref, Owner(other, b"p"), 0, END, exclusive=True)
        with pytest.raises(StaleHandle):
            await claims.renew(client)
        with pytest.raises(StaleHandle):
            await claims.lock(ref, Owner(client, b"p"), 0, 1, exclusive=False)

    async def test_a_change_calls_leases_back(self, subject: FilesStage) -> None:
        files, claims = subject.files, subject.files.claims
        file = await self.make(subject, b"a", b"x", owner=ME)
        told: list[Recalled] = []
        answers: list[asyncio.Task[None]] = []
        await file.close()

        def tell(recalled: Recalled) -> None:
            told.append(recalled)
            answers.append(asyncio.create_task(claims.give_back(file.ref, holder)))

        holder = Owner(await claims.add_client("holder", tell=tell), 0)
        root = await self.root(subject)

        async def lend() -> None:
            await asyncio.gather(*answers)
            told.clear()
            assert await claims.lease(file.ref, holder, ALL) == ALL

        await lend()
        writer = await files.open(file.ref, owner=YOU, access=WRITE, deny=NONE)
        assert [(each.volume, each.inode, each.owner) for each in told] == [
            (subject.volume, file.ref.inode, holder)
        ], "opening for writing"
        assert told[0].wanted == FOR_WRITE
        await writer.close()
        await lend()
        await files.setattr(file.ref, SetInfo(mode=0o600))
        assert told, "setattr"
        await lend()
        await files.rename(root, b"a", root, b"b")
        assert told, "rename"
        await lend()
        await files.unlink(root, b"b")
        assert told, "unlink"
        await asyncio.gather(*answers)

    async def test_a_change_in_a_directory_asks_who_lists_it_alone(
        self, subject: FilesStage
    ) -> None:
        files, claims = subject.files, subject.files.claims
        directory = (await files.mkdir(await self.root(subject), b"d", 0o755)).ref
        told: list[Recalled] = []
        answers: list[asyncio.Task[None]] = []

        def tell(recalled: Recalled) -> None:
            told.append(recalled)
            answers.append(
                asyncio.create_task(claims.give_back(directory, recalled.owner, Kind.HANDLE))
            )

        client = await claims.add_client("holder", tell=tell)
        named, listed = Owner(client, b"name"), Owner(client, b"list")
        assert await claims.lease(directory, named, Kind.HANDLE) == Kind.HANDLE
        await files.symlink(directory, b"x", b"t")
        assert told == []

        assert await claims.lease(directory, listed, Kind.READ | Kind.HANDLE)
        await files.unlink(directory, b"x")

        assert {(each.owner, each.wanted) for each in told} == {(listed, Kind.READ)}
        await asyncio.gather(*answers)

    async def test_clones_share_until_they_are_written(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * (MIB + 100))

        clone = await subject.files.clone(file.ref, root, b"b")
        await file.write(0, b"A")
        other = await subject.files.open(clone.ref, owner=YOU, access=BOTH, deny=NONE)
        await other.write(MIB, b"B")

        assert (await self.content(subject, b"a"))[:2] == b"Ax"
        assert (await self.content(subject, b"a"))[MIB : MIB + 2] == b"xx"
        assert (await self.content(subject, b"b"))[:2] == b"xx"
        assert (await self.content(subject, b"b"))[MIB : MIB + 2] == b"Bx"
        await file.close()
        await subject.files.unlink(root, b"a")
        assert same(await self.content(subject, b"b"), b"x" * MIB + b"B" + b"x" * 99)

    async def test_usage_follows_what_is_there(self, subject: FilesStage) -> None:
        root = await self.root(subject)
        file = await self.make(subject, b"a", b"x" * 5000)
        await file.close()
        before = await subject.files.statfs(subject.volume)
        await subject.files.unlink(root, b"a")
        after = await subject.files.statfs(subject.volume)

        assert (before.files, before.used) == (1, 5000)
        assert (after.files, after.used) == (0, 0)
