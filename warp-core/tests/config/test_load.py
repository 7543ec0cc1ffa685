"""Configuration: what a file means, and what every wrong one gets told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from warp_core.config import Address, Between, Duration, Listening, Secret, Settings, Size
from warp_core.config.load import load
from warp_core.config.show import effective
from warp_core.contexts import CodecContext
from warp_core.errors import ConfigError, InvalidArgument, PluginError
from warp_core.registry import KINDS, Entry, NoConfig, Registry


class S3(Listening, frozen=True, kw_only=True):
    listen: Address = Address("127.0.0.1:9000")
    head_max: Annotated[Size, Between("1KiB", "1MiB")] = Size(16384)
    idle: Duration = Duration(60)
    connections: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 4096
    domain: str = ""

    def __post_init__(self) -> None:
        if self.domain.startswith("."):
            raise ValueError("domain: starts with a dot")


class Nbd(Listening, frozen=True, kw_only=True):
    listen: Address = Address("127.0.0.1:10809")


class Disk(msgspec.Struct, frozen=True):
    path: str
    reserve: Size = Size(64 << 20)


class Keys(msgspec.Struct, frozen=True):
    pepper: Secret = Secret("long enough")


class Fixed:
    shape = "chunker"

    def __init__(self, config: object, context: CodecContext) -> None:
        if not context.arguments:
            raise InvalidArgument("size missing")


class Zstd:
    shape = "filter"
    stage = "compress"

    def __init__(self, config: object, context: CodecContext) -> None: ...


class Aes(Zstd):
    stage = "encrypt"


class Installed:
    """A catalog of plugins for tests; `broken` cannot be loaded."""

    def __init__(self) -> None:
        self.registries: Mapping[str, Registry[Any]] = {kind: Registry(kind) for kind in KINDS}
        offers: list[tuple[str, str, Any, Any]] = [
            ("protocols", "s3", object, S3),
            ("protocols", "nbd", object, Nbd),
            ("codecs", "fixed", Fixed, None),
            ("codecs", "zstd", Zstd, None),
            ("codecs", "aes-gcm", Aes, None),
            ("consistency", "local", object, None),
            ("stores", "disk", object, Disk),
            ("stores", "memory", object, None),
            ("auth", "keys", object, Keys),
            ("services", "gc", object, None),
        ]
        for kind, name, build, config in offers:
            self.registries[kind].add(Entry(name, build=build, config=config or NoConfig))
        self.registries["stores"].add(Entry("bucket", build=object, whole_only=True))
        self.registries["codecs"].get = self._get  # type: ignore[method-assign]

    def _get(self, name: str) -> Entry[Any]:
        if name == "broken":
            raise PluginError('codecs "broken" cannot be used: warp-broken 1.0 needs the module x')
        return Registry.get(self.registries["codecs"], name)

    def names(self, kind: str) -> list[str]:
        return sorted(entry.name for entry in self.registries[kind])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(
    text: str | None, *options: tuple[str, str], environ: Mapping[str, str] | None = None
) -> Settings:
    file = None
    if text is not None:
        file = Path("warp.toml").absolute()
        file.write_text(text)
    return load(file, catalog=Installed(), environ=environ or {}, options=options)


def test_without_a_file_every_protocol_is_offered_on_loopback(folder: Path) -> None:
    settings = loaded(None)

    assert [part.name for part in settings.protocols] == ["nbd", "s3"]
    assert [(part.name, part.config) for part in settings.stores] == [("disk", Disk("store"))]
    assert settings.data == folder / "warp-data"
    assert settings.engine.name == "local"
    assert [part.name for part in settings.services] == ["gc"]
    assert settings.metadata_copies == 1


FULL = """
[node]
name = "a"
data = "d"
drain = "2s"

[metadata]
engine = "local"

[[store]]
kind = "disk"
path = "/mnt/d0"
reserve = "1GiB"
[[store]]
path = "/mnt/d1"

