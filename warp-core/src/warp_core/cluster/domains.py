"""What is agreed on about domains: transactions over the shared rows, and what a node last read of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warp_core.cluster import rows
from warp_core.cluster.rows import DomainRow, Kept, MemberRow, RoomRow, WholeRow
from warp_core.errors import Fenced, NoSpace, NotFound, PermissionDenied, Unavailable
from warp_core.interfaces.consistency import SCAN_MAX, KeyCheck, MetaStore, Row, View
from warp_core.metadata import Transaction, transact


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain, as its rows say."""

    number: int
    row: DomainRow
    whole: frozenset[str]
    wish: str = ""  # node that should be the home; "" for whoever is


@dataclass(frozen=True, slots=True)
class Map:
    """All rows of the cluster, as they were read at one moment."""

    domains: dict[int, Domain] = field(default_factory=dict)
    members: dict[str, MemberRow] = field(default_factory=dict)
    left: frozenset[str] = frozenset()  # names of nodes that left for good
    rooms: dict[int, RoomRow] = field(default_factory=dict)  # by domain: copies to be


async def read(shared: MetaStore) -> Map:
    """Read everything but the directory of volumes."""
    view = shared.view()
    try:
        # Everything lies beside the directory: two ranges, however many kinds of rows there are.
        before, behind = await asyncio.gather(
            _all(view, rows.SHARED, rows.VOLUMES),
            _all(view, _behind(rows.VOLUMES), _behind(rows.SHARED)),
        )
        found = before + behind
    finally:
        view.close()

    def of(prefix: bytes) -> list[Row]:
        return [row for row in found if row.key.startswith(prefix)]

    whole = {_number(row): _whole(row.value) for row in of(rows.WHOLE)}
    wishes = {_number(row): row.value.decode() for row in of(rows.WISHES)}
    known = {}
    for row in of(rows.DOMAINS):
        number = _number(row)
        known[number] = Domain(
            number,
            rows.unpack(row.value, DomainRow),
            whole.get(number, frozenset()),
            wishes.get(number, ""),
        )
    members = [rows.unpack(row.value, MemberRow) for row in of(rows.MEMBERS)]
    left = frozenset(row.key[len(rows.LEFT) :].decode() for row in of(rows.LEFT))
    rooms = {_number(row): rows.unpack(row.value, RoomRow) for row in of(rows.ROOMS)}
    return Map(known, {member.name: member for member in members}, left, rooms)


def _behind(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])


async def _all(view: View, start: bytes, end: bytes) -> list[Row]:
    found: list[Row] = []
    while page := await view.scan(start, end):
        found += page
        if len(page) < SCAN_MAX:
            break
        start = page[-1].key + b"\0"
    return found


def _number(row: Row) -> int:
    return int.from_bytes(row.key[-2:], "big")


def _whole(value: bytes | None) -> frozenset[str]:
    return frozenset(rows.unpack(value, WholeRow).stores) if value is not None else frozenset()


async def describe(shared: MetaStore, member: MemberRow) -> None:
    """Say what this node is, in its row.

    Raises:
        PermissionDenied: It was removed from the cluster.
    """

    async def body(tx: Transaction) -> None:
        if await tx.get(rows.left_key(member.name)) is not None:
            raise PermissionDenied(
                f'node "{member.name}" was removed from the cluster: join anew, by another name and with an empty data directory'
            )
        tx.put(rows.member_key(member.name), rows.pack(member))

    await transact(shared, body)


