"""What a node of a cluster does for the others: it lets new ones in, knows who is there, and passes commands on to homes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from warp_core.certificates import Identity, sign
from warp_core.cluster import directory, domains, rows
from warp_core.cluster.at_rest import AtRest
from warp_core.cluster.copies import COPIES, keepers, next_keeper
from warp_core.cluster.domains import Domain, Map
from warp_core.cluster.joining import (
    TOKEN_S,
    VERSION,
    Admission,
    Admit,
    Handed,
    Partner,
    Wanted,
    Welcome,
)
from warp_core.cluster.lines import Lines
from warp_core.cluster.routed import LISTING_PATIENCE_S
from warp_core.cluster.router import Router
from warp_core.cluster.written import add_partner, room
from warp_core.config import Settings
from warp_core.errors import (
    AlreadyExists,
    Busy,
    ConfigError,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unsupported,
    VolumeNotFound,
    WarpError,
)
from warp_core.interfaces.audit import Audit, Caller
from warp_core.interfaces.consistency import EngineMember, MetaStore
from warp_core.node.control import Nothing, Progress, Verb
from warp_core.node.disk_verbs import disk_row
from warp_core.node.event_verbs import event_row
from warp_core.node.handing import AUTHORITY, hand_over
from warp_core.node.stack import Stack
from warp_core.node.volume_verbs import volume_row
from warp_core.notifications import DOCUMENT as NOTIFICATIONS

if TYPE_CHECKING:
    from warp_core.node.assembly import Node
    from warp_core.plugins import Plugins

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
TLS = "tls"  # the node's certificate and the authority's, in its data folder
ANSWER_S = 1.0  # a node that does not answer within so long is away


@dataclass(frozen=True, slots=True)
class Members:
    """The parts that the verbs below need."""

    router: Router
    lines: Lines
    admission: Admission
    of_stack: Callable[[Stack], Node]


def host_of(address: str) -> str:
    """Return the host of HOST:PORT.

    Raises:
        InvalidArgument: It is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f'"{address}" is not HOST:PORT')
    return host.strip("[]")


def identity_of(settings: Settings) -> Identity:
    """Return where the node's certificate lies."""
    tls = settings.data / TLS
    return Identity(tls / "ca.pem", tls / "node.pem", tls / "node.key")


# Letting nodes in ---------------------------------------------------------------------------------


def admitting(
    settings: Settings,
    plugins: Plugins,
    shared: MetaStore,
    address: str,
    root: tuple[str, str],
    pair: Pair,
) -> Admit:
    """Return what lets a node in: it signs its certificate, has its member of the engine invited, and finds it a partner.

    Args:
        settings: Of this node.
        plugins: Those that say which keys all nodes need.
        shared: The engine.
        address: Where other nodes reach this one.
        root: The root key, which is the same on all nodes.
        pair: Makes this node and another keep copies for each other at once.
    """

    async def admit(wanted: Wanted) -> Welcome:
        if wanted.version != VERSION:
            raise Unsupported(f"a node that joins with version {wanted.version}, not {VERSION}")
        if not NAME.match(wanted.name):
            raise InvalidArgument(f'node name "{wanted.name}": 1 to 64 letters, digits and . _ -')
        hosts = {host_of(wanted.address)}
        if wanted.metadata:
            hosts.add(host_of(wanted.metadata))
        known = await domains.read(shared)
        if wanted.name in known.left:
            raise AlreadyExists(
                f'a node "{wanted.name}" left the cluster: names are for ever, choose another'
            )
        if wanted.name in known.members or wanted.name == settings.name:
            raise AlreadyExists(f'the cluster has a node "{wanted.name}": choose another name')
        signed = sign(settings.data / AUTHORITY, wanted.name, wanted.request, hosts=sorted(hosts))
        options: Mapping[str, object] = {}
        if wanted.metadata:
            options = await shared.invite(wanted.name, wanted.metadata)
        cluster = settings.cluster
        assert cluster is not None, "only a node of a cluster lets others in"
        return Welcome(
            signed,
            identity_of(settings).authority.read_bytes(),
            root,
            settings.engine.name,
            dict(options),
            {"lease": f"{float(cluster.lease):g}s", "wait": f"{float(cluster.wait):g}s"},
            await _partner(settings, wanted, address, known.left, pair)
            if wanted.stores and settings.stores
            else None,
            hand_over(settings, plugins) if wanted.stores else Handed(),
        )

    return admit


