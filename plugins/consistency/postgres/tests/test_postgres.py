"""Several nodes, servers that die, stop, refuse or fill up, and what is forgotten."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import pytest
from warp_conformance.ports import free_ports
from warp_core.config.types import Duration
from warp_core.errors import (
    Ambiguous,
    Conflict,
    Expired,
    NewerFormat,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    Write,
)
from warp_core.metadata import Transaction, counters, transact
from warp_postgres import watching as watching_module
from warp_postgres.config import Config
from warp_postgres.engine import Postgres
from warp_postgres.errors import Lost
from warp_postgres.schema import statements
from warp_postgres.server import Line
from warp_postgres.throwaway import PACKAGE, Throwaway, programs

SEED = int(os.environ.get("WARP_TEST_SEED", "0")) or random.randrange(1 << 30)


@pytest.fixture
async def one(config: Config, tmp_path: Path) -> AsyncIterator[Postgres]:
    async with Postgres(config, folder=tmp_path, node="one") as store:
        yield store


@pytest.fixture
async def two(one: Postgres, config: Config, tmp_path: Path) -> AsyncIterator[Postgres]:
    async with Postgres(config, folder=tmp_path, node="two") as store:
        yield store


async def put(store: MetaStore, key: bytes, value: bytes | None = b"v") -> int:
    return await store.commit(Commit(writes=[Write(key, value)]))


async def get(store: MetaStore, key: bytes) -> bytes | None:
    view = store.view()
    try:
        row = await view.get(key)
        return None if row is None else row[0]
    finally:
        view.close()


# Several nodes ------------------------------------------------------------------------------------


async def test_what_one_node_committed_another_sees_at_once(one: Postgres, two: Postgres) -> None:
    for number in range(30):
        writer, reader = (one, two) if number % 2 else (two, one)
        version = await put(writer, b"k", b"%d" % number)
        view = reader.view()
        assert await view.get(b"k") == (b"%d" % number, version)
        assert view.version == version
        scanned = reader.view()
        assert (await scanned.scan(b"a", b"z"))[0].version == version


async def test_a_view_does_not_show_what_another_node_commits_after_its_first_read(
    one: Postgres, two: Postgres
) -> None:
    await put(one, b"k", b"old")
    view = two.view()
    assert await view.get(b"other") is None
    await put(one, b"k", b"new")
    await put(one, b"other", b"new")

    assert (await view.get(b"k") or ())[0] == b"old"
    assert [row.value for row in await view.scan(b"a", b"z")] == [b"old"]


async def test_a_view_that_was_not_read_yet_does_not_show_later_commits_of_its_node(
    one: Postgres, two: Postgres
) -> None:
    await put(two, b"k", b"before")
    view = one.view()
    await put(one, b"k", b"after")
    await put(two, b"k", b"later")

    assert (await view.get(b"k") or ())[0] == b"before"


async def test_a_first_read_that_comes_after_a_commit_shows_the_moment_that_the_commit_fixed(
    config: Config, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(config, connections=1)
    async with Postgres(config, folder=tmp_path) as store:
        before = await put(store, b"k", b"before")
        slow = asyncio.ensure_future(store._reader.query("SELECT pg_sleep(0.5)"))
        await asyncio.sleep(0)
        view = store.view()
        reads = asyncio.gather(view.get(b"k"), view.scan(b"a", b"z"))
        await asyncio.sleep(0)
        await store.commit(Commit(writes=[Write(b"k", b"after"), Write(b"l", b"after")]))
        row, rows = await reads
        await slow

        assert view.version == before
        assert row == (b"before", before)
        assert [each.value for each in rows] == [b"before"]


async def test_nodes_lose_no_update_of_one_another(one: Postgres, two: Postgres) -> None:
    async def increment(tx: Transaction) -> None:
        value = await tx.get(b"n")
        tx.put(b"n", b"%d" % (int(value or b"0") + 1))
        tx.merge(b"sum", add=(1,))

    await asyncio.gather(*(transact(store, increment) for store in [one, two] * 20))

    assert await get(one, b"n") == b"40"
    assert counters(await get(two, b"sum"), 1) == (40,)


async def test_many_nodes_that_write_at_once_all_get_their_turn(
    one: Postgres, config: Config, tmp_path: Path
) -> None:
    async def work(name: int) -> list[int]:
        async with Postgres(config, folder=tmp_path, node=str(name)) as store:
            return [
                await store.commit(
                    Commit(
                        writes=[Write(b"%d/%d" % (name, n), b"")], merges=[Merge(b"n", add=(1,))]
                    )
                )
                for n in range(20)
            ]

    versions = await asyncio.gather(*(work(name) for name in range(5)))

    assert len({version for each in versions for version in each}) == 100
    assert all(each == sorted(each) for each in versions)
    assert counters(await get(one, b"n"), 1) == (100,)


async def test_a_request_sent_through_two_nodes_is_applied_once(
    one: Postgres, two: Postgres
) -> None:
    commit = Commit(merges=[Merge(b"n", add=(1,))], request_id=os.urandom(16))

    versions = await asyncio.gather(one.commit(commit), two.commit(commit))

    assert versions[0] == versions[1]
    assert counters(await get(one, b"n"), 1) == (1,)


async def test_a_watch_hears_of_another_nodes_commits(
    one: Postgres, two: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "POLL_S", 120.0)  # only a notice ends the wait in time
    since = await put(one, b"k")
    watching = two.watch(b"p/", since)
    heard = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0.5)  # it waits now
    version = await put(one, b"p/1")

    assert await heard == Change(b"p/1", b"v", version)
    await watching.aclose()  # type: ignore[attr-defined]


async def test_a_watch_shows_every_step_of_a_row_with_its_value(
    one: Postgres, two: Postgres
) -> None:
    since = await put(one, b"k")
    values = [b"1", b"2", None, b"4", None, None, b"7"]
    versions = [await put(one, b"p/x", value) for value in values]

    seen = []
    async for change in two.watch(b"p/", since):
        seen.append(change)
        if len(seen) == len(values):
            break
    assert seen == [Change(b"p/x", v, at) for v, at in zip(values, versions, strict=True)]


async def test_a_lease_is_one_for_all_nodes(one: Postgres, two: Postgres) -> None:
    lease = await one.lease("home", "one", 30.0)
    with pytest.raises(WarpError, match="held by"):
        await two.lease("home", "two", 30.0)
    await one.release(lease)

    assert (await two.lease("home", "two", 30.0)).token > lease.token


# Answers that are lost ----------------------------------------------------------------------------


def cut(
    store: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: bool,
    error: type[Exception] = Lost,
) -> list[tuple[object, ...]]:
    """Lose the next answer to a commit, after it was applied or before it was sent; return what it would have sent."""
    original = Line.fetch
    sent: list[tuple[object, ...]] = []

    async def fetch(
        self: Line, statement: str, arguments: tuple[object, ...], deadline_s: float
    ) -> object:
        if statement == store._sql.apply and not sent:
            sent.append(arguments)
            if after:
                await original(self, statement, arguments, deadline_s)
            raise error("cut")
        return await original(self, statement, arguments, deadline_s)

    monkeypatch.setattr(Line, "fetch", fetch)
    return sent


@pytest.mark.parametrize("after", [False, True], ids=["not applied", "applied"])
async def test_a_lost_answer_is_looked_for_and_nothing_is_applied_twice(
    one: Postgres, two: Postgres, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    sent = cut(one, monkeypatch, after=after)

    version = await one.commit(
        Commit(
            checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"v")], merges=[Merge(b"n", add=(1,))]
        )
    )

    assert sent
    assert (await two.view().get(b"k")) == (b"v", version)
    assert counters(await get(two, b"n"), 1) == (1,)


async def test_a_commit_that_arrives_after_its_outcome_was_told_is_not_applied(
    one: Postgres, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = cut(one, monkeypatch, after=False)
    await put(one, b"k", b"v")
    connection = await asyncpg.connect(config.url)

    late = await connection.fetch(statements(config.schema, notify=True).apply, *sent[0])

    await connection.close()
    assert late == []
    assert [row.key for row in await one.view().scan(b"\0", b"\xff")] == [b"k"]
    assert await put(one, b"l") > 0


async def test_a_request_that_was_told_not_to_be_applied_never_is(
    one: Postgres, two: Postgres, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = cut(one, monkeypatch, after=False, error=Unavailable)
    request = os.urandom(16)
    with pytest.raises(Unavailable):
        await one.commit(Commit(writes=[Write(b"k", b"v")], request_id=request))
    assert await two.outcome(request) is None
    connection = await asyncpg.connect(config.url)

    late = await connection.fetch(statements(config.schema, notify=True).apply, *sent[0])

    await connection.close()
    assert late == []
    assert await get(one, b"k") is None


async def test_the_outcome_of_a_request_that_was_never_sent_is_none(one: Postgres) -> None:
    assert await one.outcome(os.urandom(16)) is None


# Servers that die and stop ------------------------------------------------------------------------


async def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice_when_the_server_is_killed(
    own_server: Throwaway, tmp_path: Path
) -> None:
    print(f"WARP_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    config = Config(url=own_server.url, schema="killed", timeout=Duration(8.0))
    acknowledged: dict[bytes, int] = {}
    unknown: dict[bytes, bytes] = {}
    stop = False

    async def client(store: Postgres, name: int) -> None:
        number = 0
        while not stop:
            key, request = b"k%d/%d" % (name, number), os.urandom(16)
            number += 1
            commit = Commit(
                checks=[KeyCheck(key, 0)],
                writes=[Write(key, b"v"), Write(b"pair " + key, b"v")],
                merges=[Merge(b"n", add=(1,))],
                request_id=request,
            )
            try:
                acknowledged[key] = await store.commit(commit)
            except Ambiguous:
                unknown[key] = request

    async with Postgres(config, folder=tmp_path) as store:
        clients = [asyncio.create_task(client(store, name)) for name in range(8)]
        for _ in range(4):
            await asyncio.sleep(0.2 + chance.random() * 0.4)
            own_server.kill()
            await asyncio.sleep(chance.random() * 0.2)
            own_server.start(wait=False)
            own_server.wait()
        await asyncio.sleep(0.5)
        stop = True
        await asyncio.gather(*clients)
        applied = {key: await store.outcome(request) for key, request in unknown.items()}
        view = store.view()
        found: dict[bytes, int] = {}
        start = b"k"
        while page := await view.scan(start, b"l"):
            found |= {row.key: row.version for row in page}
            start = page[-1].key + b"\0"
        total = counters(await get(store, b"n"), 1)[0]
        pairs = 0
        start = b"pair "
        while page := await store.view().scan(start, b"pair!"):
            pairs += len(page)
            start = page[-1].key + b"\0"

    assert len(acknowledged) > 30
    lost = {key for key, version in acknowledged.items() if found.get(key) != version}
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged commits are lost"
    expected = set(acknowledged) | {key for key, version in applied.items() if version}
    assert set(found) == expected
    assert total == pairs == len(found)
    assert len(set(found.values())) == len(found)


async def test_a_server_that_is_away_is_told_within_the_deadline_and_used_again_when_it_is_back(
    own_server: Throwaway, tmp_path: Path
) -> None:
    config = Config(url=own_server.url, schema="away", timeout=Duration(1.5))
    async with Postgres(config, folder=tmp_path) as store:
        await put(store, b"k", b"v")
        lease = await store.lease("home", "a", 30.0)
        own_server.kill()
        began_s = time.monotonic()
        calls = [
            get(store, b"k"),
            store.view().scan(b"a", b"z"),
            put(store, b"l"),
            store.renew(lease),
            store.outcome(os.urandom(16)),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        took_s = time.monotonic() - began_s
        own_server.start()
        again = await get(store, b"k")
        renewed = await store.renew(lease)

    assert [type(result) for result in results if not isinstance(result, Unavailable)] == []
    assert took_s < 10.0
    assert again == b"v"
    assert renewed.token == lease.token


async def test_a_server_that_hangs_is_told_within_the_deadline(
    own_server: Throwaway, tmp_path: Path
) -> None:
    config = Config(url=own_server.url, schema="hangs", timeout=Duration(1.5))
    async with Postgres(config, folder=tmp_path) as store:
        await put(store, b"k", b"v")
        own_server.signal(signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            results = await asyncio.gather(
                get(store, b"k"), put(store, b"l"), return_exceptions=True
            )
            took_s = time.monotonic() - began_s
        finally:
            own_server.signal(signal.SIGCONT)
        again = await get(store, b"k")

    assert all(isinstance(result, Unavailable | Ambiguous) for result in results)
    assert took_s < 10.0
    assert again == b"v"


async def test_a_watch_goes_on_where_it_was_when_the_server_comes_back(
    own_server: Throwaway, tmp_path: Path
) -> None:
    config = Config(url=own_server.url, schema="watched")
    async with Postgres(config, folder=tmp_path) as store:
        since = await put(store, b"p/0")
        watching = store.watch(b"p/", since)
        first = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0.2)
        await put(store, b"p/1")
        assert (await first).key == b"p/1"
        own_server.kill()
        own_server.start()
        await put(store, b"p/2")

        assert (await anext(watching)).key == b"p/2"
        await watching.aclose()  # type: ignore[attr-defined]


async def test_a_stopped_node_holds_nobody_up(
    one: Postgres, config: Config, tmp_path: Path
) -> None:
    """It is stopped under full load, so most likely in the middle of a commit."""
    script = f"""
