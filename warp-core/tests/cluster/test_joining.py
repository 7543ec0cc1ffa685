"""Tokens, and the conversation that lets a node in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.certificates import Identity, issue, make_authority, request, sign
from warp_core.cluster import joining
from warp_core.cluster.joining import Admission, Token, Wanted, Welcome, ask, read, write
from warp_core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
    WarpError,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Member:
    """A node that lets others in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_authority(folder / "authority")
        self.identity: Identity = issue(folder / "authority", "a", folder / "tls")
        self.clock = Clock()
        self.admitted: list[Wanted] = []
        self.refuse: WarpError | None = None
        self.admission = Admission("127.0.0.1", self.identity, self.admit, monotonic=self.clock)

    async def admit(self, wanted: Wanted) -> Welcome:
        if self.refuse is not None:
            raise self.refuse
        self.admitted.append(wanted)
        signed = sign(self.folder / "authority", wanted.name, wanted.request, hosts=["127.0.0.1"])
        authority = self.identity.authority.read_bytes()
        return Welcome(signed, authority, ("KEY", "secret"), "etcd", {"name": wanted.name}, {})


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Member]:
    member = Member(tmp_path)
    async with member.admission:
        yield member


def wanted(token: Token, **but: Any) -> Wanted:
    asked = Wanted(1, token.secret, "b", request("b")[1], "127.0.0.1:1", "127.0.0.1:2", True)
    return msgspec.structs.replace(asked, **but)


async def test_a_token_lets_one_node_in(member: Member) -> None:
    token = read(await member.admission.token())

    welcome = await ask(token, wanted(token))

    assert welcome.root == ("KEY", "secret")
    assert welcome.metadata == {"name": "b"}
    assert b"BEGIN CERTIFICATE" in welcome.certificate
    with pytest.raises((Unauthenticated, Unavailable)):
        await ask(token, wanted(token))
    assert [each.name for each in member.admitted] == ["b"]


async def test_the_port_is_open_only_while_there_is_a_token(member: Member) -> None:
    token = read(await member.admission.token())
    await ask(token, wanted(token))
    await asyncio.sleep(1.2)

    with pytest.raises(Unavailable, match="still run"):
        await ask(token, wanted(token))


async def test_a_token_that_is_too_old_is_refused(member: Member) -> None:
    token = read(await member.admission.token(ttl_s=60))
    read(await member.admission.token(ttl_s=600))  # keeps the port open
    member.clock.now += 61

    with pytest.raises(Unauthenticated, match="its time is over"):
        await ask(token, wanted(token))
    assert not member.admitted


async def test_a_wrong_secret_is_refused(member: Member) -> None:
    token = read(await member.admission.token())

    with pytest.raises(Unauthenticated):
        await ask(token, wanted(token, secret=bytes(16)))
    assert (await ask(token, wanted(token))).engine == "etcd"


async def test_who_is_refused_may_try_again_with_the_same_token(member: Member) -> None:
    token = read(await member.admission.token())
    member.refuse = AlreadyExists("there is a node b")

    with pytest.raises(AlreadyExists, match="there is a node b"):
        await ask(token, wanted(token))
    member.refuse = None
    assert (await ask(token, wanted(token, name="c"))).metadata == {"name": "c"}


async def test_an_impostor_learns_nothing(member: Member, tmp_path: Path) -> None:
    token = read(await member.admission.token())
    other = Member(tmp_path / "other")
    async with other.admission:
        theirs = read(await other.admission.token())
        misled = Token(1, theirs.address, token.authority, token.secret)

        with pytest.raises(Unauthenticated, match="nothing was told"):
            await ask(misled, wanted(token))
        assert not other.admitted


async def test_an_impostor_that_shows_the_right_authority_is_not_told_the_secret(
    member: Member, tmp_path: Path
) -> None:
    token = read(await member.admission.token())
    other = Member(tmp_path / "other")
    # It has the public certificate, and no key that it signed.
    other.identity.authority.write_bytes(member.identity.authority.read_bytes())
    async with other.admission:
        theirs = read(await other.admission.token())
        misled = Token(1, theirs.address, token.authority, token.secret)

        with pytest.raises(Unauthenticated):
            await ask(misled, wanted(token))
        assert not other.admitted


async def test_tokens_are_counted(member: Member) -> None:
    for _ in range(joining.TOKENS_MAX):
        await member.admission.token()

    with pytest.raises(Busy):
        await member.admission.token()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0\0\0\x05hello", b"\xff" * 8, b"\0\0\0\x01\xc0", b"\0\0\0\x07\x92\xa4join\x05"],
)
async def test_garbage_is_refused(member: Member, garbage: bytes) -> None:
    token = read(await member.admission.token())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = token.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(garbage)
    if garbage:
        answer = await asyncio.wait_for(reader.read(1000), 5)
        assert b"BEGIN" not in answer
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

    assert (await ask(token, wanted(token))).engine == "etcd"


def test_tokens_are_read_as_they_were_written() -> None:
    token = Token(1, "[::1]:7000", bytes(range(32)), bytes(16))

    assert read(f"  {write(token)}\n") == token
    for wrong in ("", "warp1.", "warp1.@@", "warp1.aGVsbG8", write(token)[:-9], "x" + write(token)):
        with pytest.raises(InvalidArgument):
            read(wrong)
    with pytest.raises(InvalidArgument, match="version 2"):
        read(write(msgspec.structs.replace(token, version=2)))


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    for each in (text, "warp1." + text):
        with pytest.raises(InvalidArgument):
            read(each)


def test_only_what_has_its_key_is_signed(tmp_path: Path) -> None:
    make_authority(tmp_path)

    with pytest.raises(InvalidArgument):
        sign(tmp_path, "b", b"no request")
    with pytest.raises(InvalidArgument, match="node name"):
        sign(tmp_path, "b c", request("b")[1])
