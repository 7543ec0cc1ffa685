"""The server with asyncssh's client and with raw messages, on a node in memory."""

from __future__ import annotations

import asyncio
import random
import stat
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import asyncssh
import msgspec
import pytest
from asyncssh import SFTPBadMessage, SFTPFailure, SFTPNoSuchFile, SFTPPermissionDenied
from warp_conformance.reference.auth import Disk, MemoryAuth
from warp_conformance.reference.node import Stage
from warp_core.config import Address, Duration
from warp_core.contexts import ProtocolContext
from warp_core.errors import ConfigError
from warp_core.interfaces.auth import Principal
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_sftp import serving, wire
from warp_sftp.config import Config
from warp_sftp.server import Server
from warp_sftp.verbs import EXTENSIONS
from warp_sftp.wire import Kind

ROOT = ("ROOTKEY", "the-secret-of-the-root-key")
ANYWHERE = Config(listen=Address("127.0.0.1:0"))
LIMIT_S = 60.0  # for hangs only


class Bench:
    """A node in memory, and servers and clients of it."""

    def __init__(self, stage: Stage, data: Path) -> None:
        self.objects = NamespaceObjects(stage.namespace)
        self.files = stage.files
        self.auth = MemoryAuth(Disk(), ROOT)
        self.context = ProtocolContext(
            node="test",
            data=data,
            objects=self.objects,
            files=stage.files,
            blocks=stage.blocks,
            authenticator=self.auth,
            metrics=Metrics(),
            drain_s=2.0,
        )

    async def account(self, name: str, volume: str = "") -> None:
        await self.auth.set_password(name, f"{name}'s password")
        if volume:
            await self.objects.create_volume(volume, owner=Principal(f"account:{name}"))

    @asynccontextmanager
    async def server(self, **options: Any) -> AsyncIterator[Server]:
        async with Server(msgspec.structs.replace(ANYWHERE, **options), self.context) as server:
            yield server

    def connect(self, server: Server, name: str = "ada", password: str = "", **more: Any) -> Any:
        return asyncssh.connect(
            "127.0.0.1",
            int(server.endpoint.rpartition(":")[2]),
            username=name,
            password=password or f"{name}'s password",
            known_hosts=None,
            client_keys=None,
            config=None,
            **more,
        )

    @asynccontextmanager
    async def sftp(
        self, server: Server, name: str = "ada", **more: Any
    ) -> AsyncIterator[asyncssh.SFTPClient]:
        async with (
            self.connect(server, name, **more) as connection,
            connection.start_sftp_client() as client,
        ):
            yield client


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Stage() as stage:
        made = Bench(stage, tmp_path)
        await made.account("ada", "hers")
        await made.account("bob", "his")
        async with asyncio.timeout(LIMIT_S):
            yield made


CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
]


@pytest.mark.parametrize("cipher", CIPHERS)
async def test_bytes_go_there_and_back_under_every_cipher(
    bench: Bench, tmp_path: Path, cipher: str
) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    async with bench.server() as server, bench.sftp(server, encryption_algs=[cipher]) as client:
        await client.put(str(tmp_path / "x"), "hers/x")
        await client.get("hers/x", str(tmp_path / "y"))

    assert (tmp_path / "y").read_bytes() == data


async def test_a_client_that_knows_several_ciphers_gets_aes_gcm(bench: Bench) -> None:
    async with (
        bench.server() as server,
        bench.connect(server, encryption_algs=[CIPHERS[2], CIPHERS[3], CIPHERS[0]]) as connection,
    ):
        assert connection.get_extra_info("send_cipher") == CIPHERS[0]


