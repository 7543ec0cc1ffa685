"""From a file, the environment and the command line to `Settings`, or to every error at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from warp_core.config.checks import check
from warp_core.config.decode import decode, meant
from warp_core.config.model import (
    ACCOUNTS_MAX,
    LABEL,
    STORES_MAX,
    TARGETS_MAX,
    AuditLog,
    Cluster,
    DescribedAccount,
    Export,
    Exported,
    Kms,
    Log,
    Metadata,
    Mounts,
    Named,
    NamedTarget,
    Node,
    Part,
    Peers,
    Policy,
    Sealed,
    Settings,
    StorageClass,
)
from warp_core.config.positions import Path as Keys
from warp_core.config.source import Problem, Source, dotted, read
from warp_core.config.types import Secret
from warp_core.errors import ConfigError, NotFound, PluginError
from warp_core.registry import Registries
from warp_core.views.classes import STANDARD, STORAGE_CLASSES

TABLES = (
    "node",
    "log",
    "audit",
    "metadata",
    "store",
    "policy",
    "storage_class",
    "codecs",
    "transports",
    "peers",
    "mounts",
    "export",
    "cluster",
    "protocols",
    "services",
    "auth",
    "kms",
    "account",
    "event_target",
)
EVENTS = "events"  # the service that delivers to [[event_target]]s
KEY_SERVICE = "kms"  # what `[kms]` means where it does not say `kind`
DEFAULT_STORE: Mapping[str, object] = {"kind": "disk", "path": "store"}


class Catalog(Protocol):
    """What is installed (`warp_core.plugins.Plugins`)."""

    @property
    def registries(self) -> Registries:
        """Registries by kind."""

    def names(self, kind: str) -> list[str]:
        """Return the installed names of a kind."""


def load(
    file: Path | None,
    *,
    catalog: Catalog,
    environ: Mapping[str, str],
    options: Sequence[tuple[str, str]] = (),
) -> Settings:
    """Return the settings of a node; without a file, those of the default server.

    Args:
        file: The TOML file, or None.
        catalog: The plugins that names are looked up in; those that are named get loaded.
        environ: The process environment.
        options: Keys and values of the command line, over everything else.

    Raises:
        ConfigError: Something is wrong; the message has a line for each problem.
    """
    source = read(file, environ=environ, options=options)
    settings = _Loading(source, catalog, file).settings(environ)
    if source.problems or settings is None:
        problems = sorted(source.problems, key=_place)
        raise ConfigError("\n".join(str(problem) for problem in problems), problems=problems)
    return settings


class _Loading:
    def __init__(self, source: Source, catalog: Catalog, file: Path | None) -> None:
        self.source = source
        self.catalog = catalog
        self.file = file

    def settings(self, environ: Mapping[str, str]) -> Settings | None:
        source, document = self.source, self.source.document
        for key in document:
            if key == "stores":
                source.problem((key,), "unknown table", allowed="[[store]], once for each disk")
            elif key not in TABLES:
                hint = meant(key, TABLES)
                source.problem((key,), f"unknown table{hint}", allowed=", ".join(TABLES))
        node = decode(source, ("node",), document.get("node", {}), Node)
        log = decode(source, ("log",), document.get("log", {}), Log)
        audit = decode(source, ("audit",), document.get("audit", {}), AuditLog)
        data = self._data(node or Node())
        metadata, engine = self._metadata(document.get("metadata", {}))
        cluster = None
        if "cluster" in document:
            cluster = decode(source, ("cluster",), document["cluster"], Cluster)
        witness = cluster is not None and cluster.witness
        if witness:
            self._nothing_to_keep(document)
        stores = [] if witness else self._stores(document.get("store", None))
        policies = self._policies(document.get("policy", {}))
        protocols = [] if witness else self._protocols(document.get("protocols", None))
        services = self._services(document.get("services", {}))
        codecs = self._codecs(document.get("codecs", {}))
        transports = self._transports(document.get("transports", {}))
        peers = decode(source, ("peers",), document.get("peers", {}), Peers)
        mounts = decode(source, ("mounts",), document.get("mounts", {}), Mounts)
        exports = self._exports(document.get("export", []))
        auth = self._auth(document.get("auth", {}))
        kms = self._kms(document.get("kms", None))
        accounts = self._accounts(document.get("account", []))
        targets = self._targets(document.get("event_target", []), services)
        root = self._root(environ)
        if node is None or log is None or metadata is None or engine is None or auth is None:
            return None
        said = {
            dotted(path): origin for path in _paths(document, ()) if (origin := source.said(path))
        }
        settings = Settings(
            file=self.file,
            data=data,
            node=node,
            log=log,
            metadata=metadata,
            engine=engine,
            stores=tuple(stores),
            policies=policies,
            storage_classes=self._classes(document.get("storage_class", {}), policies),
            protocols=tuple(protocols),
            services=tuple(services),
            codecs=codecs,
            auth=auth,
            root=root,
            transports=tuple(transports),
            peers=peers or Peers(),
            mounts=mounts or Mounts(),
            exports=tuple(exports),
            cluster=cluster,
            accounts=tuple(accounts),
            kms=kms or Sealed(),
            targets=tuple(targets),
            audit=audit or AuditLog(),
            origins=said,
        )
        if not source.problems:  # what is judged over all tables would only repeat them
            check(settings, source, self.catalog.registries)
        return settings

    def _data(self, node: Node) -> Path:
        origin = self.source.said(("node", "data"))
        written_in_file = origin is not None and origin.startswith(self.source.label)
        start = self.file.parent if self.file and written_in_file else Path.cwd()
        return Path(start, Path(node.data).expanduser()).resolve()

    def _metadata(self, table: object) -> tuple[Metadata | None, Part | None]:
        path: Keys = ("metadata",)
        own, rest = _split(table, Metadata.__struct_encode_fields__)
        metadata = decode(self.source, path, own, Metadata)
        if metadata is None:
            return None, None
        return metadata, self._part("consistency", metadata.engine, path, rest, said="engine")

    def _nothing_to_keep(self, document: Mapping[str, object]) -> None:
        """Note what a witness says that it has and may not have."""
        for key in ("store", "export", "protocols"):
            if document.get(key):
                self.source.problem(
                    (key,),
                    "is said, but a witness keeps and serves nothing",
                    allowed="no such table",
                )

    def _stores(self, tables: object) -> list[Part]:
        source = self.source
        if tables is None:
            tables = [dict(DEFAULT_STORE)]
        if not isinstance(tables, list):
            source.problem(
                ("store",), "is no list of tables", allowed="[[store]], once for each disk"
            )
            return []
        if not 1 <= len(tables) <= STORES_MAX:
            source.problem(("store",), "wrong number of stores", allowed=f"1 to {STORES_MAX}")
        parts: list[Part] = []
        for index, table in enumerate(tables):
            own, rest = _split(table, ("kind", "name"))
            kind = own.get("kind", "disk")
            if not isinstance(kind, str):
                source.problem(
                    ("store", index, "kind"), "the wrong type", found=kind, allowed="text"
                )
                continue
            part = self._part("stores", kind, ("store", index), rest, said="kind")
            label = self._label(("store", index, "name"), own.get("name", ""), parts)
            if part is not None:
                parts.append(replace(part, label=label))
        return parts

    def _label(self, path: Keys, label: object, before: Sequence[Part]) -> str:
        """Return what storage classes call a store."""
        if label == "":
            return ""
        if not isinstance(label, str) or not re.match(LABEL, label):
            self.source.problem(
                path, "is no name of a store", found=label, allowed="1 to 64 of A-Z a-z 0-9 . _ -"
            )
            return ""
        if any(part.label == label for part in before):
            self.source.problem(
                path, "is taken by another [[store]]", found=label, allowed="another name"
            )
        return label

    def _policies(self, tables: object) -> dict[str, Policy]:
        policies = {"default": Policy()}
        for name, table in self._tables("policy", tables).items():
            policy = decode(self.source, ("policy", name), table, Policy)
            if policy is not None:
                policies[name] = policy
        return policies

    def _classes(self, tables: object, policies: Mapping[str, Policy]) -> dict[str, StorageClass]:
        found: dict[str, StorageClass] = {}
        for name, table in self._tables("storage_class", tables).items():
            if name not in STORAGE_CLASSES - {STANDARD}:
                allowed = ", ".join(sorted(STORAGE_CLASSES - {STANDARD}))
                self.source.problem(("storage_class", name), "is no class", allowed=allowed)
                continue
            made = decode(self.source, ("storage_class", name), table, StorageClass)
            if made is None:
                continue
            if not made.policy and not made.stores and not made.archive:
                self.source.problem(
                    ("storage_class", name),
                    "says nothing about its contents",
                    allowed="policy, stores or archive",
                )
                continue
            if made.policy and made.policy not in policies:
                self.source.problem(
                    ("storage_class", name, "policy"),
                    "is no policy",
                    found=made.policy,
                    allowed=", ".join(policies),
                )
                continue
            found[name] = made
        return found

    def _protocols(self, tables: object) -> list[Part]:
        named = self._tables("protocols", {} if tables is None else tables)
        if self.file is not None and not tables and "export" not in self.source.document:
            installed = ", ".join(f"[protocols.{name}]" for name in self.catalog.names("protocols"))
            self.source.problem(
                ("protocols",),
                "no protocol is configured, so nothing would be served",
                allowed=installed,
            )
        if self.file is None:
            # The default server offers what is installed and needs no privilege.
            for name in self.catalog.names("protocols"):
                if name not in named and self._by_default("protocols", name):
                    named[name] = {}
            if not named:
                self.source.problem(
                    ("protocols",),
                    "no protocol is installed that loads, so nothing would be served",
                    allowed="see `warp plugin list`",
                )
        parts = [
            self._part("protocols", name, ("protocols", name), table)
            for name, table in named.items()
        ]
        return [part for part in parts if part is not None]

    def _services(self, tables: object) -> list[Part]:
        named = self._tables("services", tables)
        for name in self.catalog.names("services"):
            if name not in named and self._by_default("services", name):
                named[name] = {}
        parts = []
        for name, table in named.items():
            own, rest = _split(table, ("enabled",))
            enabled = own.get("enabled", True)
            if not isinstance(enabled, bool):
                self.source.problem(
                    ("services", name, "enabled"),
                    "wrong type",
                    found=enabled,
                    allowed="true or false",
                )
            part = self._part("services", name, ("services", name), rest)
            if part is not None and self.catalog.registries["services"].get(name).takes_events:
                self.source.problem(
                    ("services", name),
                    "is no service but what events go to",
                    allowed=f'[[event_target]] with kind = "{name}"',
                )
            elif part is not None and enabled:
                parts.append(part)
        return parts

    def _transports(self, tables: object) -> list[Part]:
        parts = [
            self._part("transports", name, ("transports", name), table)
            for name, table in self._tables("transports", tables).items()
        ]
        return [part for part in parts if part is not None]

    def _exports(self, tables: object) -> list[Export]:
        source = self.source
        if not isinstance(tables, list) or len(tables) > STORES_MAX:
            source.problem(
                ("export",),
                "is no list of tables",
                allowed=f"[[export]], once for each store, at most {STORES_MAX}",
            )
            return []
        exports = []
        for index, table in enumerate(tables):
            own, rest = _split(table, ("name", "to", "kind"))
            head = decode(source, ("export", index), own, Exported)
            if head is not None:
                part = self._part("stores", head.kind, ("export", index), rest, said="kind")
                if part is not None:
                    exports.append(Export(head.name, head.to, part))
        return exports

    def _codecs(self, tables: object) -> dict[str, msgspec.Struct]:
        parts = [
            self._part("codecs", name, ("codecs", name), table)
            for name, table in self._tables("codecs", tables).items()
        ]
        return {part.name: part.config for part in parts if part is not None}

    def _auth(self, table: object) -> Part | None:
        own, rest = _split(table, ("kind",))
        kind = own.get("kind", "keys")
        if not isinstance(kind, str):
            self.source.problem(
                ("auth", "kind"), "wrong type", found=kind, allowed="text in quotes"
            )
            return None
        return self._part("auth", kind, ("auth",), rest, said="kind")

    def _kms(self, table: object) -> Sealed | None:
        own, rest = _split({} if table is None else table, Kms.__struct_encode_fields__)
        kms = decode(self.source, ("kms",), own, Kms)
        if kms is None:
            return None
        if not kms.kind and table is None and KEY_SERVICE not in self.catalog.names("auth"):
            return Sealed(None, kms.cipher, kms.remember)
        part = self._part("auth", kms.kind or KEY_SERVICE, ("kms",), rest, said="kind")
        return Sealed(part, kms.cipher, kms.remember)

    def _accounts(self, tables: object) -> list[DescribedAccount]:
        source = self.source
        if not isinstance(tables, list) or len(tables) > ACCOUNTS_MAX:
            source.problem(
                ("account",),
                "is no list of tables",
                allowed=f"[[account]], once for each account, at most {ACCOUNTS_MAX}",
            )
            return []
        found = [
            decode(source, ("account", index), table, DescribedAccount)
            for index, table in enumerate(tables)
        ]
        return [each for each in found if each is not None]

    def _targets(self, tables: object, services: Sequence[Part]) -> list[NamedTarget]:
        source = self.source
        if not isinstance(tables, list) or len(tables) > TARGETS_MAX:
            source.problem(
                ("event_target",),
                "is no list of tables",
                allowed=f"[[event_target]], once for each target, at most {TARGETS_MAX}",
            )
            return []
        if tables and EVENTS not in [part.name for part in services]:
            source.problem(
                ("event_target",),
                "nobody delivers events here",
                allowed="the plugin warp-events, and not `enabled = false` in [services.events]",
            )
        found: dict[str, NamedTarget] = {}
        for index, table in enumerate(tables):
            here: Keys = ("event_target", index)
            own, rest = _split(table, Named.__struct_encode_fields__)
            head = decode(source, here, own, Named)
            if head is None:
                continue
            if head.name in found:
                source.problem(
                    (*here, "name"),
                    "is taken by another [[event_target]]",
                    found=head.name,
                    allowed="another name",
                )
            kinds = self._kinds_of_targets()
            if head.kind not in kinds:
                source.problem(
                    (*here, "kind") if source.said((*here, "kind")) else here,
                    f'no event target of kind "{head.kind}" is installed{meant(head.kind, kinds)}',
                    allowed=", ".join(kinds) or "none is installed",
                )
                continue
            part = self._part("services", head.kind, here, rest, said="kind")
            if part is not None:
                found[head.name] = NamedTarget(head.name, part)
        return list(found.values())

    def _kinds_of_targets(self) -> list[str]:
        registry = self.catalog.registries["services"]
        kinds = []
        for name in self.catalog.names("services"):
            try:
                if registry.get(name).takes_events:
                    kinds.append(name)
            except PluginError:
                continue
        return kinds

    def _root(self, environ: Mapping[str, str]) -> tuple[str, Secret] | None:
        access, secret = environ.get("WARP_ACCESS_KEY", ""), environ.get("WARP_SECRET_KEY", "")
        if not access and not secret:
            return None
        if not access or not secret:
            missing = "WARP_SECRET_KEY" if access else "WARP_ACCESS_KEY"
            self.source.problem(
                (missing,), "is not set, but its other half is", allowed="both or none"
            )
            return None
        if not 3 <= len(access) <= 128 or not access.isascii() or not access.isalnum():
            self.source.problem(
                ("WARP_ACCESS_KEY",),
                "not an access key",
                found=access,
                allowed="3 to 128 letters and digits",
            )
            return None
        try:
            return access, Secret.parse(secret)
        except ValueError as error:
            self.source.problem(("WARP_SECRET_KEY",), str(error), allowed=Secret.ALLOWED)
            return None

    def _tables(self, key: str, tables: object) -> dict[str, Any]:
        if isinstance(tables, dict):
            return dict(tables)
        self.source.problem((key,), "is no table", found=tables, allowed=f"[{key}.NAME]")
        return {}

    def _by_default(self, kind: str, name: str) -> bool:
        """Say whether an unnamed plugin takes part; a broken one does not, and shows in `plugin list`."""
        try:
            return bool(self.catalog.registries[kind].get(name).by_default)
        except PluginError:
            return False

    def _part(
        self, kind: str, name: str, path: Keys, table: object, *, said: str = ""
    ) -> Part | None:
        """Look a plugin up and decode its table; `said` is the key that named it, if one did."""
        here = (*path, said) if said and self.source.said((*path, said)) else path
        names = self.catalog.names(kind)
        if name not in names:
            hint = meant(name, names)
            self.source.problem(
                here,
                f'no {kind} plugin "{name}" is installed{hint}',
                allowed=", ".join(names) or "none is installed",
            )
            return None
        try:
            entry = self.catalog.registries[kind].get(name)
        except (PluginError, NotFound) as error:
            self.source.problem(here, str(error))
            return None
        config = decode(self.source, path, table, entry.config)
        return None if config is None else Part(kind, name, config, dotted(path))


def _place(problem: Problem) -> tuple[str, int]:
    label, _, line = problem.where.rpartition(":")
    return (label, int(line)) if line.isdecimal() else (problem.where, 0)


def _split(table: object, own: Sequence[str]) -> tuple[Any, Any]:
    """Part a table into the keys that core owns and those that belong to the plugin."""
    if not isinstance(table, dict):
        return table, {}
    mine = {key: value for key, value in table.items() if key in own}
    return mine, {key: value for key, value in table.items() if key not in own}


def _paths(value: object, path: Keys) -> list[Keys]:
    own = [path] if path else []
    if isinstance(value, dict):
        return own + [deep for key, item in value.items() for deep in _paths(item, (*path, key))]
    if isinstance(value, list):
        return own + [deep for i, item in enumerate(value) for deep in _paths(item, (*path, i))]
    return own