async def found(shared: MetaStore, *, origin: str, identity: str, first: bool) -> int:
    """Return the domain of a node's data; made if it has none.

    Args:
        shared: The engine.
        origin: The node's name.
        identity: Of its data.
        first: There is data from before the cluster: it can only become domain 0.

    Raises:
        NoSpace: There are DOMAINS_MAX.
        Unavailable: Domain 0 is another node's, and this one has data from before the cluster.
    """

    async def body(tx: Transaction) -> int:
        start, end = rows.DOMAINS, _behind(rows.DOMAINS)
        last = -1
        while page := await tx.scan(start, end):
            for row in page:
                last = _number(row)
                known = rows.unpack(row.value, DomainRow)
                if known.identity == identity:
                    if known.origin != origin:
                        tx.put(row.key, rows.pack(_named(known, origin)))
                    return last
            start = page[-1].key + b"\0"
        if last + 1 >= rows.DOMAINS_MAX:
            raise NoSpace(f"{rows.DOMAINS_MAX} domains, and no more, are in one cluster")
        if first and last >= 0:
            raise Unavailable(
                "this node has data from before it was in a cluster, and another node's data is in this cluster already:"
                " give it an empty data directory and empty stores"
            )
        number = last + 1
        tx.put(
            rows.domain_key(number), rows.pack(DomainRow(rows.FORMAT, origin, identity, "", 0, ()))
        )
        tx.put(rows.whole_key(number), rows.pack(WholeRow(rows.FORMAT, ())))
        return number

    return await transact(shared, body)


def _named(row: DomainRow, origin: str) -> DomainRow:
    return DomainRow(row.format, origin, row.identity, row.holder, row.token, row.stores)


async def take(
    shared: MetaStore, number: int, *, node: str, token: int, mine: Sequence[str]
) -> Domain:
    """Write a node, which holds the lease, into a domain's row; from then on commits of the old home fail.

    Args:
        shared: The engine.
        number: Of the domain.
        node: The new home.
        token: Of its lease.
        mine: Ids of the stores that it has itself.

    Raises:
        NotFound: No such domain.
        Fenced: Somebody with a greater token was faster.
        Unavailable: None of its stores holds everything that was acknowledged.
    """

    async def body(tx: Transaction) -> Domain:
        value, kept, wish = await _together(
            tx, rows.domain_key(number), rows.whole_key(number), rows.wish_key(number)
        )
        row = _domain(value, number)
        if row.token >= token:
            raise Fenced(
                f"domain {number} was taken with token {row.token}, this lease has {token}"
            )
        whole = _whole(kept)
        if row.stores and not whole & set(mine):
            raise Unavailable(
                f"domain {number}: no store of node {node} holds everything that was acknowledged; those that do:"
                f" {describe_stores(row, whole)}"
            )
        taken = DomainRow(row.format, row.origin, row.identity, node, token, row.stores)
        tx.put(rows.domain_key(number), rows.pack(taken))
        if wish is not None and wish.decode() == node:
            tx.delete(rows.wish_key(number))
        return Domain(number, taken, whole)

    return await transact(shared, body)


async def keep(
    shared: MetaStore, number: int, *, token: int, stores: Sequence[Kept], whole: Sequence[str]
) -> Domain:
    """Set which stores a domain has, and which of them are whole; raises Fenced if the token is not that of its home."""

    async def body(tx: Transaction) -> Domain:
        row = await _held(tx, number, token)
        changed = DomainRow(
            row.format, row.origin, row.identity, row.holder, row.token, tuple(stores)
        )
        if changed != row:
            tx.put(rows.domain_key(number), rows.pack(changed))
        kept = WholeRow(rows.FORMAT, tuple(sorted(whole)))
        tx.put(rows.whole_key(number), rows.pack(kept))
        return Domain(number, changed, frozenset(whole))

    return await transact(shared, body)


async def change_whole(
    shared: MetaStore,
    number: int,
    *,
    token: int,
    change: Callable[[frozenset[str]], frozenset[str]],
) -> frozenset[str]:
    """Change which stores are whole, and return them. The row is written also where nothing changes: so what was asked for before,
    and is still on its way, comes to nothing.

    Raises:
        Fenced: The token is not that of the domain's home.
        Unavailable: None would be left.
    """

    async def body(tx: Transaction) -> frozenset[str]:
        value, kept = await _together(tx, rows.domain_key(number), rows.whole_key(number))
        row = _of_home(value, number, token)
        before = _whole(kept)
        after = change(before)
        if not after:
            raise Unavailable(
                f"domain {number} cannot go on: what was acknowledged is on {describe_stores(row, before)}"
            )
        tx.put(rows.whole_key(number), rows.pack(WholeRow(rows.FORMAT, tuple(sorted(after)))))
        return after

    return await transact(shared, body)


