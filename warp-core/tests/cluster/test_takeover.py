"""Domains move between nodes of one process: nothing acknowledged is lost, and nobody acknowledges who must not."""

import asyncio
import time
from contextlib import suppress

import pytest
from warp_conformance.difference import same
from warp_core.cluster import domains
from warp_core.errors import Conflict, Fenced, NotFound, PermissionDenied, Unavailable, WarpError
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.consistency import Commit, Write

TTL_S = 1.6  # of leases here
LARGE = b"large" * 1_000_000


async def test_each_node_opens_its_own_domain(pair):
    a, b = pair.a.keeper, pair.b.keeper

    assert list(a.local) == [a.own]
    assert list(b.local) == [b.own]
    assert a.own != b.own
    assert pair.whole() == {"a", "b"}
    holder = await b.holder_of(a.own)
    assert (holder.name, holder.address, holder.local) == ("a", pair.a.address, None)


async def test_a_dead_nodes_domain_is_taken_over_with_everything_in_it(pair):
    stack = pair.home("a")
    for number in range(20):
        await pair.put(stack, b"k%d" % number, b"%d " % number * 1000)
    await pair.put(stack, b"large", LARGE)

    await pair.a.die()
    stack = await pair.until_home("b")

    for number in range(20):
        assert await pair.get(stack, b"k%d" % number) == b"%d " % number * 1000
    assert same(await pair.get(stack, b"large"), LARGE)
    await pair.put(stack, b"after", b"x" * 5000)
    await pair.put(stack, b"large after", LARGE)
    assert pair.whole() == {"b"}
    assert (await pair.b.keeper.holder_of(pair.number)).local is stack


async def test_an_old_home_that_does_not_know_it_yet_changes_nothing(pair):
    old = pair.home("a")
    await pair.put(old, b"k", b"acknowledged")
    pair.a.clock.stop()
    pair.a.engine.cut = True
    new = await pair.until_home("b")
    await pair.put(new, b"k", b"newer")
    await pair.put(new, b"other", b"other")
    pair.a.engine.cut = False

    with pytest.raises(Fenced, match="another node is the home"):
        await old.metastore.commit(Commit(writes=[Write(b"late", b"late")]))
    for body in (b"late", LARGE):
        with pytest.raises(WarpError):
            await pair.put(old, b"k", body)

    assert await pair.get(new, b"k") == b"newer"
    view = new.metastore.view()
    assert await view.get(b"late") is None
    view.close()


async def test_an_old_homes_writes_are_refused_at_the_store(pair):
    old = pair.home("a")
    pair.a.clock.stop()
    pair.a.engine.cut = True
    await pair.until_home("b")
    peer = next(copy.store for copy in old.journal.copies if copy.store.id != pair.a.disks["@0"].id)

    with pytest.raises(Fenced, match="not that of the home"):
        await peer.put("late", [b"late"])

    with pytest.raises(NotFound):
        await pair.b.disks["for-a"].stat("late")


async def test_past_the_deadline_every_verb_is_refused_also_of_what_was_open(pair):
    stack = pair.home("a")
    await pair.put(stack, b"k", b"content")
    reader = await stack.objects.open("one", b"k")
    pair.a.engine.cut = pair.b.engine.cut = True
    lease = pair.a.keeper._tenures[pair.number].lease
    await pair.until(lambda: lease.left_s <= 0)

    with pytest.raises(Unavailable, match="not the home"):
        await reader.read(0, 7)
    with pytest.raises(Unavailable, match="not the home"):
        await stack.objects.head("one", b"k")
    with pytest.raises(Unavailable, match="not the home"):
        await stack.files.root("one")
    reader.close()
    assert pair.number not in pair.a.keeper.local

    pair.a.engine.cut = pair.b.engine.cut = False
    await pair.until(lambda: any(pair.number in node.keeper.local for node in (pair.a, pair.b)))


async def opened_anew(pair):
    """End the sitting as a store that comes back does; return the stacks of before and after."""
    before = pair.home("a")
    pair.a.keeper._tenures[pair.number]._returned.set()
    await pair.until(lambda: pair.a.keeper.local.get(pair.number) not in (None, before))
    return before, pair.home("a")


async def test_a_disk_that_was_open_before_the_stack_was_opened_anew_answers_nothing(pair):
    stack = pair.home("a")
    await stack.blocks.create("one", b"d", size=1 << 20)
    old = await stack.blocks.open("one", b"d", initiator="old")
    await old.write(0, b"1" * 4096)
    await old.flush()
    _, stack = await opened_anew(pair)
    new = await stack.blocks.open("one", b"d", initiator="new")
    await new.write(0, b"2" * 4096)

    # A read would show what was; a flush would say of the other's write that it is durable.
    for verb in (old.read(0, 4096), old.read_runs(0, 4096), old.flush(), old.write(0, b"3" * 512)):
        with pytest.raises(Unavailable, match="not the home"):
            await verb
    with pytest.raises(Unavailable, match="not the home"):
        old.read_now(0, 4096)
    await old.close()

    assert await new.read(0, 4096) == b"2" * 4096
    await new.close()


