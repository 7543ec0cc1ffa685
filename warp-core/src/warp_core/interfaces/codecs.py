"""Codecs: plain functions on buffers, without I/O. `Chunker` cuts, `Fingerprint` names, `Filter` maps, `Striper` spreads.

They are called from a pool; real work releases the GIL. Input buffers are never kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from warp_core.errors import Corrupt
from warp_core.interfaces.stores import Buffer


@dataclass(frozen=True, slots=True)
class CodecCapabilities:
    """What a codec claims."""

    deterministic: bool = True  # equal input gives equal output, on every machine
    releases_gil: bool = False
    content_defined: bool = (
        False  # chunkers: cuts follow content, so an insertion moves few of them
    )


class Codec(ABC):
    """Common ground of the four shapes; `shape` says which one it is."""

    shape: ClassVar[Literal["chunker", "fingerprint", "filter", "striper"]]
    capabilities: CodecCapabilities = CodecCapabilities()


class Chunker(Codec):
    """Cuts a stream. Sizes are bytes: every chunk but the last lies in [min_size, max_size]."""

    shape = "chunker"
    min_size: int
    max_size: int

    @abstractmethod
    def cut(self, window: memoryview, *, final: bool) -> int:
        """Return the length of the next chunk at the start of `window`, or 0 if more bytes are needed to tell.

        `window` holds the bytes since the last cut, at most `max_size`. With `final`, nothing follows: an answer above 0 is due
        unless the window is empty. The cuts of a stream do not depend on how it was split into windows.
        """


class Fingerprint(Codec):
    """Names content."""

    shape = "fingerprint"
    size: int  # bytes of a digest

    @abstractmethod
    def digest(self, data: Buffer) -> bytes:
        """Return the name of `data`, `size` bytes."""


class Filter(Codec):
    """Maps a frame to stored bytes and back. `stage` orders filters: compress before encrypt."""

    shape = "filter"
    stage: Literal["compress", "encrypt"]
    overhead: int = 0  # stage "encrypt": `encode` adds exactly this many bytes to every frame

    @abstractmethod
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Return the stored form of a frame of at most 64 KiB, or None to keep it as it is (never in stage "encrypt").

        `context` is unique to the place that the frame is stored at (container, offset, frame number): a nonce is derived from it.
        """

    def encode_into(self, frame: memoryview, target: memoryview, *, context: bytes) -> None:
        """Put the stored form of a frame, `overhead` bytes longer than it, where it belongs; for stage "encrypt"."""
        stored = self.encode(frame, context=context)
        assert stored is not None, "what encrypts leaves no frame as it is"
        target[:] = stored

    @abstractmethod
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Return the frame, exactly `length` bytes.

        Raises:
            Corrupt: The stored bytes are not what `encode` made.
        """

    def decode_into(self, stored: memoryview, target: memoryview, *, context: bytes) -> None:
        """Put the frame, as long as `target`, where it belongs; raises as `decode`."""
        decoded = self.decode(stored, length=len(target), context=context)
        if len(decoded) != len(target):
            raise Corrupt(f"a frame of {len(decoded)} bytes where {len(target)} are expected")
        target[:] = decoded


class Cipher(Filter):
    """A filter of stage "encrypt" that can be had under any key: core makes one for each content that has a key of its own."""

    stage: Literal["compress", "encrypt"] = "encrypt"
    key_size: int  # bytes

    @property
    @abstractmethod
    def keyed(self) -> bool:
        """Say whether it has a key, so that a volume's policy may name it."""

    @abstractmethod
    def with_key(self, key: bytes) -> Cipher:
        """Return the same filter under another key of `key_size` bytes.

        Raises:
            InvalidArgument: The key has another length.
        """


class Striper(Codec):
    """Spreads a stripe over k + m shards, any k of which rebuild it."""

    shape = "striper"
    data_shards: int
    parity_shards: int

    @abstractmethod
    def encode(self, stripe: memoryview) -> list[Buffer]:
        """Extend k data shards with m parity shards.

        Args:
            stripe: k·w bytes; not kept.

        Returns:
            k + m shards of w bytes, data shards first and verbatim.

        Raises:
            InvalidArgument: The length is not a multiple of k.
        """

    @abstractmethod
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        """Return all k + m shards from any k of them (None marks a lost one).

        Raises:
            Corrupt: Fewer than k are present.
        """