import asyncio, pathlib
from warp_core.interfaces.consistency import Commit, Write
from warp_postgres.config import Config
from warp_postgres.engine import Postgres
async def main():
    async with Postgres(Config(url={config.url!r}, schema={config.schema!r}), folder=pathlib.Path("/")) as store:
        async def client(n):
            while True:
                await store.commit(Commit(writes=[Write(b"other", b"v")]))
        print("ready", flush=True)
        await asyncio.gather(*(client(n) for n in range(4)))
asyncio.run(main())
"""
    other = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", script], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        assert await asyncio.to_thread(other.stdout.readline) == b"ready\n"
        slowest_s = 0.0
        for _ in range(5):
            await asyncio.sleep(0.1)
            other.send_signal(signal.SIGSTOP)
            began_s = time.monotonic()
            await put(one, b"mine")
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            other.send_signal(signal.SIGCONT)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()

    assert slowest_s < 4.0  # no lock is waited for, nor a time limit of 5 s


# Servers that refuse ------------------------------------------------------------------------------


async def refused(config: Config, folder: Path) -> str:
    config = msgspec.structs.replace(config, timeout=Duration(1.0))
    with pytest.raises(WarpError) as raised:
        async with Postgres(config, folder=folder):
            pass
    return str(raised.value)


async def test_a_server_that_refuses_is_told_in_a_sentence_that_says_what_to_do(
    own_server: Throwaway, tmp_path: Path
) -> None:
    query = f"?host={own_server.folder}"
    admin = await asyncpg.connect(own_server.url)
    await admin.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
    rules = own_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all warp trust\nlocal postgres guest scram-sha-256\n")
    await admin.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    guest = Config(url=f"postgresql://guest@/postgres{query}")
    (tmp_path / "secret").write_text("right\n")

    for config, words in [
        (Config(url=f"postgresql://warp@/absent{query}"), ["absent", "createdb"]),
        (msgspec.structs.replace(guest, password="wrong"), ["password", "password_file"]),
        (Config(url=f"postgresql://nobody@/postgres{query}"), ["pg_hba", "nobody"]),
        (msgspec.structs.replace(guest, password_file="secret"), ["permission", "CREATE SCHEMA"]),
        (msgspec.structs.replace(guest, password_file="none"), ["password_file", "none"]),
        (Config(url="postgresql://warp@127.0.0.1:1/warp"), ["127.0.0.1:1", "start it"]),
    ]:
        message = await refused(config, tmp_path)
        assert all(word in message for word in words), message
        assert "\n" not in message
        assert "wrong" not in message
        assert "right" not in message
    await admin.execute("CREATE SCHEMA warp AUTHORIZATION guest")
    await admin.close()
    async with Postgres(
        msgspec.structs.replace(guest, password_file="secret"), folder=tmp_path
    ) as store:
        assert await put(store, b"k") == 1
    rules.write_text(before)


async def test_a_server_that_does_not_sync_is_refused(
    own_server: Throwaway, tmp_path: Path
) -> None:
    admin = await asyncpg.connect(own_server.url)
    await admin.execute("ALTER SYSTEM SET fsync = off")
    await admin.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    message = await refused(Config(url=own_server.url), tmp_path)
    await admin.execute("ALTER SYSTEM RESET fsync")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()

    assert "set fsync = on" in message


async def test_a_newer_format_is_refused(one: Postgres, config: Config, tmp_path: Path) -> None:
    connection = await asyncpg.connect(config.url)
    await connection.execute(f"UPDATE {config.schema}.head SET format = 2")
    await connection.close()

    with pytest.raises(NewerFormat, match="format 2"):
        async with Postgres(config, folder=tmp_path):
            pass


async def test_a_schema_may_have_the_name_of_a_word_of_sql(
    own_server: Throwaway, tmp_path: Path
) -> None:
    config = Config(url=own_server.url, schema="select")
    async with Postgres(config, folder=tmp_path) as store:
        assert await store.view().get(b"k") is None
        assert await put(store, b"k") == 1


async def test_nodes_that_start_at_once_make_one_store(config: Config, tmp_path: Path) -> None:
    async def start(name: int) -> int:
        async with Postgres(config, folder=tmp_path, node=str(name)) as store:
            return await put(store, b"%d" % name)

    versions = await asyncio.gather(*(start(name) for name in range(4)))

    assert sorted(versions) == [1, 2, 3, 4]


# What is forgotten --------------------------------------------------------------------------------


async def test_what_is_forgotten_is_refused_and_never_misread(
    config: Config, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(config, history=Duration(3.0), timeout=Duration(0.75))
    clock_s = 0.0  # of the views: they do not get old by it
    async with Postgres(config, folder=tmp_path, monotonic=lambda: clock_s) as store:
        since = await put(store, b"k", b"1")
        view = store.view()
        assert await view.get(b"absent") is None
        for number in range(20):
            await put(store, b"k", b"%d" % number)
        connection = await asyncpg.connect(config.url)
        async with asyncio.timeout(10):
            while await connection.fetchval(f"SELECT count(*) FROM {config.schema}.past"):
                await asyncio.sleep(0.1)
        left = await connection.fetchval(f"SELECT count(*) FROM {config.schema}.commits")
        await connection.close()

        for read in (view.get(b"k"), view.scan(b"a", b"z"), anext(store.watch(b"", since))):
            with pytest.raises(Expired):
                await read
        with pytest.raises(Conflict):
            await store.commit(Commit(checks=[KeyCheck(b"k", since)], writes=[Write(b"x", b"v")]))
        assert await get(store, b"k") == b"19"
        assert left == 0


async def test_a_view_gets_too_old(config: Config, tmp_path: Path) -> None:
    clock_s = 100.0
    async with Postgres(config, folder=tmp_path, monotonic=lambda: clock_s) as store:
        view = store.view()
        await view.get(b"k")
        clock_s += 6.0

        with pytest.raises(Expired):
            await view.get(b"k")


async def test_a_closed_engine_refuses(config: Config, tmp_path: Path) -> None:
    async with Postgres(config, folder=tmp_path) as store:
        view = store.view()
    for call in (view.get(b"k"), put(store, b"k")):
        with pytest.raises(Unavailable):
            await call


# TLS ----------------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Return a folder with a server's certificate and the authority that signed it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs Debian's package openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-sha256")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl(*new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost")
    signing = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 1 -extfile names"
    openssl(*signing.split(), "-out", "server.pem")
    return tmp_path


async def test_a_server_is_verified_by_name_and_authority(certificates: Path) -> None:
    (port,) = free_ports(1)
    if programs() is None:
        pytest.skip(f"needs Debian's package {PACKAGE}")
    server = Throwaway(f"port={port}", "listen_addresses=127.0.0.1")
    try:
        server.create()
        for name in ("server.pem", "server.key"):
            shutil.copy(certificates / name, server.folder / "data" / name)
            shutil.chown(server.folder / "data" / name, server.folder.owner())
            (server.folder / "data" / name).chmod(0o600)
        settings = server.folder / "data" / "postgresql.auto.conf"
        settings.write_text("ssl=on\nssl_cert_file='server.pem'\nssl_key_file='server.key'\n")
        server.start(wait=False)
        by_name = f"postgresql://warp@localhost:{port}/postgres"
        by_address = f"postgresql://warp@127.0.0.1:{port}/postgres"
        trusted = Config(url=by_name, tls="verify-full", authority="ca.pem")
        async with Postgres(trusted, folder=certificates) as store:
            assert await put(store, b"k") == 1
        strange = await refused(Config(url=by_name, tls="verify-full"), certificates)
        misnamed = await refused(
            Config(url=by_address, tls="verify-full", authority="ca.pem"), certificates
        )
        async with Postgres(
            Config(url=by_address, tls="verify-ca", authority="ca.pem"), folder=certificates
        ) as store:
            assert await get(store, b"k") == b"v"
        async with Postgres(Config(url=by_address, tls="require"), folder=certificates) as store:
            assert await get(store, b"k") == b"v"
        settings.write_text("ssl=off\n")
        server.kill()
        server.start(wait=False)
        bare = await refused(Config(url=by_address, tls="require"), certificates)
    finally:
        server.stop()

    assert "`authority`" in strange
    assert "127.0.0.1" in misnamed
    assert 'tls = "disable"' in bare, bare
    assert not [message for message in (strange, misnamed, bare) if "\n" in message]
