"""Stores of other nodes: over a transport, through restarts of the peer, and against peers that break the rules."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from warp_conformance.difference import same
from warp_conformance.kits.stores import BlobStoreKit, noise
from warp_conformance.reference.simdisk import SimDisk
from warp_conformance.reference.transports import StreamTransport
from warp_core.config.types import Size
from warp_core.errors import (
    NoSpace,
    NotFound,
    StoreFailed,
    Unavailable,
    WarpError,
)
from warp_core.peers import Exporter, Offer, PeerStore
from warp_core.peers.messages import Reply, Request, Verb, pack, read_reply, read_request
from warp_store_memory import Config, Memory

MIB = 1 << 20
KEY = b"k" * 32


class Peer:
    """A node that exports one disk, and can be restarted or killed."""

    def __init__(self, disk, to=("a",)):
        self.disk = disk
        self.to = frozenset(to)
        self.transport = StreamTransport("b", KEY)
        self.listener = None
        self.address = "127.0.0.1:0"

    async def start(self):
        exporter = Exporter({"d0": Offer(self.disk, self.to)})
        self.listener = await self.transport.listen(self.address, exporter.serve)
        self.address = self.listener.address

    async def stop(self):
        if self.listener is not None:
            await self.listener.close()
            self.listener = None

    async def restart(self):
        await self.stop()
        await self.start()


@asynccontextmanager
async def running(disk, **options):
    async with disk:
        peer = Peer(disk, **options)
        async with peer.transport:
            await peer.start()
            yield peer
            await peer.stop()


@asynccontextmanager
async def used(peer, node="a", export="d0", deadline_s=10.0):
    async with StreamTransport(node, KEY) as transport:

        async def dial():
            return await transport.dial(peer.address, peer="b")

        async with PeerStore(dial, export=export, peer="b", deadline_s=deadline_s) as store:
            yield store


@pytest.fixture
async def peer():
    async with running(SimDisk("disk")) as peer:
        yield peer


@pytest.fixture
async def store(peer):
    async with used(peer) as store:
        yield store


class TestPeerStore(BlobStoreKit):
    @pytest.fixture
    async def subject(self):
        async with running(Memory(Config(capacity=Size(16 * MIB)))) as peer, used(peer) as store:
            yield store

    @pytest.fixture
    def reopen(self, subject):
        async def again():
            return subject

        return again


async def test_it_is_the_store_that_the_peer_has(peer, store):
    assert store.id == peer.disk.id
    assert store.capabilities.durable == peer.disk.capabilities.durable
    assert not store.capabilities.immediate
    assert not store.capabilities.local_path


async def test_a_read_that_is_cancelled_twice_still_keeps_its_buffer_until_the_reply_is_there(
    peer, store
):
    await store.put("blob", [b"content"])
    reading, gate = asyncio.Event(), asyncio.Event()
    read = peer.disk.read

    async def slow(name, *, offset, length):
        reading.set()
        await gate.wait()
        return await read(name, offset=offset, length=length)

    peer.disk.read = slow
    buffer = bytearray(7)
    task = asyncio.create_task(store.read_into("blob", offset=0, buffer=memoryview(buffer)))
    await reading.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()

    gate.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert buffer == b"content"


async def test_large_content_goes_in_steps_and_arrives_whole(store):
    data = noise(5 * MIB + 17)
    await store.put("whole", [data[: 2 * MIB], data[2 * MIB :]])
    await store.create("grown", reserve=6 * MIB)
    await store.write("grown", offset=3, buffers=[data[:MIB], data[MIB:]], sync=True)

    assert same(await store.read("whole", offset=0, length=8 * MIB), data)
    buffer = bytearray(len(data))
    assert await store.read_into("grown", offset=3, buffer=memoryview(buffer)) == len(data)
    assert same(buffer, data)


async def test_errors_are_those_of_the_store(peer, store):
    with pytest.raises(NotFound, match="b/d0"):
        await store.stat("nothing")

    async def full(name, buffers, *, vital=False):
        raise NoSpace("only the reserve is left")

    peer.disk.put = full
    with pytest.raises(NoSpace, match="only the reserve is left"):
        await store.put("a", [b"x"])

    async def broken(name, buffers, *, vital=False):
        raise ZeroDivisionError("a defect")

    peer.disk.put = broken
    with pytest.raises(StoreFailed, match="a defect"):
        await store.put("a", [b"x"])
    assert await store.list() == []


@pytest.mark.parametrize("options", [{"node": "c"}, {"export": "d1"}])
async def test_a_store_is_for_those_it_is_offered_to(peer, options):
    with pytest.raises(WarpError, match="no store"):
        async with used(peer, **options):
            pass


async def test_a_peer_that_is_away_fails_as_a_disk_would_and_is_found_again(peer, store):
    await store.put("a", [b"kept"])
    await peer.stop()

    with pytest.raises(StoreFailed):
        await store.read("a", offset=0, length=4)
    with pytest.raises(StoreFailed):
        await store.put("b", [b"x"])
    await peer.start()
    await asyncio.sleep(0.6)

    assert await store.read("a", offset=0, length=9) == b"kept"


async def test_what_was_not_synced_before_a_restart_cannot_be_synced_after_it(peer, store):
    await store.create("g", reserve=100)
    await store.write("g", offset=0, buffers=[b"lost?"])
    await peer.restart()
    with suppress(StoreFailed):
        await store.stat("g")  # notices that the links ended

    with pytest.raises(StoreFailed, match="started anew"):
        await store.sync("g")
    with pytest.raises(StoreFailed, match="started anew"):
        await store.write("g", offset=5, buffers=[b"more"])
    with pytest.raises(StoreFailed, match="started anew"):
        await store.seal("g", size=5)


async def test_what_was_synced_before_a_restart_is_written_on_after_it(peer, store):
    await store.create("g", reserve=100)
    await store.write("g", offset=0, buffers=[b"safe "], sync=True)
    await store.write("g", offset=5, buffers=[b"and "])
    await store.sync("g")
    await peer.restart()
    with suppress(StoreFailed):
        await store.stat("g")

    await store.write("g", offset=9, buffers=[b"sound"])
    await store.sync("g")

    assert await store.read("g", offset=0, length=14) == b"safe and sound"


async def test_another_store_in_the_same_place_is_refused(peer, store):
    await peer.stop()
    async with SimDisk("other") as other:
        peer.disk = other
        await peer.start()
        with suppress(WarpError):
            await store.stat("a")
        await asyncio.sleep(0.6)

        with pytest.raises(StoreFailed, match="another store"):
            await store.stat("a")


async def test_calls_do_not_wait_for_slow_ones(peer, store):
    released = asyncio.Event()
    inner = peer.disk.put

    async def slow(name, buffers, *, vital=False):
        await released.wait()
        await inner(name, buffers, vital=vital)

    peer.disk.put = slow
    putting = [asyncio.create_task(store.put(f"p{n}", [b"x"])) for n in range(20)]
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        assert (await store.space()).total > 0
    released.set()
    await asyncio.gather(*putting)
    assert len(await store.list()) == 20


async def test_a_peer_that_does_not_answer_is_given_up_in_time(peer):
    async def never(name):
        await asyncio.Event().wait()

    async with used(peer, deadline_s=0.2) as store:
        await store.put("a", [b"x"])
        stat, peer.disk.stat = peer.disk.stat, never
        with pytest.raises(StoreFailed, match="no reply"):
            await store.stat("a")
        peer.disk.stat = stat

        assert (await store.stat("a")).size == 1


async def test_garbage_ends_its_link_and_no_other(peer, store):
    async with StreamTransport("a", KEY) as transport:
        for header in (
            b"",
            b"\xc1",
            b"\x93\x01\x02",
            pack([1, 2, 3]),
            pack([1, "x"]),
            pack([-1, 0]),
        ):
            link = await transport.dial(peer.address, peer="b")
            await link.send(header)
            with pytest.raises(Unavailable):
                async with asyncio.timeout(5):
                    await link.receive()
            await link.close()

    await store.put("a", [b"x"])


@pytest.mark.parametrize(
    "request_",
    [
        Request(1, Verb.STAT, "a"),
        Request(1, Verb.HELLO, "d0", 99),
        Request(1, Verb.HELLO, "", 1),
        Request(1, 77),
    ],
)
async def test_what_cannot_be_done_is_refused_and_the_link_goes_on(peer, request_):
    async with StreamTransport("a", KEY) as transport:
        link = await transport.dial(peer.address, peer="b")
        await link.send(pack(request_))
        assert read_reply((await link.receive()).header).error
        await link.send(pack(Request(2, Verb.HELLO, "d0", 1)))
        assert not read_reply((await link.receive()).header).error
        await link.send(pack(Request(3, Verb.READ, "a", 0, 1 << 40)))
        assert read_reply((await link.receive()).header).error == "TooLarge"
        await link.send(pack(Request(4, Verb.PUT, "a", 3, token="t")))
        assert read_reply((await link.receive()).header).error == "InvalidArgument"
        await link.close()


@pytest.mark.parametrize("reply", [b"\xc1", pack(Reply(12345)), pack([1])])
async def test_a_peer_that_answers_nonsense_is_unavailable(reply):
    async def babble(link):
        await link.receive()
        await link.send(reply)
        with suppress(WarpError):
            await link.receive()

    async with StreamTransport("b", KEY) as transport:
        listener = await transport.listen("127.0.0.1:0", babble)
        with pytest.raises(Unavailable):
            async with used(listener, deadline_s=2):
                pass
        await listener.close()


def test_messages_survive_their_encoding():
    request = Request(7, Verb.WRITE, "a/b", 1 << 40, 5, 3, "t")
    reply = Reply(7, "", "id", "t", 3, (1, 2), (("a", 1, 2),))

    assert read_request(pack(request)) == request
    assert read_reply(pack(reply)) == reply
