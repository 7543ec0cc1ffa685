"""Faulty codecs."""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections.abc import Sequence
from typing import ClassVar

import pytest
from warp_core.errors import Corrupt
from warp_core.interfaces.codecs import Chunker, Filter, Fingerprint, Striper
from warp_core.interfaces.stores import Buffer

from warp_conformance.kits.codecs import ChunkerKit, FilterKit, FingerprintKit, StriperKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.codecs import Blake2, Deflate, Marks, Masked, Sums

faults = Faults("codecs")


class OnChunker(ChunkerKit):
    implementation: ClassVar[type[Chunker]] = Marks

    @pytest.fixture
    def subject(self) -> Chunker:
        return self.implementation()


class OnFingerprint(FingerprintKit):
    implementation: ClassVar[type[Fingerprint]] = Blake2

    @pytest.fixture
    def subject(self) -> Fingerprint:
        return self.implementation()


class OnCompressor(FilterKit):
    implementation: ClassVar[type[Filter]] = Deflate

    @pytest.fixture
    def subject(self) -> Filter:
        return self.implementation()


class OnEncryptor(FilterKit):
    implementation: ClassVar[type[Filter]] = Masked

    @pytest.fixture
    def subject(self) -> Filter:
        return self.implementation()


class OnStriper(StriperKit):
    implementation: ClassVar[type[Striper]] = Sums

    @pytest.fixture
    def subject(self) -> Striper:
        return self.implementation()


# Chunkers -----------------------------------------------------------------------------------------


