"""Forwarding where it is no longer like being there: lost links, silent peers, homes that hang, messages that are none."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warp_conformance.difference import same
from warp_conformance.kits.objects import digests, get, noise, put
from warp_core import errors
from warp_core.calls import told
from warp_core.errors import (
    ConfigError,
    IsDeleteMarker,
    PermissionDenied,
    PreconditionFailed,
    RemoteProtocolError,
    StaleHandle,
    StoreFailed,
    Unavailable,
    WarpError,
    leaves,
)
from warp_core.forward import Line, RemoteObjects
from warp_core.forward.messages import (
    SMALL,
    STEP,
    VERSION,
    Reply,
    Request,
    pack,
    raised,
    read_reply,
    read_request,
    refusal,
)
from warp_core.forward.objects import WINDOW
from warp_core.forward.verbs import OF, VERBS, Travelling
from warp_core.interfaces.auth import Principal
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import END, HERE, Access, Owner
from warp_core.views.claims import Claims
from warp_core.views.objects import Attributes, Objects, Writer

ME, YOU = Owner(HERE, b"me"), Owner(HERE, b"you")
PLAIN = Attributes()
ALICE = Principal("account:alice")
MIB = 1 << 20
LOCAL = {  # what answers at once, or is made of verbs
    "objects": {"head_now", "open_now", "volume_now"},
    "reader": {"read_now", "close"},
    "writer": {"buffer", "wrote", "drain"},
    "files": {"claims", "ordered"},
    "file": {"close", "copy_from", "read_runs_now", "size", "write_now"},
    "blocks": set[str](),
    "disk": {"read_now", "write_now", "resizes", "close", "size"},
}


# The format ---------------------------------------------------------------------------------------


def test_every_method_of_the_views_is_a_verb() -> None:
    for view, local in LOCAL.items():
        owner, methods = OF[view]
        public = {name for name in vars(owner) if not name.startswith("_")}
        assert public - set(methods) == local & public, view
    assert {name for name in vars(Claims) if not name.startswith("_")} == set(OF["claims"][1])
    assert OF["claims"][0] is Travelling


def test_arguments_arrive_as_they_were_given() -> None:
    for verb in VERBS.values():
        for each in verb.defaults:
            assert each in verb.parameters
    verb = VERBS["objects.put"]
    values, buffers = verb.pack(("v", b"k", b"data", PLAIN), {"digests": digests(b"data")})

    args, named = verb.unpack(values, buffers)

    assert args == ["v", b"k", b"data", PLAIN, digests(b"data")]
    assert named == {
        "condition": verb.defaults["condition"],
        "sealing": None,
        "origin": None,
    }
    with pytest.raises(TypeError):
        verb.pack(("v",), {})
    with pytest.raises(TypeError):
        verb.pack(("v", b"k", b"", PLAIN, digests(b"")), {"unknown": 1})
    with pytest.raises(errors.InvalidArgument, match=r"objects\.put"):
        verb.unpack(values, [])
    with pytest.raises(errors.InvalidArgument, match=r"objects\.put"):
        verb.unpack(b"\x91\x05", buffers)


@pytest.mark.parametrize("kind", sorted(set(leaves()), key=lambda kind: kind.__name__))
def test_every_error_arrives_as_it_was_raised(kind: type[WarpError]) -> None:
    if kind.__module__ != WarpError.__module__:
        pytest.skip("a plugin's own")
    arrived = raised(read_reply(pack(refusal(7, kind("what happened")))), "b")

    if kind in (errors.Unauthenticated, RemoteProtocolError):  # not about the one who asked here
        assert type(arrived) is Unavailable
    else:
        assert type(arrived) is kind
        assert str(arrived) == "what happened"


def test_errors_keep_their_fields() -> None:
    marker = IsDeleteMarker("gone", version="f" * 32, current=False)
    failed = PreconditionFailed("differs", condition="100")

    again = raised(refusal(1, marker), "b")
    other = raised(refusal(1, failed), "b")

    assert isinstance(again, IsDeleteMarker)
    assert (again.version, again.current) == ("f" * 32, False)
    assert isinstance(other, PreconditionFailed)
    assert other.condition == "100"
    assert isinstance(raised(refusal(1, ConfigError("x", problems=["y"])), "b"), ConfigError)


def test_an_error_of_a_plugins_own_arrives_as_the_one_it_is_made_of() -> None:
    class Special(errors.NotFound):
        pass

    assert told(Special("x"))[0] == "NotFound"
    assert told(ValueError("x"))[:2] == ("StoreFailed", "ValueError: x")
    assert isinstance(raised(Reply(1, "OfALaterVersion", "x"), "b"), StoreFailed)


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(header: bytes) -> None:
    for read in (read_request, read_reply):
        with contextlib.suppress(RemoteProtocolError):
            read(header)


tree = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400)
@given(st.sampled_from(sorted(VERBS)), tree, st.lists(st.binary(max_size=5), max_size=3))
def test_arguments_of_another_shape_are_refused(name: str, values: Any, buffers: Any) -> None:
    with contextlib.suppress(errors.InvalidArgument):
        VERBS[name].unpack(pack(values), buffers)


# Garbage from peers -------------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    requests=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([*sorted(VERBS), "hello", "close", "cancel", "stage", "nothing"]),
            st.integers(0, 3),
            tree,
            st.binary(max_size=20),
        ),
        max_size=8,
    ),
    raw=st.binary(max_size=40),
)
async def test_garbage_disturbs_nobody_else(
    forwarded: Any, requests: list[tuple[int, str, int, Any, bytes]], raw: bytes
) -> None:
    await forwarded.files.root("v")
    link = await forwarded.nodes.transports["a"].dial(forwarded.nodes.address, peer="b")
    await link.send(pack([1, "hello", 0, [VERSION, "x", "control", "t"]]))
    for number, verb, handle, values, payload in requests:
        with contextlib.suppress(Unavailable):
            await link.send(pack([number, verb, handle, values, 0, [len(payload)]]), [payload])
    with contextlib.suppress(Unavailable):
        await link.send(raw)

    assert await forwarded.files.root("v")
    await link.close()


async def test_a_home_that_answers_garbage_is_away(forwarded: Any) -> None:
    answers = [b"\xc1", pack([9]), pack([1, "", "", 0, None, 5]), pack([1, "", "", 0, "text"])]

    async def lie(link: Any) -> None:
        await link.receive()
        await link.send(answers[0])
        await asyncio.sleep(5)

    listener = await forwarded.nodes.transports["b"].listen("127.0.0.1:0", lie)

    async def dial() -> Any:
        return await forwarded.nodes.transports["a"].dial(listener.address, peer="b")

    while answers:
        line = Line(dial, peer="b", deadline_s=2.0)
        with pytest.raises(Unavailable):
            await RemoteObjects(line).volumes()
        await line.close()
        answers.pop(0)
    await listener.close()


async def test_only_what_is_served_is_used_by_whom_it_is_served_to(forwarded: Any) -> None:
    line = Line(forwarded.nodes.dial, peer="b", target="another")

    with pytest.raises(Unavailable, match="another is not here"):
        await RemoteObjects(line).volumes()
    await line.close()


# Sessions that end --------------------------------------------------------------------------------


class Counting(NamespaceObjects):
    """Counts puts, and waits in them while it is told to."""

    def __init__(self, namespace: Any) -> None:
        super().__init__(namespace)
        self.puts = 0
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def put(self, *args: Any, **named: Any) -> Any:
        self.puts += 1
        self.reached.set()
        await self.go.wait()
        return await super().put(*args, **named)


async def with_objects(forwarded: Any, objects: Objects) -> None:
    """Let the home serve another Objects view."""
    before = forwarded.nodes.views()
    forwarded.nodes.views = lambda: type(before)(objects, before.files, before.blocks)


async def test_a_write_whose_link_is_lost_is_unavailable_and_made_once(forwarded: Any) -> None:
    home = Counting(forwarded.home.namespace)
    await with_objects(forwarded, home)
    putting = asyncio.create_task(put(forwarded.objects, "v", b"k"))
    await home.reached.wait()

    await forwarded.nodes.lose()

    with pytest.raises(Unavailable):
        await putting
    home.go.set()
    assert (await put(forwarded.objects, "v", b"other")).key == b"other"
    assert home.puts == 2
    assert (await forwarded.objects.head("v", b"k")).size == 1, "what was in progress is finished"


async def test_a_home_that_does_not_answer_is_unavailable_at_the_deadline(forwarded: Any) -> None:
    home = Counting(forwarded.home.namespace)
    await with_objects(forwarded, home)
    line = Line(forwarded.nodes.dial, peer="b", target="t", deadline_s=0.3)
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(Unavailable, match="may have been done"):
        await put(RemoteObjects(line), "v", b"k")

    assert loop.time() < began + 3
    home.go.set()
    await line.close()


async def test_what_was_open_dies_with_its_session_on_both_sides(forwarded: Any) -> None:
    blocks, files = forwarded.blocks, forwarded.files
    await blocks.create("v", b"d", size=MIB)
    disk = await blocks.open("v", b"d", initiator="one")
    root = await files.root("v")
    file, _ = await files.create(
        root, b"f", 0o644, owner=ME, access=Access.READ | Access.WRITE, deny=Access.NONE
    )
    await files.claims.lock(file.ref, ME, 0, END, exclusive=True)
    client = await files.claims.add_client("c")
    told: list[int] = []

    async def listen() -> None:
        async for size in disk.resizes():
            told.append(size)  # noqa: PERF401

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    number = await forwarded.home.files.number("v")

    await forwarded.nodes.lose()

    with pytest.raises((StaleHandle, Unavailable)):
        await disk.read(0, 512)
    await listening
    assert await files.root("v")  # over a new session
    with pytest.raises(StaleHandle):
        await disk.flush()
    with pytest.raises(StaleHandle):
        await file.write(0, b"x")
    with pytest.raises(StaleHandle):
        await files.claims.renew(client)
    async with asyncio.timeout(5):
        while forwarded.home.opens.open_in(number) or forwarded.home.opens.locks(
            number, file.ref.inode
        ):
            await asyncio.sleep(0.01)
    await file.close()
    await disk.close()


async def test_a_lock_that_waits_ends_with_its_session(forwarded: Any) -> None:
    files = forwarded.files
    root = await files.root("v")
    file, _ = await files.create(root, b"f", 0o644, owner=ME, access=Access.READ, deny=Access.NONE)
    home = forwarded.home.files.claims
    await home.lock(file.ref, YOU, 0, END, exclusive=True)
    waiting = asyncio.create_task(
        files.claims.lock(file.ref, ME, 0, END, exclusive=True, wait=True)
    )
    await files.claims.test_lock(file.ref, ME, 0, END, exclusive=True)
    assert not waiting.done()

    await forwarded.nodes.lose()

    with pytest.raises(Unavailable):
        await waiting
    await files.root("v")
    await home.unlock(file.ref, YOU)
    await asyncio.sleep(0.05)
    assert not forwarded.home.opens.locks(await home._files.number("v"), file.ref.inode)


async def test_a_peer_that_is_silent_holds_nothing(forwarded: Any) -> None:
    forwarded.nodes.forwarder._silent_s = 0.2
    link = await forwarded.nodes.transports["a"].dial(forwarded.nodes.address, peer="b")
    await link.send(pack([1, "hello", 0, [VERSION, "quiet", "control", "t"]]))
    await link.receive()
    await forwarded.home.blocks.create("v", b"d", size=MIB)
    await link.send(pack([2, "blocks.open", 0, ["v", b"d", "one", False, ""]]))
    header, _ = await link.receive()
    assert not read_reply(header).error

    with pytest.raises(Unavailable):
        await asyncio.wait_for(link.receive(), 5)

    async with asyncio.timeout(5):
        while forwarded.home.opens.open_in(await forwarded.home.files.number("v")):
            await asyncio.sleep(0.01)


async def test_a_new_session_ends_the_one_before(forwarded: Any) -> None:
    """What the one before still did could overtake what is asked again."""
    transport, address = forwarded.nodes.transports["a"], forwarded.nodes.address
    first = await transport.dial(address, peer="b")
    await first.send(pack([1, "hello", 0, [VERSION, "first", "control", "t"]]))
    await first.receive()
    await forwarded.files.root("v")
    second = await transport.dial(address, peer="b")
    await second.send(pack([1, "hello", 0, [VERSION, "second", "control", "t", "first"]]))
    header, _ = await second.receive()

    assert not read_reply(header).error
    with pytest.raises(Unavailable):
        await asyncio.wait_for(first.receive(), 5)
    assert await forwarded.files.root("v")  # a session that nobody named


async def test_a_bulk_link_joins_the_session_of_its_own_peer_only(forwarded: Any) -> None:
    link = await forwarded.nodes.transports["a"].dial(forwarded.nodes.address, peer="b")
    await link.send(pack([1, "hello", 0, [VERSION, "none", "bulk", "t"]]))

    header, _ = await link.receive()

    assert read_reply(header).error == "InvalidArgument"
    with pytest.raises(Unavailable):
        await link.receive()


async def test_another_version_is_refused_by_name(forwarded: Any) -> None:
    link = await forwarded.nodes.transports["a"].dial(forwarded.nodes.address, peer="b")
    await link.send(pack([1, "hello", 0, [VERSION + 1, "x", "control", "t"]]))

    header, _ = await link.receive()

    assert read_reply(header).error == "Unsupported"


# Much ---------------------------------------------------------------------------------------------


class Slow(NamespaceObjects):
    """Its writers take nothing until they are told to."""

    def __init__(self, namespace: Any) -> None:
        super().__init__(namespace)
        self.go = asyncio.Event()

    async def writer(self, *args: Any, **named: Any) -> Writer:
        writer = await super().writer(*args, **named)
        write = writer.write

        async def slowly(data: Any) -> None:
            await self.go.wait()
            await write(data)

        writer.write = slowly  # type: ignore[method-assign]
        return writer


async def test_a_writer_waits_for_a_home_that_is_slow_and_others_do_not(forwarded: Any) -> None:
    home = Slow(forwarded.home.namespace)
    await with_objects(forwarded, home)
    writer = await forwarded.objects.writer("v", b"large", PLAIN)
    data = noise(12 * MIB)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for at in range(0, len(data), 256 * 1024):
            await writer.write(data[at : at + 256 * 1024])
            sent = at + 256 * 1024

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.3)

    assert sent <= (WINDOW + 1) * STEP
    await put(forwarded.objects, "v", b"small")
    assert await get(forwarded.objects, "v", b"small") == b"x"
    home.go.set()
    await sending
    await writer.commit(digests(data))
    assert same(await get(forwarded.objects, "v", b"large"), data)


async def test_a_writer_that_failed_once_commits_nothing(forwarded: Any) -> None:
    home = Slow(forwarded.home.namespace)
    await with_objects(forwarded, home)
    home.go.set()
    writer = await forwarded.objects.writer("v", b"k", PLAIN)

    async def full(data: Any) -> None:
        raise errors.NoSpace("no room")

    held = next(iter(forwarded.nodes.forwarder._sessions.values())).held
    held._handles[writer._handle].thing.write = full

    await writer.write(noise(MIB // 2))
    for _ in range(2):
        with pytest.raises(errors.NoSpace):
            await writer.commit(digests(b""))
    with pytest.raises(errors.NotFound):
        await forwarded.objects.head("v", b"k")


async def test_small_content_comes_with_the_answer_and_large_by_itself(forwarded: Any) -> None:
    for size in (0, 1, SMALL, SMALL + 1, 3 * MIB + 5):
        data = noise(size, size)
        writer = await forwarded.objects.writer("v", b"k%d" % size, PLAIN)
        await writer.write(data)
        await writer.commit(digests(data))
        reader = await forwarded.objects.open("v", b"k%d" % size)

        assert (reader.read_now(0, MIB) is not None) == (size <= SMALL)
        reader.close()
        assert same(await get(forwarded.objects, "v", b"k%d" % size), data)


async def test_results_larger_than_a_message_are_whole(forwarded: Any) -> None:
    document = noise(50_000)
    for number in range(110):
        name = f"volume-{number:03}"
        await forwarded.objects.create_volume(name, owner=ALICE)
        await forwarded.objects.set_document(name, "s3.policy", document)

    found = await forwarded.objects.volumes()

    assert len(found) == 111
    assert all(same(each.documents["s3.policy"], document) for each in found[1:])


async def test_an_append_larger_than_a_message_is_one(forwarded: Any) -> None:
    root = await forwarded.files.root("v")
    both = Access.READ | Access.WRITE
    file, _ = await forwarded.files.create(
        root, b"f", 0o644, owner=ME, access=both, deny=Access.NONE
    )
    pieces = [bytes([n]) * (2 * MIB + n) for n in range(1, 4)]

    places = await asyncio.gather(*(file.append(piece) for piece in pieces))

    for piece, place in zip(pieces, places, strict=True):
        assert same(await file.read(place, len(piece)), piece)
    assert file.size == sum(map(len, pieces))
    await file.close()


async def test_the_home_leaves_sessions_of_what_it_no_longer_serves(forwarded: Any) -> None:
    await forwarded.blocks.create("v", b"d", size=MIB)
    disk = await forwarded.blocks.open("v", b"d", initiator="one")

    await forwarded.nodes.forwarder.end("t")

    assert not forwarded.home.opens.open_in(await forwarded.home.files.number("v"))
    with pytest.raises((StaleHandle, Unavailable)):
        await disk.read(0, 512)
    await disk.close()


async def test_peers_may_use_clients_of_their_own_session_only(forwarded: Any) -> None:
    client = await forwarded.home.files.claims.add_client("of another")
    root = await forwarded.files.root("v")
    file, _ = await forwarded.files.create(
        root, b"f", 0o644, owner=ME, access=Access.READ, deny=Access.NONE
    )

    with pytest.raises(StaleHandle):
        await forwarded.files.claims.renew(client)
    with pytest.raises(StaleHandle):
        await forwarded.files.claims.lock(file.ref, Owner(client, b"x"), 0, 1, exclusive=True)
    await forwarded.files.claims.drop_client(client)
    await forwarded.home.files.claims.renew(client)


def test_signatures_are_the_format() -> None:
    """A changed signature is a changed format: docs/formats/forward.md says what may change."""
    assert VERBS["objects.put"].parameters == (
        "volume",
        "key",
        "payload",
        "attributes",
        "digests",
        "condition",
        "sealing",
        "origin",
    )
    assert inspect.iscoroutinefunction(RemoteObjects.put)
    assert read_request(pack(Request(1, "ping"))).verb == "ping"
    with pytest.raises(PermissionDenied):
        raise raised(refusal(1, PermissionDenied("no")), "b")
