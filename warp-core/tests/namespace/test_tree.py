"""Rows through snapshots and clones, against plain dictionaries."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.rows import Name, VolumeRow, decode_name, encode
from warp_core.namespace.tree import ViewSource, Volume, VolumeTransaction
from warp_meta_memory.engine import Memory

KEYS = [keys.name_key(1, bytes([letter]) + keys.FILE_END) for letter in b"pqrs"]
RANGE = keys.names_of(1)


class Bench:
    """One volume, its snapshots and clones, beside what they should hold."""

    def __init__(self) -> None:
        self.store = Memory()
        self.counter = 0

    async def create(self, number: int, base: tuple[tuple[int, int], ...] = ()) -> Volume:
        row = VolumeRow(1, number, f"v{number}", 0, base=base[0] if base else None)
        return await self.save(Volume(row, 0, keys.prefix(number), base))

    async def save(self, volume: Volume) -> Volume:
        async def body(tx: Transaction) -> None:
            tx.put(keys.volume_name_key(volume.row.name), encode(volume.row))

        await transact(self.store, body)
        view = self.store.view()
        found = await view.get(keys.volume_name_key(volume.row.name))
        view.close()
        assert found
        return replace(volume, version=found[1])

    async def snapshot(self, volume: Volume) -> Volume:
        epoch = volume.row.epoch + 1
        row = msgspec.structs.replace(volume.row, epoch=epoch, newest=epoch)
        return await self.save(replace(volume, row=row))

    async def write(self, volume: Volume, key: bytes) -> int:
        self.counter += 1
        size = self.counter

        async def body(tx: Transaction) -> None:
            rows = VolumeTransaction(tx, volume)
            await rows.put(key, encode(Name(rows.epoch, 0, 1, size=size)))

        await transact(self.store, body)
        return size

    async def delete(self, volume: Volume, key: bytes) -> None:
        async def body(tx: Transaction) -> None:
            await VolumeTransaction(tx, volume).delete(key)

        await transact(self.store, body)

    async def contents(self, volume: Volume, snapshot: int = 0) -> dict[bytes, int]:
        """Read every way there is; they must agree."""
        view = self.store.view()
        try:
            rows = replace(volume, snapshot=snapshot).rows(ViewSource(view))
            whole = await rows.scan(*RANGE)
            by_twos: list[tuple[bytes, bytes]] = []
            start = RANGE[0]
            while page := await rows.scan(start, RANGE[1], limit=2):
                by_twos += page
                start = page[-1][0] + b"\0"
            backwards = await rows.scan(*RANGE, reverse=True)
            single = [(key, value) for key in KEYS if (value := await rows.get(key)) is not None]
            assert whole == by_twos == backwards[::-1] == single
            return {key: decode_name(value).size for key, value in whole}
        finally:
            view.close()

    async def rows_under(self, prefix: bytes) -> dict[bytes, int]:
        view = self.store.view()
        found = await view.scan(prefix, keys.after(prefix))
        view.close()
        return {
            row.key[keys.PREFIX_BYTES :]: decode_name(row.value).born if row.value else -1
            for row in found
        }


async def test_worked_example_of_snapshots() -> None:
    bench = Bench()
    p, q = KEYS[:2]
    volume = await bench.create(1)
    first = await bench.write(volume, p)
    volume = await bench.snapshot(volume)
    second = await bench.write(volume, p)
    third = await bench.write(volume, q)
    volume = await bench.snapshot(volume)
    await bench.delete(volume, q)

    rows = await bench.rows_under(volume.prefix)
    assert rows[keys.archive_key(p, 1)] == 0
    assert rows[p] == 1
    assert rows[keys.archive_key(q, 2)] == 1
    assert q not in rows
    assert await bench.contents(volume, 1) == {p: first}
    assert await bench.contents(volume, 2) == {p: second, q: third}
    assert await bench.contents(volume) == {p: second}
    assert keys.dead_key(1, p, 1) in rows
    assert keys.dead_key(2, q, 2) in rows


async def test_only_the_first_change_after_a_snapshot_is_archived() -> None:
    bench = Bench()
    volume = await bench.create(1)
    await bench.write(volume, KEYS[0])
    volume = await bench.snapshot(volume)
    for _ in range(3):
        await bench.write(volume, KEYS[0])

    rows = await bench.rows_under(volume.prefix)
    assert sorted(rows) == sorted(
        [KEYS[0], keys.archive_key(KEYS[0], 1), keys.dead_key(1, KEYS[0], 1)]
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "delete"]), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.sampled_from(["snapshot", "clone"]), st.integers(0, 9), st.integers(0, 2)),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_snapshots_and_clones_hold_what_was_there_when_they_were_made(
    steps: list[tuple[str, int, int]],
) -> None:
    async def run() -> None:
        bench = Bench()
        volumes = [await bench.create(1)]
        models: list[dict[bytes, int]] = [{}]
        kept: list[dict[int, dict[bytes, int]]] = [{}]
        for verb, which, place in steps:
            at = place % len(volumes)
            if verb == "write":
                models[at][KEYS[which]] = await bench.write(volumes[at], KEYS[which])
            elif verb == "delete":
                await bench.delete(volumes[at], KEYS[which])
                models[at].pop(KEYS[which], None)
            elif verb == "snapshot":
                volumes[at] = await bench.snapshot(volumes[at])
                kept[at][volumes[at].row.epoch] = dict(models[at])
            elif kept[at] and len(volumes) < 3:
                chosen = sorted(kept[at])[which % len(kept[at])]
                base = ((volumes[at].number, chosen), *volumes[at].bases)
                volumes.append(await bench.create(len(volumes) + 1, base))
                models.append(dict(kept[at][chosen]))
                kept.append({})
        for volume, model, snapshots in zip(volumes, models, kept, strict=True):
            assert await bench.contents(volume) == model
            for snapshot, contents in snapshots.items():
                assert await bench.contents(volume, snapshot) == contents

    asyncio.run(run())
