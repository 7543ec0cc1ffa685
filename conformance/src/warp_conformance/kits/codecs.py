"""Kits for codecs: chunkers, fingerprints, filters and stripers."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from warp_core.contexts import CodecContext
from warp_core.errors import Corrupt, InvalidArgument
from warp_core.interfaces.codecs import Chunker, Codec, Filter, Fingerprint, Striper
from warp_core.interfaces.stores import Buffer
from warp_core.registry import Entry

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given, requires, sample_of

FRAME_MAX = 64 * 1024
OVERHEAD_MAX = 64  # bytes that an encrypting filter may add: nonce, tag, version
SUBSETS_MAX = 60  # of shards tried by one test; wide stripes have too many to try all
THREADS = 4

T = TypeVar("T")


def adopt(entry: Entry[Codec]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit of the codec's shape; built from the sample configuration, without arguments."""

    @pytest.fixture
    def subject(self: Kit, tmp_path: Path) -> Codec:
        return entry.build(sample_of(entry, tmp_path), CodecContext())

    kits: dict[str, type[Kit]] = {
        "chunker": ChunkerKit,
        "fingerprint": FingerprintKit,
        "filter": FilterKit,
        "striper": StriperKit,
    }
    with tempfile.TemporaryDirectory() as folder:
        shape = entry.build(sample_of(entry, Path(folder)), CodecContext()).shape
    yield kits[shape], {"subject": subject}


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes that nothing compresses."""
    return random.Random(seed).randbytes(length)


def text(length: int, seed: int = 0) -> bytes:
    """Return bytes that compress well, without a period."""
    source = random.Random(seed)
    words = [source.randbytes(6) for _ in range(40)]
    return b"".join(source.choice(words) for _ in range(length // 6 + 1))[:length]


def contents(max_size: int) -> st.SearchStrategy[bytes]:
    """Return bytes of many kinds, at least one."""
    sizes = st.integers(1, max_size)
    return st.one_of(
        st.binary(min_size=1, max_size=min(max_size, 4096)),
        st.builds(noise, sizes, st.integers(0, 9)),
        st.builds(text, sizes, st.integers(0, 9)),
        st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255)),
    )


def in_threads(call: Callable[[int], T], count: int) -> list[T]:
    """Return `call(0..count-1)`, made from several threads at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(count)))


