"""What a commit may insist on, and what concurrent ones must not do to each other."""

from __future__ import annotations

import asyncio
import random

import pytest
from warp_core.errors import (
    Conflict,
)
from warp_core.interfaces.consistency import (
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    RangeCheck,
    Stamp,
    Write,
)
from warp_core.metadata import Transaction, transact

from warp_conformance.kits.consistency.stage import MetaStoreStage, fill, get, put


class Checks(MetaStoreStage, kit=True):
    """What a commit may insist on, and what concurrent ones must not do to each other."""

    # Checks of rows -------------------------------------------------------------------------------

    async def test_a_check_holds_while_its_row_is_as_it_was(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"other", b"v")

        await subject.commit(Commit(checks=[KeyCheck(b"k", version)], writes=[Write(b"x", b"1")]))
        await subject.commit(Commit(checks=[KeyCheck(b"no", 0)], writes=[Write(b"x", b"2")]))
        assert await get(subject, b"x") == b"2"

    async def test_a_check_fails_when_its_row_was_written(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", b"v")

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_fails_when_its_row_was_deleted(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", None)

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_fails_when_its_row_was_deleted_and_made_again(
        self, subject: MetaStore
    ) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", None)
        await put(subject, b"k", b"v")

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_for_absence_fails_when_the_row_exists(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"")
        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", 0)]))

        await put(subject, b"k", None)
        await subject.commit(Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"made")]))
        assert await get(subject, b"k") == b"made"

    async def test_of_many_that_create_a_row_one_succeeds(self, subject: MetaStore) -> None:
        async def create(number: int) -> bool:
            try:
                await subject.commit(
                    Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"%d" % number)])
                )
            except Conflict:
                return False
            return True

        won = await asyncio.gather(*(create(number) for number in range(20)))

        assert won.count(True) == 1
        assert await get(subject, b"k") == b"%d" % won.index(True)

    async def test_a_merge_changes_its_row_for_checks(self, subject: MetaStore) -> None:
        version = await subject.commit(Commit(merges=[Merge(b"n", add=(1,))]))
        await subject.commit(Commit(merges=[Merge(b"n", add=(0,))]))

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"n", version)]))

    # Checks of ranges -----------------------------------------------------------------------------

    @pytest.mark.parametrize("what", ["added", "changed", "deleted", "merged", "stamped"])
    async def test_a_range_check_fails_when_a_row_inside_was(
        self, subject: MetaStore, what: str
    ) -> None:
        await fill(subject, [b"b1", b"b2", b"b3"])
        view = subject.view()
        changes = {
            "added": Commit(writes=[Write(b"b15", b"v")]),
            "changed": Commit(writes=[Write(b"b2", b"v")]),
            "deleted": Commit(writes=[Write(b"b2", None)]),
            "merged": Commit(merges=[Merge(b"b4", add=(1,))]),
            "stamped": Commit(stamps=[Stamp(b"b5", b"", b"v")]),
        }
        await subject.commit(changes[what])

        with pytest.raises(Conflict):
            await subject.commit(
                Commit(checks=[RangeCheck(b"b", b"c", view.version)], writes=[Write(b"x", b"v")])
            )
        view.close()

    async def test_a_range_check_holds_when_only_rows_outside_changed(
        self, subject: MetaStore
    ) -> None:
        await fill(subject, [b"a", b"b1", b"b2", b"c", b"d"])
        view = subject.view()
        await subject.commit(
            Commit(
                writes=[Write(b"a", b"v"), Write(b"c", b"v"), Write(b"d", None), Write(b"az", b"v")]
            )
        )

        await subject.commit(
            Commit(checks=[RangeCheck(b"b", b"c", view.version)], writes=[Write(b"x", b"v")])
        )

        assert await get(subject, b"x") == b"v"
        view.close()

    async def test_a_range_check_covers_its_start_and_not_its_end(self, subject: MetaStore) -> None:
        view = subject.view()
        await put(subject, b"c", b"v")
        await subject.commit(Commit(checks=[RangeCheck(b"b", b"c", view.version)]))
        await put(subject, b"b", b"v")
        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[RangeCheck(b"b", b"c", view.version)]))
        view.close()

    async def test_a_row_that_came_and_went_is_a_change_of_its_range(
        self, subject: MetaStore
    ) -> None:
        view = subject.view()
        await put(subject, b"k", b"v")
        await put(subject, b"k", None)

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[RangeCheck(b"a", b"z", view.version)]))
        view.close()

    # Isolation ------------------------------------------------------------------------------------

    async def test_write_skew_is_refused(self, subject: MetaStore) -> None:
        await fill(subject, [b"alice on call", b"bob on call"])
        one, two = Transaction(subject), Transaction(subject)
        for tx in (one, two):
            assert await tx.get(b"alice on call")
            assert await tx.get(b"bob on call")
        one.delete(b"alice on call")
        two.delete(b"bob on call")
        await one.commit()

        with pytest.raises(Conflict):
            await two.commit()
        one.close()
        two.close()

    async def test_a_phantom_is_refused(self, subject: MetaStore) -> None:
        async def reserve(tx: Transaction, name: bytes) -> None:
            if not await tx.scan(b"room/", b"room0"):
                tx.put(b"room/" + name, b"")

        one, two = Transaction(subject), Transaction(subject)
        await reserve(one, b"a")
        await reserve(two, b"b")
        await one.commit()

        with pytest.raises(Conflict):
            await two.commit()
        one.close()
        two.close()

    async def test_a_lost_delete_is_no_phantom(self, subject: MetaStore) -> None:
        """One removes a directory's only entry, another had listed it: the second must not act on what it saw."""
        await fill(subject, [b"dir/only"])
        reader = Transaction(subject)
        assert len(await reader.scan(b"dir/", b"dir0")) == 1
        await put(subject, b"dir/only", None)
        reader.put(b"summary", b"1 entry")

        with pytest.raises(Conflict):
            await reader.commit()
        reader.close()

    async def test_no_update_is_lost(self, subject: MetaStore) -> None:
        async def increment(tx: Transaction) -> None:
            value = await tx.get(b"n")
            await asyncio.sleep(0)
            tx.put(b"n", b"%d" % (int(value or b"0") + 1))

        await asyncio.gather(*(transact(subject, increment) for _ in range(30)))

        assert await get(subject, b"n") == b"30"

    async def test_money_is_neither_made_nor_lost(self, subject: MetaStore) -> None:
        accounts = [b"account/%d" % i for i in range(5)]
        await subject.commit(Commit(writes=[Write(key, b"100") for key in accounts]))
        chance = random.Random(7)

        async def move(tx: Transaction) -> None:
            source, target = chance.sample(accounts, 2)
            have = int(await tx.get(source) or b"0")
            if not have:
                return
            await asyncio.sleep(0)
            tx.put(source, b"%d" % (have - 1))
            tx.put(target, b"%d" % (int(await tx.get(target) or b"0") + 1))

        async def audit() -> None:
            for _ in range(20):
                view = subject.view()
                rows = await view.scan(b"account/", b"account0")
                view.close()
                assert sum(int(row.value) for row in rows) == 500
                await asyncio.sleep(0)

        await asyncio.gather(audit(), *(transact(subject, move) for _ in range(60)))
        await audit()
