"""Certificates, users and passwords."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warp_core.config.types import Secret
from warp_core.errors import PermissionDenied, Unauthenticated, Unavailable
from warp_core.interfaces.consistency import Commit, Write
from warp_etcd import engine
from warp_etcd.client import Access, Client, Method
from warp_etcd.config import Config
from warp_etcd.engine import Etcd
from warp_etcd.wire import etcd_pb2 as pb

x509 = pytest.importorskip("cryptography.x509", reason="the package cryptography is missing")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

NewCluster = Callable[..., Any]


class Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        self._write(self.path, self._sign(self.name, self.key, authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._write(paths[0], self._sign(subject, key, authority=False))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _sign(self, subject: Any, key: Any, *, authority: bool) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, path: Path, certificate: Any) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


async def test_certificates_are_shown_and_checked_both_ways(
    new_cluster: NewCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "START_S", 1.0)
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    certificate, key = ours.issue("member")
    mine, theirs = ours.issue("node"), others.issue("stranger")
    (server,) = new_cluster(
        1,
        "--unsafe-no-fsync",
        *(f"--cert-file={certificate}", f"--key-file={key}"),
        *(f"--trusted-ca-file={ours.path}", "--client-cert-auth"),
        secure=True,
    )

    def config(authority: Authority, pair: tuple[Path, Path]) -> Config:
        return Config(
            endpoints=(server.endpoint,),
            authority=authority.path.name,
            certificate=pair[0].name,
            key=pair[1].name,
        )

    async with Etcd(config(ours, mine), tmp_path) as store:
        version = await store.commit(Commit(writes=[Write(b"k", b"v")]))
        assert await store.view().get(b"k") == (b"v", version)
    for wrong in (config(ours, theirs), config(others, mine)):
        with pytest.raises(Unavailable):
            async with Etcd(wrong, tmp_path):
                pass


async def test_a_user_reaches_what_its_role_allows(new_cluster: NewCluster, tmp_path: Path) -> None:
    (server,) = new_cluster(1, "--unsafe-no-fsync")
    await with_users(server.endpoint.removeprefix("http://"))

    def config(**options: Any) -> Config:
        return Config(endpoints=(server.endpoint,), **options)

    warp = {"user": "warp", "password": Secret("warp's password")}
    async with Etcd(config(**warp), tmp_path) as store:
        await store.commit(Commit(writes=[Write(b"k", b"v")]))
        lease = await store.lease("home", "a", 10.0)
        assert await store.renew(lease) == lease
        store._client._token = "lapsed.1"  # as after etcd was restarted
        await store.commit(Commit(writes=[Write(b"k", b"w")]))
        row = await store.view().get(b"k")
        assert row is not None
        assert row[0] == b"w"
    with pytest.raises(Unauthenticated):
        async with Etcd(config(user="warp", password=Secret("another one")), tmp_path):
            pass
    with pytest.raises(Unauthenticated, match="wants `user` and `password`"):
        async with Etcd(config(), tmp_path):
            pass
    with pytest.raises(PermissionDenied):
        async with Etcd(config(prefix="elsewhere/", **warp), tmp_path):
            pass


async def with_users(target: str) -> None:
    """Turn authentication on, with a user `warp` for what lies below `warp/`."""

    def auth(name: str) -> Method[Any]:
        return Method(f"/etcdserverpb.Auth/{name}", pb.AuthenticateResponse)

    # Their requests begin as this one does: two texts.
    def texts(one: str = "", two: str = "") -> pb.AuthenticateRequest:
        return pb.AuthenticateRequest(name=one, password=two)

    async with Client(Access((target,)), timeout_s=20.0) as client:
        for user, password in (("root", "root's password"), ("warp", "warp's password")):
            await client.call(auth("UserAdd"), texts(user, password))
            await client.call(auth("RoleAdd"), texts(user))
            await client.call(auth("UserGrantRole"), texts(user, user))
        permission = b"\x08\x02\x12\x05warp/\x1a\x05warp0"  # read and write, key, range_end
        granted = (
            texts("warp").SerializeToString() + b"\x12" + bytes([len(permission)]) + permission
        )
        await client.call(auth("RoleGrantPermission"), Raw(granted))  # type: ignore[arg-type]
        await client.call(auth("AuthEnable"), texts())


class Raw:
    """A request that is packed already."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def SerializeToString(self) -> bytes:
        return self.packed
