"""Key services keep keys that never leave them: they wrap the data keys that contents are sealed with, and unwrap them again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from warp_core.errors import Unsupported

KEY_ID_MAX = 256  # characters of a key's id
WRAPPED_MAX = 1024  # bytes of a wrapped data key: it lies in each revision's row


@dataclass(frozen=True, slots=True)
class KeyServiceCapabilities:
    """What a key service claims."""

    manages_keys: bool = False  # create_key, rotate_key, enable_key, keys


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What is told of a key."""

    id: str
    created_ns: int = 0
    enabled: bool = True
    versions: int = 1  # one more with each rotation; data keys wrapped by older ones still open


class KeyService(ABC):
    """Wraps and unwraps. Open it with `async with`. A key is called by its id; "" is the service's default key."""

    capabilities = KeyServiceCapabilities()

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    async def wrap(self, key: str, plain: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Return the id of the key that was used, and `plain` (at most 64 bytes) wrapped under it; at most WRAPPED_MAX bytes.

        `context` says what it is for: only who says the same again unwraps it.

        Raises:
            KeyNotFound, KeyDisabled
            Sealed: The service has its keys and cannot use them: what they are kept under is not here.
            Unavailable: It cannot be asked now.
        """

    @abstractmethod
    async def unwrap(self, key: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return what `wrap` wrapped under the key of this id; raises as it, and

        Raises:
            Corrupt: It is not what `wrap` returned, or the context is another.
        """

    @abstractmethod
    async def describe(self, key: str) -> KeyInfo:
        """Describe a key.

        Raises:
            KeyNotFound
        """

    async def keys(self) -> Sequence[KeyInfo]:
        """Return every key, sorted by id."""
        raise Unsupported("this key service lists no keys")

    async def create_key(self, key: str = "") -> KeyInfo:
        """Make a key, with an id of its own where none is given.

        Raises:
            AlreadyExists: The id is taken.
            InvalidArgument: It is no id.
        """
        raise Unsupported("this key service makes no keys")

    async def rotate_key(self, key: str) -> KeyInfo:
        """Wrap with new key material from now on; what was wrapped before still opens.

        Raises:
            KeyNotFound
        """
        raise Unsupported("this key service rotates no keys")

    async def enable_key(self, key: str, *, enabled: bool) -> KeyInfo:
        """Let a key be used, or let nobody use it.

        Raises:
            KeyNotFound
        """
        raise Unsupported("this key service disables no keys")
