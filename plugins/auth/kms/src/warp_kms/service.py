"""The key service: keys in rows of the metadata engine, each version wrapped by the master key; all in memory while it is open.

```
 w │ "m"          which master key wraps the rows: its name, which is no secret
 w │ "k" │ id     a key: when it was made, whether it may be used, its versions, wrapped
```
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from types import TracebackType
from typing import Self

import msgspec
from warp_core.contexts import AuthContext
from warp_core.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    InvalidArgument,
    KeyDisabled,
    KeyNotFound,
    NewerFormat,
    Sealed,
    TooLarge,
)
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.interfaces.keys import KeyInfo, KeyService, KeyServiceCapabilities
from warp_core.key_files import make_key_file, read_key_file
from warp_core.metadata import Transaction, transact

from warp_kms.config import KEY_PATTERN, Config
from warp_kms.wrapping import unwrap, version_of, wrap

FORMAT = 1
MASTER = b"wm"
KEY = b"wk"
KEY_END = b"wl"
VERSIONS_MAX = 500  # of one key: some 85 bytes each, within a row
PLAIN_MAX = 64

_PERSON = b"warp.master-name"
_KEY_ID = re.compile(KEY_PATTERN)


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """A key, msgpack encoded; `versions` are wrapped by the master key, the newest last."""

    format: int
    created_ns: int
    enabled: bool
    versions: tuple[bytes, ...]


_decode = msgspec.msgpack.Decoder(KeyRow).decode


class LocalKeys(KeyService):
    """See `KeyService`."""

    capabilities = KeyServiceCapabilities(manages_keys=True)

    def __init__(
        self,
        config: Config,
        context: AuthContext,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._store = context.metastore
        self._path = context.data / config.master_key
        self._now_ns = now_ns
        self._master = b""
        self._why_not = ""  # the master key cannot be used
        self._opened: dict[tuple[str, bytes], bytes] = {}  # (id, wrapped version) → version

    async def __aenter__(self) -> Self:
        """Read the master key, and make the keys that the configuration names.

        Where it is missing or another than the rows were wrapped with, the service opens all the same: what is not encrypted is
        served, and what is says why it cannot be read.
        """
        named = await self._row(MASTER)
        key = read_key_file(self._path)
        if named is None:
            if key is not None:
                await self._adopt(key)
        elif key is None:
            self._why_not = f"{self._path} is missing, and encrypted contents are unreadable without it: restore it from a backup"
        elif _name_of(key) != named:
            self._why_not = f"{self._path} is another master key than the one that encrypted contents need: restore that one"
        else:
            self._master = key
        if self._config.keys and not self._why_not:
            for name in self._config.keys:
                if await self._row(KEY + name.encode()) is None:
                    await self.create_key(name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.clear()
        self._master = b""

    # What contents need ---------------------------------------------------------------------------

    async def wrap(self, key: str, plain: bytes, *, context: bytes) -> tuple[str, bytes]:
        """See `KeyService.wrap`."""
        if len(plain) > PLAIN_MAX:
            raise TooLarge(f"a data key of {len(plain)} bytes > {PLAIN_MAX}")
        name = key or self._config.default_key
        row = await self._usable(name)
        version = len(row.versions)
        material = self._material(name, version, row.versions[-1])
        return name, wrap(material, version, plain, _bound(name, context))

    async def unwrap(self, key: str, wrapped: bytes, *, context: bytes) -> bytes:
        """See `KeyService.unwrap`."""
        row = await self._usable(key, make=False)
        version = version_of(wrapped)
        if not 1 <= version <= len(row.versions):
            raise Corrupt(f'key "{key}" has no version {version}')
        material = self._material(key, version, row.versions[version - 1])
        return unwrap(material, wrapped, _bound(key, context))

    # Keys -----------------------------------------------------------------------------------------

    async def describe(self, key: str) -> KeyInfo:
        """See `KeyService.describe`."""
        name = key or self._config.default_key
        return _info(name, await self._found(name))

    async def keys(self) -> list[KeyInfo]:
        """See `KeyService.keys`."""
        found: list[KeyInfo] = []
        start = KEY
        view = self._store.view()
        try:
            while page := await view.scan(start, KEY_END, limit=SCAN_MAX):
                for row in page:
                    name = row.key[len(KEY) :].decode()
                    found.append(_info(name, _read(name, row.value)))
                start = page[-1].key + b"\0"
        finally:
            view.close()
        return found

    async def create_key(self, key: str = "") -> KeyInfo:
        """See `KeyService.create_key`."""
        name = key or secrets.token_hex(16)
        if not _KEY_ID.fullmatch(name):
            raise InvalidArgument(
                f'key id "{name}": up to 128 letters, digits and / _ . - are allowed, a letter or digit first'
            )
        if len(await self.keys()) >= self._config.keys_max:
            raise TooLarge(f"there are {self._config.keys_max} keys, as many as keys_max allows")
        version = await self._new_version(name, 1)
        row = KeyRow(FORMAT, self._now_ns(), True, (version,))

        async def body(tx: Transaction) -> None:
            if await tx.get(KEY + name.encode()) is not None:
                raise AlreadyExists(f'key "{name}" exists')
            tx.put(KEY + name.encode(), msgspec.msgpack.encode(row))

        await transact(self._store, body)
        return _info(name, row)

    async def rotate_key(self, key: str) -> KeyInfo:
        """See `KeyService.rotate_key`."""
        name = key or self._config.default_key
        before = await self._found(name)
        if len(before.versions) >= VERSIONS_MAX:
            raise TooLarge(f'key "{name}" has {VERSIONS_MAX} versions: make another key')
        version = await self._new_version(name, len(before.versions) + 1)
        after = msgspec.structs.replace(before, versions=(*before.versions, version))
        await self._replace(name, before, after)
        return _info(name, after)

    async def enable_key(self, key: str, *, enabled: bool) -> KeyInfo:
        """See `KeyService.enable_key`."""
        name = key or self._config.default_key
        before = await self._found(name)
        after = msgspec.structs.replace(before, enabled=enabled)
        await self._replace(name, before, after)
        return _info(name, after)

    async def _replace(self, name: str, before: KeyRow, after: KeyRow) -> None:
        async def body(tx: Transaction) -> None:
            value = await tx.get(KEY + name.encode())
            if value is None or _read(name, value) != before:
                raise Conflict(f'key "{name}" was changed at the same time: try again')
            tx.put(KEY + name.encode(), msgspec.msgpack.encode(after))

        await transact(self._store, body)

    # Rows -----------------------------------------------------------------------------------------

    async def _usable(self, name: str, *, make: bool = True) -> KeyRow:
        value = await self._row(KEY + name.encode())
        if value is None:
            if not make or (
                name != self._config.default_key and self._config.unknown_keys == "refuse"
            ):
                raise KeyNotFound(f'there is no key "{name}"')
            try:
                await self.create_key(name)
            except AlreadyExists:
                pass  # by another request, or another node
            except InvalidArgument as error:
                raise KeyNotFound(str(error)) from error
            value = await self._row(KEY + name.encode())
            if value is None:
                raise KeyNotFound(f'there is no key "{name}"')
        row = _read(name, value)
        if not row.enabled:
            raise KeyDisabled(f'key "{name}" is disabled')
        return row

    async def _found(self, name: str) -> KeyRow:
        value = await self._row(KEY + name.encode())
        if value is None:
            raise KeyNotFound(f'there is no key "{name}"')
        return _read(name, value)

    async def _row(self, key: bytes) -> bytes | None:
        if self._store.capabilities.immediate:
            row = self._store.get_now(key)
            return row[0] if row is not None else None
        view = self._store.view()
        try:
            found = await view.get(key)
        finally:
            view.close()
        return found[0] if found is not None else None

    # The master key -------------------------------------------------------------------------------

    def _material(self, name: str, version: int, wrapped: bytes) -> bytes:
        known = self._opened.get((name, wrapped))
        if known is None:
            if not self._master:
                raise Sealed(self._why_not or f"{self._path} was never made")
            known = unwrap(self._master, wrapped, _bound(name, b"version %d" % version))
            self._opened[name, wrapped] = known
        return known

    async def _new_version(self, name: str, version: int) -> bytes:
        if self._why_not:
            raise Sealed(self._why_not)
        if not self._master:
            await self._adopt(read_key_file(self._path) or make_key_file(self._path))
        plain = secrets.token_bytes(32)
        return wrap(self._master, 0, plain, _bound(name, b"version %d" % version))

    async def _adopt(self, key: bytes) -> None:
        """Note which master key wraps the rows from now on.

        Raises:
            Sealed: Another node did, with another key.
        """

        async def body(tx: Transaction) -> bytes:
            value = await tx.get(MASTER)
            if value is None:
                value = _name_of(key)
                tx.put(MASTER, value)
            return value

        if await transact(self._store, body) != _name_of(key):
            raise Sealed(
                f"{self._path} is another master key than the one that encrypted contents need: restore that one"
            )
        self._master = key


def _name_of(master: bytes) -> bytes:
    """Return what tells one master key from another and gives nothing of it away."""
    return blake2b(b"", digest_size=16, key=master, person=_PERSON).digest()


def _bound(name: str, context: bytes) -> bytes:
    """Bind what is wrapped to a key's id, so that rows cannot be swapped."""
    return name.encode() + b"\0" + context


@lru_cache(maxsize=1024)
def _read(name: str, value: bytes) -> KeyRow:
    try:
        row = _decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f'the row of key "{name}" is damaged: {error}') from error
    if row.format > FORMAT:
        raise NewerFormat(f'key "{name}" is of format {row.format}, this release reads {FORMAT}')
    return row


def _info(name: str, row: KeyRow) -> KeyInfo:
    return KeyInfo(name, row.created_ns, row.enabled, len(row.versions))