async def test_what_a_stack_sent_before_it_was_opened_anew_comes_too_late(pair):
    old, new = await opened_anew(pair)

    with pytest.raises(Fenced):
        await old.metastore.commit(Commit(writes=[Write(b"late", b"late")]))
    late = old.metastore._placed(Commit(writes=[Write(b"late", b"late")]))
    with pytest.raises(Conflict):
        await pair.engine.commit(late)  # it was on its way

    assert pair.home("a") is new
    view = new.metastore.view()
    assert await view.get(b"late") is None
    view.close()


async def test_a_store_that_was_left_behind_is_not_whole_because_a_commit_comes_late(pair):
    """The home says that a store is whole, hears nothing, goes on without the store: and then the commit arrives."""
    stack = pair.home("a")
    standing = pair.a.keeper._tenures[pair.number].standing
    theirs = pair.b.disks["for-a"].id
    await standing.leave([pair.a.disks["@0"].id])
    assert pair.whole() == {"a"}
    standing.used |= {theirs}
    late = []

    async def hold(commit):
        late.append(commit)
        raise Unavailable("no answer")

    commit, pair.a.engine.commit = pair.a.engine.commit, hold
    joining = asyncio.create_task(standing.join(theirs))
    await pair.until(lambda: late)
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    pair.a.engine.commit = commit
    await standing.leave([pair.a.disks["@0"].id])
    await pair.put(stack, b"k", b"alone")
    with pytest.raises(Conflict):
        await pair.engine.commit(late[0])

    assert pair.whole() == {"a"}


async def test_without_the_other_copy_and_without_a_quorum_nothing_is_acknowledged(pair):
    stack = pair.home("a")
    await pair.put(stack, b"k", b"acknowledged")
    await pair.b.die()
    pair.a.engine.cut = True

    began_s = time.monotonic()
    for body in (b"small", LARGE):
        with pytest.raises(WarpError):
            await pair.put(stack, b"alone", body)
    assert time.monotonic() - began_s < 60
    assert pair.whole() == {"a", "b"}


async def test_without_the_other_copy_it_goes_on_and_the_other_may_not_take_over(pair):
    stack = pair.home("a")
    await pair.put(stack, b"k", b"before")
    await pair.b.die()
    await pair.put(stack, b"k", b"alone")
    await pair.put(stack, b"large", LARGE)
    assert pair.whole() == {"a"}

    await pair.a.die()
    await pair.b.start()
    await pair.turns.until(pair.turns() + 2.2 * TTL_S)
    assert pair.number not in pair.b.keeper.local

    await pair.a.start()
    stack = await pair.until_home("a")
    assert await pair.get(stack, b"k") == b"alone"
    assert same(await pair.get(stack, b"large"), LARGE)


async def test_a_copy_that_was_away_is_brought_up_and_then_serves_alone(pair):
    stack = pair.home("a")
    await pair.put(stack, b"early", LARGE)
    await pair.b.die()
    for number in range(10):
        await pair.put(stack, b"k%d" % number, b"%d" % number * 5000)
    await pair.put(stack, b"alone", LARGE)
    assert pair.whole() == {"a"}
    await pair.b.start()
    await pair.until(lambda: pair.whole() == {"a", "b"})

    await pair.a.die()
    pair.a.disks["@0"]._blobs.clear()  # nothing can come from there
    stack = await pair.until_home("b")

    for number in range(10):
        assert await pair.get(stack, b"k%d" % number) == b"%d" % number * 5000
    assert same(await pair.get(stack, b"early"), LARGE)
    assert same(await pair.get(stack, b"alone"), LARGE)


async def test_a_node_that_returns_gets_its_domain_back_when_it_is_wished(pair):
    old = pair.home("a")
    await pair.put(old, b"k", b"acknowledged")
    # What only a has is never acknowledged: its copy alone gets it.
    pair.a.clock.stop()
    pair.a.engine.cut = True
    stack = await pair.until_home("b")
    with pytest.raises(WarpError):
        await pair.put(old, b"tail", b"never acknowledged")
    await pair.a.die()
    await pair.put(stack, b"k", b"newer")
    await pair.put(stack, b"large", LARGE)

    await pair.a.start()
    assert pair.number not in pair.a.keeper.local
    await pair.until(lambda: pair.whole() == {"a", "b"})
    await pair.a.keeper.wish(pair.number, "a")
    stack = await pair.until_home("a")

    assert pair.number not in pair.b.keeper.local
    assert await pair.get(stack, b"k") == b"newer"
    assert same(await pair.get(stack, b"large"), LARGE)
    with pytest.raises(NotFound):
        await pair.get(stack, b"tail")
    assert [each async for each in stack.journal.inspect()] == []
    await pair.b.die()
    await pair.put(stack, b"k", b"newest")