class ChunkerKit(Kit, kit=True):
    """Cuts cover the stream, keep their limits, and depend on nothing but its bytes."""

    def test_sizes_are_sane(self, subject: Chunker) -> None:
        assert 0 < subject.min_size <= subject.max_size

    def test_a_full_window_is_always_cut(self, subject: Chunker) -> None:
        for window in (noise(subject.max_size), bytes(subject.max_size), text(subject.max_size)):
            cut = subject.cut(memoryview(window), final=False)

            assert subject.min_size <= cut <= subject.max_size

    def test_less_than_the_smallest_chunk_is_cut_only_at_the_end(self, subject: Chunker) -> None:
        if subject.min_size > 1:
            window = memoryview(noise(subject.min_size - 1))

            assert subject.cut(window, final=False) == 0
            assert subject.cut(window, final=True) == len(window)

    def test_the_end_of_the_stream_is_cut_out(self, subject: Chunker) -> None:
        for length in {
            1,
            subject.min_size,
            (subject.min_size + subject.max_size) // 2,
            subject.max_size,
        }:
            window = memoryview(noise(length, seed=length))

            assert 0 < subject.cut(window, final=True) <= length

    def test_an_empty_window_is_never_cut(self, subject: Chunker) -> None:
        assert subject.cut(memoryview(b""), final=True) == 0
        assert subject.cut(memoryview(b""), final=False) == 0

    @given(
        seed=st.integers(0, 5),
        kind=st.sampled_from([noise, text]),
        splits=st.lists(st.floats(0, 1), max_size=8),
    )
    def test_cuts_do_not_depend_on_the_windows(
        self, subject: Chunker, seed: int, kind: Callable[[int, int], bytes], splits: list[float]
    ) -> None:
        data = kind(subject.max_size * 3 + seed * 17 + 1, seed)
        whole = self.cuts(subject, data, [len(data)])

        assert self.cuts(subject, data, [int(part * len(data)) for part in splits]) == whole
        assert sum(whole) == len(data)
        assert all(subject.min_size <= cut <= subject.max_size for cut in whole[:-1])
        assert 0 < whole[-1] <= subject.max_size

    def test_windows_may_grow_slowly(self, subject: Chunker) -> None:
        step = max(1, subject.max_size // 97)
        for data in (text(subject.max_size * 3 + 7), noise(subject.max_size * 3 + 1)):
            expected = self.cuts(subject, data, [len(data)])

            assert self.cuts(subject, data, list(range(0, len(data), step))) == expected

    def test_streams_may_be_interleaved(self, subject: Chunker) -> None:
        streams = [text(subject.max_size * 2 + 5, 1), noise(subject.max_size * 2 + 9, 2)]
        alone = [self.cuts(subject, data, [len(data)]) for data in streams]
        steps = [self.steps(subject, data, []) for data in streams]

        together: list[list[int]] = [[], []]
        for pair in itertools.zip_longest(*steps):
            for found, cut in zip(together, pair, strict=True):
                found.extend([cut] if cut else [])

        assert together == alone

    def test_many_threads_get_the_same_cuts(self, subject: Chunker) -> None:
        data = text(subject.max_size * 2 + 3, 4)
        expected = self.cuts(subject, data, [len(data)])

        assert in_threads(lambda _: self.cuts(subject, data, [len(data)]), 8) == [expected] * 8

    def test_the_window_is_neither_changed_nor_kept(self, subject: Chunker) -> None:
        data = bytearray(text(subject.max_size))
        before = bytes(data)
        first = subject.cut(memoryview(data), final=False)

        assert data == before
        data[:] = noise(len(data), 7)
        data.extend(b"x")  # fails where a view of it is kept
        assert subject.cut(memoryview(before), final=False) == first

    @requires(content_defined=True)
    def test_an_insertion_moves_few_cuts(self, subject: Chunker) -> None:
        data = noise(subject.max_size * 8, 3)
        before = set(itertools.accumulate(self.cuts(subject, data, [len(data)])))
        shifted = noise(11, 5) + data
        after = {
            end - 11 for end in itertools.accumulate(self.cuts(subject, shifted, [len(shifted)]))
        }

        tail = {end for end in before if end > len(data) // 2}
        assert tail
        assert len(tail & after) >= 0.8 * len(tail)

    def cuts(self, chunker: Chunker, data: bytes, splits: list[int]) -> list[int]:
        """Return the lengths of all chunks of a stream that arrives in pieces ending at `splits`."""
        return list(self.steps(chunker, data, splits))

    def steps(self, chunker: Chunker, data: bytes, splits: list[int]) -> Iterator[int]:
        """Yield the lengths of chunks; arrival as for `cuts`."""
        arrivals = sorted({*(min(split, len(data)) for split in splits), len(data)})
        start = 0
        for arrived in arrivals:
            while start < arrived:
                window = memoryview(data)[start : min(arrived, start + chunker.max_size)]
                final = start + len(window) == len(data)
                cut = chunker.cut(window, final=final)
                assert 0 <= cut <= len(window), "a cut lies outside of its window"
                if cut == 0:
                    assert not final, "the end of the stream was not cut out"
                    assert len(window) < chunker.max_size, "a full window was not cut"
                    break
                yield cut
                start += cut


class FingerprintKit(Kit, kit=True):
    """Digests have their size, name exactly the content, and depend on nothing else."""

    @given(data=contents(100_000))
    def test_a_digest_has_the_stated_size(self, subject: Fingerprint, data: bytes) -> None:
        digest = subject.digest(data)

        assert isinstance(digest, bytes)
        assert len(digest) == subject.size >= 16  # fewer bytes collide by chance

    @given(data=contents(100_000))
    def test_equal_content_has_one_name(self, subject: Fingerprint, data: bytes) -> None:
        padded = memoryview(b"xyz" + data + b"xyz")[3:-3]

        assert subject.digest(data) == subject.digest(bytearray(data)) == subject.digest(padded)

    @given(data=contents(70_000), at=st.integers(0), bit=st.integers(0, 7))
    def test_a_flipped_bit_changes_the_name(
        self, subject: Fingerprint, data: bytes, at: int, bit: int
    ) -> None:
        other = bytearray(data)
        other[at % len(data)] ^= 1 << bit

        assert subject.digest(other) != subject.digest(data)

    def test_every_byte_counts(self, subject: Fingerprint) -> None:
        data = bytearray(noise(100_001))
        names = {subject.digest(data)}
        places = [0, 1, 63, 64, 1023, 1024, 4095, 4096, 65_535, 65_536, 99_999, 100_000]
        for place in places:
            data[place] ^= 0x80
            names.add(subject.digest(data))

        assert len(names) == len(places) + 1

    def test_order_counts(self, subject: Fingerprint) -> None:
        for size in (1, 8, 64, 1024, 65_536):
            one, two = noise(size, 1), noise(size, 2)

            assert subject.digest(one + two) != subject.digest(two + one)

    def test_length_counts(self, subject: Fingerprint) -> None:
        lengths = [0, 1, 2, 31, 32, 63, 64, 65, 1024, 4096, 65_536]

        assert len({subject.digest(bytes(length)) for length in lengths}) == len(lengths)

    def test_all_bytes_of_a_digest_vary(self, subject: Fingerprint) -> None:
        digests = [subject.digest(noise(100, seed)) for seed in range(64)]

        assert all(len({digest[at] for digest in digests}) > 32 for at in range(subject.size))

    def test_a_name_does_not_depend_on_what_came_before(self, subject: Fingerprint) -> None:
        first = subject.digest(b"content")
        for seed in range(20):
            subject.digest(noise(50, seed))

        assert subject.digest(b"content") == first

    def test_many_threads_get_the_same_names(self, subject: Fingerprint) -> None:
        blocks = [noise(200_000, seed) for seed in range(8)]
        expected = [subject.digest(block) for block in blocks]

        assert in_threads(lambda at: subject.digest(blocks[at % 8]), 32) == expected * 4

    def test_the_content_is_neither_changed_nor_kept(self, subject: Fingerprint) -> None:
        data = bytearray(noise(10_000))
        before = bytes(data)
        name = subject.digest(memoryview(data))

        assert same(data, before)
        data.extend(b"x")  # fails where a view of it is kept
        assert subject.digest(before) == name


class FilterKit(Kit, kit=True):
    """What was stored comes back exactly, from anywhere, or is refused as Corrupt."""

    @given(frame=contents(FRAME_MAX), context=st.binary(min_size=1, max_size=40))
    def test_what_was_encoded_decodes(self, subject: Filter, frame: bytes, context: bytes) -> None:
        stored = subject.encode(memoryview(frame), context=context)

        if stored is not None:
            decoded = subject.decode(memoryview(stored), length=len(frame), context=context)
            assert same(decoded, frame)

    @pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 255, 4096, FRAME_MAX - 1, FRAME_MAX])
    def test_frames_of_every_size_come_back(self, subject: Filter, length: int) -> None:
        for frame in (bytes(length), noise(length), text(length)):
            stored = subject.encode(memoryview(frame), context=b"here")

            if stored is not None:
                assert same(
                    subject.decode(memoryview(stored), length=length, context=b"here"), frame
                )

    def test_a_compressor_stores_less_or_leaves_the_frame_as_it_is(self, subject: Filter) -> None:
        self.only_for(subject, "compress")
        for frame in (noise(FRAME_MAX), noise(100), b"x", text(FRAME_MAX), bytes(FRAME_MAX)):
            stored = subject.encode(memoryview(frame), context=b"here")

            assert stored is None or len(stored) < len(frame)

    def test_a_compressor_compresses(self, subject: Filter) -> None:
        self.only_for(subject, "compress")
        stored = subject.encode(memoryview(bytes(FRAME_MAX)), context=b"here")

        assert stored is not None
        assert len(stored) < FRAME_MAX // 4

    def test_a_compressor_leaves_noise_as_it_is(self, subject: Filter) -> None:
        self.only_for(subject, "compress")
        assert subject.encode(memoryview(noise(FRAME_MAX)), context=b"here") is None

    def test_an_encryptor_never_leaves_a_frame_as_it_is(self, subject: Filter) -> None:
        self.only_for(subject, "encrypt")
        for frame in (b"x", bytes(FRAME_MAX), noise(FRAME_MAX), text(1000)):
            stored = subject.encode(memoryview(frame), context=b"here")

            assert stored is not None
            assert frame[:16] not in bytes(stored) or len(frame) < 16
            assert len(frame) <= len(stored) <= len(frame) + OVERHEAD_MAX

    def test_an_encryptor_shows_no_equal_frames(self, subject: Filter) -> None:
        self.only_for(subject, "encrypt")
        frame = memoryview(bytes(1000))
        stored = {bytes(self.stored(subject, frame, b"place %d" % place)) for place in range(50)}

        assert len(stored) == 50
        assert len({one[:32] for one in stored}) == 50

    def test_an_encryptor_refuses_what_was_moved(self, subject: Filter) -> None:
        self.only_for(subject, "encrypt")
        stored = self.stored(subject, memoryview(b"content" * 10), b"here")

        with pytest.raises(Corrupt):
            subject.decode(memoryview(stored), length=70, context=b"there")

    @given(frame=contents(2000), at=st.integers(0), bit=st.integers(0, 7))
    def test_an_encryptor_refuses_a_flipped_bit(
        self, subject: Filter, frame: bytes, at: int, bit: int
    ) -> None:
        self.only_for(subject, "encrypt")
        stored = bytearray(self.stored(subject, memoryview(frame), b"here"))
        stored[at % len(stored)] ^= 1 << bit

        with pytest.raises(Corrupt):
            subject.decode(memoryview(stored), length=len(frame), context=b"here")

    @given(at=st.integers(0), bit=st.integers(0, 7))
    def test_a_flipped_bit_never_changes_the_length(
        self, subject: Filter, at: int, bit: int
    ) -> None:
        frame = text(3000, 5)
        stored = bytearray(self.stored(subject, memoryview(frame), b"here"))
        stored[at % len(stored)] ^= 1 << bit

        self.corrupt_or_of_length(subject, stored, len(frame))

    @given(stored=st.binary(max_size=300), length=st.integers(1, FRAME_MAX))
    def test_garbage_is_corrupt(self, subject: Filter, stored: bytes, length: int) -> None:
        self.corrupt_or_of_length(subject, stored, length)

    def test_nothing_is_corrupt(self, subject: Filter) -> None:
        with pytest.raises(Corrupt):
            subject.decode(memoryview(b""), length=10, context=b"here")

    def test_a_truncated_frame_is_corrupt(self, subject: Filter) -> None:
        frame = text(5000)
        stored = self.stored(subject, memoryview(frame), b"here")
        for length in {0, 1, 2, 8, len(stored) // 2, len(stored) - 2, len(stored) - 1}:
            with pytest.raises(Corrupt):
                subject.decode(memoryview(stored)[:length], length=len(frame), context=b"here")

    def test_bytes_after_a_frame_are_corrupt(self, subject: Filter) -> None:
        stored = bytes(self.stored(subject, memoryview(text(5000)), b"here"))
        for tail in (b"\0", b"x" * 100, stored):
            with pytest.raises(Corrupt):
                subject.decode(memoryview(stored + tail), length=5000, context=b"here")

    @pytest.mark.parametrize("length", [1, 10, 4999, 5001, FRAME_MAX])
    def test_a_frame_of_another_length_is_corrupt(self, subject: Filter, length: int) -> None:
        stored = self.stored(subject, memoryview(text(5000)), b"here")

        with pytest.raises(Corrupt):
            subject.decode(memoryview(stored), length=length, context=b"here")

    def test_a_bomb_is_corrupt(self, subject: Filter) -> None:
        stored = self.stored(subject, memoryview(bytes(FRAME_MAX)), b"here")

        with pytest.raises(Corrupt):
            subject.decode(memoryview(stored), length=100, context=b"here")

    def test_the_frame_is_neither_changed_nor_kept(self, subject: Filter) -> None:
        frame = bytearray(text(9000))
        before = bytes(frame)
        stored = self.stored(subject, memoryview(frame), b"here")

        assert same(frame, before)
        frame[:] = noise(len(frame))
        assert same(subject.decode(memoryview(stored), length=9000, context=b"here"), before)
        frame.extend(b"x")  # fails where a view of it is kept

    def test_stored_bytes_are_neither_changed_nor_kept(self, subject: Filter) -> None:
        frame = text(9000)
        stored = bytearray(self.stored(subject, memoryview(frame), b"here"))
        before = bytes(stored)
        decoded = subject.decode(memoryview(stored), length=9000, context=b"here")

        assert same(stored, before)
        stored[:] = noise(len(stored))
        assert same(decoded, frame)
        stored.extend(b"x")  # fails where a view of it is kept

    def test_results_stay_as_they_are_when_the_next_comes(self, subject: Filter) -> None:
        alike = [text(3999) + bytes([last]) for last in range(5)]
        frames = [*(text(4000, seed) for seed in range(5)), *alike]
        stored = [self.stored(subject, memoryview(frame), b"here") for frame in frames]
        decoded = [subject.decode(memoryview(one), length=4000, context=b"here") for one in stored]

        assert same([bytes(one) for one in decoded], frames)

    def test_frames_decode_in_any_order(self, subject: Filter) -> None:
        frames = [text(3000 + seed, seed) for seed in range(12)]
        stored = [
            self.stored(subject, memoryview(frame), b"%d" % at) for at, frame in enumerate(frames)
        ]

        for at in random.Random(1).sample(range(12), 12) * 2:
            decoded = subject.decode(memoryview(stored[at]), length=3000 + at, context=b"%d" % at)
            assert same(decoded, frames[at])

    @requires(deterministic=True)
    def test_equal_frames_at_equal_places_are_stored_equally(self, subject: Filter) -> None:
        frame = text(20_000)
        first = bytes(self.stored(subject, memoryview(frame), b"here"))
        for seed in range(5):
            subject.encode(memoryview(text(5000, seed)), context=b"there")

        assert same(self.stored(subject, memoryview(frame), b"here"), first)

    def test_many_threads_may_share_it(self, subject: Filter) -> None:
        frames = [text(FRAME_MAX - seed, seed) for seed in range(8)]

        def there_and_back(at: int) -> bool:
            frame = frames[at % 8]
            stored = self.stored(subject, memoryview(frame), b"%d" % at)
            return (
                bytes(subject.decode(memoryview(stored), length=len(frame), context=b"%d" % at))
                == frame
            )

        assert all(in_threads(there_and_back, 96))

    def only_for(self, subject: Filter, stage: str) -> None:
        """Skip what is about filters of the other stage."""
        if subject.stage != stage:
            pytest.skip(f"for filters of stage {stage}")

    def stored(self, subject: Filter, frame: memoryview, context: bytes) -> Buffer:
        """Encode a frame that the filter has to change."""
        stored = subject.encode(frame, context=context)
        assert stored is not None, "a frame that compresses well was left as it is"
        return stored

    def corrupt_or_of_length(self, subject: Filter, stored: bytes | bytearray, length: int) -> None:
        """Expect Corrupt, or (from a filter without authentication) exactly `length` bytes."""
        try:
            decoded = subject.decode(memoryview(stored), length=length, context=b"here")
        except Corrupt:
            return
        assert len(decoded) == length
        assert subject.stage != "encrypt", "forged bytes were accepted"


class StriperKit(Kit, kit=True):
    """Any k shards rebuild everything; fewer are refused."""

    @given(width=st.integers(1, 3000), seed=st.integers(0, 99))
    def test_any_k_shards_rebuild_the_stripe(self, subject: Striper, width: int, seed: int) -> None:
        shards = [
            bytes(shard)
            for shard in subject.encode(memoryview(noise(subject.data_shards * width, seed)))
        ]
        kept = set(random.Random(seed).sample(range(len(shards)), subject.data_shards))
        some = [shard if at in kept else None for at, shard in enumerate(shards)]

        assert same([bytes(shard) for shard in subject.decode(some)], shards)

    def test_every_loss_that_is_promised_is_survived(self, subject: Striper) -> None:
        shards = [bytes(shard) for shard in subject.encode(memoryview(self.stripe(subject)))]
        for lost in self.losses(subject, subject.parity_shards):
            some = [None if at in lost else shard for at, shard in enumerate(shards)]

            assert same([bytes(shard) for shard in subject.decode(some)], shards)

    def test_one_loss_more_than_promised_is_corrupt(self, subject: Striper) -> None:
        shards = subject.encode(memoryview(self.stripe(subject)))
        for lost in self.losses(subject, subject.parity_shards + 1):
            with pytest.raises(Corrupt):
                subject.decode([None if at in lost else shard for at, shard in enumerate(shards)])

    def test_data_shards_come_first_and_verbatim(self, subject: Striper) -> None:
        stripe = self.stripe(subject)
        shards = subject.encode(memoryview(stripe))

        assert len(shards) == subject.data_shards + subject.parity_shards
        assert same(b"".join(shards[: subject.data_shards]), stripe)
        assert {len(shard) for shard in shards} == {len(stripe) // subject.data_shards}

    def test_parity_depends_on_every_data_shard(self, subject: Striper) -> None:
        stripe = bytearray(self.stripe(subject))
        width = len(stripe) // subject.data_shards
        before = [bytes(shard) for shard in subject.encode(memoryview(stripe))][
            subject.data_shards :
        ]
        for shard in range(subject.data_shards):
            for place in (0, width // 2, width - 1):
                changed = bytearray(stripe)
                changed[shard * width + place] ^= 0x11
                after = subject.encode(memoryview(changed))[subject.data_shards :]

                assert all(bytes(new) != old for new, old in zip(after, before, strict=True))

    def test_a_ragged_stripe_is_refused(self, subject: Striper) -> None:
        for extra in {1, subject.data_shards - 1} - {0, subject.data_shards}:
            with pytest.raises(InvalidArgument):
                subject.encode(memoryview(bytes(subject.data_shards * 64 + extra)))

    def test_a_whole_stripe_decodes_to_itself(self, subject: Striper) -> None:
        shards = [bytes(shard) for shard in subject.encode(memoryview(self.stripe(subject)))]

        assert same([bytes(shard) for shard in subject.decode(shards)], shards)

    def test_the_stripe_is_neither_changed_nor_kept(self, subject: Striper) -> None:
        stripe = bytearray(self.stripe(subject))
        before = bytes(stripe)
        parity = [
            bytes(shard) for shard in subject.encode(memoryview(stripe))[subject.data_shards :]
        ]

        assert same(stripe, before)
        again = subject.encode(memoryview(before))[subject.data_shards :]
        assert same([bytes(shard) for shard in again], parity)

    def test_shards_are_not_changed_by_decoding(self, subject: Striper) -> None:
        shards = [bytearray(shard) for shard in subject.encode(memoryview(self.stripe(subject)))]
        before = [bytes(shard) for shard in shards]
        subject.decode([None, *shards[1:]] if subject.parity_shards else list(shards))

        assert same([bytes(shard) for shard in shards], before)

    @requires(deterministic=True)
    def test_equal_stripes_have_equal_parity(self, subject: Striper) -> None:
        first = [bytes(shard) for shard in subject.encode(memoryview(self.stripe(subject)))]
        subject.encode(memoryview(noise(subject.data_shards * 640, 9)))

        assert same(
            [bytes(shard) for shard in subject.encode(memoryview(self.stripe(subject)))], first
        )

    def test_many_threads_may_share_it(self, subject: Striper) -> None:
        stripes = [noise(subject.data_shards * 8192, seed) for seed in range(4)]

        def there_and_back(at: int) -> bool:
            shards = [bytes(shard) for shard in subject.encode(memoryview(stripes[at % 4]))]
            lost = set(random.Random(at).sample(range(len(shards)), subject.parity_shards))
            some = [None if place in lost else shard for place, shard in enumerate(shards)]
            whole = [bytes(shard) for shard in subject.decode(some)]
            return whole == shards and b"".join(whole[: subject.data_shards]) == stripes[at % 4]

        assert all(in_threads(there_and_back, 16))

    def stripe(self, subject: Striper) -> bytes:
        """Return a stripe whose shards differ."""
        return noise(subject.data_shards * 640)

    def losses(self, subject: Striper, count: int) -> list[set[int]]:
        """Return sets of `count` lost shards: all there are, or a sample of them."""
        total = subject.data_shards + subject.parity_shards
        every = itertools.islice(itertools.combinations(range(total), count), 100_000)
        found = [set(lost) for lost in every]
        return found if len(found) <= SUBSETS_MAX else random.Random(2).sample(found, SUBSETS_MAX)
