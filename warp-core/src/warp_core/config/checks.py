"""What settings must be beyond having the right types: judged over all tables together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from warp_core.config.codecs import build_codec
from warp_core.config.model import Listening, Part, Policy, Settings
from warp_core.config.positions import Path as Keys
from warp_core.config.source import Source
from warp_core.config.types import Address, Codec
from warp_core.errors import InvalidArgument, NotFound, PluginError, WarpError
from warp_core.interfaces.accounts import Account, Accounts
from warp_core.interfaces.codecs import Cipher
from warp_core.registry import Registries

# Secrets that others' documentation prints; whoever scans the network tries these first.
WELL_KNOWN_SECRETS = frozenset(
    (
        "minioadmin",
        "minio123",
        "adminadmin",
        "password",
        "password1",
        "passw0rd",
        "changeme",
        "changeit",
        "secretkey",
        "secret-key",
        "supersecret",
        "testtest",
        "12345678",
        "123456789",
        "any-secret",
        "rustfsadmin",
        "ceph-admin",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
)


def check(settings: Settings, source: Source, registries: Registries) -> None:
    """Note every problem of settings that are complete."""
    _stores(settings, source)
    _classes(settings, source, registries)
    _exports(settings, source)
    _mounts(settings, source)
    _accounts(settings, source)
    _listening(settings, source)
    # A witness has no stores; that classes have all of them is told already.
    for name, policy in settings.policies.items() if settings.common_stores else ():
        _policy(settings, source, registries, name, policy)
    stores = len(settings.common_stores)
    if settings.metadata.copies > stores:
        source.problem(
            ("metadata", "copies"),
            f"more copies than stores ({stores})",
            found=settings.metadata.copies,
            allowed=f"at most {stores}; add a [[store]] for each further copy",
        )


def _classes(settings: Settings, source: Source, registries: Registries) -> None:
    """Note what is wrong with the stores of storage classes."""
    labels = {part.label for part in settings.stores if part.label}
    named: set[str] = set()
    for name, each in settings.storage_classes.items():
        here: Keys = ("storage_class", name)
        for index, label in enumerate(each.stores):
            if label not in labels:
                source.problem(
                    (*here, "stores", index),
                    "is the name of no [[store]]",
                    found=label,
                    allowed=", ".join(sorted(labels)) or 'name = "..." in a [[store]]',
                )
            elif label in each.stores[:index]:
                source.problem(
                    (*here, "stores", index), "is said twice", found=label, allowed="each once"
                )
        if each.stores and each.copies > len(each.stores):
            source.problem(
                (*here, "copies"),
                f"more copies than stores of the class ({len(each.stores)})",
                found=each.copies,
                allowed=f"at most {len(each.stores)}",
            )
        if not each.stores and each.copies != 1:
            source.problem(
                (*here, "copies"),
                "is said of a class without stores of its own",
                found=each.copies,
                allowed="stores, or a policy with redundancy",
            )
        if each.stores and settings.cluster is not None:
            source.problem(
                (*here, "stores"),
                "is for a node alone, but [cluster] makes this node one of several",
                found=", ".join(each.stores),
                allowed="a policy",
            )
        named.update(each.stores)
    for index, part in enumerate(settings.stores):
        if part.label not in named and registries["stores"].get(part.name).whole_only:
            source.problem(
                ("store", index),
                "keeps whole blobs only, and no storage class names it",
                found=part.label or part.name,
                allowed='a name, and [storage_class.GLACIER] with stores = ["that name"]',
            )
    for index, export in enumerate(settings.exports):
        if registries["stores"].get(export.part.name).whole_only:
            source.problem(
                ("export", index),
                "keeps whole blobs only, so no other node could write to it",
                found=export.part.name,
                allowed='kind = "disk"',
            )
    if settings.stores and not settings.common_stores:
        source.problem(
            ("store",),
            "storage classes have all stores for themselves",
            allowed="a [[store]] that none of them names, for everything else",
        )


def _stores(settings: Settings, source: Source) -> None:
    taken: dict[Path, Keys] = {}
    tables: list[tuple[Keys, Part]] = [
        (("store", index), part) for index, part in enumerate(settings.stores)
    ]
    tables += [(("export", index), each.part) for index, each in enumerate(settings.exports)]
    for table, part in tables:
        written = msgspec.structs.asdict(part.config).get("path")
        if not isinstance(written, str | Path) or not str(written):
            continue
        here: Keys = (*table, "path")
        path = Path(settings.data, Path(written).expanduser()).resolve()
        if path == settings.data:
            source.problem(
                here,
                "is the node's data directory itself",
                found=str(written),
                allowed="a folder of its own",
            )
        for other, there in taken.items():
            if path == other or other in path.parents or path in other.parents:
                source.problem(
                    here,
                    f"the same disk space as {source.where(there)}: two stores that share a folder"
                    " would count as two copies",
                    found=str(written),
                    allowed="one folder for each store, none inside another",
                )
        taken[path] = here


def _exports(settings: Settings, source: Source) -> None:
    if settings.exports and not settings.peers.listen and settings.cluster is None:
        source.problem(
            ("peers", "listen"),
            "is not said, but [[export]] names a store for other nodes",
            allowed='an address, such as "10.0.0.1:7400"',
        )
    if settings.cluster is not None and not settings.peers.listen:
        source.problem(
            ("peers", "listen"),
            "is not said, but [cluster] makes this node one of several",
            allowed='an address, such as "10.0.0.1:7400"',
        )
    if settings.peers.listen and not settings.exports and settings.cluster is None:
        source.problem(
            ("peers", "listen"),
            "no store is exported",
            found=settings.peers.listen,
            allowed="an [[export]] with name, to and path",
        )
    names = [export.name for export in settings.exports]
    for index, name in enumerate(names):
        if name in names[:index]:
            source.problem(
                ("export", index, "name"),
                "is taken by another [[export]]",
                found=name,
                allowed="another name",
            )


def _mounts(settings: Settings, source: Source) -> None:
    """Note an address that clients could not be told."""
    listen = settings.mounts.listen
    host, _, port = listen.rpartition(":")
    if not listen or (host.strip("[]") not in ("0.0.0.0", "::", "*", "") and port.isdecimal()):
        return
    source.problem(
        ("mounts", "listen"),
        "clients are told this address and have to reach it",
        found=listen,
        allowed='HOST:PORT of one address of this node, such as "10.0.0.1:7410"',
    )


def _accounts(settings: Settings, source: Source) -> None:
    """Note what two `[[account]]` tables may not share."""
    names: dict[str, int] = {}
    keys: dict[str, int] = {settings.root[0]: -1} if settings.root else {}
    before: list[Account] = []
    for index, each in enumerate(settings.accounts):
        if each.name in names:
            source.problem(
                ("account", index, "name"),
                f"is taken by account[{names[each.name]}]",
                found=each.name,
                allowed="another name",
            )
            continue
        names[each.name] = index
        try:
            Accounts(before).check_free(each.account())
        except InvalidArgument as error:
            source.problem(("account", index), str(error), allowed="one of its own for each")
        before.append(each.account())
        for place, key in enumerate(each.keys):
            if key.access_key in keys:
                source.problem(
                    ("account", index, "keys", place),
                    "is an access key of another account",
                    found=key.access_key,
                    allowed="an access key for each",
                )
            keys[key.access_key] = index


def _listening(settings: Settings, source: Source) -> None:
    taken: dict[str, Keys] = {}
    open_to_others = False
    for part in settings.protocols:
        for name, address in _addresses(part):
            here: Keys = ("protocols", part.name, name)
            if address in taken and (address.port or address.path):
                source.problem(
                    here,
                    f"taken by {source.where(taken[address])}",
                    found=str(address),
                    allowed="an address of its own",
                )
            taken[address] = here
            open_to_others |= not address.loopback
        if isinstance(part.config, Listening):
            _tls(settings, source, part, part.config)
    if not open_to_others or settings.node.allow_weak_secret:
        return
    secrets: list[tuple[Keys, str]] = [
        (("account", index, "keys", place, "secret"), key.secret)
        for index, each in enumerate(settings.accounts)
        for place, key in enumerate(each.keys)
    ]
    if settings.root:
        secrets.append((("WARP_SECRET_KEY",), settings.root[1]))
    for where, secret in secrets:
        if secret in WELL_KNOWN_SECRETS:
            source.problem(
                where,
                "a well-known secret, while a protocol listens beyond loopback",
                allowed="a secret of your own, or `allow_weak_secret = true` in [node]",
            )


def _addresses(part: Part) -> Iterator[tuple[str, Address]]:
    for name, value in msgspec.structs.asdict(part.config).items():
        if isinstance(value, Address):
            yield name, value


def _tls(settings: Settings, source: Source, part: Part, config: Listening) -> None:
    path: Keys = ("protocols", part.name)
    if bool(config.tls_certificate) != bool(config.tls_key):
        missing = "tls_key" if config.tls_certificate else "tls_certificate"
        source.problem(
            path, f'the key "{missing}" is missing', allowed="both or none of the two files"
        )
    for name, file in (("tls_certificate", config.tls_certificate), ("tls_key", config.tls_key)):
        if file and not Path(settings.data, file).is_file():
            source.problem(
                (*path, name),
                "no such file",
                found=file,
                allowed="a PEM file, relative to node.data",
            )
    if not config.listen.loopback and not config.tls_certificate and not config.allow_plaintext:
        source.problem(
            (*path, "listen"),
            "reachable from other machines without TLS",
            found=str(config.listen),
            allowed="a loopback address, or `tls_certificate` and `tls_key`, or `allow_plaintext = true`",
        )


def _policy(
    settings: Settings, source: Source, registries: Registries, name: str, policy: Policy
) -> None:
    path: Keys = ("policy", name)
    stores = len(settings.common_stores)
    if policy.redundancy.striped:
        source.problem(
            (*path, "redundancy"),
            "no erasure codec is installed",
            found=str(policy.redundancy),
            allowed='"none" or "replica:N"',
        )
    elif policy.redundancy.stores > stores:
        source.problem(
            (*path, "redundancy"),
            f"takes {policy.redundancy.stores} stores, {stores} configured",
            found=str(policy.redundancy),
            allowed=f'"replica:{stores}" or fewer, or more [[store]] tables'
            if stores > 1
            else '"none", or more [[store]] tables',
        )
    if policy.dedup != "off":
        source.problem(
            (*path, "dedup"), "no deduplication is installed", found=policy.dedup, allowed='"off"'
        )
    _codec(settings, source, registries, (*path, "chunker"), policy.chunker, "chunker")
    stages: list[str] = []
    for index, spec in enumerate(policy.filters):
        here: Keys = (*path, "filters", index)
        codec = _codec(settings, source, registries, here, spec, "filter")
        if codec is None:
            continue
        if stages and stages[-1] == "encrypt" and codec.stage == "compress":
            source.problem(
                here,
                "compresses what is encrypted already, which gains nothing",
                found=str(spec),
                allowed="compress first, then encrypt",
            )
        if isinstance(codec, Cipher) and not codec.keyed:
            source.problem(
                here,
                "has no key",
                found=str(spec),
                allowed=f"key_file in [codecs.{spec.name}], made by `warp kms master FILE`",
            )
        stages.append(codec.stage)


def _codec(
    settings: Settings,
    source: Source,
    registries: Registries,
    path: Keys,
    spec: Codec,
    shape: str,
) -> Any:
    """Build a codec to see whether it is there, of the right shape, and takes its arguments."""
    try:
        codec = build_codec(settings, registries, spec)
    except (NotFound, PluginError) as error:
        source.problem(path, str(error), found=str(spec))
        return None
    except (WarpError, ValueError) as error:
        source.problem(path, f"{spec.name} refuses its arguments: {error}", found=str(spec))
        return None
    if codec.shape != shape:
        source.problem(
            path,
            f"{spec.name} is a {codec.shape}",
            found=str(spec),
            allowed=f"the name of a {shape}",
        )
        return None
    return codec
