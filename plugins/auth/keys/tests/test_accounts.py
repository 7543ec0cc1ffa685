"""Accounts: made, changed, described by a file, and never two with one id, number or address."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.contexts import AuthContext, MetaContext
from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotEmpty,
    NotFound,
    Unauthenticated,
)
from warp_core.interfaces.accounts import (
    Accounts,
    DeclaredAccount,
    account,
    made_id,
    made_number,
)
from warp_core.interfaces.consistency import MetaStore
from warp_core.metrics import Metrics
from warp_core.plugins import Plugins
from warp_keys import Config
from warp_keys.keys import Keys

pytestmark = pytest.mark.workspace

ROOT = ("ROOTKEY", "root-secret")
ID = "ab" * 32


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MetaStore]:
    entry = Plugins().registries["consistency"].get("memory")
    context = MetaContext("a", tmp_path, (), None, Metrics(), time.monotonic)
    async with entry.build(entry.config(), context) as engine:
        yield engine


def keys(tmp_path: Path, store: MetaStore, *declared: DeclaredAccount) -> Keys:
    return Keys(Config(), AuthContext(tmp_path, store, ROOT, declared))


@given(st.text(min_size=1, max_size=40))
def test_what_follows_from_a_name_has_the_form_of_aws(name: str) -> None:
    assert len(bytes.fromhex(made_id(name))) == 32
    assert len(made_number(name)) == 12
    assert made_number(name).isdecimal()
    assert made_number(name) != made_number(name, 1)


async def test_an_account_is_found_by_all_its_names_and_after_a_restart(
    tmp_path: Path, store: MetaStore
) -> None:
    wanted = account(
        "account:ada", canonical_id=ID, number="123456789012", display="Ada", email="Ada@x.org"
    )
    async with keys(tmp_path, store) as auth:
        made = await auth.set_account(wanted, new=True)
    async with keys(tmp_path, store) as auth:
        known = await auth.accounts()

    assert made == wanted
    assert known.named("account:ada") == wanted
    assert known.with_id(ID) == wanted
    assert known.with_number("123456789012") == wanted
    assert known.with_email("ada@X.org") == wanted


async def test_whoever_has_a_key_is_an_account(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.create_key("bob")
        known = await auth.accounts()

    assert [each.name for each in known] == ["account:bob", "account:root"]
    assert known.with_id(made_id("account:bob")) == known.named("account:bob")


@pytest.mark.parametrize(
    "same", [{"canonical_id": ID}, {"number": "123456789012"}, {"email": "ada@x.org"}]
)
async def test_no_two_accounts_share_an_id_a_number_or_an_address(
    tmp_path: Path, store: MetaStore, same: dict[str, str]
) -> None:
    async with keys(tmp_path, store) as one, keys(tmp_path, store) as other:
        await one.set_account(account("account:ada", **same), new=True)  # type: ignore[arg-type]
        for auth in (one, other):  # `other` has not heard of it: the rows know
            with pytest.raises(InvalidArgument):
                await auth.set_account(account("account:bob", **same), new=True)  # type: ignore[arg-type]


async def test_what_an_account_gives_up_another_may_have(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        await auth.set_account(account("account:ada", email="a@x.org"), new=True)
        await auth.set_account(account("account:ada", email="b@x.org"))
        await auth.set_account(account("account:bob", email="a@x.org"), new=True)
        await auth.delete_account("ada")
        await auth.set_account(account("account:eve", email="b@x.org"), new=True)

        assert {each.email for each in await auth.accounts()} == {"", "a@x.org", "b@x.org"}


async def test_an_account_with_keys_is_not_deleted(tmp_path: Path, store: MetaStore) -> None:
    async with keys(tmp_path, store) as auth:
        made = await auth.create_key("ada")
        with pytest.raises(NotEmpty, match=made.access_key):
            await auth.delete_account("ada")
        await auth.revoke_key(made.access_key)
        await auth.delete_account("ada")
        with pytest.raises(NotFound):
            await auth.delete_account("ada")


async def test_a_new_account_is_new_and_a_changed_one_is_there(
    tmp_path: Path, store: MetaStore
) -> None:
    async with keys(tmp_path, store) as auth:
        with pytest.raises(NotFound):
            await auth.set_account(account("account:ada"))
        await auth.set_account(account("account:ada"), new=True)
        with pytest.raises(AlreadyExists):
            await auth.set_account(account("account:ada"), new=True)


async def test_an_account_made_admin_is_so_with_the_keys_it_has(
    tmp_path: Path, store: MetaStore
) -> None:
    async with keys(tmp_path, store) as auth:
        made = await auth.create_key("ada")
        await auth.set_account(account("account:ada", admin=True))

        assert (await auth.lookup(made.access_key)).principal.admin


async def test_a_described_account_is_as_the_file_says_and_only_so(
    tmp_path: Path, store: MetaStore
) -> None:
    described = DeclaredAccount(
        account("account:main", canonical_id=ID, display="M. Tester", declared=True),
        (("MAINKEY", "main-secret"),),
    )
    async with keys(tmp_path, store, described) as auth:
        found = auth.lookup_now("MAINKEY")
        further = await auth.create_key("main")
        with pytest.raises(InvalidArgument, match="configuration"):
            await auth.set_account(account("account:main"))
        with pytest.raises(InvalidArgument, match="configuration"):
            await auth.delete_account("main")
        with pytest.raises(InvalidArgument, match="configuration"):
            await auth.revoke_key("MAINKEY")
        known = await auth.accounts()
    async with keys(tmp_path, store) as auth:  # the table was taken out
        assert auth.lookup_now("MAINKEY") is None
        assert auth.lookup_now(further.access_key) is not None

    assert found is not None
    assert found.principal.name == "account:main"
    assert known.with_id(ID) == described.account
    assert "main-secret" not in repr(described)


def test_a_directory_knows_strangers_by_their_names() -> None:
    assert Accounts().named("unix:1000").canonical_id == made_id("unix:1000")
    assert Accounts().with_email("") is None


async def test_who_an_account_is_can_be_asked_by_its_name(tmp_path: Path, store: MetaStore) -> None:
    file = DeclaredAccount(account("account:main", display="Main", admin=True, declared=True))
    async with keys(tmp_path, store, file) as auth:
        await auth.create_key("ada", access_key="ADA")
        await auth.set_password("main", "a password")

        assert await auth.principal_of("account:ada") == (await auth.lookup("ADA")).principal
        assert (await auth.principal_of("account:root")).admin
        assert (await auth.principal_of("account:main")).admin
        assert (await auth.verify_password("main", "a password")).admin
        for nobody in ("account:ghost", "unix:0", "ada"):
            with pytest.raises(Unauthenticated):
                await auth.principal_of(nobody)
