"""The effective settings, each with where its value comes from; secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from warp_core.config.model import Settings
from warp_core.config.source import toml
from warp_core.config.types import Duration, Secret, Size
from warp_core.logs import SECRET_WORDS

HIDDEN = "***"


class Setting(NamedTuple):
    """One effective setting."""

    key: str
    value: str  # as TOML shows it
    origin: str  # "default", "warp.toml:12", "environment WARP_DATA", "command line"


def effective(settings: Settings) -> list[Setting]:
    """Return every setting in the order of the file's tables."""
    named = msgspec.structs.replace(settings.node, name=settings.name, data=str(settings.data))
    found = [*_struct("node", named, settings.origins)]
    found += _struct("log", settings.log, settings.origins)
    found += _struct("audit", settings.audit, settings.origins)
    copies = msgspec.structs.replace(settings.metadata, copies=settings.metadata_copies)
    found += _struct("metadata", copies, settings.origins)
    found += _struct("metadata", settings.engine.config, settings.origins)
    for part in settings.stores:
        found.append(_one(f"{part.key}.kind", part.name, settings.origins))
        if part.label:
            found.append(_one(f"{part.key}.name", part.label, settings.origins))
        found += _struct(part.key, part.config, settings.origins)
    for name, policy in settings.policies.items():
        found += _struct(f"policy.{name}", policy, settings.origins)
    for name, each in settings.storage_classes.items():
        found += _struct(f"storage_class.{name}", each, settings.origins)
    for name, codec in settings.codecs.items():
        found += _struct(f"codecs.{name}", codec, settings.origins)
    for part in settings.protocols:
        found += _struct(part.key, part.config, settings.origins)
    if settings.mounts.listen:
        found += _struct("mounts", settings.mounts, settings.origins)
    for part in settings.services:
        found.append(_one(f"{part.key}.enabled", True, settings.origins))
        found += _struct(part.key, part.config, settings.origins)
    for index, target in enumerate(settings.targets):
        here = f"event_target[{index}]"
        found.append(_one(f"{here}.name", target.name, settings.origins))
        found.append(_one(f"{here}.kind", target.part.name, settings.origins))
        found += _struct(here, target.part.config, settings.origins)
    found.append(_one("auth.kind", settings.auth.name, settings.origins))
    found += _struct("auth", settings.auth.config, settings.origins)
    if settings.kms.part is not None:
        found.append(_one("kms.kind", settings.kms.part.name, settings.origins))
        found.append(_one("kms.cipher", settings.kms.cipher, settings.origins))
        found.append(_one("kms.remember", settings.kms.remember, settings.origins))
        found += _struct("kms", settings.kms.part.config, settings.origins)
    for index, account in enumerate(settings.accounts):
        here = f"account[{index}]"
        hidden = {f"{here}.keys"} | ({f"{here}.quota"} if account.quota is None else set())
        found += [
            each
            for each in _struct(here, account, settings.origins)
            if each.key not in hidden and not (".quota." in each.key and each.value == "None")
        ]
        for place, key in enumerate(account.keys):
            found += _struct(f"{here}.keys[{place}]", key, settings.origins)
    if settings.root is not None:
        found.append(
            Setting("WARP_ACCESS_KEY", toml(settings.root[0]), "environment WARP_ACCESS_KEY")
        )
        found.append(Setting("WARP_SECRET_KEY", HIDDEN, "environment WARP_SECRET_KEY"))
    return found


def _struct(prefix: str, made: msgspec.Struct, origins: Mapping[str, str]) -> Iterator[Setting]:
    for name, encoded in zip(made.__struct_fields__, made.__struct_encode_fields__, strict=True):
        value = getattr(made, name)
        if isinstance(value, msgspec.Struct):
            yield from _struct(f"{prefix}.{encoded}", value, origins)
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            for index, each in enumerate(value):
                yield from _struct(f"{prefix}.{encoded}[{index}]", each, origins)
        else:
            yield _one(f"{prefix}.{encoded}", value, origins)


def _one(key: str, value: object, origins: Mapping[str, str]) -> Setting:
    last = key.rpartition(".")[2].lower()
    hidden = isinstance(value, Secret) or (
        isinstance(value, str) and bool(value) and any(word in last for word in SECRET_WORDS)
    )
    if isinstance(value, Size | Duration):
        value = str(value)
    return Setting(key, HIDDEN if hidden else toml(value), origins.get(key, "default"))
