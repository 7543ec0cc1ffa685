"""The kit for authenticators: who is known gets in, nobody else does, and nobody does any more once revoked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from warp_core.contexts import AuthContext
from warp_core.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated, WarpError
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.keys import KeyService
from warp_core.registry import Entry

from warp_conformance.kit import Kit, given, refused, requires, sample_of
from warp_conformance.kits.keys import KeyServiceKit
from warp_conformance.reference.consistency import Plain

ROOT = ("ROOTKEY", "the-secret-of-the-root-key")

Make = Callable[[], AbstractAsyncContextManager[Authenticator]]

STRANGE = [
    "",
    " ",
    "nobody",
    "ROOTKEYX",
    "ROOTKE",
    "rootkey",
    "ROOTKEY\0",
    "a/b",
    "../x",
    "%00",
    "é" * 40,
    "x" * 5000,
]


def adopt(entry: Entry[Authenticator | KeyService]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit of an authenticator or a key service, on a MetaStore in memory that outlives it."""

    @pytest.fixture
    async def make(self: Kit, tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
        async with Plain() as store:
            config = sample_of(entry, tmp_path)
            yield lambda: entry.build(config, AuthContext(tmp_path, store, ROOT))

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        built = entry.build(sample_of(entry, place), AuthContext(place, Plain(), ROOT))
    yield (KeyServiceKit if isinstance(built, KeyService) else AuthKit), {"make": make}


class AuthKit(Kit, kit=True):
    """Give `make`: a function whose result opens the same authenticator each time, with the root key `ROOT`.

    Where passwords are checked and keys are not managed, give `user` as well: a user's name and password.
    """

    root: ClassVar[tuple[str, str]] = ROOT

    @pytest.fixture
    def make(self) -> Make:
        """Return how to open the authenticator."""
        raise NotImplementedError("an adoption of AuthKit gives a fixture `make`")

    @pytest.fixture
    async def subject(self, make: Make) -> AsyncIterator[Authenticator]:
        """Yield the authenticator, open."""
        async with make() as authenticator:
            yield authenticator

    @pytest.fixture
    async def user(self, subject: Authenticator) -> tuple[str, str]:
        """Return a user and the right password."""
        await subject.set_password("ada", "right Passw0rd")
        return "ada", "right Passw0rd"

    # Shared secrets -------------------------------------------------------------------------------

    @requires(shared_secrets=True)
    async def test_the_root_key_is_known_and_is_admin(self, subject: Authenticator) -> None:
        found = await subject.lookup(self.root[0])

        assert (found.access_key, found.secret) == self.root
        assert found.principal.admin

    @requires(shared_secrets=True)
    async def test_what_was_looked_up_is_known_at_once(self, subject: Authenticator) -> None:
        found = await subject.lookup(self.root[0])

        assert subject.lookup_now(self.root[0]) in (None, found)
        assert subject.lookup_now("nobody") is None

    @requires(shared_secrets=True)
    @pytest.mark.parametrize("access_key", STRANGE)
    async def test_nobody_else_is_known(self, subject: Authenticator, access_key: str) -> None:
        assert subject.lookup_now(access_key) is None
        with pytest.raises(Unauthenticated):
            await subject.lookup(access_key)
        assert subject.lookup_now(access_key) is None

    @requires(shared_secrets=True)
    async def test_a_secret_shows_in_no_text(
        self, subject: Authenticator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        found = await subject.lookup(self.root[0])

        assert self.root[1] not in f"{found!r} {found} {subject!r}"
        assert self.root[1] not in caplog.text

    @requires(shared_secrets=False)
    async def test_without_shared_secrets_lookup_is_refused(self, subject: Authenticator) -> None:
        assert subject.lookup_now(self.root[0]) is None
        with refused():
            await subject.lookup(self.root[0])

    # Managing keys --------------------------------------------------------------------------------

    @requires(manages_keys=True)
    async def test_a_key_that_was_made_is_known(self, subject: Authenticator) -> None:
        made = await subject.create_key("ada")
        found = await subject.lookup(made.access_key)

        assert found == made
        assert found.secret == made.secret
        assert found.principal.name == "account:ada"
        assert not found.principal.admin
        assert subject.lookup_now(made.access_key) in (None, made)

    @requires(manages_keys=True)
    @given(secret=st.text("abcXYZ0189+/=_-!~", min_size=8, max_size=64))
    async def test_a_key_may_be_given(self, subject: Authenticator, secret: str) -> None:
        made = await subject.create_key("ada", access_key="GIVEN", secret=secret)
        found = await subject.lookup("GIVEN")
        await subject.revoke_key("GIVEN")

        assert (
            (made.access_key, made.secret) == (found.access_key, found.secret) == ("GIVEN", secret)
        )

    @requires(manages_keys=True)
    async def test_made_keys_cannot_be_guessed(self, subject: Authenticator) -> None:
        made = [await subject.create_key("ada") for _ in range(20)]

        assert len({each.access_key for each in made}) == 20
        assert len({each.secret for each in made}) == 20
        assert all(len(each.access_key) >= 12 and len(set(each.secret)) >= 12 for each in made)
        assert all(len(each.secret) >= 24 and each.access_key not in each.secret for each in made)

    @requires(manages_keys=True)
    async def test_made_keys_can_be_used_in_requests(self, subject: Authenticator) -> None:
        made = await subject.create_key("ada")

        assert made.access_key.isascii()
        assert made.access_key.isalnum()  # SigV4 separates by "/", "," and "="
        assert made.secret.isascii()
        assert made.secret.isprintable()

    @requires(manages_keys=True)
    async def test_a_taken_key_is_refused_and_stays(self, subject: Authenticator) -> None:
        made = await subject.create_key("ada", access_key="TAKEN")
        for taken in ("TAKEN", self.root[0]):
            with pytest.raises(AlreadyExists):
                await subject.create_key("bob", access_key=taken, secret="another-secret")

        assert await subject.lookup("TAKEN") == made
        assert (await subject.lookup(self.root[0])).secret == self.root[1]

    @requires(manages_keys=True)
    async def test_one_of_two_makers_wins(self, subject: Authenticator) -> None:
        outcomes = await asyncio.gather(
            *(subject.create_key(who, access_key="RACE") for who in ("ada", "bob", "eve")),
            return_exceptions=True,
        )
        (made,) = [each for each in outcomes if not isinstance(each, BaseException)]

        assert {type(each) for each in outcomes if isinstance(each, BaseException)} == {
            AlreadyExists
        }
        assert await subject.lookup("RACE") == made

    @requires(manages_keys=True)
    async def test_keys_of_one_principal_are_independent(self, subject: Authenticator) -> None:
        first, second = await subject.create_key("ada"), await subject.create_key("ada")
        await subject.revoke_key(first.access_key)

        assert await subject.lookup(second.access_key) == second
        assert first.secret != second.secret

    @requires(manages_keys=True)
    async def test_a_revoked_key_is_unknown_at_once(self, subject: Authenticator) -> None:
        for look in (False, True):
            made = await subject.create_key("ada", access_key="GONE")
            if look:
                await subject.lookup("GONE")
            await subject.revoke_key(made.access_key)

            assert subject.lookup_now("GONE") is None
            with pytest.raises(Unauthenticated):
                await subject.lookup("GONE")
            assert "GONE" not in dict(await subject.list_keys())

    @requires(manages_keys=True)
    async def test_no_lookup_overtakes_a_revocation(self, subject: Authenticator) -> None:
        for delay in range(12):
            await subject.create_key("ada", access_key="RACE")
            looking = [asyncio.create_task(subject.lookup("RACE")) for _ in range(3)]
            for _ in range(delay):
                await asyncio.sleep(0)
            await subject.revoke_key("RACE")
            await asyncio.gather(*looking, return_exceptions=True)

            assert subject.lookup_now("RACE") is None
            with pytest.raises(Unauthenticated):
                await subject.lookup("RACE")

    @requires(manages_keys=True)
    async def test_a_revoked_name_may_be_made_anew(self, subject: Authenticator) -> None:
        await subject.create_key("ada", access_key="AGAIN", secret="the-first-secret")
        await subject.revoke_key("AGAIN")
        await subject.create_key("bob", access_key="AGAIN", secret="the-second-secret")
        found = await subject.lookup("AGAIN")

        assert found.secret == "the-second-secret"
        assert found.principal.name == "account:bob"

    @requires(manages_keys=True)
    @pytest.mark.parametrize("access_key", STRANGE)
    async def test_revoking_what_is_not_there_is_not_found(
        self, subject: Authenticator, access_key: str
    ) -> None:
        with pytest.raises(NotFound):
            await subject.revoke_key(access_key)

    @requires(manages_keys=True)
    async def test_the_root_key_cannot_be_revoked(self, subject: Authenticator) -> None:
        with pytest.raises(WarpError):
            await subject.revoke_key(self.root[0])

        assert (await subject.lookup(self.root[0])).secret == self.root[1]

    @requires(manages_keys=True)
    async def test_every_key_is_listed_with_its_principal(self, subject: Authenticator) -> None:
        made = [await subject.create_key(f"user{number % 5}") for number in range(30)]
        listed = await subject.list_keys()

        assert [key for key, _ in listed] == sorted(
            [self.root[0], *(each.access_key for each in made)]
        )
        assert all(dict(listed)[each.access_key] == each.principal for each in made)

    @requires(manages_keys=True)
    @pytest.mark.parametrize("principal", ["", " ", "a b", "a\nb", "a/b", "x" * 5000])
    async def test_a_strange_principal_is_refused(
        self, subject: Authenticator, principal: str
    ) -> None:
        with pytest.raises(InvalidArgument):
            await subject.create_key(principal)

    @requires(manages_keys=True)
    async def test_keys_outlive_the_authenticator(self, make: Make) -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(make())
            kept = [await first.create_key("ada") for _ in range(3)]
            gone = await first.create_key("ada")
            await first.revoke_key(gone.access_key)
        async with make() as second:
            assert [await second.lookup(each.access_key) for each in kept] == kept
            assert [(await second.lookup(each.access_key)).secret for each in kept] == [
                e.secret for e in kept
            ]
            assert len(await second.list_keys()) == 4
            with pytest.raises(Unauthenticated):
                await second.lookup(gone.access_key)

    @requires(manages_keys=False)
    async def test_without_management_keys_are_not_managed(self, subject: Authenticator) -> None:
        with refused():
            await subject.create_key("ada")
        with refused():
            await subject.revoke_key("ADA")
        with refused():
            await subject.list_keys()
        with refused():
            await subject.set_password("ada", "password")

    # Passwords ------------------------------------------------------------------------------------

    @requires(passwords=True)
    async def test_the_right_password_proves_who_one_is(
        self, subject: Authenticator, user: tuple[str, str]
    ) -> None:
        who = await subject.verify_password(*user)

        assert who.name.partition(":")[2] == user[0]
        assert await subject.verify_password(*user) == who

    @requires(passwords=True)
    async def test_any_other_password_is_wrong(
        self, subject: Authenticator, user: tuple[str, str]
    ) -> None:
        name, right = user
        for wrong in (
            "",
            " ",
            right + " ",
            right[:-1],
            right + "x",
            right.upper(),
            right + "\0",
            name,
            "x" * 5000,
        ):
            with pytest.raises(Unauthenticated):
                await subject.verify_password(name, wrong)

    @requires(passwords=True)
    async def test_unknown_users_and_wrong_passwords_are_not_told_apart(
        self, subject: Authenticator, user: tuple[str, str]
    ) -> None:
        async def complaint(name: str, password: str) -> str:
            with pytest.raises(Unauthenticated) as raised:
                await subject.verify_password(name, password)
            return str(raised.value)

        wrong = await complaint(user[0], "wrong password")
        for name in ("nobody", "", user[0] + "x", "a b", "x" * 5000, user[0].upper()):
            assert await complaint(name, user[1]) == wrong

    @requires(passwords=True)
    async def test_unknown_users_take_as_long_as_wrong_passwords(
        self, subject: Authenticator, user: tuple[str, str]
    ) -> None:
        async def took(name: str) -> float:
            started = time.perf_counter()
            with contextlib.suppress(Unauthenticated):
                await subject.verify_password(name, "wrong password")
            return time.perf_counter() - started

        # In turns, so that a busy machine is as busy for each of them.
        rounds = [[await took(name) for name in (user[0], "nobody", "no body")] for _ in range(7)]
        known, unknown, strange = (min(times) for times in zip(*rounds, strict=True))
        if known > 0.0005:  # below, the network's jitter hides it
            assert unknown > known / 3
            assert strange > known / 3

    @requires(passwords=True)
    async def test_passwords_are_checked_while_others_are_served(
        self, subject: Authenticator, user: tuple[str, str]
    ) -> None:
        longest, done = 0.0, asyncio.Event()

        async def watch() -> None:
            nonlocal longest
            while not done.is_set():
                before = time.thread_time()
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - before)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(subject.verify_password(*user) for _ in range(5)))
        done.set()
        await watching

        assert longest < 0.05, "the loop's thread hashed a password itself"

    @requires(passwords=True, manages_keys=True)
    async def test_a_changed_password_replaces_the_old_one(self, subject: Authenticator) -> None:
        await subject.set_password("bob", "the first password")
        await subject.set_password("bob", "the second password")

        assert (await subject.verify_password("bob", "the second password")).name == "account:bob"
        with pytest.raises(Unauthenticated):
            await subject.verify_password("bob", "the first password")

    @requires(passwords=True, manages_keys=True)
    async def test_a_password_that_was_taken_away_is_wrong(self, subject: Authenticator) -> None:
        await subject.set_password("bob", "the only password")
        await subject.set_password("bob", "")

        for password in ("the only password", ""):
            with pytest.raises(Unauthenticated):
                await subject.verify_password("bob", password)

    @requires(passwords=True, manages_keys=True)
    async def test_passwords_outlive_the_authenticator_and_belong_to_one(self, make: Make) -> None:
        async with make() as first:
            await first.set_password("ada", "the same password")
            await first.set_password("bob", "another password")
        async with make() as second:
            assert (await second.verify_password("ada", "the same password")).name == "account:ada"
            with pytest.raises(Unauthenticated):
                await second.verify_password("bob", "the same password")

    @requires(passwords=False)
    async def test_without_passwords_checking_one_is_refused(self, subject: Authenticator) -> None:
        with refused():
            await subject.verify_password("ada", "password")