async def test_new_keys_are_made_in_the_middle_of_transfers(bench: Bench, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8000
    (tmp_path / "x").write_bytes(data)
    async with bench.server() as server, bench.sftp(server, rekey_bytes=100_000) as client:
        await client.put(str(tmp_path / "x"), "hers/x")
        await client.get("hers/x", str(tmp_path / "y"))

    assert (tmp_path / "y").read_bytes() == data


async def test_an_account_sees_what_it_owns_and_what_is_shared(bench: Bench) -> None:
    shared = {"hi*": ("ada", "grace"), "other": ("*",)}
    async with bench.server() as server, bench.sftp(server) as client:
        assert sorted(await client.listdir("/")) == [".", "..", "hers"]
        with pytest.raises(SFTPNoSuchFile):
            await client.listdir("/his")
    async with bench.server(shared=shared) as server, bench.sftp(server) as client:
        assert sorted(await client.listdir("/")) == [".", "..", "hers", "his"]
        # There, modes decide: his directory is not hers to write in.
        with pytest.raises(SFTPPermissionDenied):
            await client.mkdir("/his/x")
        with pytest.raises(SFTPPermissionDenied):
            await client.rename("/hers", "/his/x")
        async with client.open("/hers/x", "wb"):
            pass
        with pytest.raises(SFTPFailure, match="Invalid cross-device link"):
            await client.rename("/hers/x", "/his/x")
    async with bench.server() as server, bench.sftp(server, ROOT[0], password=ROOT[1]) as client:
        assert (
            {"hers", "his", "v"} >= set(await client.listdir("/")) - {".", ".."} >= {"hers", "his"}
        )


async def test_a_home_is_all_that_there_is(bench: Bench) -> None:
    async with bench.server(home="his/homes/{account}") as server, bench.sftp(server) as client:
        assert await client.realpath(".") == "/"
        async with client.open("x", "wb") as file:
            await file.write(b"mine")
        await client.symlink("../../../../x", "up")
        await client.symlink("/x", "abs")
        assert await (await client.open("up", "rb")).read() == b"mine"
        assert await (await client.open("abs", "rb")).read() == b"mine"
        assert sorted(await client.listdir("/../..")) == [".", "..", "abs", "up", "x"]
        shown = await client.stat("/")
        assert stat.S_IMODE(shown.permissions or 0) == 0o700
    async with bench.server(home="nowhere") as server:
        with pytest.raises(asyncssh.Error):
            async with bench.sftp(server) as client:
                await client.listdir("/")


async def test_errors_have_their_status(bench: Bench) -> None:
    async with bench.server() as server, bench.sftp(server) as client:
        await client.mkdir("hers/d")
        await client.mkdir("hers/d/e")
        wrong: list[tuple[type[Exception], Awaitable[object]]] = [
            (SFTPNoSuchFile, client.stat("hers/x")),
            (SFTPNoSuchFile, client.open("hers/x/y", "wb")),
            (SFTPFailure, client.mkdir("hers/d")),
            (SFTPFailure, client.rmdir("hers/d")),
            (SFTPFailure, client.remove("hers/d")),
            (SFTPFailure, client.open("hers/d", "rb")),
            (SFTPPermissionDenied, client.mkdir("/new")),
            (SFTPPermissionDenied, client.rmdir("/hers")),
            (SFTPPermissionDenied, client.chown("hers/d", 0, 0)),
            (SFTPBadMessage, client.mkdir("hers/" + "n" * 256)),
            (SFTPFailure, client.readlink("hers/d")),
        ]
        for kind, call in wrong:
            with pytest.raises(kind):
                await call
        await client.symlink("loop", "hers/loop")
        with pytest.raises(SFTPFailure, match="symbolic links"):
            await client.stat("hers/loop")


async def test_set_id_bits_are_not_an_accounts_to_give(bench: Bench) -> None:
    async with bench.server() as server, bench.sftp(server) as client:
        async with client.open("hers/x", "wb"):
            pass
        await client.chmod("hers/x", 0o6755)
        shown = await client.stat("hers/x")

    assert stat.S_IMODE(shown.permissions or 0) == 0o755


async def test_a_server_that_only_reads_changes_nothing(bench: Bench) -> None:
    async with (
        bench.server() as server,
        bench.sftp(server) as client,
        client.open("hers/x", "wb") as file,
    ):
        await file.write(b"there")
    async with bench.server(read_only=True) as server, bench.sftp(server) as client:
        assert await (await client.open("hers/x", "rb")).read() == b"there"
        for call in (
            client.open("hers/y", "wb"), client.open("hers/x", "r+b"), client.remove("hers/x"),
            client.mkdir("hers/d"), client.rename("hers/x", "hers/z"), client.chmod("hers/x", 0o600),
            client.symlink("x", "hers/s"), client.truncate("hers/x", 1), client.utime("hers/x", (1, 1)),
        ):  # fmt: skip
            with pytest.raises(SFTPPermissionDenied):
                await call
        assert (await client.statvfs("hers")).flags & 1


async def test_wrong_passwords_are_counted_slowed_and_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp_sftp.attempts.FIRST_DELAY_S", 0.001)
    async with bench.server(attempts_max=3, address_attempts_max=3) as server:
        refused = 0
        while refused < 20:  # how many it takes depends on how old the first are by then
            try:
                await bench.connect(server, password="wrong")
            except asyncssh.PermissionDenied:
                refused += 1
            except (ConnectionError, asyncssh.ConnectionLost):
                break
        assert 3 <= refused < 20


async def test_an_account_has_so_many_connections_and_no_more(bench: Bench) -> None:
    async with bench.server(account_connections_max=2, sessions_max=2) as server:
        async with bench.connect(server) as first, bench.connect(server):
            with pytest.raises(asyncssh.Error):
                async with bench.connect(server) as third:
                    await third.start_sftp_client()
            async with bench.connect(server, "bob"):
                pass
            async with first.start_sftp_client(), first.start_sftp_client():
                with pytest.raises(asyncssh.ChannelOpenError):
                    await first.start_sftp_client()
        while True:  # until the server has seen the end of the first two
            try:
                async with bench.sftp(server) as client:
                    assert await client.listdir("/")
                break
            except asyncssh.Error:
                await asyncio.sleep(0.01)


async def test_handles_are_bounded_and_end_with_their_session(bench: Bench) -> None:
    async with bench.server(handles_max=16) as server:
        number = await bench.files.number("hers")
        async with bench.sftp(server) as client:
            opened = [await client.open(f"hers/{n}", "wb") for n in range(16)]
            with pytest.raises(SFTPFailure, match="16"):
                await client.open("hers/more", "wb")
            await opened[0].close()
            await client.open("hers/more", "wb")
            assert bench.files.opens.open_in(number) == 16
        while bench.files.opens.open_in(number):
            await asyncio.sleep(0.01)


async def test_silent_clients_are_ended(bench: Bench) -> None:
    async with bench.server(idle_timeout=Duration(0.2), login_timeout=Duration(0.2)) as server:
        async with bench.connect(server) as connection:
            await connection.wait_closed()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.endpoint.rpartition(":")[2])
        )
        while await reader.read(1000):
            pass
        writer.close()


