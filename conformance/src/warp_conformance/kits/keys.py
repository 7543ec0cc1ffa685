"""The kit for key services: what is wrapped opens again, for the same purpose and no other, while its key is enabled."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import strategies as st
from warp_core.errors import AlreadyExists, Corrupt, KeyDisabled, KeyNotFound, NewerFormat
from warp_core.interfaces.keys import WRAPPED_MAX, KeyService

from warp_conformance.kit import Kit, given, refused, requires

Make = Callable[[], AbstractAsyncContextManager[KeyService]]


class KeyServiceKit(Kit, kit=True):
    """Give `make`: a function whose result opens the same key service each time."""

    @pytest.fixture
    def make(self) -> Make:
        """Return how to open the key service."""
        raise NotImplementedError("an adoption of KeyServiceKit gives a fixture `make`")

    @pytest.fixture
    async def subject(self, make: Make) -> AsyncIterator[KeyService]:
        """Open it once, for what it claims."""
        async with make() as opened:
            yield opened

    async def test_what_is_wrapped_opens_again(self, make: Make) -> None:
        async with make() as subject:
            plain = os.urandom(32)
            name, wrapped = await subject.wrap("", plain, context=b"c")

            assert name
            assert len(wrapped) <= WRAPPED_MAX
            assert plain not in wrapped
            assert await subject.unwrap(name, wrapped, context=b"c") == plain

    async def test_it_opens_after_a_restart(self, make: Make) -> None:
        plain = os.urandom(32)
        async with make() as subject:
            name, wrapped = await subject.wrap("", plain, context=b"c")
        async with make() as subject:
            assert await subject.unwrap(name, wrapped, context=b"c") == plain

    async def test_equal_keys_are_wrapped_differently(self, make: Make) -> None:
        async with make() as subject:
            found = {(await subject.wrap("", b"k" * 32, context=b"c"))[1] for _ in range(20)}

            assert len(found) == 20

    @given(context=st.binary(max_size=40), other=st.binary(max_size=40))
    async def test_another_context_does_not_open_it(
        self, make: Make, context: bytes, other: bytes
    ) -> None:
        async with make() as subject:
            name, wrapped = await subject.wrap("", b"k" * 32, context=context)
            if context == other:
                return
            with pytest.raises(Corrupt):
                await subject.unwrap(name, wrapped, context=other)

    async def test_every_flipped_bit_is_found(self, make: Make) -> None:
        async with make() as subject:
            name, wrapped = await subject.wrap("", b"k" * 32, context=b"c")
            for at in range(len(wrapped)):
                changed = bytearray(wrapped)
                changed[at] ^= 1 << at % 8
                with pytest.raises((Corrupt, NewerFormat)):
                    await subject.unwrap(name, bytes(changed), context=b"c")

    async def test_what_is_no_wrapped_key_is_corrupt(self, make: Make) -> None:
        async with make() as subject:
            name, wrapped = await subject.wrap("", b"k" * 32, context=b"c")
            for wrong in (b"", b"\x01", wrapped[:-1], wrapped + b"\0"):
                with pytest.raises(Corrupt):
                    await subject.unwrap(name, wrong, context=b"c")

    async def test_an_unknown_key_is_told_as_such(self, make: Make) -> None:
        async with make() as subject:
            name, wrapped = await subject.wrap("", b"k" * 32, context=b"c")
            with pytest.raises(KeyNotFound):
                await subject.unwrap(name + "-other", wrapped, context=b"c")
            with pytest.raises(KeyNotFound):
                await subject.describe("no such key")

    @requires(manages_keys=True)
    async def test_keys_do_not_open_for_one_another(self, make: Make) -> None:
        async with make() as subject:
            one, other = await subject.create_key("one"), await subject.create_key("other")
            _, wrapped = await subject.wrap(one.id, b"k" * 32, context=b"c")
            with pytest.raises(Corrupt):
                await subject.unwrap(other.id, wrapped, context=b"c")

    @requires(manages_keys=True)
    async def test_a_made_key_is_listed_and_its_id_is_taken(self, make: Make) -> None:
        async with make() as subject:
            made = await subject.create_key("one")
            named = await subject.create_key()
            with pytest.raises(AlreadyExists):
                await subject.create_key("one")

            listed = [each.id for each in await subject.keys()]
            assert {made.id, named.id} <= set(listed)
            assert listed == sorted(listed)
            assert (await subject.describe("one")).enabled

    @requires(manages_keys=True)
    async def test_what_was_wrapped_before_a_rotation_still_opens(self, make: Make) -> None:
        async with make() as subject:
            await subject.create_key("one")
            wrapped = [(await subject.wrap("one", b"%032d" % 0, context=b"c"))[1]]
            for at in range(1, 4):
                rotated = await subject.rotate_key("one")
                assert rotated.versions == at + 1
                wrapped.append((await subject.wrap("one", b"%032d" % at, context=b"c"))[1])
        async with make() as subject:
            for at, each in enumerate(wrapped):
                assert await subject.unwrap("one", each, context=b"c") == b"%032d" % at

    @requires(manages_keys=True)
    async def test_a_disabled_key_neither_wraps_nor_opens(self, make: Make) -> None:
        async with make() as subject:
            await subject.create_key("one")
            _, wrapped = await subject.wrap("one", b"k" * 32, context=b"c")
            await subject.enable_key("one", enabled=False)
            with pytest.raises(KeyDisabled):
                await subject.wrap("one", b"k" * 32, context=b"c")
            with pytest.raises(KeyDisabled):
                await subject.unwrap("one", wrapped, context=b"c")
            await subject.enable_key("one", enabled=True)

            assert await subject.unwrap("one", wrapped, context=b"c") == b"k" * 32

    @requires(manages_keys=False)
    async def test_keys_are_not_managed_where_that_is_not_claimed(self, make: Make) -> None:
        async with make() as subject:
            with refused():
                await subject.create_key("one")
            with refused():
                await subject.rotate_key("one")
            with refused():
                await subject.enable_key("one", enabled=False)
