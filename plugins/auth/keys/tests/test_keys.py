"""Access keys: made, found, revoked, kept over a restart, and never readable where they lie."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from warp_core.contexts import AuthContext, MetaContext
from warp_core.errors import (
    AlreadyExists,
    ConfigError,
    Corrupt,
    InvalidArgument,
    NewerFormat,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.consistency import MetaStore
from warp_core.metrics import Metrics
from warp_core.plugins import Plugins
from warp_keys import Config
from warp_keys.config import WRAP_KEY
from warp_keys.keys import PASSWORD_MAX, Keys
from warp_keys.rows import KEY as ROW

# Another plugin's engine holds the rows.
pytestmark = pytest.mark.workspace

ROOT = ("ROOTKEY", "root-secret")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MetaStore]:
    entry = Plugins().registries["consistency"].get("memory")
    context = MetaContext("a", tmp_path, (), None, Metrics(), time.monotonic)
    async with entry.build(entry.config(), context) as engine:
        yield engine


def keys(tmp_path: Path, store: MetaStore, config: Config | None = None) -> Keys:
    return Keys(config or Config(), AuthContext(tmp_path, store, ROOT))


async def test_the_root_key_is_known_and_is_admin(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        found = await auth.lookup("ROOTKEY")
        assert auth.lookup_now("ROOTKEY") is found

    assert found.secret == "root-secret"
    assert found.principal.admin
    assert not (tmp_path / WRAP_KEY).exists()


async def test_a_key_is_there_after_a_restart_until_it_is_revoked(
    tmp_path: Path, store: MetaStore
) -> None:
    async with keys(tmp_path, store) as auth:
        made = await auth.create_key("ada")
        given = await auth.create_key("account:bob", access_key="BOB", secret="sesame-sesame")
    async with keys(tmp_path, store) as auth:
        assert await auth.lookup(made.access_key) == made
        assert (await auth.lookup("BOB")).principal.name == "account:bob"
        assert not given.principal.admin
        assert [key for key, _ in await auth.list_keys()] == sorted(
            ["ROOTKEY", "BOB", made.access_key]
        )
        await auth.revoke_key("BOB")
        assert auth.lookup_now("BOB") is None
    async with keys(tmp_path, store) as auth:
        with pytest.raises(Unauthenticated):
            await auth.lookup("BOB")
        with pytest.raises(NotFound):
            await auth.revoke_key("BOB")


async def test_no_secret_lies_readable_in_a_row_or_a_repr(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        made = await auth.create_key("ada", access_key="ADA", secret="sesame-sesame")
    rows = await store.view().scan(ROW, b"l")

    assert b"sesame" not in b"".join(row.value for row in rows)
    assert "sesame" not in repr(made)
    assert oct((tmp_path / WRAP_KEY).stat().st_mode)[-3:] == "600"


async def test_a_row_under_another_name_or_key_does_not_open(
    tmp_path: Path, store: MetaStore
) -> None:
    from warp_core.interfaces.consistency import Commit, Write

    async with keys(tmp_path, store) as auth:
        await auth.create_key("ada", access_key="ADA")
    (row,) = await store.view().scan(ROW, b"l")
    await store.commit(Commit(writes=[Write(ROW + b"EVE", row.value)]))
    with pytest.raises(Corrupt, match="access key EVE does not open"):
        await keys(tmp_path, store).__aenter__()
    await store.commit(Commit(writes=[Write(ROW + b"EVE", None)]))
    (tmp_path / WRAP_KEY).write_bytes(bytes(32))
    with pytest.raises(Corrupt, match="restore that file"):
        await keys(tmp_path, store).__aenter__()
    (tmp_path / WRAP_KEY).write_bytes(b"short")
    with pytest.raises(Corrupt, match="no key of 32 bytes"):
        await keys(tmp_path, store).__aenter__()
    (tmp_path / WRAP_KEY).unlink()
    with pytest.raises(Corrupt, match="is missing"):
        await keys(tmp_path, store).__aenter__()


@pytest.mark.parametrize(
    "arguments",
    [
        {"principal": ""},
        {"principal": "a b"},
        {"principal": "x" * 64},
        {"principal": "ada", "access_key": "a/b"},
        {"principal": "ada", "access_key": "ab"},
        {"principal": "ada", "secret": "short"},
        {"principal": "ada", "secret": "new\nline-secret"},
    ],
)
async def test_bad_names_and_secrets_are_refused(
    tmp_path: Path, store: MetaStore, arguments: dict[str, str]
) -> None:
    async with keys(tmp_path, store) as auth:
        with pytest.raises(InvalidArgument):
            await auth.create_key(**arguments)


async def test_a_taken_name_the_root_key_and_the_limit(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store, Config(keys_max=1)) as auth:
        await auth.create_key("ada", access_key="ADA")
        with pytest.raises(AlreadyExists):
            await auth.create_key("ada", access_key="ADA")
        with pytest.raises(AlreadyExists):
            await auth.create_key("ada", access_key="ROOTKEY")
        with pytest.raises(TooLarge, match=r"auth\.keys_max"):
            await auth.create_key("bob")
        with pytest.raises(InvalidArgument, match="root key cannot be revoked"):
            await auth.revoke_key("ROOTKEY")


async def test_two_makers_of_one_key_are_told_apart(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as one, keys(tmp_path, store) as two:
        await one.create_key("ada", access_key="ADA")
        with pytest.raises(AlreadyExists):
            await two.create_key("bob", access_key="ADA")


async def test_a_principal_keeps_what_is_known_of_it(tmp_path: Path, store: MetaStore) -> None:
    known = Principal(
        "account:ada",
        "Ada",
        admin=True,
        aliases=frozenset({"unix:7"}),
        groups=frozenset({"unix-group:9"}),
    )
    async with keys(tmp_path, store) as auth:
        await auth.create_key("ada", access_key="ADA")
        await auth.set_principal(known)
        await auth.set_password("ada", "a fine password")

        assert (await auth.lookup("ADA")).principal == known
    async with keys(tmp_path, store) as auth:
        assert (await auth.lookup("ADA")).principal == known
        assert await auth.verify_password("ada", "a fine password") == known


async def test_no_password_lies_readable_in_a_row(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.set_password("ada", "sesame-sesame")
        await auth.set_password("bob", "sesame-sesame")
    rows = await store.view().scan(b"p", b"q")

    assert len(rows) == 2
    assert b"sesame" not in b"".join(row.value for row in rows)
    assert rows[0].value[-32:] != rows[1].value[-32:]  # salted


async def test_a_password_that_is_taken_away_or_too_long_is_wrong(
    tmp_path: Path, store: MetaStore
) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.set_password("ada", "x" * PASSWORD_MAX)
        await auth.verify_password("ada", "x" * PASSWORD_MAX)
        with pytest.raises(Unauthenticated):
            await auth.verify_password("ada", "x" * (PASSWORD_MAX + 1))
        with pytest.raises(InvalidArgument):
            await auth.set_password("ada", "x" * (PASSWORD_MAX + 1))
        await auth.set_password("ada", "")
        for password in ("", "x" * PASSWORD_MAX):
            with pytest.raises(Unauthenticated):
                await auth.verify_password("ada", password)


async def test_a_wrapping_key_that_others_may_read_is_refused(
    tmp_path: Path, store: MetaStore
) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.create_key("ada")
    (tmp_path / WRAP_KEY).chmod(0o640)

    with pytest.raises(ConfigError, match=r"mode 640\): chmod 600"):
        await keys(tmp_path, store).__aenter__()


async def test_a_node_to_which_the_key_was_not_handed_opens_and_makes_none_of_its_own(
    tmp_path: Path, store: MetaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "capabilities", replace(store.capabilities, shared=True))
    witness = tmp_path / "witness"
    witness.mkdir()
    async with keys(tmp_path, store) as auth:
        made = await auth.create_key("ada")
    async with keys(witness, store) as auth:
        assert (await auth.lookup("ROOTKEY")).principal.admin
        with pytest.raises(Corrupt, match="restore it"):
            await auth.lookup(made.access_key)
        with pytest.raises(Corrupt, match="restore it"):
            await auth.create_key("bob")
    assert not (witness / WRAP_KEY).exists()


async def test_rows_of_a_later_release_are_refused(tmp_path: Path, store: MetaStore) -> None:
    from warp_core.interfaces.consistency import Commit, Write

    async with keys(tmp_path, store) as auth:
        await auth.create_key("ada", access_key="ADA")
    (row,) = await store.view().scan(ROW, b"l")
    later = row.value.replace(b"\x94\x01", b"\x94\x02", 1)
    await store.commit(Commit(writes=[Write(row.key, later)]))

    with pytest.raises(NewerFormat, match="format 2"):
        await keys(tmp_path, store).__aenter__()


async def test_looking_up_takes_microseconds(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.create_key("ada", access_key="ADA")
        started = time.process_time()
        for _ in range(10_000):
            auth.lookup_now("ADA")

        assert (time.process_time() - started) / 10_000 < 20e-6
