"""The control socket: requests, errors, progress, limits, and what a stranger may not do."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from warp_core.errors import InvalidArgument, NotFound, Unavailable, WarpError
from warp_core.node.client import Control
from warp_core.node.control import LINE_MAX, ControlServer, Progress, Verb


class Add(msgspec.Struct):
    left: int
    right: int = 1


async def add(subject: list[str], arguments: Add, progress: Progress) -> int:
    subject.append("add")
    progress({"done": 1, "total": 2})
    if arguments.left < 0:
        raise NotFound("no negative numbers here")
    if arguments.left == 99:
        raise ZeroDivisionError("defect")
    return arguments.left + arguments.right


async def hang(subject: list[str], arguments: Add, progress: Progress) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        subject.append("cancelled")
        raise


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Path, list[str]]]:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    path, subject = deep / "control.sock", ["start"]
    path.write_text("left behind")
    verbs: dict[str, Verb[list[str]]] = {"add": Verb(Add, add), "hang": Verb(Add, hang)}
    async with ControlServer(path, lambda: verbs, subject):
        yield path, subject
    assert not path.exists()


async def call(path: Path, verb: str, **arguments: object) -> object:
    def blocking() -> object:
        with Control(path) as control:
            return control.call(verb, progress=heard.append, **arguments)

    heard: list[object] = []
    result = await asyncio.to_thread(blocking)
    assert heard == [{"done": 1, "total": 2}]
    return result


async def test_a_request_is_answered_even_at_the_end_of_a_long_path(
    server: tuple[Path, list[str]],
) -> None:
    path, subject = server

    assert await call(path, "add", left=4, right=5) == 9
    assert subject == ["start", "add"]


async def test_only_the_owner_may_connect(server: tuple[Path, list[str]]) -> None:
    assert stat.S_IMODE(server[0].stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("add", {"left": -1}, NotFound),
        ("add", {"left": "x"}, InvalidArgument),
        ("add", {}, InvalidArgument),
        ("fly", {}, NotFound),
        ("add", {"left": 99}, WarpError),
    ],
)
async def test_errors_keep_their_class_and_the_server_goes_on(
    server: tuple[Path, list[str]],
    verb: str,
    arguments: dict[str, Any],
    error: type[WarpError],
) -> None:
    def blocking() -> None:
        with Control(server[0]) as control:
            with pytest.raises(error) as raised:
                control.call(verb, **arguments)
            assert type(raised.value) is error
            assert control.call("add", left=1) == 2

    await asyncio.to_thread(blocking)


@pytest.mark.parametrize(
    "junk", [b"\n", b"{}\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b"x" * 3 * LINE_MAX]
)
async def test_garbage_costs_its_sender_the_answer_only(
    server: tuple[Path, list[str]], junk: bytes
) -> None:
    def blocking() -> None:
        with Control(server[0]) as stranger, contextlib.suppress(ConnectionError):
            assert stranger._socket is not None
            stranger._socket.settimeout(5)
            stranger._socket.sendall(junk)
            answer = stranger._socket.recv(1 << 20)
            assert not answer or answer.startswith(b'{"id":0,"error"')
        with Control(server[0]) as control:
            assert control.call("add", left=1) == 2

    await asyncio.to_thread(blocking)


async def test_a_client_that_leaves_cancels_its_requests(server: tuple[Path, list[str]]) -> None:
    path, subject = server
    with Control(path) as control:
        assert control._socket is not None
        control._socket.sendall(b'{"id": 1, "verb": "hang", "arguments": {"left": 1}}\n')
        await asyncio.sleep(0.05)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if "cancelled" in subject:
            break

    assert "cancelled" in subject


def test_no_node_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no node answers"):
        Control(tmp_path / "control.sock").__enter__()
