"""Authorities, certificates, names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from warp_core.certificates import issue, make_authority
from warp_core.contexts import TransportContext
from warp_core.errors import AlreadyExists, ConfigError, InvalidArgument, Unauthenticated
from warp_core.metrics import Metrics
from warp_tcp.config import Config
from warp_tcp.tls import own_name
from warp_tcp.transport import Tcp


def node(authority: Path, name: str, folder: Path, *, now: datetime | None = None) -> Tcp:
    identity = issue(authority, name, folder, now=now)
    config = Config(
        authority=str(identity.authority),
        certificate=str(identity.certificate),
        key=str(identity.key),
    )
    return Tcp(config, TransportContext(name, folder, Metrics()))


def test_keys_are_private(tmp_path: Path) -> None:
    make_authority(tmp_path)
    identity = issue(tmp_path, "a", tmp_path / "a")

    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert identity.key.stat().st_mode & 0o777 == 0o600


def test_an_authority_is_never_replaced(tmp_path: Path) -> None:
    make_authority(tmp_path)

    with pytest.raises(AlreadyExists):
        make_authority(tmp_path)


@pytest.mark.parametrize("name", ["", "x" * 65, "two words", "é", "a\nb", "a\0b"])
def test_names_that_no_certificate_can_carry_are_refused(tmp_path: Path, name: str) -> None:
    make_authority(tmp_path)

    with pytest.raises(InvalidArgument, match="node name"):
        issue(tmp_path, name, tmp_path / "a")


def test_a_certificate_can_be_renewed(tmp_path: Path) -> None:
    make_authority(tmp_path)
    first = issue(tmp_path, "a", tmp_path / "a").certificate.read_bytes()

    assert issue(tmp_path, "a", tmp_path / "a").certificate.read_bytes() != first
    assert own_name(tmp_path / "a" / "node.pem") == "a"


async def test_the_certificate_of_another_node_is_refused(tmp_path: Path) -> None:
    make_authority(tmp_path)
    issue(tmp_path, "a", tmp_path / "tls")

    with pytest.raises(ConfigError, match='certificate of node "a", this is node "b"'):
        async with Tcp(Config(), TransportContext("b", tmp_path, Metrics())):
            pass


async def test_a_missing_certificate_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node\.pem.*join a cluster"):
        async with Tcp(Config(), TransportContext("b", tmp_path, Metrics())):
            pass


async def test_a_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    make_authority(tmp_path)
    issue(tmp_path, "a", tmp_path / "tls")
    issue(tmp_path, "a", tmp_path / "other")
    (tmp_path / "other" / "node.key").replace(tmp_path / "tls" / "node.key")

    with pytest.raises(ConfigError, match="cannot use"):
        async with Tcp(Config(), TransportContext("a", tmp_path, Metrics())):
            pass


async def test_an_expired_certificate_proves_nothing(tmp_path: Path) -> None:
    make_authority(tmp_path)
    old = datetime.now(UTC) - timedelta(days=6 * 365)

    async with (
        node(tmp_path, "a", tmp_path / "a") as current,
        node(tmp_path, "b", tmp_path / "b", now=old) as expired,
    ):
        listener = await current.listen("127.0.0.1:0", lambda link: link.close())
        with pytest.raises(Unauthenticated):
            await expired.dial(listener.address)


async def test_an_authority_proves_no_node(tmp_path: Path) -> None:
    make_authority(tmp_path)
    config = Config(
        authority=str(tmp_path / "ca.pem"),
        certificate=str(tmp_path / "ca.pem"),
        key=str(tmp_path / "ca.key"),
    )

    with pytest.raises(ConfigError, match="no certificate of a node"):
        async with Tcp(config, TransportContext("a", tmp_path, Metrics())):
            pass
