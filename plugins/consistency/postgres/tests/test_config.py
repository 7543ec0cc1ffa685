"""What a configuration may say, and what the sentences about a server that refuses say."""

from __future__ import annotations

from typing import Any

import pytest
from warp_core.errors import ConfigError
from warp_postgres.config import Config
from warp_postgres.server import kind_of


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql:///warp", "disable"),
        ("postgresql:///warp?host=/var/run/postgresql", "disable"),
        ("postgresql://warp@localhost/warp", "disable"),
        ("postgresql://warp@127.0.0.1:5433/warp", "disable"),
        ("postgresql://warp@[::1]:5433/warp", "disable"),
        ("postgresql://warp@db.example.com/warp", "verify-full"),
        ("postgresql://warp@localhost,db.example.com:5433/warp", "verify-full"),
        ("postgresql:///warp?host=db.example.com", "verify-full"),
    ],
)
def test_servers_elsewhere_are_verified_unless_told(url: str, mode: str) -> None:
    assert Config(url=url).tls_mode == mode
    assert Config(url=url, tls="require").tls_mode == "require"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "mysql://host/warp"}, "url"),
        ({"url": "postgresql://host"}, "url"),
        ({"url": "postgresql://[::1/warp"}, "url"),
        ({"url": "postgresql://warp:secret@host/warp"}, "password_file"),
        ({"url": "postgresql://host/warp?password=secret"}, "password_file"),
        ({"url": "postgresql://host/warp?sslmode=disable"}, "tls"),
        ({"password": "a", "password_file": "b"}, "password_file"),
        ({"schema": "Warp"}, "schema"),
        ({"schema": "warp; drop"}, "schema"),
        ({"schema": "pg_warp"}, "schema"),
        ({"certificate": "a"}, "key"),
        ({"timeout": 20.0}, "history"),
        ({"tls": "disable", "authority": "a"}, "tls"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        Config(**options)

    assert "secret" not in str(raised.value)


def test_the_place_names_host_and_database() -> None:
    assert Config(url="postgresql://warp@a:1,b/data").place == 'a:1,b, database "data"'
    assert Config(url="postgresql:///data?host=/run").place == '/run, database "data"'


def test_servers_are_known_by_what_they_say() -> None:
    assert kind_of("PostgreSQL 15.6 (Debian 15.6-0+deb12u1) on x86_64") == "postgres"
    assert kind_of("PostgreSQL 11.2-YB-2.20.0.0-b0 on x86_64") == "yugabyte"
    assert kind_of("CockroachDB CCL v23.1.0 (x86_64)") == "cockroach"
    with pytest.raises(ConfigError, match="too old"):
        kind_of("PostgreSQL 12.3 on x86_64")
