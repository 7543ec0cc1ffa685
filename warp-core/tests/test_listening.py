"""Sockets and TLS by configuration, and what is said when they are not to be had."""

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from warp_core.config.types import Address
from warp_core.errors import AlreadyRunning, ConfigError
from warp_core.listening import listen, server_tls


class Greeter(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


async def opened(address, tmp_path, **options):
    return await listen(
        Address.parse(address),
        Greeter,
        key="protocols.p.listen",
        data=tmp_path,
        backlog=4,
        **options,
    )


async def greeted(reader, writer):
    assert await reader.read() == b"hello"
    writer.close()


async def ended(listening):
    listening.stop()
    await listening.closed()


async def test_a_free_port_is_found_and_told(tmp_path):
    listening = await opened("127.0.0.1:0", tmp_path)
    host, _, port = listening.place.rpartition(":")

    await greeted(*await asyncio.open_connection(host, int(port)))
    await ended(listening)

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_a_host_is_served_on_each_of_its_addresses_at_one_port(tmp_path):
    listening = await opened("localhost:0", tmp_path)
    port = int(listening.place.rpartition(":")[2])

    await greeted(*await asyncio.open_connection("127.0.0.1", port))
    await ended(listening)


async def test_a_taken_port_is_named_with_what_to_do(tmp_path):
    listening = await opened("127.0.0.1:0", tmp_path)

    with pytest.raises(
        AlreadyRunning, match=r"protocols\.p\.listen: .* is taken .*--set protocols"
    ):
        await opened(listening.place, tmp_path)
    await ended(listening)


@pytest.mark.parametrize("address", ["203.0.113.7:1", "no-such-host.invalid:1"])
async def test_a_host_that_is_elsewhere_is_named(tmp_path, address):
    with pytest.raises(ConfigError, match=r"protocols\.p\.listen: cannot listen on"):
        await opened(address, tmp_path)


@pytest.mark.parametrize("deep", [False, True])
async def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path, deep):
    folder = tmp_path / ("d" * 60) / ("e" * 60) if deep else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    listening = await opened("unix:p.sock", folder)

    assert listening.path == folder / "p.sock"
    assert stat.S_IMODE(listening.path.stat().st_mode) == 0o600
    if not deep:
        await greeted(*await asyncio.open_unix_connection(listening.path))
    await ended(listening)
    assert not listening.path.exists()


async def test_a_socket_that_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / "p.sock").write_bytes(b"")

    listening = await opened("unix:p.sock", tmp_path)

    await greeted(*await asyncio.open_unix_connection(listening.path))
    await ended(listening)


def certificate(folder, name):
    """Write a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


async def said(port, client):
    """Return what a server says, b"" where it ends the connection instead."""
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client)
        try:
            return await reader.read()
        finally:
            writer.close()
    except (ssl.SSLError, ConnectionError):
        return b""


async def test_tls_begins_with_the_first_byte_and_may_want_a_certificate(tmp_path):
    certificate(tmp_path, "server")
    certificate(tmp_path, "client")
    tls = server_tls(
        "server.pem",
        "server.key",
        key="protocols.p",
        data=tmp_path,
        client_authorities="client.pem",
    )
    listening = await opened("127.0.0.1:0", tmp_path, tls=tls, handshake_s=5, goodbye_s=1)
    port = int(listening.place.rpartition(":")[2])
    client = ssl.create_default_context(cafile=tmp_path / "server.pem")

    assert await said(port, client) == b""
    client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    assert await said(port, client) == b"hello"
    await ended(listening)


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("warp_core.listening.RENEW_S", 0.01)
    for name in ("server", "next"):
        certificate(tmp_path, name)
    trusted = ssl.create_default_context(cafile=tmp_path / "server.pem")
    renewed = ssl.create_default_context(cafile=tmp_path / "next.pem")
    tls = server_tls("server.pem", "server.key", key="protocols.p", data=tmp_path)
    listening = await opened("127.0.0.1:0", tmp_path, tls=tls, handshake_s=5, goodbye_s=1)
    port = int(listening.place.rpartition(":")[2])

    async def become(client):
        async with asyncio.timeout(60):
            while await said(port, client) != b"hello":
                await asyncio.sleep(0.01)

    await become(trusted)
    (tmp_path / "next.pem").rename(tmp_path / "server.pem")  # its key is not there yet
    assert not tls.renew()
    assert await said(port, trusted) == b"hello"
    (tmp_path / "next.key").rename(tmp_path / "server.key")
    await become(renewed)
    assert await said(port, trusted) == b""
    (tmp_path / "server.pem").unlink()
    assert not tls.renew()
    assert await said(port, renewed) == b"hello"
    await ended(listening)


def test_without_a_certificate_there_is_no_tls(tmp_path):
    assert server_tls("", key="protocols.p", data=tmp_path) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certificate": "gone.pem"}, r"protocols\.p\.tls_certificate: cannot use .*gone\.pem"),
        ({"certificate": "", "private_key": "k"}, r"tls_certificate: cannot use .* with key .*k"),
        (
            {"certificate": "ok.pem", "private_key": "ok.key", "client_authorities": "gone.pem"},
            r"protocols\.p\.tls_client_ca: cannot use",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, options, message):
    certificate(tmp_path, "ok")

    with pytest.raises(ConfigError, match=message):
        server_tls(**options, key="protocols.p", data=tmp_path)