def recorded(admit: Admit, audit: Callable[[], Audit]) -> Admit:
    """Return what lets a node in and puts that on record."""

    async def admit_on_record(wanted: Wanted) -> Welcome:
        about = {"name": wanted.name, "address": wanted.address, "stores": wanted.stores}
        caller = Caller(f"node:{wanted.name}", "cluster", wanted.address)
        async with audit().change(caller, "node.join", about):
            welcome: Welcome = await admit(wanted)
            return welcome

    return admit_on_record


class Pair(Protocol):
    """See `Clustered.pair`."""

    async def __call__(self, partner: Partner, *, room: bool, uses: bool) -> None:
        """Keep copies for a node, and let it keep ours."""


async def _partner(
    settings: Settings, wanted: Wanted, address: str, left: frozenset[str], pair: Pair
) -> Partner:
    """Make this node and the one that joins keep copies for each other."""
    if settings.file is None:
        raise ConfigError(
            "this node runs without a configuration file, which has to say who keeps its copies"
        )
    transport = settings.peers.transport
    theirs = Partner(wanted.name, wanted.address, transport, room(settings.name), room(wanted.name))
    made, used = add_partner(settings.file, joining=theirs, left=left)
    await pair(theirs, room=made, uses=used)
    return Partner(
        settings.name, address, transport, room(wanted.name), room(settings.name) if used else ""
    )


class NewToken(msgspec.Struct, frozen=True):
    """A token to be, and how long it is good."""

    ttl_s: float = TOKEN_S


class Take(msgspec.Struct, frozen=True):
    """A domain, by number or by the name of the node that made it, and who should be its home (default: this node)."""

    domain: str
    node: str = ""


class Remove(msgspec.Struct, frozen=True):
    """A node that leaves for good."""

    name: str


def _members(node: Node) -> Members:
    if node.members is None or node.homes is None:
        raise Unsupported(
            "this node is alone: begin a cluster with `warp node found`, or join one with `warp node join`"
        )
    return node.members


async def token(node: Node, arguments: NewToken, progress: Progress) -> object:
    """Make a token that lets one node join."""
    members = _members(node)
    if not (node.data.settings.data / AUTHORITY / "ca.key").exists():
        raise Unsupported(
            "this node has no key of the authority, as a witness and nodes that joined before this release: ask for a token at another"
        )
    if not 1.0 <= arguments.ttl_s <= 30 * 86400.0:
        raise InvalidArgument(f"a token is good for 1 s to 30 days, not {arguments.ttl_s} s")
    made = await members.admission.token(ttl_s=arguments.ttl_s)
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + arguments.ttl_s))
    return {"token": made, "expires": expires}


# Who is there -------------------------------------------------------------------------------------


