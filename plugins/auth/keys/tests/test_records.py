"""Records beside the keys: changed by what all of them say, also when another node is faster; and seals."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from warp_core.contexts import AuthContext, MetaContext
from warp_core.errors import Corrupt, InvalidArgument, TooLarge
from warp_core.interfaces.consistency import MetaStore
from warp_core.metrics import Metrics
from warp_core.plugins import Plugins
from warp_keys import Config
from warp_keys.keys import Keys

# Another plugin's engine holds the rows.
pytestmark = pytest.mark.workspace

Changes = dict[str, bytes | None]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MetaStore]:
    entry = Plugins().registries["consistency"].get("memory")
    context = MetaContext("a", tmp_path, (), None, Metrics(), time.monotonic)
    async with entry.build(entry.config(), context) as engine:
        yield engine


def keys(tmp_path: Path, store: MetaStore) -> Keys:
    return Keys(Config(), AuthContext(tmp_path, store, ("ROOTKEY", "root-secret")))


def count(known: Mapping[str, bytes]) -> tuple[int, Changes]:
    number = int(known.get("n", b"0")) + 1
    return number, {"n": b"%d" % number}


async def test_records_are_there_after_a_restart(tmp_path: Path, store: MetaStore) -> None:
    first = keys(tmp_path, store).records("one")
    await first.change(lambda known: (None, {"a": b"1", "b/c": b"2"}))
    await first.change(lambda known: (None, {"a": None, "b/d": b"3"}))

    again = keys(tmp_path, store).records("one")
    assert await again.refresh()
    assert again.known == first.known == {"b/c": b"2", "b/d": b"3"}
    assert again.generation == first.generation == 2
    other = keys(tmp_path, store).records("on")
    await other.refresh()
    assert other.known == {}


async def test_who_is_overtaken_decides_again(tmp_path: Path, store: MetaStore) -> None:
    one, two = (keys(tmp_path, store).records("s") for _ in range(2))
    await one.refresh()
    await two.refresh()

    assert [await each.change(count) for each in (one, two, two, one)] == [1, 2, 3, 4]
    assert await two.refresh()
    assert not await two.refresh()


async def test_what_decides_may_refuse_and_changes_nothing(
    tmp_path: Path, store: MetaStore
) -> None:
    records = keys(tmp_path, store).records("s")

    def refuse(known: Mapping[str, bytes]) -> tuple[None, Changes]:
        raise InvalidArgument("no")

    with pytest.raises(InvalidArgument):
        await records.change(refuse)
    with pytest.raises(TooLarge):
        await records.change(lambda known: (None, {"a": bytes(61 * 1024)}))
    with pytest.raises(InvalidArgument):
        await records.change(lambda known: (None, {"": b"generation"}))
    assert await records.change(lambda known: (len(known), {})) == 0
    assert records.generation == 0


async def test_a_seal_opens_under_its_name_only(tmp_path: Path, store: MetaStore) -> None:
    one = keys(tmp_path, store)
    sealed = one.seal(b"data", "name")

    assert b"data" not in sealed
    assert keys(tmp_path, store).unseal(sealed, "name") == b"data"
    for other, name in ((sealed, "other"), (sealed[:-1] + b"\0\0", "name"), (b"", "name")):
        with pytest.raises(Corrupt):
            one.unseal(other, name)
