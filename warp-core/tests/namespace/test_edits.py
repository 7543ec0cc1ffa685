"""Files edited on volumes with versioning: what they were stays, once an edit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import files_stage as stage_module
import pytest
from warp_core.interfaces.auth import Principal
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Access, Owner
from warp_core.views.files import OpenFile, SetInfo
from warp_core.views.objects import Attributes, Digests

Stage = stage_module.Stage

ME = Owner(0, b"me")
DIGESTS = Digests(etag="0" * 32)
BOTH = Access.READ | Access.WRITE


@pytest.fixture
async def stage() -> AsyncIterator[Any]:
    async with Stage() as made:
        await objects(made).set_versioning("v", "on")
        await objects(made).put(
            "v", b"k", b"first", Attributes(metadata={"colour": "red"}), DIGESTS
        )
        yield made


def objects(stage: Any) -> NamespaceObjects:
    return NamespaceObjects(stage.namespace)


async def versions(stage: Any, key: bytes = b"k") -> list[bytes]:
    """Return the contents of a key's versions, newest first, markers as nothing."""
    found = []
    listed = await objects(stage).list_versions("v", prefix=key)
    for entry in listed.entries:
        if entry.key == key and not entry.marker:
            reader = await objects(stage).open("v", key, version=entry.version)
            found.append(bytes(await reader.read(0, entry.size)))
            reader.close()
        elif entry.key == key:
            found.append(b"")
    return found


async def opened(stage: Any, key: bytes = b"k", *, truncate: bool = False) -> OpenFile:
    info = await stage.files.walk("v", key)
    return await stage.files.open(
        info.ref, owner=ME, access=BOTH, deny=Access.NONE, truncate=truncate
    )


async def test_the_first_change_of_an_edit_keeps_what_the_file_was(stage: Any) -> None:
    file = await opened(stage)
    before = (await objects(stage).head("v", b"k")).version
    await file.write(0, b"SECOND")
    await file.write(6, b" and on")
    await file.append(b"!")
    await file.close()

    assert await versions(stage) == [b"SECOND and on!", b"first"]
    now = await objects(stage).head("v", b"k")
    assert now.version != before
    assert now.attributes.metadata == {"colour": "red"}


async def test_every_edit_keeps_one(stage: Any) -> None:
    for text in (b"one", b"two", b"three"):
        file = await opened(stage, truncate=True)
        await file.write(0, text)
        await file.close()

    assert await versions(stage) == [b"three", b"two", b"one", b"first"]


async def test_writers_at_the_same_time_make_one_edit(stage: Any) -> None:
    one, other = await opened(stage), await opened(stage)
    await one.write(0, b"F")
    await one.close()
    await other.write(1, b"I")
    await other.close()

    assert await versions(stage) == [b"FIrst", b"first"]


async def test_an_edit_that_changes_nothing_keeps_nothing(stage: Any) -> None:
    file = await opened(stage)
    await file.read(0, 5)
    await file.write(0, b"")
    await file.append(b"")
    await file.close()

    assert await versions(stage) == [b"first"]


async def test_a_new_file_has_one_version(stage: Any) -> None:
    root = await stage.files.root("v")
    file, made = await stage.files.create(
        root, b"new", 0o644, owner=ME, access=BOTH, deny=Access.NONE
    )
    await file.write(0, b"it")
    await file.close()

    assert made
    assert await versions(stage, b"new") == [b"it"]


async def test_truncating_by_name_is_an_edit(stage: Any) -> None:
    info = await stage.files.walk("v", b"k")
    await stage.files.setattr(info.ref, SetInfo(size=2))

    assert await versions(stage) == [b"fi", b"first"]


async def test_of_several_names_the_one_it_was_opened_by_keeps_the_version(stage: Any) -> None:
    info = await stage.files.walk("v", b"k")
    await stage.files.link(info.ref, await stage.files.root("v"), b"other")
    file = await opened(stage, b"other")
    await file.write(0, b"FIRST")
    await file.close()

    assert await versions(stage, b"other") == [b"FIRST", b"first"]
    assert await versions(stage, b"k") == [b"FIRST"]


async def test_a_file_renamed_since_it_was_opened_keeps_the_version_at_its_name(
    stage: Any,
) -> None:
    file = await opened(stage)
    root = await stage.files.root("v")
    await stage.files.rename(root, b"k", root, b"moved")
    await file.write(0, b"FIRST")
    await file.close()

    assert await versions(stage, b"moved") == [b"FIRST", b"first"]


async def test_a_file_without_a_name_keeps_nothing(stage: Any) -> None:
    file = await opened(stage)
    await stage.files.unlink(await stage.files.root("v"), b"k")
    await file.write(0, b"FIRST")
    assert bytes(await file.read(0, 9)) == b"FIRST"
    await file.close()

    assert await versions(stage) == [b"", b"first"]


async def test_a_crash_after_the_first_change_leaves_both(stage: Any) -> None:
    file = await opened(stage)
    await file.write(0, b"FIRST")
    await file.sync()
    await stage.crash()

    assert await versions(stage) == [b"FIRST", b"first"]


async def test_suspended_versioning_keeps_versions_that_have_an_id(stage: Any) -> None:
    await objects(stage).set_versioning("v", "suspended")
    for text in (b"null1", b"null2"):
        file = await opened(stage)
        await file.write(0, text)
        await file.close()

    assert await versions(stage) == [b"null2", b"first"]
    assert (await objects(stage).head("v", b"k")).version == "null"


async def test_without_versioning_an_edit_replaces(stage: Any) -> None:
    await objects(stage).create_volume("plain", owner=Principal(name="alice"))
    await objects(stage).put("plain", b"k", b"first", Attributes(), DIGESTS)
    info = await stage.files.walk("plain", b"k")
    file = await stage.files.open(info.ref, owner=ME, access=BOTH, deny=Access.NONE)
    await file.write(0, b"FIRST")
    await file.close()

    assert len((await objects(stage).list_versions("plain")).entries) == 1


async def test_usage_counts_what_was_kept(stage: Any) -> None:
    file = await opened(stage)
    await file.append(b" and more")
    await file.close()

    usage = await stage.namespace.usage("v")
    assert (usage.objects, usage.bytes) == (1, 14)
    assert (usage.versions, usage.version_bytes) == (1, 5)
