"""Configuration files that `warp node found` and `warp node join` write, and what a partner's gets when a node joins."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from warp_core.cluster.joining import Partner, Welcome
from warp_core.errors import ConfigError

DEFAULT_PEERS_PORT = 7400
DEFAULT_METADATA_PORT = 2380

NBD_OVER_TCP = {"auth": "none"}  # NBD knows no identity, and a file has to say so


def founder(
    *,
    name: str,
    data: Path,
    listen: str,
    metadata: str,
    protocols: Mapping[str, str],
    lease: str = "",
) -> str:
    """Return the file of a cluster's first node.

    Args:
        name: Of the node.
        data: Its data folder.
        listen: HOST:PORT where other nodes reach it.
        metadata: HOST:PORT where other members of etcd reach its own.
        protocols: Name → where it listens.
        lease: After how long a silent home is taken over from; "": the default.
    """
    return "\n".join(
        (
            "# Written by `warp node found`: the first node of a cluster.",
            *_table("node", {"name": name, "data": str(data)}),
            *_table("metadata", {"engine": "etcd", "listen": metadata, "name": name}),
            *_table("cluster", {"lease": lease} if lease else {}),
            *_table("peers", {"listen": listen}),
            *_table("[store]", {"kind": "disk", "path": "store"}),
            *_protocols(protocols),
            "",
        )
    )


def joined(
    welcome: Welcome,
    *,
    name: str,
    data: Path,
    listen: str,
    protocols: Mapping[str, str],
    witness: bool,
) -> str:
    """Return the file of a node that was let in."""
    cluster = dict(welcome.cluster)
    if witness:
        cluster["witness"] = True
    lines = [
        "# Written by `warp node join`.",
        *_table("node", {"name": name, "data": str(data)}),
        *_table("metadata", {"engine": welcome.engine, **welcome.metadata}),
        *_table("cluster", cluster),
        *_table("peers", {"listen": listen}),
    ]
    for table, options in welcome.handed.tables.items():
        lines += _table(table, {option: str(data / name) for option, name in options.items()})
    if not witness:
        lines += _table("[store]", {"kind": "disk", "path": "store"})
        if welcome.partner is not None:
            lines += _pairing(name, welcome.partner)
        lines += _protocols(protocols)
    return "\n".join((*lines, ""))


def _pairing(name: str, partner: Partner) -> list[str]:
    lines = [
        "",
        f"# The second copy of everything, which node {partner.node} keeps.",
        *_store_of(partner),
    ]
    if partner.wants:
        lines += [
            "",
            f"# Room for the second copy of what node {partner.node} has.",
            *_room_for(partner.node, partner.wants),
        ]
    return lines


def _store_of(partner: Partner) -> list[str]:
    return _table(
        "[store]",
        {
            "kind": "peer",
            "node": partner.node,
            "address": partner.address,
            "transport": partner.transport,
            "export": partner.export,
        },
    )[1:]


def _room_for(node: str, export: str) -> list[str]:
    return _table("[export]", {"name": export, "path": export, "to": [node]})[1:]


def room(node: str) -> str:
    """Return the name under which a node finds room with another."""
    return f"for-{node}"


def room_of_domain(number: int) -> str:
    """Return the name of the room for a copy of a domain that its own node's file says nothing of."""
    return f"domain-{number}"


