"""Public SSH keys of accounts."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import AlreadyExists, InvalidArgument, NotFound, TooLarge, Unsupported
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.records import Decide, Records, T
from warp_core.ssh_keys import KEYS_MAX, PublicKey, SshKeys, fingerprint, parse

ED25519 = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBW0r5mMsSVT8uZE2Bf9CLdw5jQ6WUmVRS3CNrSrHM9g ada@laptop"
)


def blob(*fields: bytes) -> str:
    packed = b"".join(len(each).to_bytes(4, "big") + each for each in fields)
    return base64.b64encode(packed).decode()


def rsa(bits: int) -> str:
    return f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]), bytes(1) + (1 << bits - 1).to_bytes(bits // 8, 'big'))}"


class Shelf(Records):
    """Records in a dictionary."""

    shared = False

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self.generation = 0

    async def refresh(self) -> bool:
        return False

    async def change(self, decide: Decide[T]) -> T:
        result, changes = decide(self.known)
        for name, value in changes.items():
            if value is None:
                del self.known[name]
            else:
                self.known[name] = value
        return result


class Keeping(Authenticator):
    """An authenticator that keeps records, and nothing else."""

    def __init__(self) -> None:
        self.shelf = Shelf()

    async def __aenter__(self) -> Keeping:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def records(self, shelf: str) -> Records:
        return self.shelf


def test_a_line_is_read_with_its_comment_and_has_ssh_keygens_fingerprint() -> None:
    key = parse(ED25519 + "\n")

    assert (key.kind, key.comment) == ("ssh-ed25519", "ada@laptop")
    assert key.fingerprint == fingerprint(key.blob)
    assert key.fingerprint.startswith("SHA256:")
    assert len(key.fingerprint) == 50


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "no public key"),
        ("ssh-ed25519", "no public key"),
        ("ssh-dss AAAA", "no public key"),
        ('command="x" ' + ED25519, "without options"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("ssh-ed25519 !!!!", "base64"),
        (f"ssh-ed25519 {blob(b'ssh-rsa', b'x')}", "no key of the kind"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519')}", "no key of the kind"),
        ("ssh-ed25519 AAAAC3Nz", "cut off"),
        (rsa(1024), "1024 bits"),
        ("x" * 20_000, "20000 characters"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(line: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse(line)


def test_rsa_keys_that_are_long_enough_are_taken() -> None:
    assert parse(rsa(2048)).kind == "ssh-rsa"


@given(st.text(max_size=80))
def test_text_is_a_key_or_refused(text: str) -> None:
    try:
        parse(text)
    except InvalidArgument:
        return
    raise AssertionError(f"{text!r} was taken for a key")


async def test_keys_are_added_listed_and_removed_by_fingerprint_or_comment() -> None:
    keys = SshKeys(Keeping())
    first, second = parse(ED25519), parse(rsa(2048) + " work")
    for each in (first, second):
        await keys.add("account:ada", each)
    with pytest.raises(AlreadyExists):
        await keys.add("account:ada", first)

    assert [each.blob for each in await keys.of("account:ada")] == [first.blob, second.blob]
    assert all(each.added_ns for each in await keys.of("account:ada"))
    assert await keys.of("account:bob") == []
    await keys.remove("account:ada", "work")
    with pytest.raises(NotFound):
        await keys.remove("account:ada", "work")
    await keys.remove("account:ada", first.fingerprint)
    assert await keys.of("account:ada") == []
    await keys.forget("account:ada")


async def test_an_account_has_a_bounded_number_of_keys() -> None:
    keeping = Keeping()
    keys = SshKeys(keeping)
    for number in range(KEYS_MAX):
        await keys.add("account:ada", PublicKey("ssh-ed25519", bytes([number]), "same"))
    with pytest.raises(TooLarge):
        await keys.add("account:ada", PublicKey("ssh-ed25519", b"more"))
    with pytest.raises(InvalidArgument, match="say a fingerprint"):
        await keys.remove("account:ada", "same")
    await keys.forget("account:ada")
    known: Mapping[str, bytes] = keeping.shelf.known
    assert not known


def test_without_records_there_are_no_keys() -> None:
    class Nothing(Keeping):
        records = Authenticator.records

    with pytest.raises(Unsupported):
        SshKeys(Nothing())