async def begin_sitting(
    shared: MetaStore, number: int, *, token: int
) -> tuple[Domain, KeyCheck, str]:
    """Begin a sitting: return the domain, the check that holds as long as this is its latest one, and the incarnation of its disks.

    The row is written anew, as it is: what an earlier sitting of the same home sent, and what is still on its way, comes too late from
    then on, as that of an earlier home does. So what is read afterwards stays so until this sitting changes it. The incarnation is
    that of the one before if it was closed with everything durable.

    Raises:
        Fenced: The token is not that of the domain's home.
    """
    fresh = secrets.token_hex(8)
    key = rows.domain_key(number)

    async def body(tx: Transaction) -> str:
        value, left = await _together(tx, key, rows.clean_key(number))
        tx.put(key, rows.pack(_of_home(value, number, token)))
        if left is None:
            return fresh
        tx.delete(rows.clean_key(number))
        return left.decode()

    incarnation = await transact(shared, body)
    view = shared.view()
    try:
        found, known = await asyncio.gather(view.get(key), read(shared))
    finally:
        view.close()
    if found is None or rows.unpack(found[0], DomainRow).token != token:
        raise Fenced(f"domain {number} has another home than the one with token {token}")
    return known.domains[number], KeyCheck(key, found[1]), incarnation


async def end_sitting(shared: MetaStore, number: int, *, token: int, incarnation: str) -> None:
    """Note that a domain was closed with everything durable; raises as `begin_sitting`."""

    async def body(tx: Transaction) -> None:
        await _held(tx, number, token)
        tx.put(rows.clean_key(number), incarnation.encode())

    await transact(shared, body)


async def wish(shared: MetaStore, number: int, node: str) -> None:
    """Note which node should be the home; "" for whoever is.

    Raises:
        NotFound: No such domain.
    """

    async def body(tx: Transaction) -> None:
        row = await _row(tx, number)
        if node and row.holder != node:
            tx.put(rows.wish_key(number), node.encode())
        elif await tx.get(rows.wish_key(number)) is not None:
            tx.delete(rows.wish_key(number))

    await transact(shared, body)


async def remove(shared: MetaStore, name: str) -> None:
    """Take a node out of the cluster for good; homes drop its stores from their domains as soon as they see it.

    Raises:
        NotFound: There is no such node.
        Unavailable: It is the home of a domain, or the only one that has everything of one.
    """
    known = await read(shared)
    if name not in known.members:
        raise NotFound(f'the cluster has no node "{name}"')

    async def body(tx: Transaction) -> None:
        for number in known.domains:
            row = await _row(tx, number)
            whole = _whole(await tx.get(rows.whole_key(number)))
            if not any(kept.node == name for kept in row.stores):
                continue
            if not any(kept.node != name and kept.store in whole for kept in row.stores):
                raise Unavailable(
                    f'domain {number}: only node "{name}" has everything that was acknowledged: start it, and wait until another'
                    " node has a whole copy (`warp node list`)"
                )
            if row.holder == name:
                raise Unavailable(
                    f'domain {number} is still at home at node "{name}": another node takes it over within a lease\'s time'
                )
            wish = await tx.get(rows.wish_key(number))
            if wish is not None and wish.decode() == name:
                tx.delete(rows.wish_key(number))
        for number in known.rooms:
            room = await _room(tx, number)
            if room is not None and room.node == name:
                tx.delete(rows.room_key(number))
        tx.put(rows.left_key(name), b"")
        tx.delete(rows.member_key(name))

    await transact(shared, body)


