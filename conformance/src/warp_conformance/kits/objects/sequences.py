"""Crashes, and random sequences of verbs beside the model."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from warp_core.errors import (
    IsDeleteMarker,
    NotFound,
)
from warp_core.views.objects import (
    SMALL_MAX,
    Objects,
)

from warp_conformance.difference import same
from warp_conformance.kit import given
from warp_conformance.kits.objects.stage import (
    ALICE,
    PLAIN,
    RICH,
    ObjectsStage,
    Reopen,
    Usage,
    digests,
    get,
    noise,
    numbers,
    put,
    put_part,
    rolled,
    versions,
)
from warp_conformance.model import File, ModelVolume

NAMES = (b"a", b"a/b", b"a/c", b"a/", b"a/b/c", b"b", b"x" * 220, b"x" * 220 + b"/\0")


class Sequences(ObjectsStage, kit=True):
    """Crashes, and random sequences of verbs beside the model."""

    # Crashes and sequences ------------------------------------------------------------------------

    async def test_what_was_acknowledged_survives_a_crash(
        self, subject: Objects, volume: str, reopen: Reopen, usage: Usage
    ) -> None:
        await subject.set_versioning(volume, "on")
        one = await put(subject, volume, b"d/k", noise(5000), RICH)
        two = await put(subject, volume, b"d/k", noise(500, 2))
        await subject.delete(volume, b"gone")
        upload = await subject.create_upload(volume, b"up", PLAIN)
        part = await put_part(subject, volume, b"up", upload.upload, 1, noise(80_000))
        unfinished = await subject.writer(volume, b"half", PLAIN)
        await unfinished.write(noise(200_000))
        before = await usage(volume)
        anew = await reopen()

        assert [entry.key for entry in (await anew.list(volume)).entries] == [b"d/k"]
        assert await get(anew, volume, b"d/k") == noise(500, 2)
        assert same(await get(anew, volume, b"d/k", one.version), noise(5000))
        assert (await anew.head(volume, b"d/k", version=one.version)).attributes == RICH
        assert (await anew.head(volume, b"d/k")).version == two.version
        assert len(await versions(anew, volume)) == 3
        await anew.complete_upload(volume, b"up", upload.upload, [part], digests(b""))
        assert same(await get(anew, volume, b"up"), noise(80_000))
        assert (await usage(volume))[1] == before[1] + 80_000

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        "put",
                        "put",
                        "put",
                        "delete",
                        "delete",
                        "remove",
                        "remove",
                        "copy",
                        "versioning",
                        "tags",
                    ]
                ),
                st.integers(0, 7),
                st.integers(0, 5),
            ),
            max_size=30,
        )
    )
    async def test_random_sequences_agree_with_the_model(
        self, subject: Objects, usage: Usage, steps: list[tuple[str, int, int]]
    ) -> None:
        volume = f"kit-{next(numbers)}"
        await subject.create_volume(volume, owner=ALICE)
        model = ModelVolume()
        for number, (verb, which, choice) in enumerate(steps):
            await follow(subject, volume, model, number, verb, which, choice)
        await agree(subject, volume, model, usage)


async def follow(
    subject: Objects,
    volume: str,
    model: ModelVolume,
    number: int,
    verb: str,
    which: int,
    choice: int,
) -> None:
    """Do one step of a random sequence on the subject and on the model."""
    key = NAMES[which]
    if verb == "put":
        data = noise((0, 10, 1500, 5000, 100, 70_000)[choice], number)
        if len(data) > SMALL_MAX:
            writer = await subject.writer(volume, key, PLAIN)
            await writer.write(data)
            made = await writer.commit(digests(data))
        else:
            made = await put(subject, volume, key, data)
        model.put(key, File(data), made.version)
    elif verb == "delete":
        gone = await subject.delete(volume, key)
        assert gone.found == model.delete(key, gone.version or "null")
    elif verb == "remove":
        ids = [each.version for each in model.names.get(key, ())]
        version = ids[choice % len(ids)] if ids else "0" * 32
        removed = await subject.delete(volume, key, version=version)
        wanted = model.remove(key, version)
        assert removed.found == (wanted is not None)
        assert removed.marker == (wanted is not None and wanted.marker)
    elif verb == "copy":
        target = NAMES[choice]
        source = model.current(key)
        try:
            made = await subject.copy(volume, key, volume, target)
        except NotFound:
            assert source is None
        else:
            assert source is not None
            assert source.file is not None
            model.put(target, File(source.file.content), made.version)
    elif verb == "tags":
        try:
            await subject.set_tags(volume, key, {"step": str(number)})
        except NotFound:
            assert model.current(key) is None
    else:
        state = ("on", "suspended")[choice % 2]
        if choice < 4:
            await subject.set_versioning(volume, state)  # type: ignore[arg-type]
            model.versioning = state


async def agree(subject: Objects, volume: str, model: ModelVolume, usage: Usage) -> None:
    """Compare everything that can be seen of a volume with its model."""
    page = await subject.list(volume)
    assert [(entry.key, entry.version) for entry in page.entries] == model.list().entries
    found = await versions(subject, volume, 3)
    assert [(entry.key, entry.version) for entry in found] == model.list_versions().entries
    for delimiter in (b"/", b"b", b"x/"):
        rolled_up = model.list(b"", delimiter)
        assert await rolled(subject, volume, delimiter) == (
            [key for key, _ in rolled_up.entries],
            rolled_up.prefixes,
        )
    for key, kept in model.names.items():
        for number, each in enumerate(kept):
            if each.file is not None:
                assert same(await get(subject, volume, key, each.version), each.file.content)
                continue
            with pytest.raises(IsDeleteMarker):
                await subject.head(volume, key, version=each.version)
            if not number:
                with pytest.raises(IsDeleteMarker):
                    await subject.head(volume, key)
    assert await usage(volume) == model.usage()