def add_partner(
    file: Path, *, joining: Partner, left: frozenset[str] = frozenset()
) -> tuple[bool, bool]:
    """Note in a node's own file that another joined: room for its copies, and its room for ours unless there is some already.

    Args:
        file: The node's configuration.
        joining: The node that joins, as this one will use it; `wants` is the room that it gets here.
        left: Nodes that left for good: room with them is none.

    Returns:
        Whether room was added, and whether its room is used.

    Raises:
        ConfigError: The file cannot be read or written.
    """
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
        exports = [each.get("name") for each in document.get("export", [])]
        stores = document.get("store", [])
        uses = not any(
            each.get("kind") == "peer" and each.get("node") not in left for each in stores
        )
        added: list[str] = []
        if joining.wants not in exports:
            added += [
                "",
                f"# Room for copies of node {joining.node}, since it joined.",
                *_room_for(joining.node, joining.wants),
            ]
        if uses:
            if not stores:  # the default, which a table would replace
                added += _table("[store]", {"kind": "disk", "path": "store"})
            added += [
                "",
                f"# The second copy of everything, with node {joining.node}, since it joined.",
                *_store_of(joining),
            ]
        if added:
            _replace(file, text.rstrip("\n") + "\n" + "\n".join((*added, "")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be changed for the node that joins: {error}") from error
    already = any(
        each.get("kind") == "peer" and each.get("node") == joining.node for each in stores
    )
    return joining.wants not in exports, uses or already


def add_room(file: Path, *, export: str, to: str) -> None:
    """Note in a node's own file that it has room for a copy, which another node may use; nothing changes if it says so already.

    Raises:
        ConfigError: The file cannot be read or written.
    """
    try:
        text = file.read_text(encoding="utf-8")
        exports = tomllib.loads(text).get("export", [])
        if all(each.get("name") != export for each in exports):
            added = [
                "",
                "# Room for a copy of what another node's failure left with one.",
                *_room_for(to, export),
            ]
            _replace(file, text.rstrip("\n") + "\n" + "\n".join((*added, "")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be changed for a copy: {error}") from error


def drop_left(file: Path, left: Collection[str], *, used: Collection[str]) -> list[str]:
    """Delete a node's tables about nodes that left for good: stores with them, and room for them that nothing lies in any more.

    A table stays if it cannot be told apart in the text, or if deleting it would change the number of a store of the node's own.

    Args:
        file: The node's configuration.
        left: Nodes that left.
        used: Names of exports in which a copy of some domain lies.

    Returns:
        What was deleted, for people.

    Raises:
        ConfigError: The file cannot be read or written.
    """
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
        stores, exports = document.get("store", []), document.get("export", [])
        last = max((at for at, each in enumerate(stores) if each.get("kind") != "peer"), default=-1)
        gone = {
            "store": [
                at
                for at, each in enumerate(stores)
                if at > last and each.get("kind") == "peer" and each.get("node") in left
            ],
            "export": [
                at
                for at, each in enumerate(exports)
                if set(each.get("to", [])) <= set(left) and each.get("name") not in used
            ],
        }
        if not any(gone.values()):
            return []
        wanted = dict(document)
        for kind, numbers in gone.items():
            kept = [each for at, each in enumerate(document.get(kind, [])) if at not in numbers]
            wanted.pop(kind, None)
            if kept:
                wanted[kind] = kept
        shorter = _without(text, gone)
        if tomllib.loads(shorter) != wanted:
            return []
        _replace(file, shorter)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be changed for a node that left: {error}") from error
    return [
        *(f"store with node {stores[at]['node']}" for at in gone["store"]),
        *(f"room {exports[at]['name']}" for at in gone["export"]),
    ]


_HEADER = re.compile(r"\s*\[\[?\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?\Z")


def _without(text: str, gone: Mapping[str, Collection[int]]) -> str:
    """Return a configuration without some tables of lists, and without the comment above each."""
    kept: list[str] = []
    seen: Counter[str] = Counter()
    dropping = False
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            name = header[1]
            dropping = seen[name] in gone.get(name, ()) if "[[" in line else False
            if "[[" in line:
                seen[name] += 1
            if dropping:
                while kept and (not kept[-1].strip() or kept[-1].startswith("#")):
                    kept.pop()
        elif dropping and line.startswith("#"):
            dropping = False  # the comment above what follows
            kept.append("")
        if not dropping:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _replace(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(file.stat().st_mode & 0o777)
    draft.replace(file)


def _protocols(protocols: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for name, listen in protocols.items():
        said: dict[str, object] = {"listen": listen}
        if name == "nbd" and not listen.startswith("unix:"):
            said |= NBD_OVER_TCP
        lines += _table(f"protocols.{name}", said)
    return lines


def _table(name: str, values: Mapping[str, object]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items())]


def _value(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{_text(key)} = {_value(each)}" for key, each in value.items()) + "}"
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(str(value))


def _text(text: str) -> str:
    """Return a TOML string: what JSON escapes, TOML escapes alike, and one character more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
