"""Configuration files of clusters: what is written is what is read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.cluster.joining import Partner, Welcome
from warp_core.cluster.written import (
    _value,
    add_partner,
    add_room,
    drop_left,
    founder,
    joined,
    room,
)
from warp_core.config.load import load
from warp_core.errors import ConfigError
from warp_core.plugins import Plugins

ETCD = {"name": "b", "listen": "10.0.0.2:2380", "members": {"warp": "10.0.0.1:2380", "b": "10.0.0.2:2380"}}  # fmt: skip
PARTNER = Partner("a", "10.0.0.1:7400", "tcp", room("b"), room("a"))
WELCOME = Welcome(b"", b"", ("k", "s"), "etcd", ETCD, {"lease": "4s"}, PARTNER)


def founded(folder: Path, **but: str) -> Path:
    file = folder / "a.toml"
    values = {"lease": "2s", **but}
    text = founder(
        name="a",
        data=folder / 'data "a"',
        listen="10.0.0.1:7400",
        metadata="10.0.0.1:2380",
        protocols={"s3": "127.0.0.1:9000", "nbd": "127.0.0.1:10809"},
        **values,
    )
    file.write_text(text)
    return file


def test_the_founders_file_is_complete(tmp_path: Path) -> None:
    settings = load(founded(tmp_path), catalog=Plugins(), environ={})

    assert settings.name == "a"
    assert settings.data == tmp_path / 'data "a"'
    assert settings.cluster is not None
    assert float(settings.cluster.lease) == 2.0
    assert settings.peers.listen == "10.0.0.1:7400"
    assert [part.name for part in settings.protocols] == ["s3", "nbd"]
    assert settings.engine.name == "etcd"


def test_who_joins_gets_a_complete_file(tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text(
        joined(
            WELCOME,
            name="b",
            data=tmp_path / "b",
            listen="10.0.0.2:7400",
            protocols={"s3": "127.0.0.1:9000"},
            witness=False,
        )
    )

    settings = load(file, catalog=Plugins(), environ={})

    assert [part.name for part in settings.stores] == ["disk", "peer"]
    assert [(export.name, export.to) for export in settings.exports] == [("for-a", ("a",))]
    assert settings.cluster is not None
    assert not settings.cluster.witness


def test_a_witness_has_nothing(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    text = joined(
        WELCOME,
        name="b",
        data=tmp_path / "w",
        listen="10.0.0.2:7400",
        protocols={"s3": "127.0.0.1:9000"},
        witness=True,
    )
    file.write_text(text)

    settings = load(file, catalog=Plugins(), environ={})

    assert settings.stores == settings.protocols == settings.exports == ()
    file.write_text(text + '[[store]]\npath = "x"\n')
    with pytest.raises(ConfigError, match="witness keeps and serves nothing"):
        load(file, catalog=Plugins(), environ={})


def test_a_partner_is_added_once(tmp_path: Path) -> None:
    file = founded(tmp_path)
    joining = Partner("b", "10.0.0.2:7400", "tcp", room("a"), room("b"))

    assert add_partner(file, joining=joining) == (True, True)
    once = file.read_text()
    assert add_partner(file, joining=joining) == (False, True)
    assert file.read_text() == once
    another = Partner("c", "10.0.0.3:7400", "tcp", room("a"), room("c"))
    assert add_partner(file, joining=another) == (True, False)

    settings = load(file, catalog=Plugins(), environ={})
    assert [part.name for part in settings.stores] == ["disk", "peer"]
    assert [export.name for export in settings.exports] == ["for-b", "for-c"]


def test_what_is_about_a_node_that_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    file = founded(tmp_path)
    before = file.read_text()
    add_partner(file, joining=Partner("b", "10.0.0.2:7400", "tcp", room("a"), room("b")))
    add_partner(file, joining=Partner("c", "10.0.0.3:7400", "tcp", room("a"), room("c")))
    file.write_text(file.read_text() + '\n# mine\n[log]\nlevel = "debug" # [[store]]\n')

    assert drop_left(file, {"x"}, used=()) == []
    assert drop_left(file, {"b"}, used={"for-b"}) == ["store with node b"]
    assert drop_left(file, {"b", "c"}, used={"for-b"}) == ["room for-c"]
    assert drop_left(file, {"b", "c"}, used=()) == ["room for-b"]

    assert tomllib.loads(file.read_text()) == {**tomllib.loads(before), "log": {"level": "debug"}}
    assert "# mine\n[log]" in file.read_text()
    assert "joined" not in file.read_text()
    load(file, catalog=Plugins(), environ={})


def test_a_table_stays_that_numbers_of_own_stores_depend_on(tmp_path: Path) -> None:
    file = founded(tmp_path)
    add_partner(file, joining=Partner("b", "10.0.0.2:7400", "tcp", room("a"), room("b")))
    file.write_text(file.read_text() + '\n[[store]]\npath = "another"\n')

    assert drop_left(file, {"b"}, used={"for-b"}) == []
    file.write_text("[broken")
    with pytest.raises(ConfigError, match="cannot be changed"):
        drop_left(file, {"b"}, used=())


def test_the_default_store_stays_when_a_partner_is_added(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[node]\nname = "a"\n[protocols.s3]\nlisten = "127.0.0.1:9000"\n')
    joining = Partner("b", "10.0.0.2:7400", "tcp", room("a"), room("b"))

    add_partner(file, joining=joining)

    stores = tomllib.loads(file.read_text())["store"]
    assert [each["kind"] for each in stores] == ["disk", "peer"]
    assert stores[0]["path"] == "store"
    file.write_text("[broken")
    with pytest.raises(ConfigError, match="cannot be changed"):
        add_partner(file, joining=joining)


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_values_are_toml(value: object) -> None:
    assert tomllib.loads(f"key = {_value(value)}")["key"] == value


def test_room_for_a_copy_is_noted_once_and_stays_while_something_lies_there(tmp_path: Path) -> None:
    file = founded(tmp_path)
    before = tomllib.loads(file.read_text())
    for _ in range(2):
        add_room(file, export="domain-3", to="b")

    settings = load(file, catalog=Plugins(), environ={})
    assert [(each.name, each.to) for each in settings.exports] == [("domain-3", ("b",))]
    assert drop_left(file, {"b"}, used={"domain-3"}) == []
    assert drop_left(file, {"b"}, used=()) == ["room domain-3"]
    assert tomllib.loads(file.read_text()) == before


def test_a_file_that_cannot_be_read_gets_no_room(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be changed for a copy"):
        add_room(tmp_path / "none.toml", export="domain-3", to="b")
