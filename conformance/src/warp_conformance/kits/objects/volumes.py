"""Volumes: made, listed, changed, removed."""

from __future__ import annotations

import pytest
from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    InvalidArgument,
    NotEmpty,
    UploadNotFound,
    VolumeNotFound,
)
from warp_core.views.objects import (
    Objects,
)

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import (
    ALICE,
    BOB,
    PLAIN,
    ObjectsStage,
    numbers,
    put,
    put_part,
)


class Volumes(ObjectsStage, kit=True):
    """Volumes: made, listed, changed, removed."""

    # Volumes --------------------------------------------------------------------------------------

    async def test_volumes_are_made_listed_and_removed(self, subject: Objects) -> None:
        made = [f"kit-{next(numbers)}" for _ in range(3)]
        for name in reversed(made):
            await subject.create_volume(name, owner=ALICE)

        names = [volume.name for volume in await subject.volumes()]
        assert names == sorted(names)
        assert set(made) <= set(names)
        assert (await subject.volume(made[0])).owner == ALICE.name
        await subject.delete_volume(made[0])
        with pytest.raises(VolumeNotFound):
            await subject.volume(made[0])
        assert made[0] not in [volume.name for volume in await subject.volumes()]

    async def test_a_volume_is_made_once(self, subject: Objects, volume: str) -> None:
        with pytest.raises(AlreadyOwned):
            await subject.create_volume(volume, owner=ALICE)
        with pytest.raises(AlreadyExists) as caught:
            await subject.create_volume(volume, owner=BOB)
        assert not isinstance(caught.value, AlreadyOwned)

    async def test_a_volume_that_holds_something_stays(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"a/b")
        with pytest.raises(NotEmpty):
            await subject.delete_volume(volume)
        await subject.set_versioning(volume, "on")
        marker = await subject.delete(volume, b"a/b")
        with pytest.raises(NotEmpty):
            await subject.delete_volume(volume)
        await subject.delete(volume, b"a/b", version=marker.version)
        await subject.delete(volume, b"a/b", version="null")

        await subject.delete_volume(volume)

    async def test_uploads_do_not_keep_a_volume(self, subject: Objects, volume: str) -> None:
        upload = await subject.create_upload(volume, b"k", PLAIN)
        await put_part(subject, volume, b"k", upload.upload, 1, b"part")

        await subject.delete_volume(volume)

        assert volume not in [each.name for each in await subject.volumes()]

    async def test_a_volume_made_again_is_empty(self, subject: Objects, volume: str) -> None:
        await subject.set_versioning(volume, "on")
        await subject.set_document(volume, "s3.cors", b"<x/>")
        upload = await subject.create_upload(volume, b"k", PLAIN)
        await subject.delete_volume(volume)
        await subject.create_volume(volume, owner=BOB)

        info = await subject.volume(volume)
        assert (info.versioning, dict(info.documents), info.owner) == ("off", {}, BOB.name)
        with pytest.raises(UploadNotFound):
            await subject.upload(volume, b"k", upload.upload)

    async def test_every_verb_refuses_an_unknown_volume(self, subject: Objects) -> None:
        for call in (
            lambda: subject.head("nowhere", b"k"),
            lambda: subject.open("nowhere", b"k"),
            lambda: put(subject, "nowhere", b"k"),
            lambda: subject.writer("nowhere", b"k", PLAIN),
            lambda: subject.delete("nowhere", b"k"),
            lambda: subject.list("nowhere"),
            lambda: subject.list_versions("nowhere"),
            lambda: subject.create_upload("nowhere", b"k", PLAIN),
            lambda: subject.list_uploads("nowhere"),
            lambda: subject.set_versioning("nowhere", "on"),
            lambda: subject.set_document("nowhere", "x", b""),
            lambda: subject.delete_volume("nowhere"),
        ):
            with pytest.raises(VolumeNotFound):
                await call()

    async def test_documents_are_kept_replaced_and_dropped(
        self, subject: Objects, volume: str
    ) -> None:
        await subject.set_document(volume, "s3.cors", b"one")
        await subject.set_document(volume, "s3.policy", bytes(60 * 1024))
        await subject.set_document(volume, "s3.cors", b"two")
        documents = (await subject.volume(volume)).documents
        assert same(dict(documents), {"s3.cors": b"two", "s3.policy": bytes(60 * 1024)})
        await subject.set_document(volume, "s3.policy", None)

        assert dict((await subject.volume(volume)).documents) == {"s3.cors": b"two"}
        with pytest.raises(InvalidArgument):
            await subject.set_document(volume, "big", bytes(60 * 1024 + 1))

    async def test_versioning_never_goes_off_again(self, subject: Objects, volume: str) -> None:
        assert (await subject.volume(volume)).versioning == "off"
        await subject.set_versioning(volume, "on")
        await subject.set_versioning(volume, "suspended")
        with pytest.raises(InvalidArgument):
            await subject.set_versioning(volume, "off")

        assert (await subject.volume(volume)).versioning == "suspended"
