"""Faulty authenticators."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import ClassVar, Self

import pytest
from warp_core.errors import AlreadyExists, NotFound, Unauthenticated
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal

from warp_conformance.kits.auth import ROOT, AuthKit, Make
from warp_conformance.mutation import Faults
from warp_conformance.reference.auth import Disk, MemoryAuth

faults = Faults("auth")


class OnAuth(AuthKit):
    implementation: ClassVar[Callable[[Disk, tuple[str, str]], Authenticator]] = MemoryAuth

    @pytest.fixture
    def make(self) -> Make:
        disk = Disk()
        return lambda: type(self).implementation(
            disk, ROOT
        )  # through the class: a function would be bound


class ClaimsNothing(Authenticator):
    """Claims nothing, and refuses everything."""

    capabilities = AuthCapabilities()

    def __init__(self, disk: Disk, root: tuple[str, str]) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *rest: object) -> None:
        pass


class OnNothing(OnAuth):
    """For faults of authenticators that claim nothing."""

    implementation: ClassVar[Callable[[Disk, tuple[str, str]], Authenticator]] = ClaimsNothing


# lookup, lookup_now -------------------------------------------------------------------------------


@faults(OnAuth, "Authenticator.lookup_now", "stale-after-revocation")
class RemembersTheRevoked(MemoryAuth):
    def __init__(self, disk: Disk, root: tuple[str, str]) -> None:
        super().__init__(disk, root)
        self.seen: dict[str, Credential] = {}

    def lookup_now(self, access_key: str) -> Credential | None:
        found = super().lookup_now(access_key)
        if found:
            self.seen[access_key] = found
        return self.seen.get(access_key)

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        self.seen.pop(access_key, None)
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.lookup_now", "unknown-becomes-root")
class TakesUnknownForRoot(MemoryAuth):
    def lookup_now(self, access_key: str) -> Credential | None:
        return super().lookup_now(access_key) or (self.root if not access_key else None)


@faults(OnAuth, "Authenticator.lookup", "case-is-ignored")
class IgnoresCase(MemoryAuth):
    def lookup_now(self, access_key: str) -> Credential | None:
        return (
            self.root
            if access_key.upper() == self.root.access_key
            else super().lookup_now(access_key)
        )


@faults(OnAuth, "Authenticator.lookup", "prefix-will-do")
class TakesAPrefix(MemoryAuth):
    def lookup_now(self, access_key: str) -> Credential | None:
        known = {self.root.access_key: self.root, **self.disk.keys}
        return next(
            (each for key, each in known.items() if access_key and key.startswith(access_key)), None
        )


@faults(OnAuth, "Authenticator.lookup", "cut-at-a-zero")
class CutsAtAZero(MemoryAuth):
    def lookup_now(self, access_key: str) -> Credential | None:
        return super().lookup_now(access_key.partition("\0")[0])


@faults(OnAuth, "Authenticator.lookup", "wrong-error")
class SaysNotFound(MemoryAuth):
    async def lookup(self, access_key: str) -> Credential:
        found = self.lookup_now(access_key)
        if found is None:
            raise NotFound(access_key)
        return found


@faults(OnAuth, "Authenticator.lookup", "root-is-unknown")
class ForgetsTheRoot(MemoryAuth):
    def lookup_now(self, access_key: str) -> Credential | None:
        return self.disk.keys.get(access_key)


@faults(OnAuth, "Authenticator.lookup", "root-is-nobody")
class RootIsNobody(MemoryAuth):
    def principal(self, name: str) -> Principal:
        return Principal(super().principal(name).name)


@faults(OnAuth, "Authenticator.lookup", "everybody-is-admin")
class EverybodyIsAdmin(MemoryAuth):
    def principal(self, name: str) -> Principal:
        return Principal(super().principal(name).name, admin=True)


@faults(OnAuth, "Authenticator.lookup", "overtakes-a-revocation")
class CachesWhatItRead(MemoryAuth):
    def __init__(self, disk: Disk, root: tuple[str, str]) -> None:
        super().__init__(disk, root)
        self.cache: dict[str, Credential] = {}

    def lookup_now(self, access_key: str) -> Credential | None:
        return self.root if access_key == self.root.access_key else self.cache.get(access_key)

    async def lookup(self, access_key: str) -> Credential:
        if (known := self.lookup_now(access_key)) is not None:
            return known
        found = self.disk.keys.get(access_key)
        await asyncio.sleep(0)
        if found is None:
            raise Unauthenticated("unknown")
        self.cache[access_key] = found
        return found

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        if access_key in self.disk.keys:
            raise AlreadyExists(access_key)
        return await super().create_key(principal, access_key=access_key, secret=secret)

    async def revoke_key(self, access_key: str) -> None:
        await super().revoke_key(access_key)
        self.cache.pop(access_key, None)


@faults(OnAuth, "Authenticator.lookup", "another-principal")
class MixesPrincipalsUp(MemoryAuth):
    async def lookup(self, access_key: str) -> Credential:
        found = await super().lookup(access_key)
        if found is self.root:
            return found
        return Credential(found.access_key, found.secret, self.principal(found.access_key))


@faults(OnAuth, "Authenticator.lookup", "secret-in-text")
class ShowsSecrets(MemoryAuth):
    def __repr__(self) -> str:
        return f"MemoryAuth(root={self.root.access_key}:{self.root.secret})"


@faults(OnAuth, "Authenticator.lookup", "secret-in-the-log")
class LogsSecrets(MemoryAuth):
    async def lookup(self, access_key: str) -> Credential:
        import logging

        found = await super().lookup(access_key)
        logging.getLogger("auth").debug("found %s with %s", access_key, found.secret)
        return found


@faults(OnNothing, "Authenticator.lookup", "unclaimed-not-refused")
class LooksUpUnclaimed(ClaimsNothing):
    async def lookup(self, access_key: str) -> Credential:
        raise Unauthenticated("unknown")


# create_key ---------------------------------------------------------------------------------------


@faults(OnAuth, "Authenticator.create_key", "replaces-the-taken")
class ReplacesTheTaken(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        self.disk.keys.pop(access_key, None)
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "replaces-the-root")
class ReplacesTheRoot(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        if access_key == self.root.access_key:
            self.root = Credential(access_key, secret, self.principal(principal))
            return self.root
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "two-winners")
class LetsTwoWin(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        if self.lookup_now(access_key):
            raise AlreadyExists(access_key)
        await asyncio.sleep(0)
        self.disk.keys.pop(access_key, None)
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "guessable-secret")
class CountsSecrets(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        secret = secret or f"secret-{len(self.disk.keys):020}"
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "one-secret-for-a-principal")
class SharesSecrets(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        secret = secret or hashlib.sha256(principal.encode()).hexdigest()
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "unusable-access-key")
class MakesUnusableKeys(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        access_key = access_key or f"{principal}/{time.monotonic_ns()}"
        return await super().create_key(principal, access_key=access_key, secret=secret)


@faults(OnAuth, "Authenticator.create_key", "ignored-secret")
class IgnoresTheSecret(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        return await super().create_key(principal, access_key=access_key)


@faults(OnAuth, "Authenticator.create_key", "cut-secret")
class CutsTheSecret(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        return await super().create_key(principal, access_key=access_key, secret=secret[:40])


@faults(OnAuth, "Authenticator.create_key", "lost-at-the-end")
class KeepsKeysInMemory(MemoryAuth):
    async def __aenter__(self) -> Self:
        self.disk.keys = {}
        return self


@faults(OnAuth, "Authenticator.create_key", "any-principal")
class TakesAnyName(MemoryAuth):
    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        made = await super().create_key("ada", access_key=access_key, secret=secret)
        made = Credential(made.access_key, made.secret, self.principal(principal))
        self.disk.keys[made.access_key] = made
        return made


# revoke_key, list_keys ----------------------------------------------------------------------------


@faults(OnAuth, "Authenticator.revoke_key", "all-of-the-principal")
class RevokesAllOfThePrincipal(MemoryAuth):
    async def revoke_key(self, access_key: str) -> None:
        found = self.disk.keys.get(access_key)
        await super().revoke_key(access_key)
        keys = self.disk.keys
        self.disk.keys = {k: v for k, v in keys.items() if found and v.principal != found.principal}


@faults(OnAuth, "Authenticator.revoke_key", "silent-about-the-unknown")
class RevokesWhatIsNotThere(MemoryAuth):
    async def revoke_key(self, access_key: str) -> None:
        if access_key in self.disk.keys or access_key == self.root.access_key:
            await super().revoke_key(access_key)


@faults(OnAuth, "Authenticator.revoke_key", "root-too")
class RevokesTheRoot(MemoryAuth):
    revoked = False

    def lookup_now(self, access_key: str) -> Credential | None:
        return None if self.revoked and access_key == ROOT[0] else super().lookup_now(access_key)

    async def revoke_key(self, access_key: str) -> None:
        if access_key == self.root.access_key:
            self.revoked = True
        else:
            await super().revoke_key(access_key)


@faults(OnAuth, "Authenticator.revoke_key", "late")
class RevokesLater(MemoryAuth):
    async def revoke_key(self, access_key: str) -> None:
        if access_key not in self.disk.keys:
            raise NotFound(access_key)
        asyncio.get_running_loop().call_later(0.05, self.disk.keys.pop, access_key, None)


@faults(OnAuth, "Authenticator.revoke_key", "back-after-a-restart")
class ForgetsRevocations(MemoryAuth):
    def __init__(self, disk: Disk, root: tuple[str, str]) -> None:
        super().__init__(disk, root)
        self.revoked: set[str] = set()

    def lookup_now(self, access_key: str) -> Credential | None:
        return None if access_key in self.revoked else super().lookup_now(access_key)

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        if access_key in self.revoked:
            self.revoked.discard(access_key)
            self.disk.keys.pop(access_key, None)
        return await super().create_key(principal, access_key=access_key, secret=secret)

    async def revoke_key(self, access_key: str) -> None:
        if access_key not in self.disk.keys or access_key in self.revoked:
            raise NotFound(access_key)
        self.revoked.add(access_key)

    async def list_keys(self) -> list[tuple[str, Principal]]:
        return [pair for pair in await super().list_keys() if pair[0] not in self.revoked]


@faults(OnAuth, "Authenticator.list_keys", "unsorted")
class ListsUnsorted(MemoryAuth):
    async def list_keys(self) -> list[tuple[str, Principal]]:
        return (await super().list_keys())[::-1]


@faults(OnAuth, "Authenticator.list_keys", "first-page-only")
class ListsTheFirstPage(MemoryAuth):
    async def list_keys(self) -> list[tuple[str, Principal]]:
        return (await super().list_keys())[:20]


@faults(OnAuth, "Authenticator.list_keys", "without-the-root")
class HidesTheRoot(MemoryAuth):
    async def list_keys(self) -> list[tuple[str, Principal]]:
        return [pair for pair in await super().list_keys() if pair[0] != self.root.access_key]


@faults(OnNothing, "Authenticator.list_keys", "unclaimed-not-refused")
class ListsUnclaimed(ClaimsNothing):
    async def list_keys(self) -> list[tuple[str, Principal]]:
        return []


# Passwords ----------------------------------------------------------------------------------------


@faults(OnAuth, "Authenticator.verify_password", "empty-password")
class TakesAnEmptyPassword(MemoryAuth):
    async def verify_password(self, user: str, password: str) -> Principal:
        return await super().verify_password(user, password) if password else self.principal(user)


@faults(OnAuth, "Authenticator.verify_password", "prefix-will-do")
class ComparesAPrefix(MemoryAuth):
    def hashed(self, password: str) -> bytes:
        return super().hashed(password[:12])


@faults(OnAuth, "Authenticator.verify_password", "cut-at-a-zero")
class CutsPasswordsAtAZero(MemoryAuth):
    def hashed(self, password: str) -> bytes:
        return super().hashed(password.rstrip("\0"))


@faults(OnAuth, "Authenticator.verify_password", "blanks-are-stripped")
class StripsBlanks(MemoryAuth):
    def hashed(self, password: str) -> bytes:
        return super().hashed(password.strip())


@faults(OnAuth, "Authenticator.verify_password", "case-is-ignored")
class IgnoresCaseOfPasswords(MemoryAuth):
    def hashed(self, password: str) -> bytes:
        return super().hashed(password.lower())


@faults(OnAuth, "Authenticator.verify_password", "anybodys-password")
class TakesAnybodysPassword(MemoryAuth):
    async def verify_password(self, user: str, password: str) -> Principal:
        if password and self.hashed(password) in self.disk.passwords.values():
            return self.principal(user)
        return await super().verify_password(user, password)


@faults(OnAuth, "Authenticator.verify_password", "tells-who-exists")
class TellsWhoExists(MemoryAuth):
    async def verify_password(self, user: str, password: str) -> Principal:
        if self.principal(user).name not in self.disk.passwords:
            raise Unauthenticated("unknown user")
        return await super().verify_password(user, password)


@faults(OnAuth, "Authenticator.verify_password", "quick-for-the-unknown")
class IsQuickForTheUnknown(MemoryAuth):
    async def verify_password(self, user: str, password: str) -> Principal:
        if self.principal(user).name in self.disk.passwords:
            await asyncio.sleep(0.01)
        return await super().verify_password(user, password)


@faults(OnAuth, "Authenticator.verify_password", "blocks-the-loop")
class HashesInTheLoop(MemoryAuth):
    async def verify_password(self, user: str, password: str) -> Principal:
        hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 400_000)
        return await super().verify_password(user, password)


@faults(OnAuth, "Authenticator.set_password", "old-one-goes-on")
class KeepsTheFirstPassword(MemoryAuth):
    async def set_password(self, principal: str, password: str) -> None:
        if not password or self.principal(principal).name not in self.disk.passwords:
            await super().set_password(principal, password)


@faults(OnAuth, "Authenticator.set_password", "cannot-be-taken-away")
class KeepsThePassword(MemoryAuth):
    async def set_password(self, principal: str, password: str) -> None:
        if password:
            await super().set_password(principal, password)


@faults(OnAuth, "Authenticator.set_password", "lost-at-the-end")
class KeepsPasswordsInMemory(MemoryAuth):
    async def __aenter__(self) -> Self:
        self.disk.passwords = {}
        return self


@faults(OnNothing, "Authenticator.verify_password", "unclaimed-not-refused")
class ChecksUnclaimed(ClaimsNothing):
    async def verify_password(self, user: str, password: str) -> Principal:
        raise Unauthenticated("unknown user or wrong password")