async def test_shells_and_old_scp_are_told_what_this_is(bench: Bench) -> None:
    async with bench.server() as server, bench.connect(server) as connection:
        for command in (None, "scp -t /hers/x", "id"):
            done = await connection.run(command)
            assert done.exit_status == 1
            assert "files over SFTP" in str(done.stderr)


async def test_what_was_asked_for_is_answered_before_the_server_ends(bench: Bench) -> None:
    async with bench.server() as server:
        connection = await bench.connect(server)
        client = await connection.start_sftp_client()
        file = await client.open("hers/x", "wb")
        write = asyncio.create_task(file.write(bytes(1_000_000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(write, return_exceptions=True)
    await connection.wait_closed()

    number = await bench.files.number("hers")
    assert bench.files.opens.open_in(number) == 0


async def test_keys_of_others_are_refused_with_the_file_that_is_wrong(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "bad").write_text("x")
    (tmp_path / "bad").chmod(0o600)
    for options, said in (
        ({"host_keys": ("open",)}, "chmod 600"),
        ({"host_keys": ("none",)}, "none"),
        ({"host_keys": ("bad",)}, "bad"),
        ({"user_authorities": ("bad",)}, "bad:1"),
        ({"user_authorities": ("none",)}, "none"),
        ({"revoked_keys": "bad"}, "bad:1"),
    ):
        with pytest.raises(ConfigError, match=said):
            async with bench.server(**options):
                pass


# Raw messages -------------------------------------------------------------------------------------


class Raw:
    """A session that says what it wants."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._data = b""

    async def say(self, *messages: bytes) -> None:
        self._process.stdin.write(b"".join(wire.string(each) for each in messages))

    async def hear(self) -> bytes:
        while len(self._data) < 4 or len(self._data) < 4 + int.from_bytes(self._data[:4], "big"):
            got = await self._process.stdout.read(65_536)
            if not got:
                return b""
            self._data += got
        length = int.from_bytes(self._data[:4], "big")
        message, self._data = self._data[4 : 4 + length], self._data[4 + length :]
        return message


@asynccontextmanager
async def raw(bench: Bench, server: Server) -> AsyncIterator[Raw]:
    async with bench.connect(server) as connection:
        process = await connection.create_process(subsystem="sftp", encoding=None)
        session = Raw(process)
        await session.say(b"\1\0\0\0\3")
        assert (await session.hear())[0] == Kind.VERSION
        yield session
        process.close()


def asked(kind: int, number: int, *parts: bytes) -> bytes:
    return bytes([kind]) + wire.u32(number) + b"".join(parts)


async def test_what_is_not_understood_has_an_answer_and_the_session_goes_on(bench: Bench) -> None:
    async with bench.server() as server, raw(bench, server) as session:
        for message, code in (
            (asked(99, 1), 8),
            (asked(Kind.EXTENDED, 1, wire.string(b"made-up@example.com")), 8),
            (asked(Kind.OPEN, 1), 5),
            (asked(Kind.STAT, 1, wire.string(b"/"), b"more"), 5),
            (asked(Kind.STAT, 1, wire.u32(2**31), b"x"), 5),
            (asked(Kind.READ, 1, wire.string(b"none"), wire.u64(0), wire.u32(10)), 4),
            (asked(Kind.READ, 1), 5),
            (asked(Kind.WRITE, 1, wire.string(b"none"), wire.u64(0), wire.string(b"x")), 4),
            (asked(Kind.CLOSE, 1, wire.string(b"none")), 4),
        ):
            await session.say(message)
            answer = await session.hear()
            assert (answer[0], answer[1:5], answer[8]) == (Kind.STATUS, wire.u32(1), code), message
        await session.say(asked(Kind.STAT, 2, wire.string(b"/")))
        assert (await session.hear())[0] == Kind.ATTRS


async def test_a_message_without_end_ends_the_session(bench: Bench) -> None:
    async with bench.server() as server, raw(bench, server) as session:
        session._process.stdin.write(wire.u32(2**31) + b"x" * 100)
        assert await session.hear() == b""
    async with bench.server() as server, bench.sftp(server) as client:
        assert await client.listdir("/")


async def test_requests_keep_their_order_however_many_there_are(bench: Bench) -> None:
    """Reads see every write that was sent before them, and none that was sent behind them."""
    async with bench.server() as server, raw(bench, server) as session:
        await session.say(asked(Kind.OPEN, 0, wire.string(b"hers/x"), wire.u32(0x1B), wire.u32(0)))
        handle = (await session.hear())[5:]
        messages, wanted = [], {}
        for turn in range(300):
            value = turn.to_bytes(4, "big") * 1000
            messages.append(asked(Kind.WRITE, 2 * turn, handle, wire.u64(0), wire.string(value)))
            messages.append(asked(Kind.READ, 2 * turn + 1, handle, wire.u64(0), wire.u32(5000)))
            wanted[2 * turn + 1] = value
        await session.say(*messages)
        for _ in messages:
            answer = await session.hear()
            number = int.from_bytes(answer[1:5], "big")
            if number in wanted:
                assert answer[9:] == wanted.pop(number)
            else:
                assert answer[5:9] == bytes(4)

    assert not wanted


async def test_extensions_answer_as_openssh_has_them(bench: Bench) -> None:
    async with bench.server(handles_max=100) as server, raw(bench, server) as session:

        async def extended(name: bytes, *parts: bytes) -> bytes:
            await session.say(asked(Kind.EXTENDED, 1, wire.string(name), *parts))
            return await session.hear()

        limits = await extended(b"limits@openssh.com")
        assert limits[5:] == wire.u64(wire.MESSAGE_MAX, wire.TRANSFER_MAX, wire.TRANSFER_MAX, 100)
        home = await extended(b"expand-path@openssh.com", wire.string(b"~/hers/../hers"))
        assert home[9:18] == wire.string(b"/hers")
        other = await extended(b"expand-path@openssh.com", wire.string(b"~bob"))
        assert other[8] == 3
        users = wire.string(wire.u32(0) + wire.u32(12345))
        named = await extended(b"users-groups-by-id@openssh.com", users, users)
        told = wire.string(wire.string(b"root") + wire.string(b""))
        assert named[5:] == told + told


async def test_unknown_ciphers_and_plain_text_get_nothing(bench: Bench) -> None:
    async with bench.server() as server:
        with pytest.raises(asyncssh.KeyExchangeFailed):
            await bench.connect(server, encryption_algs=["aes256-cbc"])


@pytest.mark.parametrize("seed", range(4))
async def test_every_request_has_its_answer_whatever_is_in_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    choose = random.Random(seed)
    log = Mock()
    monkeypatch.setattr(serving, "_log", log)
    strings = [
        b"",
        b"/",
        b"hers",
        b"hers/x",
        b"hers/d",
        b"..",
        b"hers/\xff\xfe",
        b"hers/a/b",
        b"\0",
        b"x" * 5000,
    ]
    strings += [wire.u32(number) for number in range(6)]
    names = [name for name, _ in EXTENSIONS]

    def field() -> bytes:
        kind = choose.randrange(5)
        if kind == 0:
            return wire.u32(choose.choice((0, 1, 2, 3, 0x1B, 0x2F, 0x8000_000F, 2**32 - 1)))
        if kind == 1:
            return wire.u64(choose.choice((0, 1, 5000, 2**62, 2**64 - 1)))
        if kind == 2:
            return choose.randbytes(choose.randrange(9))
        return wire.string(choose.choice(strings))

    def message(number: int) -> bytes:
        kind = choose.choice([*range(3, 21), 200, 200, 200, choose.randrange(256)])
        first = [wire.string(choose.choice(names))] if kind == 200 else []
        return asked(kind, number, *first, *(field() for _ in range(choose.randrange(5))))

    async with bench.server() as server, raw(bench, server) as session:
        messages = [each for number in range(400) if (each := message(number))[0] != Kind.INIT]
        await session.say(*messages)
        missing = {each[1:5] for each in messages}
        while missing:
            answer = await session.hear()
            assert answer, f"the session ended, {len(missing)} answers are missing"
            missing.discard(answer[1:5])
    assert log.error.mock_calls == []


async def test_a_client_that_takes_no_answers_is_not_served_on_and_then_ended(bench: Bench) -> None:
    async with bench.server(idle_timeout=Duration(1.0)) as server:
        async with bench.sftp(server) as client, client.open("hers/x", "wb") as file:
            await file.write(bytes(1_000_000))
        connection = await bench.connect(server)
        process = await connection.create_process(subsystem="sftp", encoding=None, window=70_000)
        process.channel.pause_reading()
        process.stdin.write(wire.string(b"\1\0\0\0\3"))
        opening = asked(Kind.OPEN, 0, wire.string(b"hers/x"), wire.u32(1), wire.u32(0))
        reads = [
            asked(Kind.READ, 1, wire.string(bytes(4)), wire.u64(0), wire.u32(200_000))
            for _ in range(2000)
        ]
        process.stdin.write(b"".join(map(wire.string, (opening, *reads))))
        await connection.wait_closed()

    assert bench.context.metrics.counters(
        "warp_sftp_requests_total", "Requests taken", labels=("request",)
    ).labels("read").value < 200  # fmt: skip
