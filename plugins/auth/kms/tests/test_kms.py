"""The master key: made once, missed when it is gone, and told from another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.reference.consistency import Plain
from warp_core.contexts import AuthContext
from warp_core.errors import (
    AlreadyExists,
    ConfigError,
    Corrupt,
    InvalidArgument,
    KeyNotFound,
    Sealed,
    TooLarge,
)
from warp_core.interfaces.consistency import MetaStore
from warp_core.key_files import make_key_file, read_key_file
from warp_kms import build
from warp_kms.config import Config
from warp_kms.service import LocalKeys


@pytest.fixture
async def store() -> AsyncIterator[MetaStore]:
    async with Plain() as made:
        yield made


def service(store: MetaStore, folder: Path, **options: object) -> LocalKeys:
    made = build(Config(**options), AuthContext(folder, store, ("R", "s")))  # type: ignore[arg-type]
    assert isinstance(made, LocalKeys)
    return made


async def test_no_master_key_is_made_before_it_is_needed(store: MetaStore, tmp_path: Path) -> None:
    async with service(store, tmp_path):
        pass

    assert not (tmp_path / "master.key").exists()


async def test_the_master_key_is_its_owners_alone(store: MetaStore, tmp_path: Path) -> None:
    async with service(store, tmp_path) as keys:
        await keys.wrap("", b"k" * 32, context=b"")

    made = tmp_path / "master.key"
    assert made.stat().st_mode & 0o777 == 0o600
    assert len(made.read_bytes()) == 32


async def test_a_master_key_that_is_there_is_taken(store: MetaStore, tmp_path: Path) -> None:
    key = make_key_file(tmp_path / "mine")
    async with service(store, tmp_path, master_key="mine", keys=("one",)) as keys:
        await keys.wrap("one", b"k" * 32, context=b"")

    assert read_key_file(tmp_path / "mine") == key


async def test_a_lost_master_key_is_missed_by_name(store: MetaStore, tmp_path: Path) -> None:
    async with service(store, tmp_path) as keys:
        name, wrapped = await keys.wrap("", b"k" * 32, context=b"")
    kept = (tmp_path / "master.key").rename(tmp_path / "kept")

    async with service(store, tmp_path, keys=("new",)) as keys:
        with pytest.raises(Sealed, match=r"master\.key is missing.*restore"):
            await keys.unwrap(name, wrapped, context=b"")
        with pytest.raises(Sealed, match="missing"):
            await keys.wrap("", b"k" * 32, context=b"")
        with pytest.raises(Sealed, match="missing"):
            await keys.create_key("other")
    assert not (tmp_path / "master.key").exists()
    kept.rename(tmp_path / "master.key")
    async with service(store, tmp_path) as keys:
        assert await keys.unwrap(name, wrapped, context=b"") == b"k" * 32


async def test_another_master_key_is_told_from_the_right_one(
    store: MetaStore, tmp_path: Path
) -> None:
    async with service(store, tmp_path) as keys:
        name, wrapped = await keys.wrap("", b"k" * 32, context=b"")
    (tmp_path / "master.key").unlink()
    make_key_file(tmp_path / "master.key")

    async with service(store, tmp_path) as keys:
        with pytest.raises(Sealed, match="another master key"):
            await keys.unwrap(name, wrapped, context=b"")


async def test_a_master_key_that_others_may_read_is_refused(
    store: MetaStore, tmp_path: Path
) -> None:
    make_key_file(tmp_path / "master.key")
    (tmp_path / "master.key").chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        await service(store, tmp_path).__aenter__()


async def test_half_a_master_key_is_refused(store: MetaStore, tmp_path: Path) -> None:
    (tmp_path / "master.key").touch(0o600)
    (tmp_path / "master.key").write_bytes(b"x" * 16)

    with pytest.raises(Corrupt):
        await service(store, tmp_path).__aenter__()


def test_a_master_key_is_never_overwritten(tmp_path: Path) -> None:
    key = make_key_file(tmp_path / "k")

    with pytest.raises(AlreadyExists):
        make_key_file(tmp_path / "k")
    assert read_key_file(tmp_path / "k") == key
    assert [each.name for each in tmp_path.iterdir()] == ["k"]


async def test_unknown_keys_are_refused_or_made_as_configured(
    store: MetaStore, tmp_path: Path
) -> None:
    async with service(store, tmp_path) as keys:
        with pytest.raises(KeyNotFound):
            await keys.wrap("testkey-1", b"k" * 32, context=b"")
    async with service(store, tmp_path, unknown_keys="create") as keys:
        name, _ = await keys.wrap("testkey-1", b"k" * 32, context=b"")
        with pytest.raises(KeyNotFound):
            await keys.wrap("no/../key\n", b"k" * 32, context=b"")

    assert name == "testkey-1"


async def test_configured_keys_are_there_and_stay_the_same(
    store: MetaStore, tmp_path: Path
) -> None:
    async with service(store, tmp_path, keys=("one", "two")) as keys:
        _, wrapped = await keys.wrap("two", b"k" * 32, context=b"")
    async with service(store, tmp_path, keys=("one", "two")) as keys:
        assert await keys.unwrap("two", wrapped, context=b"") == b"k" * 32
        assert [each.id for each in await keys.keys()] == ["one", "two"]


async def test_limits_are_told(store: MetaStore, tmp_path: Path) -> None:
    async with service(store, tmp_path, keys_max=1, keys=("one",)) as keys:
        with pytest.raises(TooLarge, match="keys_max"):
            await keys.create_key("two")
        with pytest.raises(InvalidArgument):
            await keys.create_key("-x")
        with pytest.raises(TooLarge):
            await keys.wrap("one", b"k" * 65, context=b"")


async def test_no_row_holds_key_material(store: MetaStore, tmp_path: Path) -> None:
    async with service(store, tmp_path, keys=("one",)) as keys:
        await keys.wrap("one", b"k" * 32, context=b"")
        material = list(keys._opened.values())
        master = (tmp_path / "master.key").read_bytes()
    rows = [row.value for row in await store.view().scan(b"", b"\xff")]

    assert material
    assert not [secret for secret in (*material, master) for row in rows if secret in row]