async def listing(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Describe the cluster: nodes, homes, copies."""
    return await describe(node)


async def describe(node: Node) -> dict[str, Any]:
    """Describe the cluster: who is there, what is at home where, and which copies have everything.

    Raises:
        Unsupported: The node is alone.
        Unavailable: There is no quorum.
    """
    members = _members(node)
    assert node.homes is not None, "a node with members has homes"
    shared = node.homes.shared
    known = await domains.read(shared)
    engine = {each.address: each for each in await _engine_members(shared)}
    by_name = {each.name: each for each in engine.values()}
    here = node.data.settings.name
    answers = dict(
        zip(
            known.members,
            await asyncio.gather(
                *(_answers(members.lines, each, here) for each in known.members.values())
            ),
            strict=True,
        )
    )
    nodes = []
    for name, member in sorted(known.members.items()):
        voter = by_name.get(name)
        nodes.append(
            {
                "name": name,
                "here": answers[name],
                "address": member.address,
                "endpoints": member.endpoints,
                "metadata": voter.state if voter else "",
                "homes": [
                    n for n, each in sorted(known.domains.items()) if each.row.holder == name
                ],
            }
        )
    return {"nodes": nodes, "domains": _domains(known), "problems": _problems(known, answers)}


def _domains(known: Map) -> list[dict[str, object]]:
    return [
        {
            "domain": number,
            "origin": each.row.origin,
            "home": each.row.holder,
            "copies": [
                {"node": kept.node, "export": kept.export, "whole": kept.store in each.whole}
                for kept in each.row.stores
            ],
        }
        for number, each in sorted(known.domains.items())
    ]


def _problems(known: Map, answers: Mapping[str, bool]) -> list[str]:
    problems = [f'node "{name}" is away' for name, here in sorted(answers.items()) if not here]
    for number, each in sorted(known.domains.items()):
        behind = [kept for kept in each.row.stores if kept.store not in each.whole]
        problems += [
            f"domain {number}: the copy with node {kept.node} does not have everything yet"
            for kept in behind
        ]
        if len(each.row.stores) < COPIES:
            room = known.rooms.get(number)
            problems.append(
                f"domain {number} has one copy only: {_keepers(each)} keeps it, and "
                + (f"node {room.node} gets one" if room else "nobody else")
            )
        if not each.row.holder or not answers.get(each.row.holder, False):
            problems.append(f"domain {number} has no home now")
    return problems


def _keepers(domain: Domain) -> str:
    return ", ".join(f"node {kept.node}" for kept in domain.row.stores) or domain.row.origin


async def _engine_members(shared: MetaStore) -> list[EngineMember]:
    try:
        return list(await shared.members())
    except Unsupported:
        return []  # the engine's servers are nobody's business here


async def _answers(lines: Lines, member: rows.MemberRow, here: str) -> bool:
    return member.name == here or await lines.answers(member, timeout_s=ANSWER_S)


async def take(node: Node, arguments: Take, progress: Progress) -> object:
    """Ask that a node becomes the home of a domain."""
    _members(node)
    assert node.homes is not None, "a node with members has homes"
    known = await domains.read(node.homes.shared)
    wanted = arguments.node or node.data.settings.name
    found = [
        number
        for number, each in known.domains.items()
        if arguments.domain in (str(number), each.row.origin)
    ]
    if not found:
        raise InvalidArgument(
            f'no domain "{arguments.domain}": a number, or the name of the node that made it; see `warp node list`'
        )
    await node.homes.wish(found[0], wanted)
    return {"domain": found[0], "node": wanted}


async def remove(node: Node, arguments: Remove, progress: Progress) -> object:
    """Take a node that is stopped out of the cluster for good: its member of the engine, its copies, its name."""
    members = _members(node)
    assert node.homes is not None, "a node with members has homes"
    shared, name = node.homes.shared, arguments.name
    if name == node.data.settings.name:
        raise InvalidArgument("a node does not remove itself: stop it, and ask another one")
    known = await domains.read(shared)
    member = known.members.get(name)
    if member is not None and await members.lines.answers(member, timeout_s=ANSWER_S):
        raise Busy(
            f'node "{name}" runs: stop it first, so that it hands over what is at home there'
        )
    if name not in known.left:  # else an earlier attempt got no further
        await domains.remove(shared, name)
    voted = False
    with suppress(NotFound, Unsupported):  # it had none, or the engine is not run by nodes
        await shared.expel(name)
        voted = True
    known = await domains.read(shared)
    alone = [number for number in sorted(known.domains) if len(keepers(known, number)) < COPIES]
    planned = {str(number): next_keeper(known, number) for number in alone}
    return {
        "node": name,
        "voted": voted,
        "one_copy": alone,
        "new_copies": {number: node for number, node in planned.items() if node},
    }


# Commands about volumes, at their home ------------------------------------------------------------


BY_VOLUME: Mapping[str, str] = {  # verb → the argument that names the volume
    "volume.show": "name",
    "volume.delete": "name",
    "volume.set": "name",
    "volume.snapshot": "name",
    "volume.rollback": "name",
    "volume.prune": "name",
    "volume.clone": "name",
    "volume.create": "name",
    "snapshot.delete": "name",
    "snapshot.list": "name",
    "snapshot.diff": "name",
    "snapshot.ranges": "name",
    "snapshot.hold": "name",
    "snapshot.release": "name",
    "snapshot.policy.set": "name",
    "snapshot.policy.show": "name",
    "snapshot.policy.remove": "name",
    "quota.set": "name",
    "quota.show": "name",
    "quota.clear": "name",
    "disk.create": "volume",
    "disk.show": "volume",
    "disk.diff": "volume",
    "disk.resize": "volume",
    "disk.snapshot": "volume",
    "disk.clone": "volume",
    "disk.delete": "volume",
}
AT_EVERY_HOME = (
    "quota.list",
    "snapshot.policy.list",
    "quota.account.set",
    "quota.account.clear",
)  # what they list together


def routed(verbs: Mapping[str, Verb[Node]]) -> dict[str, Verb[Node]]:
    """Return the verbs of a node in a cluster: those about a volume are done at its home."""
    table = dict(verbs)
    for name, key in BY_VOLUME.items():
        table[name] = _at_home(name, verbs[name], key)
    for name in AT_EVERY_HOME:
        table[name] = _at_every_home(name, verbs[name])
    table["volume.list"] = _volume_list(verbs["volume.list"])
    table["events.status"] = _events_status(verbs["events.status"])
    table["disk.list"] = _disk_list(verbs["disk.list"])
    return {**table, **VERBS}


Run = Callable[["Node", Any, Progress], Awaitable[object]]


def _at_home(name: str, verb: Verb[Node], key: str) -> Verb[Node]:
    @wraps(verb.run)
    async def run(node: Node, arguments: Any, progress: Progress) -> object:
        volume: str = getattr(arguments, key)
        members = _members(node)
        if name == "volume.create":
            return await _created(node, members, volume, name, verb, arguments, progress)
        domain = await members.router.domain_of(volume, fresh=True)
        if name == "volume.clone":
            assert node.homes is not None, "a node with members has homes"
            target: str = arguments.target
            if await directory.claim(node.homes.shared, target, domain) != domain:
                raise AlreadyExists(f"there is a volume {target!r}, in another domain")
        version = 0
        if name == "volume.delete":
            _, version = await directory.look_up(members.router.homes.shared, volume)
        result = await _done(members, domain, name, verb, arguments, progress)
        if name == "volume.delete":
            await directory.give_up(members.router.homes.shared, volume, version)
            members.router.forget(volume)
        return result

    return replace(verb, run=run)


async def _created(
    node: Node,
    members: Members,
    volume: str,
    name: str,
    verb: Verb[Node],
    arguments: Any,
    progress: Progress,
) -> object:
    homes = members.router.homes
    if homes.own < 0:
        raise Unavailable(f"volume {volume!r} cannot be made here: this node keeps none")
    domain = await directory.claim(homes.shared, volume, homes.own)
    members.router.forget(volume)
    try:
        return await _done(members, domain, name, verb, arguments, progress)
    except AlreadyExists:
        raise
    except WarpError:
        views, _ = await members.router.views(domain)
        _, version = await directory.look_up(homes.shared, volume)
        try:
            await views.objects.volume(volume)
        except VolumeNotFound:  # nothing was made: the name is free
            await directory.give_up(homes.shared, volume, version)
            members.router.forget(volume)
        raise


async def _done(
    members: Members,
    domain: int,
    name: str,
    verb: Verb[Node],
    arguments: Any,
    progress: Progress,
) -> object:
    """Do a verb at a domain's home, here or elsewhere."""
    holder = await members.router.homes.holder_of(domain)
    if holder.local is not None:
        return await verb.run(members.of_stack(holder.local), arguments, progress)
    views, _ = await members.router.views(domain)
    answer = await views.commands.run(name, msgspec.json.encode(arguments))
    return msgspec.json.decode(answer)


async def _of_all(
    node: Node,
    name: str,
    verb: Verb[Node],
    arguments: Any,
    progress: Progress,
    at_rest: AtRestRows,
) -> list[Any]:
    """Return what the homes of all domains list; of a domain without one what its rows say, with the reason."""
    members = _members(node)
    homes = members.router.homes

    async def one(domain: int) -> list[Any]:
        try:
            await members.router.views(domain, patience_s=LISTING_PATIENCE_S)
            found = await _done(members, domain, name, verb, arguments, progress)
        except Unavailable as error:
            return [
                {**row, "unreachable": str(error)} for row in await at_rest(homes.at_rest(domain))
            ]
        return found if isinstance(found, list) else []

    parts = await asyncio.gather(*map(one, homes.domains()))
    return [each for part in parts for each in part]


AtRestRows = Callable[[AtRest], Awaitable[list[dict[str, object]]]]


def _at_every_home(name: str, verb: Verb[Node]) -> Verb[Node]:
    @wraps(verb.run)
    async def run(node: Node, arguments: Any, progress: Progress) -> object:
        members = _members(node)
        parts = await asyncio.gather(
            *(
                _done(members, domain, name, verb, arguments, progress)
                for domain in members.router.homes.domains()
            )
        )
        found = [each for part in parts if isinstance(part, list) for each in part]
        return sorted(found, key=lambda each: str(each["name"]))

    return replace(verb, run=run)


def _volume_list(verb: Verb[Node]) -> Verb[Node]:
    async def at_rest(domain: AtRest) -> list[dict[str, object]]:
        return [volume_row(each) for each in await domain.volumes()]

    @wraps(verb.run)
    async def run(node: Node, arguments: Any, progress: Progress) -> object:
        found = await _of_all(node, "volume.list", verb, arguments, progress, at_rest)
        return sorted(found, key=lambda each: str(each["name"]))

    return replace(verb, run=run)


def _events_status(verb: Verb[Node]) -> Verb[Node]:
    async def at_rest(domain: AtRest) -> list[dict[str, object]]:
        return [
            event_row(each.name, "", None, state="has no home now")
            for each in await domain.infos()
            if NOTIFICATIONS in each.documents
        ]

    @wraps(verb.run)
    async def run(node: Node, arguments: Any, progress: Progress) -> object:
        found = await _of_all(node, "events.status", verb, arguments, progress, at_rest)
        return sorted(found, key=lambda each: (str(each["name"]), str(each["target"])))

    return replace(verb, run=run)


def _disk_list(verb: Verb[Node]) -> Verb[Node]:
    @wraps(verb.run)
    async def run(node: Node, arguments: Any, progress: Progress) -> object:
        async def at_rest(domain: AtRest) -> list[dict[str, object]]:
            return [disk_row(node, each) for each in await domain.disks()]

        if not arguments.volume:
            return await _of_all(node, "disk.list", verb, arguments, progress, at_rest)
        domain = await _members(node).router.domain_of(arguments.volume, fresh=True)
        return await _done(_members(node), domain, "disk.list", verb, arguments, progress)

    return replace(verb, run=run)


VERBS: Mapping[str, Verb[Node]] = {
    "node.token": Verb(NewToken, token),
    "node.list": Verb(Nothing, listing),
    "node.take": Verb(Take, take),
    "node.remove": Verb(Remove, remove),
}
