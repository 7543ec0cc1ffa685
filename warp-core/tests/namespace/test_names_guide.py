"""The tables of `docs/guides/names.md`, tried on a namespace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import files_stage as stage_module
import pytest
from warp_core.errors import AttributeNotFound, NotFound, NotPermitted, WarpError
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Access, Owner
from warp_core.views.files import Ref
from warp_core.views.objects import Attributes, Digests

GUIDE = Path(__file__).parents[3] / "docs/guides/names.md"
ME = Owner(0, b"me")
PLAIN = Attributes()
DIGESTS = Digests(etag="0" * 32, checksums={"CRC32": "AAAAAA=="})

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="beside a lone wheel there is no guide")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, backticks removed."""
    text = GUIDE.read_text() if GUIDE.exists() else ""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def raw(shown: str) -> bytes:
    """Return the bytes that a cell shows: `\\t`, `\\0` and `\\\\` are escapes."""
    escapes = {"t": "\t", "0": "\0", "\\": "\\"}
    return re.sub(r"\\(.)", lambda found: escapes[found[1]], shown).encode()


async def visible(stage: Any, at: Ref, path: bytes = b"") -> set[bytes]:
    """Return the paths of everything below a directory; those of directories end with a slash."""
    found: set[bytes] = set()
    for entry in (await stage.files.readdir(at))[0]:
        if entry.name == b".snapshots" and not path:
            continue
        here = path + b"/" + entry.name
        if entry.kind == "directory":
            found |= {here + b"/"} | await visible(stage, entry.ref, here)
        else:
            found.add(here)
    return found


@pytest.mark.parametrize(("key", "file", "_"), table("Keys as files"))
async def test_a_key_is_the_file_that_the_guide_says(key: str, file: str, _: str) -> None:
    async with stage_module.Stage() as stage:
        await put(stage, raw(key))
        root = await stage.files.root("v")
        found = await visible(stage, root)

    leaves = {path for path in found if not path.endswith(b"/")}
    if file == "none":
        assert not leaves
    elif file.endswith("/"):
        assert found == {raw(file)}
    else:
        assert leaves == {raw(file)}


async def test_names_of_255_bytes_are_files_and_longer_ones_are_not() -> None:
    async with stage_module.Stage() as stage:
        for length in (255, 256):
            await put(stage, b"n" * length)
        found = await visible(stage, await stage.files.root("v"))

    assert found == {b"/" + b"n" * 255}


async def test_a_directory_hides_an_object_of_its_name_and_keys_keep_it_from_being_removed() -> (
    None
):
    async with stage_module.Stage() as stage:
        await put(stage, b"a")
        await put(stage, b"a//b")
        root = await stage.files.root("v")

        assert await visible(stage, root) == {b"/a/"}
        with pytest.raises(WarpError, match="not empty"):
            await stage.files.rmdir(root, b"a")
        assert (await objects(stage).head("v", b"a")).size == 3


MAKE = {
    "regular file": lambda files, root: create(files, root, b"it"),
    "disk": None,
    "empty directory": lambda files, root: files.mkdir(root, b"it", 0o755),
    "symbolic link": lambda files, root: files.symlink(root, b"it", b"target"),
    "fifo": lambda files, root: files.mknod(root, b"it", "fifo", 0o644),
    "name that is not UTF-8": None,
}


@pytest.mark.parametrize(("kind", "key", "_"), table("Files as keys"))
async def test_a_file_is_a_key_or_none_as_the_guide_says(kind: str, key: str, _: str) -> None:
    make = MAKE[kind]
    async with stage_module.Stage() as stage:
        if kind == "disk":
            await stage.blocks.create("v", b"it", size=1 << 20)
        elif make is None:
            # S3's listings leave such names out: plugins/protocols/s3/tests/test_boto_file_names.py
            assert key == "no"
            return
        else:
            await make(stage.files, await stage.files.root("v"))
        keys = [entry.key for entry in (await objects(stage).list("v")).entries]

    assert keys == ([b"it"] if key == "yes" else [])


async def test_what_s3_says_is_read_as_attributes_and_neither_listed_nor_set() -> None:
    async with stage_module.Stage() as stage:
        said = Attributes(
            headers={"content-type": "image/jpeg"}, metadata={"colour": "réd"}, tags={"team": "x"}
        )
        await put(stage, b"cat.jpg", said)
        ref = (await stage.files.walk("v", b"cat.jpg")).ref
        expected = {
            "etag": "0" * 32,
            "version-id": "null",
            "storage-class": "STANDARD",
            "header.content-type": "image/jpeg",
            "meta.colour": "réd",
            "tag.team": "x",
            "checksum.crc32": "AAAAAA==",
        }

        assert json.loads(await stage.files.xattr(ref, b"user.s3")) == expected
        for name, value in expected.items():
            assert await stage.files.xattr(ref, f"user.s3.{name}".encode()) == value.encode()
        assert not await stage.files.xattrs(ref)
        with pytest.raises(AttributeNotFound):
            await stage.files.xattr(ref, b"user.s3.meta.none")
        with pytest.raises(NotPermitted):
            await stage.files.set_xattr(ref, b"user.s3.meta.colour", b"blue")


async def test_an_edit_changes_the_etag_that_s3_says_and_drops_its_checksums() -> None:
    async with stage_module.Stage() as stage:
        await put(stage, b"k")
        info = await stage.files.walk("v", b"k")
        file = await stage.files.open(info.ref, owner=ME, access=Access.WRITE, deny=Access.NONE)
        await file.write(0, b"X")
        said = json.loads(await stage.files.xattr(info.ref, b"user.s3"))
        await file.close()
        head = await objects(stage).head("v", b"k")

    assert re.fullmatch("[0-9a-f]{32}-0", said["etag"])
    assert said["etag"] == head.etag
    assert not head.checksums
    assert "checksum.crc32" not in said


async def test_directories_and_links_say_nothing_of_s3() -> None:
    async with stage_module.Stage() as stage:
        root = await stage.files.root("v")
        link = await stage.files.symlink(root, b"link", b"x")
        for ref in (root, link.ref, (await stage.files.mkdir(root, b"d", 0o755)).ref):
            with pytest.raises(NotFound):
                await stage.files.xattr(ref, b"user.s3")


async def create(files: Any, root: Ref, name: bytes) -> None:
    file, _ = await files.create(root, name, 0o644, owner=ME, access=Access.WRITE, deny=Access.NONE)
    await file.close()


def objects(stage: Any) -> NamespaceObjects:
    return NamespaceObjects(stage.namespace)


async def put(stage: Any, key: bytes, attributes: Attributes = PLAIN) -> None:
    await objects(stage).put("v", key, b"123", attributes, DIGESTS)
