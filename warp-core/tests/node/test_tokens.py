"""Tokens of the admin API, and who is at the other end of the control socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_conformance.reference.consistency import Plain
from warp_core.audit.log import AuditLog
from warp_core.audit.reading import list_changes
from warp_core.errors import InvalidArgument, NotFound, TooLarge, Unauthenticated
from warp_core.node import tokens as tokens_module
from warp_core.node.client import Control
from warp_core.node.control import ControlServer, Nothing, Progress, Role, Verb
from warp_core.node.tokens import Tokens


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def tokens() -> AsyncIterator[Tokens]:
    async with Plain() as store:
        yield Tokens(store, Clock())


async def test_a_token_is_found_until_it_is_revoked(tokens: Tokens) -> None:
    text, made = await tokens.create("grafana", Role.VIEWER, expires_s=0)
    other, _ = await tokens.create("deploy", Role.OPERATOR, expires_s=0)

    assert await tokens.find(text) == made
    assert text.split("_", 2)[:2] == ["warp", made.id]
    await tokens.revoke(made.id)
    with pytest.raises(Unauthenticated):
        await tokens.find(text)
    assert (await tokens.find(other)).name == "deploy"
    with pytest.raises(NotFound):
        await tokens.revoke(made.id)


async def test_a_token_ends_with_its_time() -> None:
    clock = Clock()
    async with Plain() as store:
        tokens = Tokens(store, clock)
        text, _ = await tokens.create("", Role.VIEWER, expires_s=60)
        clock.now_s += 59.9
        assert (await tokens.find(text)).expired(clock()) is False
        clock.now_s += 0.1
        with pytest.raises(Unauthenticated):
            await tokens.find(text)


async def test_what_is_not_quite_a_token_is_none(tokens: Tokens) -> None:
    text, made = await tokens.create("", Role.ADMIN, expires_s=0)
    _, other = await tokens.create("", Role.ADMIN, expires_s=0)
    secret = text.split("_", 2)[2]
    for wrong in (
        "",
        "_",
        "warp",
        "warp_",
        f"warp_{made.id}_",
        f"warp_{other.id}_{secret}",
        text + "A",
        text[:-1],
        f"Warp_{made.id}_{secret}",
        f"warp_\0_{secret}",
    ):
        with pytest.raises(Unauthenticated):
            await tokens.find(wrong)


@given(st.text(max_size=100))
def test_any_text_is_refused_as_a_token(text: str) -> None:
    async def run() -> None:
        async with Plain() as store:
            with pytest.raises(Unauthenticated):
                await Tokens(store).find(text)
            with pytest.raises(Unauthenticated):
                await Tokens(store).find(f"warp_{text}")

    asyncio.run(run())


async def test_names_times_and_number_have_limits(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, expires_s in (("x" * 65, 0.0), ("a\nb", 0.0), ("", -1.0), ("", 1e12)):
        with pytest.raises(InvalidArgument):
            await tokens.create(name, Role.VIEWER, expires_s=expires_s)
    monkeypatch.setattr(tokens_module, "TOKENS_MAX", 2)
    for _ in range(2):
        await tokens.create("", Role.VIEWER, expires_s=0)
    with pytest.raises(TooLarge):
        await tokens.create("", Role.VIEWER, expires_s=0)
    assert len(await tokens.all()) == 2


async def test_who_uses_the_control_socket_is_on_record_by_what_the_kernel_says(
    tmp_path: Path,
) -> None:
    async def change(subject: object, arguments: Nothing, progress: Progress) -> object:
        return "done"

    async def look(subject: object, arguments: Nothing, progress: Progress) -> object:
        return "seen"

    verbs: dict[str, Verb[object]] = {
        "thing.change": Verb(Nothing, change),
        "thing.show": Verb(Nothing, look),
    }

    def ask() -> None:
        with Control(tmp_path / "control.sock") as control:
            assert control.call("thing.show") == "seen"
            assert control.call("thing.change") == "done"

    async with (
        Plain() as store,
        AuditLog(tmp_path / "audit", store, node="a", identity="i") as log,
        ControlServer(tmp_path / "control.sock", lambda: verbs, object(), log),
    ):
        await asyncio.to_thread(ask)

    [found] = list_changes(tmp_path / "audit", limit=10)
    assert (found.entry.what, found.result) == ("thing.change", "ok")
    assert (found.entry.by, found.entry.via) == (f"unix:{os.getuid()}", "control")
    assert found.entry.address == f"pid {os.getpid()}"
