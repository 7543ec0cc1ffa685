"""Options, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warp_core.config.types import Secret
from warp_core.errors import ConfigError
from warp_etcd.config import Config
from warp_etcd.engine import Etcd
from warp_etcd.errors import translate


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoints": ("10.0.0.1:2379",)}, "endpoints: "),
        ({"endpoints": ("http://",)}, "endpoints: "),
        ({"endpoints": ("http://a:1", "https://b:1")}, "all with https:// or none"),
        ({"endpoints": ("https://a:1",), "certificate": "c.pem"}, "comes with a key"),
        ({"endpoints": ("http://a:1",), "authority": "ca.pem"}, "for endpoints with https://"),
        ({"user": "warp"}, "comes with a password"),
        ({"prefix": ""}, "prefix: "),
        ({"prefix": "x" * 257}, "prefix: "),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Config(**options)


def test_a_password_is_not_shown() -> None:
    config = Config(endpoints=("http://a:1",), user="warp", password=Secret("secretsecret"))

    assert "secretsecret" not in repr(config)


async def test_certificates_that_are_missing_are_named(tmp_path: Path) -> None:
    config = Config(endpoints=("https://127.0.0.1:1",), authority="ca.pem")
    with pytest.raises(ConfigError, match=r"ca\.pem cannot be read"):
        async with Etcd(config, tmp_path):
            pass


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ("etcdserver: mvcc: database space exceeded", "NoSpace"),
        ("etcdserver: mvcc: required revision has been compacted", "Expired"),
        ("etcdserver: mvcc: required revision is a future revision", "Behind"),
        ("etcdserver: too many operations in txn request", "TooLarge"),
        ("etcdserver: request is too large", "TooLarge"),
        ("etcdserver: too many requests", "Busy"),
        ("etcdserver: requested lease not found", "NotFound"),
        ("etcdserver: permission denied", "PermissionDenied"),
        ("etcdserver: authentication failed, invalid user ID or password", "Unauthenticated"),
        ("etcdserver: invalid auth token", "Unauthenticated"),
        ("etcdserver: user name is empty", "Unauthenticated"),
        ("etcdserver: corrupt cluster", "Corrupt"),
        ("etcdserver: no leader", "Unavailable"),
        ("etcdserver: request timed out", "Unavailable"),
        ("", "Unavailable"),
    ],
)
def test_what_etcd_says_becomes_an_error_of_ours(details: str, name: str) -> None:
    error = translate("host:1", "UNKNOWN", details)

    assert type(error).__name__ == name
    assert "host:1" in str(error)