async def drop_left(shared: MetaStore, number: int, *, token: int) -> None:
    """Drop the stores of nodes that left for good from a domain, which is not open; raises as `begin_sitting`."""

    async def body(tx: Transaction) -> None:
        row = await _held(tx, number, token)
        gone = {
            kept.node for kept in row.stores if await tx.get(rows.left_key(kept.node)) is not None
        }
        if not gone:
            return
        stores = tuple(kept for kept in row.stores if kept.node not in gone)
        whole = _whole(await tx.get(rows.whole_key(number))) & {kept.store for kept in stores}
        if not whole:
            return  # it would hold nothing
        changed = DomainRow(row.format, row.origin, row.identity, row.holder, row.token, stores)
        tx.put(rows.domain_key(number), rows.pack(changed))
        tx.put(rows.whole_key(number), rows.pack(WholeRow(rows.FORMAT, tuple(sorted(whole)))))

    await transact(shared, body)


async def ask_for_room(shared: MetaStore, number: int, *, token: int, node: str) -> None:
    """Ask a node to keep another copy of a domain; nothing changes if one is asked already. Raises as `begin_sitting`."""

    async def body(tx: Transaction) -> None:
        await _held(tx, number, token)
        if await tx.get(rows.left_key(node)) is None and await _room(tx, number) is None:
            tx.put(rows.room_key(number), rows.pack(RoomRow(rows.FORMAT, node)))

    await transact(shared, body)


async def give_room(shared: MetaStore, number: int, *, node: str, export: str, store: str) -> None:
    """Say that a node made the room that it was asked for; nothing changes if it is not asked any more."""

    async def body(tx: Transaction) -> None:
        room = await _room(tx, number)
        if room is not None and room.node == node:
            made = RoomRow(rows.FORMAT, node, export, store)
            tx.put(rows.room_key(number), rows.pack(made))

    await transact(shared, body)


async def use_room(shared: MetaStore, number: int, *, token: int) -> Kept | None:
    """Add the room that was made, if any, to the stores of a domain, which is not open, and return it; raises as `begin_sitting`."""

    async def body(tx: Transaction) -> Kept | None:
        row = await _held(tx, number, token)
        room = await _room(tx, number)
        if room is None or not room.export:
            return None
        kept = Kept(room.store, room.node, room.export)
        tx.delete(rows.room_key(number))
        if kept not in row.stores and await tx.get(rows.left_key(room.node)) is None:
            changed = DomainRow(
                row.format, row.origin, row.identity, row.holder, row.token, (*row.stores, kept)
            )
            tx.put(rows.domain_key(number), rows.pack(changed))
        return kept

    return await transact(shared, body)


def describe_stores(row: DomainRow, stores: frozenset[str]) -> str:
    """Name stores for people."""
    return ", ".join(f"{kept.node}/{kept.export}" for kept in row.stores if kept.store in stores)


async def _together(tx: Transaction, *keys: bytes) -> list[bytes | None]:
    """Read several rows at once: the engine may be a round trip away, and who waits is without a home."""
    return await asyncio.gather(*(tx.get(key) for key in keys))


async def _row(tx: Transaction, number: int) -> DomainRow:
    return _domain(await tx.get(rows.domain_key(number)), number)


def _domain(value: bytes | None, number: int) -> DomainRow:
    if value is None:
        raise NotFound(f"no domain has number {number}")
    return rows.unpack(value, DomainRow)


async def _room(tx: Transaction, number: int) -> RoomRow | None:
    value = await tx.get(rows.room_key(number))
    return rows.unpack(value, RoomRow) if value is not None else None


async def _held(tx: Transaction, number: int, token: int) -> DomainRow:
    return _of_home(await tx.get(rows.domain_key(number)), number, token)


def _of_home(value: bytes | None, number: int, token: int) -> DomainRow:
    row = _domain(value, number)
    if row.token != token:
        raise Fenced(
            f'domain {number} has another home by now: node "{row.holder}" with token {row.token}'
        )
    return row
