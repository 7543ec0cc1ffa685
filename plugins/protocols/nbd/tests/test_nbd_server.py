"""The server over real sockets, on a node in memory."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import ssl
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from warp_conformance.reference.auth import Disk as AuthDisk
from warp_conformance.reference.auth import MemoryAuth
from warp_conformance.reference.node import Stage
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import ConfigError, StoreFailed
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_nbd import wire
from warp_nbd.config import Config
from warp_nbd.server import Server
from warp_nbd.wire import Option, Reply, Transmission

_spec = importlib.util.spec_from_file_location(
    "nbd_client", Path(__file__).with_name("nbd_client.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Client, Refused = _module.Client, _module.Refused

MIB = 1024 * 1024
SIZE = 16 * MIB
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)


@pytest.fixture
async def stage():
    async with Stage() as stage:
        await stage.blocks.create("v", b"a", size=SIZE)
        yield stage


@pytest.fixture
def context(stage, tmp_path):
    return ProtocolContext(
        node="test",
        data=tmp_path,
        objects=NamespaceObjects(stage.namespace),
        files=stage.files,
        blocks=stage.blocks,
        authenticator=MemoryAuth(AuthDisk(), ("root", "secret")),
        metrics=Metrics(),
        drain_s=1.0,
    )


@pytest.fixture
def start(context):
    def started(**options):
        base = Config(listen=Address("127.0.0.1:0"), auth="none")
        return Server(msgspec.structs.replace(base, **options), context)

    return started


@pytest.fixture
async def server(start):
    async with start() as server:
        yield server


@pytest.fixture
async def client(server):
    async with Client(server.endpoint) as client:
        yield await client.go("v/a")


def refused(name):
    return pytest.raises(Refused, match=name)


# Negotiation --------------------------------------------------------------------------------------


async def test_an_export_says_what_it_is(client):
    assert client.size == SIZE
    assert client.infos[1] == b"v/a"
    assert b"volume v" in client.infos[2]
    assert client.infos[3] == (1).to_bytes(4, "big") + (4096).to_bytes(4, "big") + (
        32 * MIB
    ).to_bytes(4, "big")
    wanted = Transmission.CAN_MULTI_CONN | Transmission.SEND_FUA | Transmission.SEND_FAST_ZERO
    assert client.flags & wanted == wanted
    assert not client.flags & Transmission.READ_ONLY


@pytest.mark.parametrize(("flags", "zeroes"), [(3, 0), (1, 124), (0, 124), (2, 0)])
async def test_the_oldest_option_opens_an_export(server, flags, zeroes):
    async with Client(server.endpoint) as client:
        client.begin(flags).send(wire.pack_option(Option.EXPORT_NAME, b"v/a"))
        head = await client.take(10 + zeroes)
        assert int.from_bytes(head[:8], "big") == SIZE
        assert head[10:] == bytes(zeroes)
        await client.write(100, b"hello")
        assert await client.read(99, 7) == b"\0hello\0"


async def test_a_disk_is_attached_by_its_uri(start):
    async with start(exports=("v/*",)) as server:
        assert server.attach("v", b"a") == f"{server.endpoint}/v/a"
        assert server.attach("w", b"a") == ""


async def test_the_only_disk_is_the_default(server, stage):
    async with Client(server.endpoint) as client:
        assert (await client.go("")).infos[1] == b"v/a"
    await stage.blocks.create("v", b"dir/b", size=SIZE)
    async with Client(server.endpoint) as client:
        with refused("ERR_UNKNOWN"):
            await client.go("", structured=False)
        names = [body[4:] for _, body in await client.option(Option.LIST)]
        assert names == [b"v/a", b"v/dir/b"]


async def test_what_is_not_exported_is_not_there(start, stage):
    await stage.blocks.create("v", b"dir/b", size=SIZE)
    async with (
        start(exports=("v/dir/*",), read_only=True) as server,
        Client(server.endpoint) as client,
    ):
        with refused("ERR_UNKNOWN"):
            await client.go("v/a", structured=False)
        await client.option(Option.STRUCTURED_REPLY)
        await client.option(Option.GO, wire.pack_info_request("", [1]))
        with refused("EPERM"):
            await client.call(WRITE, 0, data=b"x")


@pytest.mark.parametrize(
    "name", ["x/a", "v", "v/", "/a", "v/none", "v/a@none", "v/dir", "@", "v/a@"]
)
async def test_names_of_nothing_are_refused(server, name):
    async with Client(server.endpoint) as client:
        client.begin()
        for option in (Option.INFO, Option.GO):
            with refused("ERR_UNKNOWN"):
                await client.option(option, wire.pack_info_request(name))
    async with Client(server.endpoint) as client:
        client.begin().send(wire.pack_option(Option.EXPORT_NAME, name.encode()))
        assert await client.ended()


async def test_options_that_nobody_knows_are_refused_and_the_rest_goes_on(server):
    async with Client(server.endpoint) as client:
        client.begin()
        for option in (4, Option.EXTENDED_HEADERS, 12345):
            with refused("ERR_UNSUP"):
                await client.option(option, b"data")
        with refused("ERR_POLICY"):
            await client.option(Option.STARTTLS)
        with refused("ERR_TOO_BIG"):
            await client.option(Option.LIST, bytes(wire.OPTION_MAX + 1))
        for option in (Option.LIST, Option.STRUCTURED_REPLY, Option.GO, Option.LIST_META_CONTEXT):
            with refused("ERR_INVALID"):
                await client.option(option, b"x")
        await client.option(Option.ABORT)
        assert await client.ended()


async def test_contexts_are_told_after_structured_replies(server):
    async with Client(server.endpoint) as client:
        client.begin()
        for option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
            with refused("ERR_INVALID"):
                await client.option(option, wire.pack_context_request("v/a", ["base:allocation"]))
        await client.option(Option.STRUCTURED_REPLY)
        for queries, count in (
            ([], 1),
            (["base:"], 1),
            (["qemu:", "base:allocation"], 1),
            (["x:y"], 0),
        ):
            query = wire.pack_context_request("v/a", queries)
            found = await client.option(Option.LIST_META_CONTEXT, query)
            assert [body[4:] for _, body in found] == [b"base:allocation"] * count
        assert await client.option(Option.SET_META_CONTEXT, wire.pack_context_request("v/a")) == []
        with refused("ERR_UNKNOWN"):
            await client.option(Option.SET_META_CONTEXT, wire.pack_context_request("v/no"))


async def test_status_of_another_export_was_not_negotiated(server):
    async with Client(server.endpoint) as client:
        client.begin()
        await client.option(Option.STRUCTURED_REPLY)
        client.structured = True
        query = wire.pack_context_request("", ["base:allocation"])
        await client.option(Option.SET_META_CONTEXT, query)
        await client.option(Option.GO, wire.pack_info_request("v/a"))
        with refused("EINVAL"):
            await client.call(STATUS, 0, 512)


async def test_oldstyle_and_unfixed_clients_are_let_go(server):
    async with Client(server.endpoint) as client:  # an oldstyle client begins with a request
        client.send(wire.pack_request(READ, 1, 0, 512))
        assert await client.ended()
    async with Client(server.endpoint) as client:
        client.begin(0).send(wire.pack_option(Option.LIST))
        assert await client.ended()


async def test_who_negotiates_in_silence_is_cut_off(start):
    async with start(handshake_timeout=0.3) as server, Client(server.endpoint) as client:
        client.begin()
        await client.option(Option.LIST)
        assert await client.ended()


# Requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [True, False])
async def test_what_was_written_is_read(server, structured):
    rand = random.Random(3)
    model = bytearray(SIZE)
    async with Client(server.endpoint) as client:
        await client.go("v/a", structured=structured)
        for turn in range(120):
            offset = rand.randrange(SIZE - 1)
            length = min(SIZE - offset, rand.choice([1, 511, 4096, 70_000, 300_000, 2 * MIB + 7]))
            verb = rand.choice(["write", "write", "read", "trim", "zero", "keep"])
            if verb == "write":
                data = rand.randbytes(length)
                await client.write(offset, data, flags=wire.FUA if turn % 9 == 0 else 0)
                model[offset : offset + length] = data
            elif verb == "read":
                got = await client.read(offset, length)
                assert got == model[offset : offset + length], f"turn {turn}"
            else:
                command = TRIM if verb == "trim" else ZEROES
                flags = wire.NO_HOLE if verb == "keep" else 0
                await client.call(command, offset, length, flags=flags)
                model[offset : offset + length] = bytes(length)
        await client.call(FLUSH)
        assert await client.read(0, SIZE) == model


async def test_holes_are_told_and_one_fragment_is_one_chunk(client):
    await client.write(8192, b"x" * 4096)
    await client.write(13000, b"y" * 10)

    said = await client.call(READ, 0, 65536)
    assert [(kind, at) for kind, at, _ in said] == [("hole", 0), ("data", 8192), ("hole", 13010)]
    assert said[1][2] == b"x" * 4096 + bytes(712) + b"y" * 10  # a small hole is sent as zeros
    whole = await client.call(READ, 0, 65536, flags=wire.DF)
    assert [(kind, at, len(data)) for kind, at, data in whole] == [("data", 0, 65536)]
    assert await client.call(READ, MIB, 4 * MIB, flags=wire.DF) != []
    pieces = await client.call(READ, 0, 4 * MIB)
    assert sum(len(what) if kind == "data" else what for kind, _, what in pieces) == 4 * MIB
    assert await client.call(READ, 0, 0) == []


async def test_status_tells_data_and_holes(client):
    await client.write(MIB, b"x" * 4096)
    await client.write(MIB + 4096, b"y" * 4096)

    (kind, context, extents), *more = await client.call(STATUS, 0, SIZE)
    assert (kind, context, more) == ("status", 1, [])
    assert extents == [(MIB, 3), (8192, 0), (SIZE - MIB - 8192, 3)]
    assert (await client.call(STATUS, MIB - 512, 4096, flags=wire.REQ_ONE))[0][2] == [(512, 3)]
    with refused("EINVAL"):
        await client.call(STATUS, 0, 0)


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (READ, SIZE, 1, 0, "EINVAL"),
        (READ, SIZE - 1, 2, 0, "EINVAL"),
        (READ, 2**63, 512, 0, "EINVAL"),
        (READ, 0, 32 * MIB + 1, 0, "EINVAL"),
        (READ, SIZE - MIB, 2 * MIB, 0, "EINVAL"),
        (TRIM, SIZE, 512, 0, "EINVAL"),
        (CACHE, SIZE, 512, 0, "EINVAL"),
        (STATUS, SIZE, 512, 0, "EINVAL"),
        (ZEROES, SIZE, 512, 0, "ENOSPC"),
        (READ, 0, 512, 1 << 9, "EINVAL"),
        (TRIM, 0, 512, wire.REQ_ONE, "EINVAL"),
        (FLUSH, 0, 0, wire.DF, "EINVAL"),
        (ZEROES, 0, 512, wire.NO_HOLE | wire.FAST_ZERO, "ENOTSUP"),
        (8, 0, 512, 0, "EINVAL"),
        (4711, 0, 512, 0, "EINVAL"),
    ],
)
async def test_what_cannot_be_has_its_error_and_harms_nothing(
    client, command, offset, length, flags, error
):
    with refused(error):
        await client.call(command, offset, length, flags=flags)
    assert await client.read(0, 512) == bytes(512)


@pytest.mark.parametrize("length", [512, MIB])
async def test_writes_past_the_end_have_no_space(client, length):
    with refused("ENOSPC"):
        await client.write(SIZE - 511, bytes(length))
    with refused("EINVAL"):
        await client.write(0, bytes(length), flags=wire.DF)
    assert await client.read(0, 512) == bytes(512)


async def test_errors_are_numbers_without_structured_replies(server):
    async with Client(server.endpoint) as client:
        await client.go("v/a", structured=False)
        for command, flags, error in ((READ, wire.DF, "EINVAL"), (STATUS, 0, "EINVAL")):
            with refused(error):
                await client.call(command, 0, 512, flags=flags)
        with refused("EINVAL"):
            await client.call(READ, SIZE, 512)


async def test_fast_zeroes_and_cache_are_done(client):
    await client.write(0, b"x" * 8192)
    await client.call(ZEROES, 0, 4096, flags=wire.FAST_ZERO)
    await client.call(CACHE, 0, SIZE)

    assert await client.read(0, 8192) == bytes(4096) + b"x" * 4096


async def test_many_requests_in_one_send_are_all_answered(client):
    cookies = {}
    for number in range(300):
        cookies[client.ask(WRITE, number * 4096, 4096, data=number.to_bytes(2, "big") * 2048)] = "w"
        cookies[client.ask(READ, number * 4096, 4096)] = "r"
        if number % 50 == 0:
            cookies[client.ask(FLUSH)] = "f"
    for _ in range(len(cookies)):
        cookie, error, _ = await client.answer()
        assert error == 0
        del cookies[cookie]

    assert cookies == {}
    assert (await client.read(299 * 4096, 2)) == (299).to_bytes(2, "big")


async def test_a_flush_covers_all_connections(server, client, stage):
    async with Client(server.endpoint) as other:
        await other.go("v/a")
        await other.write(0, b"other" * 100)
        await client.call(FLUSH)
        await client.write(4096, b"fua", flags=wire.FUA)
        await client.write(8192, b"lost")
    await client.__aexit__()
    await asyncio.sleep(0.05)
    await stage.crash()

    disk = await stage.blocks.open("v", b"a", initiator="after")
    assert bytes(await disk.read(0, 500)) == b"other" * 100
    assert bytes(await disk.read(4096, 3)) == b"fua"
    await disk.close()


async def test_a_flush_that_fails_says_so(client, stage, monkeypatch):
    async def failing(self):
        raise StoreFailed("planted")

    await client.write(0, b"x")
    monkeypatch.setattr(stage.blocks.disk, "flush", failing)
    for command in (FLUSH, WRITE):
        with refused("EIO"):
            await client.call(command, data=b"y" if command == WRITE else b"", flags=wire.FUA)


async def test_large_requests_wait_for_memory_and_are_done(start):
    async with start(memory_max=64 * MIB) as server, Client(server.endpoint) as client:
        await client.go("v/a")
        data = random.Random(1).randbytes(SIZE)
        cookies = {client.ask(WRITE, 0, SIZE, data=data) for _ in range(6)}
        for _ in range(6):
            cookie, error, _ = await client.answer()
            assert error == 0
            cookies.remove(cookie)
        for _ in range(4):
            client.ask(READ, 0, SIZE, flags=wire.DF)
        for _ in range(4):
            _, error, said = await client.answer()
            assert not error
            assert said[0][2] == data
        assert server.memory.used == 0


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n" * 4, bytes(64), wire.pack_request(WRITE, 1, 0, 2**32 - 1)],
    ids=["http", "zeros", "endless"],
)
async def test_garbage_ends_the_connection_and_no_other(server, client, garbage):
    async with Client(server.endpoint) as other:
        await other.go("v/a")
        other.send(garbage)
        assert await other.ended()
    assert await client.read(0, 4) == bytes(4)


async def test_who_hangs_up_with_replies_pending_leaves_nothing(server, stage):
    for turn in range(6):
        async with Client(server.endpoint) as client:
            await client.go("v/a")
            for number in range(40):
                client.ask(WRITE, number * 4096, 4096, data=b"x" * 4096, flags=turn % 2)
                client.ask(READ, 0, SIZE)
                client.ask(FLUSH)
            client.send(wire.pack_request(WRITE, 1, 0, 8 * MIB) + bytes(MIB))
            await asyncio.sleep(0.01 * turn)
    async with asyncio.timeout(5):
        while server._connections:
            await asyncio.sleep(0.01)
    assert server.memory.used == 0
    await stage.blocks.delete("v", b"a")  # nobody has it open


async def test_disc_answers_what_was_asked_before(client):
    first = client.ask(FLUSH)
    client.ask(DISC)
    client.ask(READ, 0, 512)

    assert (await client.answer())[0] == first
    assert await client.ended()


async def test_snapshots_are_exported_read_only(server, client, stage):
    await client.write(0, b"before")
    await stage.blocks.snapshot("v", b"a", "s1")
    await client.write(0, b"after!")

    async with Client(server.endpoint) as other:
        await other.go("v/a@s1")
        assert other.flags & Transmission.READ_ONLY
        assert await other.read(0, 6) == b"before"
        for command in (TRIM, ZEROES):
            with refused("EPERM"):
                await other.call(command, 0, 512)
        for size in (10, MIB):
            with refused("EPERM"):
                await other.write(0, bytes(size))
    assert await client.read(0, 6) == b"after!"


async def test_new_connections_see_a_new_size(server, client, stage):
    await stage.blocks.resize("v", b"a", 2 * SIZE)
    async with Client(server.endpoint) as other:
        assert (await other.go("v/a")).size == 2 * SIZE
        await other.write(2 * SIZE - 4, b"last")
    await stage.blocks.resize("v", b"a", 4096)

    with refused("EINVAL"):
        await client.call(READ, 4096, 4096)
    with refused("ENOSPC"):
        await client.write(4096, bytes(10))
    assert await client.read(0, 4096) == bytes(4096)


async def test_who_does_not_take_replies_is_cut_off(start):
    async with start(stall_timeout=0.5) as server, Client(server.endpoint) as client:
        await client.go("v/a")
        await client.write(0, random.Random(1).randbytes(SIZE))
        client.writer.transport.pause_reading()
        for _ in range(40):
            client.ask(READ, 0, SIZE)
        async with asyncio.timeout(10):
            while server._connections:
                await asyncio.sleep(0.05)
        assert server.memory.used == 0


async def test_there_are_so_many_connections_and_no_more(start):
    async with start(connections_max=2) as server, Client(server.endpoint), Client(server.endpoint):
        reader, _ = await asyncio.open_connection(*server.endpoint[6:].split(":"))
        assert await reader.read() == b""


async def test_leaving_answers_what_was_asked(start):
    server = start()
    await server.__aenter__()
    async with Client(server.endpoint) as client:
        await client.go("v/a")
        request = wire.pack_request(WRITE, 7, 0, 4096)
        client.send(request + bytes(100))
        await asyncio.sleep(0.05)
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        client.send(bytes(3996))
        assert (await client.answer())[:2] == (7, 0)
        assert await client.ended()
        await leaving


# Sockets and TLS ----------------------------------------------------------------------------------


async def test_a_unix_socket_is_its_owners(start, tmp_path):
    async with start(listen=Address("unix:n.sock"), auth="") as server:
        path = tmp_path / "n.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.endpoint == f"nbd+unix:///?socket={path}"
        assert server.attach("v", b"dir/a b") == f"nbd+unix:///v/dir/a%20b?socket={path}"
        assert server.attach("v", b"\xff") == ""
        async with Client(server.endpoint) as client:
            assert (await client.go("v/a")).size == SIZE
    assert not path.exists()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and certificates of a server, a client, and a stranger."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", f"/CN={authority}")  # fmt: skip
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        (folder / "san").write_text("subjectAltName=DNS:localhost\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey",
                f"{authority}.key", "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "san")  # fmt: skip
    return folder


def trusting(folder, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if client:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return context


async def test_with_a_certificate_nothing_is_served_without_tls(start, certificates):
    files = {"tls_certificate": str(certificates / "server.pem"), "tls_key": str(certificates / "server.key")}  # fmt: skip
    async with start(**files) as server:
        assert server.endpoint.startswith("nbds://")
        async with Client(server.endpoint) as client:
            client.begin()
            for option in (Option.LIST, Option.GO, Option.STRUCTURED_REPLY):
                with refused("ERR_TLS_REQD"):
                    await client.option(option)
            await client.start_tls(trusting(certificates))
            with refused("ERR_INVALID"):
                await client.option(Option.STARTTLS)
            await client.option(Option.STRUCTURED_REPLY)
            client.structured = True
            await client.option(Option.GO, wire.pack_info_request("v/a"))
            data = random.Random(2).randbytes(3 * MIB)
            await client.write(0, data)
            assert await client.read(0, len(data)) == data
        async with Client(server.endpoint) as client:
            client.begin().send(wire.pack_option(Option.EXPORT_NAME, b"v/a"))
            assert await client.ended()
        async with Client(server.endpoint) as client:  # in the clear, behind STARTTLS
            client.begin().send(wire.pack_option(Option.STARTTLS) + wire.pack_option(Option.LIST))
            head = wire.unpack_option_reply(await client.take(20))
            assert head[:2] == (Option.STARTTLS, Reply.ERR_INVALID)


async def listed(client, tls):
    await client.start_tls(tls)
    return await client.option(Option.LIST)


async def test_clients_show_a_certificate_where_it_is_asked_for(start, certificates):
    files = {name: str(certificates / file) for name, file in (
        ("tls_certificate", "server.pem"), ("tls_key", "server.key"), ("tls_client_ca", "ca.pem"))}  # fmt: skip
    async with start(auth="certificate", **files) as server:
        async with Client(server.endpoint) as client:
            client.begin()
            assert len(await listed(client, trusting(certificates, "client"))) == 1
        for stranger in ("", "stranger"):
            async with Client(server.endpoint) as client:
                client.begin()
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await listed(client, trusting(certificates, stranger))
        async with asyncio.timeout(5):
            while server._connections:
                await asyncio.sleep(0.01)


async def test_files_that_are_no_certificates_are_named(start, tmp_path):
    (tmp_path / "x.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="tls_certificate"):
        await start(tls_certificate="x.pem", tls_key="x.pem").__aenter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listen": Address("127.0.0.1:0")}, "auth"),
        ({"listen": Address("127.0.0.1:0"), "auth": "certificate"}, "tls_client_ca"),
        ({"auth": "none", "tls_client_ca": "x"}, "certificate"),
    ],
)
def test_disks_for_everybody_have_to_be_meant(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)
    assert Config().listen.path