async def test_a_node_that_wants_its_domain_back_gets_it(pair):
    await pair.put(pair.home("a"), b"k", b"acknowledged")
    await pair.a.stop()
    stack = await pair.until_home("b")
    await pair.put(stack, b"k", b"newer")

    await pair.a.start(failback=True)
    stack = await pair.until_home("a")

    assert await pair.get(stack, b"k") == b"newer"
    await pair.until(lambda: pair.whole() == {"a", "b"})  # a busy machine may lose sight of one


async def test_the_longest_keys_fit_beside_a_domains_prefix(pair):
    keeper = next(
        node.keeper
        for node in (pair.a, pair.b)
        if node.keeper.own  # domain 0 has no prefix
    )
    stack = keeper.local[keeper.own]
    await stack.objects.create_volume("long", owner=Principal("somebody"))
    await stack.objects.set_versioning("long", "enabled")
    keys = [b"\0" * 1024, b"\0" * 199 + b"/" + b"\0" * 199 + b"/x", b"\xff" * 1024]
    for turn in range(2):
        for key in keys:
            await pair.put(stack, key, b"%d" % turn, volume="long")
        await stack.snapshots.create("long", f"s{turn}")
    for key in keys:
        await stack.objects.delete("long", key)

    listed = await stack.objects.list("long.snap-s1")
    assert [each.key for each in listed.entries] == sorted(keys)
    assert not (await stack.objects.list("long")).entries


async def test_what_was_not_flushed_is_said_to_be_there_only_where_it_is(pair):
    """The incarnation of a disk: kept when a home closes in order, another when it died."""
    stack = pair.home("a")
    await stack.blocks.create("one", b"vm", size=1 << 20)
    first = (await stack.blocks.show("one", b"vm")).incarnation
    disk = await stack.blocks.open("one", b"vm", initiator="i")
    await disk.write(0, b"not flushed" * 100)

    # In order: what was written is there, and the disk that was open before is none any more.
    await pair.a.keeper.wish(pair.number, "b")
    stack = await pair.until_home("b")
    assert (await stack.blocks.show("one", b"vm")).incarnation == first
    there = await stack.blocks.open("one", b"vm", initiator="i")
    assert bytes(await there.read(0, 1100)) == b"not flushed" * 100
    with pytest.raises(Unavailable):
        await disk.read(0, 512)
    await there.write(0, b"flushed")
    await there.flush()

    # By a death: nobody can know.
    await pair.b.die()
    stack = await pair.until_home("a")
    assert (await stack.blocks.show("one", b"vm")).incarnation != first
    again = await stack.blocks.open("one", b"vm", initiator="i")
    assert bytes(await again.read(0, 7)) == b"flushed"


async def test_a_disk_ends_with_its_sitting_also_where_the_home_stays(pair):
    await pair.b.stop()
    stack = pair.home("a")
    await stack.blocks.create("one", b"vm", size=1 << 20)
    disk = await stack.blocks.open("one", b"vm", initiator="i")
    await disk.write(0, b"before")

    await pair.b.start()  # its copy comes back: the stack is opened anew with it
    await pair.until(lambda: pair.whole() == {"a", "b"})
    stack = await pair.until_home("a")
    new = await stack.blocks.open("one", b"vm", initiator="i")
    assert bytes(await new.read(0, 6)) == b"before"
    await new.write(0, b"after.")
    with pytest.raises(Unavailable):
        await disk.read(0, 6)
    with pytest.raises(Unavailable):
        disk.write_now(0, b"stale.")
    with suppress(Unavailable):
        await disk.close()
    assert bytes(await new.read(0, 6)) == b"after."
    await new.flush()


async def test_a_node_that_left_for_good_is_missed_by_nobody(pair):
    stack = pair.home("a")
    await pair.put(stack, b"k", b"both")
    with pytest.raises(Unavailable, match="still at home"):
        await domains.remove(pair.engine, "b")  # its own domain is there
    await pair.b.die()
    other = pair.b_number = next(n for n in pair.a.keeper.domains() if n != pair.number)
    await pair.until(lambda: other in pair.a.keeper.local)

    await domains.remove(pair.engine, "b")

    def dropped():
        found = pair.a.keeper.map.domains.values()
        return all(kept.node == "a" for domain in found for kept in domain.row.stores)

    await pair.until(dropped)
    stack = await pair.until_home("a")
    assert await pair.get(stack, b"k") == b"both"
    await pair.put(stack, b"alone", b"a")
    with pytest.raises(PermissionDenied, match="was removed"):
        await pair.b.start()
    with pytest.raises(NotFound):
        await domains.remove(pair.engine, "b")

    # Its own configuration still names room with the other.
    await pair.a.stop()
    await pair.a.start()
    assert await pair.get(await pair.until_home("a"), b"alone") == b"a"


async def test_the_only_node_that_has_everything_does_not_leave(pair):
    stack = pair.home("a")
    await pair.b.die()
    await pair.put(stack, b"k", b"a alone" * 1000)
    await pair.until(lambda: pair.whole() == {"a"})

    with pytest.raises(Unavailable, match="only node"):
        await domains.remove(pair.engine, "a")
