"""`[[event_target]]`: what a file means, and what a wrong one gets told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from warp_core.config import Secret, Settings
from warp_core.config.load import load
from warp_core.config.show import effective
from warp_core.errors import ConfigError
from warp_core.registry import KINDS, Entry, Registry


class Hook(msgspec.Struct, frozen=True):
    url: str
    secret: Secret = Secret("long enough")


class Installed:
    def __init__(self) -> None:
        self.registries: Mapping[str, Registry[Any]] = {kind: Registry(kind) for kind in KINDS}
        hook: dict[str, Any] = {"by_default": False, "takes_events": True}
        for kind, entry in (
            ("protocols", Entry("s3", build=object)),
            ("consistency", Entry("local", build=object)),
            ("stores", Entry("disk", build=object, config=_Disk)),
            ("auth", Entry("keys", build=object)),
            ("codecs", Entry("fixed", build=_Fixed)),
            ("services", Entry("events", build=object)),
            ("services", Entry("webhook", build=object, config=Hook, **hook)),
        ):
            self.registries[kind].add(entry)

    def names(self, kind: str) -> list[str]:
        return sorted(entry.name for entry in self.registries[kind])


class _Disk(msgspec.Struct, frozen=True):
    path: str = ""


class _Fixed:
    shape = "chunker"

    def __init__(self, *_: object) -> None: ...


def loaded(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "warp.toml"
    file.write_text(f"[protocols.s3]\n{text}")
    return load(file, catalog=Installed(), environ={})


ONE = '[[event_target]]\nname = "orders"\nurl = "http://a/"\n'


def test_targets_have_names_and_options_of_their_kind(tmp_path: Path) -> None:
    settings = loaded(tmp_path, ONE + ONE.replace("orders", "other") + 'kind = "webhook"\n')

    assert [(each.name, each.part.name) for each in settings.targets] == [
        ("orders", "webhook"),
        ("other", "webhook"),
    ]
    assert settings.targets[0].part.config == Hook("http://a/")
    assert [part.name for part in settings.services] == ["events"]
    shown = {each.key: each.value for each in effective(settings)}
    assert shown["event_target[0].name"] == '"orders"'
    assert "long enough" not in shown["event_target[0].secret"]


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").targets == ()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[[event_target]]\nurl = "http://a/"\n', ['"name" is missing']),
        (ONE.replace("orders", "a b"), ["warp.toml:3: event_target[0].name"]),
        (ONE + ONE, ["warp.toml:6: event_target[1].name", "is taken by another"]),
        (ONE + 'kind = "webhok"\n', ["event_target[0].kind", 'did you mean "webhook"?']),
        (ONE + 'kind = "events"\n', ["event_target[0].kind", "webhook"]),
        (ONE + "colour = 1\n", ["warp.toml:5: event_target[0].colour", "unknown key"]),
        ('[event_target]\nname = "a"\n', ["is no list of tables", "[[event_target]]"]),
        (ONE + "[services.events]\nenabled = false\n", ["nobody delivers events here"]),
        ('[services.webhook]\nurl = "http://a/"\n', ["is no service", "[[event_target]]"]),
    ],
)
def test_a_wrong_target_is_told_with_its_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)

    assert len(raised.value.problems) == 1
    for part in parts:
        assert part in str(raised.value)