@faults(OnChunker, "Chunker.cut", "beyond-the-window")
class CutsBeyondTheWindow(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        return min(super().cut(window, final=final) + (1 if final else 0), self.max_size)


@faults(OnChunker, "Chunker.cut", "ignores-final")
class IgnoresFinal(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        return super().cut(window, final=False)


@faults(OnChunker, "Chunker.cut", "below-the-minimum")
class CutsTooSoon(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        for end in range(16, min(len(window), self.max_size) + 1):
            if zlib.crc32(window[end - 16 : end]) & 0x3F == 0:
                return end
        return super().cut(window, final=final)


@faults(OnChunker, "Chunker.cut", "never-at-the-maximum")
class WaitsForAMark(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        found = super().cut(window, final=final)
        return 0 if found == self.max_size and not final else found


@faults(OnChunker, "Chunker.cut", "depends-on-windows")
class CutsWhatIsThere(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        found = super().cut(window, final=final)
        return found or (len(window) if len(window) > 150 else 0)


@faults(OnChunker, "Chunker.cut", "remembers-the-last-stream")
class RemembersTheLastStream(Marks):
    def __init__(self) -> None:
        self.last = 0

    def cut(self, window: memoryview, *, final: bool) -> int:
        found = super().cut(window, final=final)
        if found and self.last > 256 and found > self.min_size and not final:
            found -= 1
        self.last = found or self.last
        return found


@faults(OnChunker, "Chunker.cut", "not-content-defined")
class CutsByCounting(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        return 200 if len(window) >= 200 else len(window) if final else 0


@faults(OnChunker, "Chunker.cut", "keeps-the-window")
class KeepsTheWindow(Marks):
    kept: memoryview

    def cut(self, window: memoryview, *, final: bool) -> int:
        self.kept = window[:]
        return super().cut(window, final=final)


@faults(OnChunker, "Chunker.cut", "cuts-nothing-off-emptiness")
class CutsEmptiness(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        return super().cut(window, final=final) or (1 if not window else 0)


@faults(OnChunker, "Chunker.cut", "rare-random-cut")
class CutsAtRandom(Marks):
    def cut(self, window: memoryview, *, final: bool) -> int:
        found = super().cut(window, final=final)
        return found - 1 if found > self.min_size and random.random() < 0.05 else found


# Fingerprints -------------------------------------------------------------------------------------


@faults(OnFingerprint, "Fingerprint.digest", "wrong-size")
class StatesAnotherSize(Blake2):
    size = 32

    def digest(self, data: Buffer) -> bytes:
        return hashlib.blake2b(data, digest_size=33).digest()


@faults(OnFingerprint, "Fingerprint.digest", "head-only")
class NamesTheHead(Blake2):
    def digest(self, data: Buffer) -> bytes:
        return super().digest(memoryview(data)[:65_536])


@faults(OnFingerprint, "Fingerprint.digest", "samples-only")
class NamesASample(Blake2):
    def digest(self, data: Buffer) -> bytes:
        view = memoryview(data)
        return super().digest(bytes(view[:1024]) + bytes(view[-1024:]) + len(view).to_bytes(8))


@faults(OnFingerprint, "Fingerprint.digest", "sum-of-blocks")
class AddsBlocks(Blake2):
    def digest(self, data: Buffer) -> bytes:
        view = memoryview(data)
        total = len(view)
        for start in range(0, len(view), 64):
            total += int.from_bytes(super().digest(view[start : start + 64]))
        return (total % (1 << 256)).to_bytes(32)


@faults(OnFingerprint, "Fingerprint.digest", "ignores-length")
class PadsWithZeros(Blake2):
    def digest(self, data: Buffer) -> bytes:
        return super().digest(bytes(data) + bytes(-len(data) % 64))


@faults(OnFingerprint, "Fingerprint.digest", "ignores-the-last-byte")
class IgnoresTheLastByte(Blake2):
    def digest(self, data: Buffer) -> bytes:
        return super().digest(memoryview(data)[:-1])


@faults(OnFingerprint, "Fingerprint.digest", "salted")
class SaltsByInstance(Blake2):
    def __init__(self) -> None:
        self.count = 0

    def digest(self, data: Buffer) -> bytes:
        self.count += 1
        return super().digest(bytes(data) + (b"" if self.count < 12 else b"!"))


@faults(OnFingerprint, "Fingerprint.digest", "shared-state")
class SharesAHasher(Blake2):
    def __init__(self) -> None:
        self.pending: Buffer = b""

    def digest(self, data: Buffer) -> bytes:
        self.pending = data
        time.sleep(0.0005)
        return super().digest(self.pending)


@faults(OnFingerprint, "Fingerprint.digest", "keeps-the-content")
class KeepsTheContent(Blake2):
    kept: memoryview

    def digest(self, data: Buffer) -> bytes:
        self.kept = memoryview(data)
        return super().digest(data)


@faults(OnFingerprint, "Fingerprint.digest", "padded-digest")
class PadsTheDigest(Blake2):
    def digest(self, data: Buffer) -> bytes:
        return hashlib.blake2b(data, digest_size=20).digest() + bytes(12)


@faults(OnFingerprint, "Fingerprint.digest", "ignores-the-low-bit")
class IgnoresTheLowBit(Blake2):
    def digest(self, data: Buffer) -> bytes:
        return super().digest(
            bytes(byte & 0xFE for byte in bytes(data)[:9000]) + bytes(data)[9000:]
        )


# Filters that compress ----------------------------------------------------------------------------


@faults(OnCompressor, "Filter.encode", "grows-noise")
class StoresMore(Deflate):
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        return zlib.compress(frame, 1)


@faults(OnCompressor, "Filter.encode", "never-compresses")
class NeverCompresses(Deflate):
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        return None


@faults(OnCompressor, "Filter.encode", "drops-the-last-byte")
class DropsTheLastByte(Deflate):
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        return super().encode(frame[: -1 if len(frame) == 65_536 else None], context=context)


@faults(OnCompressor, "Filter.encode", "changes-the-frame")
class ChangesTheFrame(Deflate):
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        stored = super().encode(frame, context=context)
        if not frame.readonly:
            frame[0] ^= 1
        return stored


@faults(OnCompressor, "Filter.encode", "reuses-its-output")
class ReusesItsOutput(Deflate):
    def __init__(self) -> None:
        self.room = bytearray(70_000)

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        stored = super().encode(frame, context=context)
        if stored is None:
            return None
        self.room[: len(stored)] = stored
        return memoryview(self.room)[: len(stored)]


@faults(OnCompressor, "Filter.encode", "not-deterministic")
class CountsItsCalls(Deflate):
    count = 0

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        self.count += 1
        stored = zlib.compress(frame, 1 + self.count % 9)
        return stored if len(stored) < len(frame) else None


@faults(OnCompressor, "Filter.encode", "one-stream-for-all-threads")
class SharesAStream(Deflate):
    def __init__(self) -> None:
        self.frame = memoryview(b"")

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        self.frame = frame
        time.sleep(0.0002)
        return super().encode(self.frame, context=context)


@faults(OnCompressor, "Filter.decode", "swapped-bytes")
class SwapsBytes(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        frame = bytearray(super().decode(stored, length=length, context=context))
        if len(frame) > 4096:
            frame[4000], frame[4001] = frame[4001], frame[4000]
        return frame


@faults(OnCompressor, "Filter.decode", "wrong-error")
class RaisesItsOwnError(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        frame = zlib.decompress(stored)
        if len(frame) != length:
            raise Corrupt("another length")
        return frame


@faults(OnCompressor, "Filter.decode", "ignores-length")
class IgnoresLength(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        try:
            return zlib.decompress(stored)
        except zlib.error as error:
            raise Corrupt("not a frame") from error


@faults(OnCompressor, "Filter.decode", "pads-what-is-short")
class PadsWhatIsShort(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        try:
            return zlib.decompressobj().decompress(stored, length).ljust(length, b"\0")
        except zlib.error as error:
            raise Corrupt("not a frame") from error


@faults(OnCompressor, "Filter.decode", "ignores-what-follows")
class IgnoresWhatFollows(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        inflater = zlib.decompressobj()
        try:
            frame = inflater.decompress(stored, length + 1)
        except zlib.error as error:
            raise Corrupt("not a frame") from error
        if len(frame) != length or not inflater.eof:
            raise Corrupt("another length")
        return frame


@faults(OnCompressor, "Filter.decode", "accepts-truncation")
class AcceptsTruncation(Deflate):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        inflater = zlib.decompressobj()
        try:
            frame = inflater.decompress(stored, length + 1)
        except zlib.error as error:
            raise Corrupt("not a frame") from error
        if len(frame) != length:
            raise Corrupt("another length")
        return frame


@faults(OnCompressor, "Filter.decode", "stale-result")
class RemembersTheLastFrame(Deflate):
    def __init__(self) -> None:
        self.seen: dict[tuple[int, bytes], Buffer] = {}

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        key = (length, bytes(stored[:8]))
        self.seen.setdefault(key, super().decode(stored, length=length, context=context))
        return self.seen[key]


@faults(OnCompressor, "Filter.decode", "keeps-what-was-stored")
class KeepsWhatWasStored(Deflate):
    kept: memoryview

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        self.kept = stored[:]
        return super().decode(stored, length=length, context=context)


# Filters that encrypt -----------------------------------------------------------------------------


@faults(OnEncryptor, "Filter.encode", "plain-when-short")
class LeavesShortFramesPlain(Masked):
    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        return None if len(frame) < 16 else super().encode(frame, context=context)


@faults(OnEncryptor, "Filter.encode", "one-nonce-for-all")
class IgnoresThePlace(Masked):
    def mask(self, data: Buffer, context: bytes) -> bytes:
        return super().mask(data, b"")


@faults(OnEncryptor, "Filter.encode", "plain-text-with-a-tag")
class OnlyAuthenticates(Masked):
    def mask(self, data: Buffer, context: bytes) -> bytes:
        return bytes(data)


@faults(OnEncryptor, "Filter.decode", "place-not-authenticated")
class AcceptsWhatWasMoved(Masked):
    def tag(self, masked: bytes, context: bytes) -> bytes:
        return super().tag(masked, b"")


@faults(OnEncryptor, "Filter.decode", "tag-not-checked")
class ChecksNoTag(Masked):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        if len(stored) != length + 16:
            raise Corrupt("another length")
        return self.mask(stored[:-16], context)


@faults(OnEncryptor, "Filter.decode", "half-a-tag")
class ChecksHalfATag(Masked):
    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        masked = bytes(stored[:-16])
        if len(masked) != length or stored[-16:-8] != self.tag(masked, context)[:8]:
            raise Corrupt("the tag does not match")
        return self.mask(masked, context)


@faults(OnEncryptor, "Filter.decode", "tag-covers-the-head-only")
class ChecksTheHead(Masked):
    def tag(self, masked: bytes, context: bytes) -> bytes:
        return super().tag(masked[:64] + len(masked).to_bytes(8), context)


# Stripers -----------------------------------------------------------------------------------------


@faults(OnStriper, "Striper.encode", "parity-first")
class PutsParityFirst(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        shards = super().encode(stripe)
        return [*shards[3:], *shards[:3]]


@faults(OnStriper, "Striper.encode", "interleaved-data")
class InterleavesData(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        if len(stripe) % 3:
            return super().encode(stripe)
        return super().encode(memoryview(b"".join(bytes(stripe[at::3]) for at in range(3))))


@faults(OnStriper, "Striper.encode", "equal-parity")
class RepeatsItsParity(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        shards = super().encode(stripe)
        return [*shards[:4], shards[3]]


@faults(OnStriper, "Striper.encode", "pads-ragged-stripes")
class PadsRaggedStripes(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        return super().encode(memoryview(bytes(stripe) + bytes(-len(stripe) % 3)))


@faults(OnStriper, "Striper.encode", "missing-shard")
class ForgetsAShard(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        return super().encode(stripe)[:4]


@faults(OnStriper, "Striper.encode", "ignores-the-tail")
class IgnoresTheTail(Sums):
    def parity(self, data: list[bytes], which: int) -> bytes:
        sums = super().parity(data, which)
        return sums[:-1] + b"\0"


@faults(OnStriper, "Striper.encode", "ignores-a-shard")
class IgnoresAShard(Sums):
    def parity(self, data: list[bytes], which: int) -> bytes:
        return super().parity([data[0], data[1], bytes(len(data[0]))], which)


@faults(OnStriper, "Striper.encode", "changes-the-stripe")
class ChangesTheStripe(Sums):
    def encode(self, stripe: memoryview) -> list[Buffer]:
        shards = super().encode(stripe)
        if not stripe.readonly:
            stripe[-1] ^= 1
        return shards


@faults(OnStriper, "Striper.decode", "zeros-for-lost-parity")
class LeavesParityLost(Sums):
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        whole = super().decode(shards)
        return [
            *whole[:3],
            *(
                new if old else bytes(len(new))
                for new, old in zip(whole[3:], shards[3:], strict=True)
            ),
        ]


@faults(OnStriper, "Striper.decode", "guesses-without-enough")
class Guesses(Sums):
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        width = max(len(shard) for shard in shards if shard is not None)
        missing = self.data_shards - sum(shard is not None for shard in shards)
        filled = list(shards)
        for at in [at for at, shard in enumerate(shards) if shard is None][: max(0, missing)]:
            filled[at] = bytes(width)
        return super().decode(filled)


@faults(OnStriper, "Striper.decode", "one-loss-only")
class SurvivesOneLoss(Sums):
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        if sum(shard is None for shard in shards) > 1:
            raise Corrupt("more than one shard is lost")
        return super().decode(shards)


@faults(OnStriper, "Striper.decode", "wrong-for-one-pattern")
class WrongForOnePattern(Sums):
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        whole = super().decode(shards)
        if [at for at, shard in enumerate(shards) if shard is None] == [1, 3]:
            whole[1] = whole[0]
        return whole


@faults(OnStriper, "Striper.decode", "changes-its-shards")
class ChangesItsShards(Sums):
    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        whole = super().decode(shards)
        for shard in shards:
            if isinstance(shard, bytearray):
                shard[0] ^= 1
        return whole


@faults(OnStriper, "Striper.encode", "one-workspace-for-all-threads")
class SharesAWorkspace(Sums):
    def __init__(self) -> None:
        self.stripe = memoryview(b"")

    def encode(self, stripe: memoryview) -> list[Buffer]:
        self.stripe = stripe
        time.sleep(0.001)
        return super().encode(self.stripe)