[policy.default]
redundancy = "replica:2"
filters = ["zstd:3", "aes-gcm"]

[protocols.s3]
listen = "0.0.0.0:9000"
allow_plaintext = true
"""


def test_a_file_says_what_is_served(folder: Path) -> None:
    settings = loaded(FULL)

    assert settings.name == "a"
    assert settings.data == folder / "d"
    assert [part.config for part in settings.stores] == [
        Disk("/mnt/d0", Size(1 << 30)),
        Disk("/mnt/d1"),
    ]
    assert [part.name for part in settings.protocols] == ["s3"]
    assert settings.metadata_copies == 2
    assert settings.policies["default"].redundancy.tolerates == 1


def test_every_setting_tells_its_origin_and_no_secret_shows() -> None:
    settings = loaded(
        FULL + '\n[auth]\npepper = "hunter2hunter2"\n',
        ("protocols.s3.idle", "5s"),
        environ={
            "WARP_DATA": "elsewhere",
            "WARP_ACCESS_KEY": "root1",
            "WARP_SECRET_KEY": "hunter2hunter2",
        },
    )

    shown = {setting.key: (setting.value, setting.origin) for setting in effective(settings)}
    assert shown["node.name"] == ('"a"', "warp.toml:3")
    assert shown["node.data"][1] == "environment WARP_DATA"
    assert shown["node.data"][0].endswith('/elsewhere"')
    assert shown["metadata.copies"] == ("2", "default")
    assert shown["protocols.s3.idle"] == ('"5s"', "command line")
    assert shown["store[1].path"] == ('"/mnt/d1"', "warp.toml:15")
    assert shown["store[1].reserve"] == ('"64MiB"', "default")
    assert shown["policy.default.filters"] == ('["zstd:3", "aes-gcm"]', "warp.toml:19")
    assert shown["auth.pepper"] == ("***", "warp.toml:26")
    assert shown["WARP_SECRET_KEY"] == ("***", "environment WARP_SECRET_KEY")
    assert "hunter2" not in repr(settings) + repr(shown)


def test_relative_data_starts_at_the_file_or_where_the_command_runs(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = folder / "etc" / "warp.toml"
    file.write_text("[protocols.s3]\n[node]\ndata = 'd'\n")

    assert load(file, catalog=Installed(), environ={}).data == folder / "etc" / "d"
    assert load(file, catalog=Installed(), environ={"WARP_DATA": "x"}).data == folder / "x"


S = "[protocols.s3]\n"
TWO = "[[store]]\npath='d'\n[[store]]\nkind='bucket'\nname='b'\n"
WRONG: list[tuple[str, str, list[str]]] = [
    # (what is wrong, file, parts of the message: place first)
    ("syntax", "[node\n", ["warp.toml:1: no TOML"]),
    ("duplicate key", S + "idle='1s'\nidle='2s'\n", ["warp.toml:3", "no TOML"]),
    (
        "unknown table",
        S + "[nodes]\n",
        ["warp.toml:2: nodes", 'did you mean "node"?', "allowed: node,"],
    ),
    ("stores", S + "[[stores]]\n", ["warp.toml:2: stores", "[[store]]"]),
    ("unknown key", S + "[node]\nnam = 'a'\n", ["warp.toml:3: node.nam", 'did you mean "name"?']),
    (
        "unknown key of a plugin",
        S + "lisen = 'x'\n",
        ["warp.toml:2: protocols.s3.lisen", '"listen"?'],
    ),
    (
        "wrong type",
        S + "[node]\nname = 5\n",
        ["warp.toml:3: node.name", "found 5", "allowed: text"],
    ),
    (
        "bad name",
        S + "[node]\nname = 'a b'\n",
        ["warp.toml:3: node.name", 'found "a b"', "matching"],
    ),
    ("not a table", "node = 1\n" + S, ["warp.toml:1: node", "is no table", "[node]"]),
    (
        "protocols not a table",
        "protocols = ['s3']\n",
        ["warp.toml:1: protocols", "[protocols.NAME]"],
    ),
    (
        "plugin not a table",
        "protocols.s3 = true\n",
        ["warp.toml:1: protocols.s3", "[protocols.s3]"],
    ),
    (
        "no protocols",
        "[node]\n",
        ["warp.toml: protocols", "nothing would be served", "[protocols.s3]"],
    ),
    (
        "unknown protocol",
        "[protocols.s4]\n",
        ["warp.toml:1: protocols.s4", 'did you mean "s3"?', "nbd, s3"],
    ),
    (
        "unknown engine",
        S + "[metadata]\nengine='locale'\n",
        ["warp.toml:3: metadata.engine", '"local"?'],
    ),
    (
        "unknown engine option",
        S + "[metadata]\nurl='x'\n",
        ["warp.toml:3: metadata.url", "unknown key"],
    ),
    ("unknown auth", S + "[auth]\nkind='ldap'\n", ["warp.toml:3: auth.kind", "allowed: keys"]),
    ("unknown service", S + "[services.tier]\n", ["warp.toml:2: services.tier", "allowed: gc"]),
    (
        "service flag",
        S + "[services.gc]\nenabled='no'\n",
        ["warp.toml:3: services.gc.enabled", "true or"],
    ),
    (
        "unknown store",
        S + "[[store]]\nkind='floppy'\n",
        ["warp.toml:3: store[0].kind", "disk, memory"],
    ),
    ("store without path", S + "[[store]]\n", ["warp.toml:2: store[0]", 'key "path" is missing']),
    ("store kind type", S + "[[store]]\nkind=1\n", ["warp.toml:3: store[0].kind", "found 1"]),
    ("store as table", S + "[store]\npath='x'\n", ["warp.toml:2: store", "[[store]]"]),
    ("no stores", "store=[]\n" + S, ["warp.toml:1: store", "1 to 4096"]),
    (
        "bad size",
        S + "head_max='8 MB/s'\n",
        ["warp.toml:2: protocols.s3.head_max", "8 MB/s", '"8MiB"'],
    ),
    ("negative size", S + "head_max=-1\n", ["warp.toml:2", "found -1", "a size such as"]),
    ("size range", S + "head_max='1GiB'\n", ["warp.toml:2", "out of range", '"1KiB" to "1MiB"']),
    ("bad duration", S + "idle=10\n", ["warp.toml:2: protocols.s3.idle", "found 10", '"10s"']),
    (
        "duration range",
        S + "[node]\ndrain='2h'\n",
        ["warp.toml:3: node.drain", 'from "0s" to "1h"'],
    ),
    (
        "int range",
        S + "connections=0\n",
        ["warp.toml:2: protocols.s3.connections", "from 1 to 65536"],
    ),
    ("bool for int", S + "connections=true\n", ["warp.toml:2", "found true", "a whole number"]),
    (
        "bad port",
        S + "listen='127.0.0.1:99999'\n",
        ["warp.toml:2: protocols.s3.listen", "HOST:PORT"],
    ),
    ("bad host", S + "listen='300.0.0.1:80'\n", ["warp.toml:2", "HOST:PORT"]),
    ("no port", S + "listen='localhost'\n", ["warp.toml:2", "HOST:PORT"]),
    (
        "plaintext",
        S + "listen='0.0.0.0:9000'\n",
        ["warp.toml:2", "without TLS", "allow_plaintext = true"],
    ),
    ("plaintext v6", S + "listen='[::]:9000'\n", ["warp.toml:2", "without TLS"]),
    (
        "half of tls",
        S + "tls_key='/etc/hosts'\n",
        ["warp.toml:1: protocols.s3", '"tls_certificate" is missing'],
    ),
    (
        "no such certificate",
        S + "tls_certificate='c'\ntls_key='/dev/../etc/hosts'\n",
        ["warp.toml:2: protocols.s3.tls_certificate", "no such file"],
    ),
    (
        "one address twice",
        S + "[protocols.nbd]\nlisten='127.0.0.1:9000'\n",
        ["warp.toml:3: protocols.nbd.listen", "taken by warp.toml:1"],
    ),
    (
        "plugin's own rule",
        S + "domain='.x'\n",
        ["warp.toml:2: protocols.s3.domain", "starts with a dot"],
    ),
    (
        "one path twice",
        S + "[[store]]\npath='/a/b'\n[[store]]\npath='/a/./b/'\n",
        ["warp.toml:5: store[1].path", "the same disk space as warp.toml:3"],
    ),
    (
        "one path inside another",
        S + "[[store]]\npath='/a/b'\n[[store]]\npath='/a'\n",
        ["warp.toml:5: store[1].path", "none inside another"],
    ),
    (
        "store is data",
        S + "[[store]]\npath='.'\n",
        ["warp.toml:3: store[0].path", "data directory itself"],
    ),
    (
        "bad redundancy",
        S + "[policy.default]\nredundancy='raid5'\n",
        ["warp.toml:3", '"replica:N"'],
    ),
    (
        "too few stores",
        S + "[policy.default]\nredundancy='replica:3'\n",
        ["warp.toml:3", "takes 3 stores, 1"],
    ),
    (
        "no striper",
        S + "[policy.default]\nredundancy='rs:4+2'\n",
        ["warp.toml:3", "no erasure codec"],
    ),
    (
        "too many copies",
        S + "[metadata]\ncopies=2\n",
        ["warp.toml:3: metadata.copies", "at most 1"],
    ),
    (
        "unknown codec",
        S + "[policy.default]\nfilters=['zsdt']\n",
        ["warp.toml:3: policy.default.filters[0]"],
    ),
    ("broken codec", S + "[policy.x]\nfilters=['broken']\n", ["warp.toml:3", "needs the module x"]),
    (
        "not a filter",
        S + "[policy.x]\nfilters=['fixed:1']\n",
        ["warp.toml:3", "fixed is a chunker"],
    ),
    (
        "a class that S3 does not know",
        S + "[storage_class.COLD]\npolicy='default'\n",
        ["warp.toml:2: storage_class.COLD", "is no class", "GLACIER"],
    ),
    (
        "a class that says nothing",
        S + "[storage_class.GLACIER]\n",
        [
            "warp.toml:",
            "storage_class.GLACIER",
            "says nothing about its contents",
            "policy, stores or archive",
        ],
    ),
    (
        "a class on a store that is not there",
        S + "[[store]]\npath='d'\nname='d0'\n[storage_class.GLACIER]\nstores=['tape']\n",
        [
            "warp.toml:",
            "storage_class.GLACIER.stores[0]",
            "is the name of no [[store]]",
            "allowed: d0",
        ],
    ),
    (
        "a class on one store twice",
        S + TWO + "[storage_class.GLACIER]\nstores=['b', 'b']\n",
        ["warp.toml:", "storage_class.GLACIER.stores[1]", "is said twice"],
    ),
    (
        "more copies than a class has stores",
        S + TWO + "[storage_class.GLACIER]\nstores=['b']\ncopies=2\n",
        ["warp.toml:", "storage_class.GLACIER.copies", "at most 1"],
    ),
    (
        "copies of a class without stores",
        S + "[storage_class.GLACIER]\narchive=true\ncopies=2\n",
        ["warp.toml:", "storage_class.GLACIER.copies", "a policy with redundancy"],
    ),
    (
        "a bucket that no class names",
        S + TWO,
        ["warp.toml:", "store[1]", "keeps whole blobs only", "[storage_class.GLACIER]"],
    ),
    (
        "classes that have all stores for themselves",
        S + "[[store]]\npath='d'\nname='d0'\n[storage_class.GLACIER]\nstores=['d0']\n",
        ["warp.toml:", "store", "have all stores for themselves", "for everything else"],
    ),
    (
        "copies of everything that only a class has stores for",
        S
        + TWO
        + "[storage_class.GLACIER]\nstores=['b']\n[policy.default]\nredundancy='replica:2'\n",
        ["warp.toml:", "policy.default.redundancy", "takes 2 stores, 1 configured"],
    ),
    (
        "stores of one name",
        S + "[[store]]\npath='d'\nname='d0'\n[[store]]\npath='e'\nname='d0'\n",
        ["warp.toml:", "store[1].name", "is taken by another [[store]]"],
    ),
    (
        "a store with a name that is none",
        S + "[[store]]\npath='d'\nname='a b'\n",
        ["warp.toml:", "store[0].name", "is no name of a store"],
    ),
    (
        "a class of a policy that is not there",
        S + "[storage_class.GLACIER]\npolicy='cold'\n",
        ["warp.toml:3: storage_class.GLACIER.policy", "is no policy", "default"],
    ),
    (
        "a soft quota above the hard one",
        S + "[[account]]\nname='ada'\nquota={bytes='1GiB', soft_bytes='2GiB'}\n",
        ["warp.toml:4: account[0].quota", "soft_bytes = 2147483648 > bytes = 1073741824"],
    ),
    (
        "arguments",
        S + "[policy.x]\nchunker='fixed'\n",
        ["warp.toml:3: policy.x.chunker", "size missing"],
    ),
    (
        "encrypt before compress",
        S + "[policy.x]\nfilters=['aes-gcm',\n'zstd']\n",
        ["warp.toml:4: policy.x.filters[1]", "compress first, then encrypt"],
    ),
    ("codec table", S + "[codecs.gzip]\n", ["warp.toml:2: codecs.gzip", "aes-gcm, fixed, zstd"]),
    (
        "dedup",
        S + "[policy.x]\ndedup='volume'\n",
        ["warp.toml:3: policy.x.dedup", 'allowed: "off"'],
    ),
    (
        "bad dedup",
        S + "[policy.x]\ndedup='on'\n",
        ["warp.toml:3: policy.x.dedup", '"off", "volume"'],
    ),
    ("export is no list", S + "[export]\n", ["warp.toml:2: export", "[[export]]"]),
    (
        "export to nobody",
        S + "[peers]\nlisten='a:1'\n[[export]]\nname='d'\nto=[]\npath='d'\n",
        ["warp.toml:6: export[0].to", "1"],
    ),
    (
        "export without address",
        S + "[[export]]\nname='d'\nto=['a']\npath='d'\n",
        ["warp.toml: peers.listen", "[[export]] names a store", '"10.0.0.1:7400"'],
    ),
    (
        "nothing exported",
        S + "[peers]\nlisten='a:1'\n",
        ["warp.toml:3: peers.listen", "no store is exported"],
    ),
    (
        "exports of one name",
        S
        + "[peers]\nlisten='a:1'\n"
        + "[[export]]\nname='d'\nto=['a']\npath='d'\n[[export]]\nname='d'\nto=['a']\npath='e'\n",
        ["warp.toml:9: export[1].name", "taken by another"],
    ),
    (
        "export of the own store",
        S
        + "[peers]\nlisten='a:1'\n[[store]]\npath='d'\n[[export]]\nname='d'\nto=['a']\npath='d'\n",
        ["warp.toml:9: export[0].path", "same disk space"],
    ),
    (
        "unknown transport",
        S + "[transports.quic]\n",
        ["warp.toml:2: transports.quic", "no transports plugin"],
    ),
    ("log level", S + "[log]\nlevel='loud'\n", ["warp.toml:3: log.level", '"debug", "info"']),
]


@pytest.mark.parametrize(
    ("text", "parts"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_wrong_file_is_told_where_and_what_is_allowed(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(text)

    message = str(raised.value)
    assert message.startswith(parts[0])
    for part in parts:
        assert part in message
    assert len(message.splitlines()) == len(raised.value.problems) == 1


def test_a_node_may_only_export() -> None:
    settings = loaded(
        "[peers]\nlisten='a:1'\n[[export]]\nname='d'\nto=['b']\npath='d'\nreserve='1MiB'\n"
    )

    assert not settings.protocols
    assert [(each.name, each.to, each.part.name) for each in settings.exports] == [
        ("d", ("b",), "disk")
    ]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        loaded("[node]\nnam='a'\n[log]\nlevel='x'\n[protocols.s3]\nidle=1\nlisten='x'\n[[store]]\n")

    assert [str(problem).partition(": ")[0] for problem in raised.value.problems] == [
        "warp.toml:2",
        "warp.toml:4",
        "warp.toml:6",
        "warp.toml:7",
        "warp.toml:8",
    ]


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"WARP_ACCESS_KEY": "root"}, ["WARP_SECRET_KEY: is not set"]),
        ({"WARP_ACCESS_KEY": "a b", "WARP_SECRET_KEY": "12345678x"}, ["letters and digits"]),
        ({"WARP_ACCESS_KEY": "root", "WARP_SECRET_KEY": "short"}, ["at least 8 characters"]),
        ({"WARP_LOG_LEVEL": "loud"}, ["environment WARP_LOG_LEVEL: log.level", '"debug"']),
    ],
)
def test_the_environment_is_checked_like_the_file(
    environ: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(S, environ=environ)

    for part in parts:
        assert part in str(raised.value)
    assert "12345678x" not in str(raised.value)
    assert "short;" not in str(raised.value)


def test_a_well_known_secret_is_refused_beyond_loopback_unless_the_file_allows_it() -> None:
    environ = {"WARP_ACCESS_KEY": "minioadmin", "WARP_SECRET_KEY": "minioadmin"}
    wide = S + "listen='0.0.0.0:9000'\nallow_plaintext=true\n"

    assert loaded(S, environ=environ).root is not None
    assert loaded(wide + "[node]\nallow_weak_secret=true\n", environ=environ).root is not None
    with pytest.raises(ConfigError, match="well-known secret"):
        loaded(wide, environ=environ)


def test_options_of_the_command_line_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"command line: protocols\.s3\.listen"):
        loaded(None, ("protocols.s3.listen", "nowhere"))
    with pytest.raises(ConfigError, match="store: is no list"):
        loaded(S, ("store.path", "x"))
    assert loaded(S, ("protocols.s3.connections", "7")).protocols[0].config.connections == 7  # type: ignore[attr-defined]


def test_a_missing_or_unreadable_file_is_one_sentence(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file: write one with `warp init`"):
        load(folder / "none.toml", catalog=Installed(), environ={})
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load(folder, catalog=Installed(), environ={})
    (folder / "latin.toml").write_bytes(b"[node]\nname = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8"):
        load(folder / "latin.toml", catalog=Installed(), environ={})


def test_a_secret_is_not_repeated_in_an_error() -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(S + "[auth]\npepper = 'hunter2'\n")

    assert "warp.toml:3: auth.pepper" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_server_without_any_protocol_is_refused() -> None:
    catalog = Installed()
    catalog.registries["protocols"]._entries.clear()

    with pytest.raises(ConfigError, match="no protocol is installed that loads"):
        load(None, catalog=catalog, environ={})


def test_stores_of_classes_are_not_for_everything_else() -> None:
    settings = loaded(
        S + TWO + "[storage_class.GLACIER]\nstores=['b']\narchive=true\n[metadata]\ncopies=1\n"
    )
    [common] = settings.common_stores
    assert common.config == Disk("d")
    assert settings.metadata_copies == 1
    made = settings.storage_classes["GLACIER"]
    assert (made.stores, made.copies, made.archive, made.policy) == (("b",), 1, True, "")
