"""Where copies of domains are when a node left for good: another node makes room, and holds everything by and by."""

import asyncio
from dataclasses import replace

import pytest
from warp_conformance.difference import same
from warp_core.cluster import domains, rows
from warp_core.cluster.copies import next_keeper, users
from warp_core.cluster.domains import Domain, Map
from warp_core.cluster.rows import DomainRow, Kept, MemberRow, RoomRow
from warp_core.cluster.stores import LocalStore
from warp_core.config.types import Size
from warp_core.errors import StoreFailed
from warp_core.interfaces.auth import Principal
from warp_core.peers import Gate, Offer
from warp_store_memory import Config, Memory

LARGE = b"large" * 300_000


def known(copies, *, left=(), members=("a", "b", "c", "w"), rooms=None):
    """Return rows of domains made by "a", "b", "c" …, each kept by some nodes; whoever is first has it."""
    found = {}
    for number, nodes in enumerate(copies):
        stores = tuple(Kept(f"{number}{node}", node, f"of-{number}") for node in nodes)
        row = DomainRow(1, "abcdef"[number], "i", nodes[0], 1, stores)
        found[number] = Domain(number, row, frozenset(kept.store for kept in stores))
    present = {name: MemberRow(1, name, "", "", {}) for name in members if name not in left}
    return Map(found, present, frozenset(left), rooms or {})


def test_a_domain_with_one_copy_gets_another_only_after_a_node_left():
    assert next_keeper(known(["a", "bc", "c"]), 0) == ""
    assert next_keeper(known(["a", "bc", "c"], left="b"), 0) == "c"
    assert next_keeper(known(["ac", "c", "c"], left="b"), 0) == ""


def test_of_those_that_have_disks_the_one_with_the_fewest_copies_keeps_it():
    cluster = known(["a", "a", "cd", "d"], left="b", members=("a", "c", "d", "w"))

    assert next_keeper(cluster, 0) == "c"
    assert next_keeper(replace(cluster, rooms={0: RoomRow(1, "c"), 2: RoomRow(1, "c")}), 1) == "d"


def test_a_witness_keeps_nothing():
    assert next_keeper(known(["a", "a"], left="b", members=("a", "w")), 0) == ""


def test_who_may_become_the_home_may_use_what_it_lies_in():
    cluster = known(["ab", "ca", "c"], rooms={2: RoomRow(1, "a", "domain-2", "id")})

    assert users(cluster, "a", "of-0") == {"b"}
    assert users(cluster, "a", "of-1") == {"c"}
    assert users(cluster, "a", "domain-2") == {"c"}
    assert users(cluster, "a", "of-2") == set()
    assert users(replace(cluster, left=frozenset("b")), "a", "of-0") == set()


@pytest.fixture
async def three(cluster):
    """Nodes "a" and "b" that keep copies for each other, and "c" alone; volumes "one" of a and "two" of b."""
    cluster.add("c", "@0")
    await asyncio.gather(*(node.start() for node in reversed(cluster.nodes.values())))
    cluster.a, cluster.b, cluster.c = cluster.nodes.values()
    cluster.numbers = {name: node.keeper.own for name, node in cluster.nodes.items()}
    for name, volume in (("a", "one"), ("b", "two")):
        cluster.number = cluster.numbers[name]
        stack = await cluster.until_home(name)
        await stack.objects.create_volume(volume, owner=Principal("somebody"))
        await cluster.put(stack, b"k", b"content of " + volume.encode(), volume=volume)
    return cluster


def disk():
    return Memory(Config(capacity=Size(1 << 30)))


def give_room(node):
    """Let a node make room, in memory."""
    made = []

    async def make_room(export, home):
        store = node.disks[export] = await disk().__aenter__()
        local = node.local[export] = LocalStore(export, store, Gate(), None)
        others = frozenset(node.cluster.nodes) - {node.name}
        node.exporter.offer(export, Offer(store, others, local.gate))
        made.append((export, home))
        return local

    node.keeper.make_room = make_room
    return made


async def remove_b(three):
    """Lose b, and take it out once a has what was at home there."""
    await three.b.die()
    await three.until(lambda: three.numbers["b"] in three.a.keeper.local)
    await domains.remove(three.engine, "b")


def whole_at(three, node, number):
    """Say whether a node has everything of a domain, as the rows say."""
    row = rows.unpack(three.engine.get_now(rows.domain_key(number))[0], DomainRow)
    whole = rows.unpack(three.engine.get_now(rows.whole_key(number))[0], rows.WholeRow).stores
    return any(kept.node == node and kept.store in whole for kept in row.stores)


async def test_what_a_removed_node_leaves_with_one_copy_gets_another(three):
    made = give_room(three.c)
    give_room(three.a)  # for what c has made: it has one copy as well
    stack = three.a.keeper.local[three.numbers["a"]]
    await three.put(stack, b"large", LARGE)
    await remove_b(three)
    for name in "ab":
        await three.until(lambda n=name: whole_at(three, "c", three.numbers[n]))

    assert sorted(made) == sorted((f"domain-{three.numbers[name]}", "a") for name in "ab")
    await three.until(lambda: whole_at(three, "a", three.numbers["c"]))
    assert not (await domains.read(three.engine)).rooms
    await three.a.die()
    three.number = three.numbers["a"]
    stack = await three.until_home("c")
    assert same(await three.get(stack, b"large"), LARGE)
    await three.until(lambda: three.numbers["b"] in three.c.keeper.local)
    reader = await three.c.keeper.local[three.numbers["b"]].objects.open("two", b"k")
    assert bytes(await reader.read(0, 100)) == b"content of two"
    reader.close()


async def test_room_that_cannot_be_made_yet_is_made_later_also_after_a_restart(three):
    async def fail(export, home):
        raise StoreFailed("no disk")

    three.c.keeper.make_room = fail
    await remove_b(three)
    await three.until(lambda: three.c.keeper.map.rooms)
    assert not whole_at(three, "c", three.numbers["a"])
    await three.c.stop()
    await three.c.start()
    give_room(three.c)
    for name in "ab":
        await three.until(lambda n=name: whole_at(three, "c", three.numbers[n]))
