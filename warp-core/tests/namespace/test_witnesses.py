"""Witnesses of occupied directories are guesses: wrong ones cost a look, never a directory."""

from __future__ import annotations

import asyncio
import hashlib

from warp_core.namespace import keys
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.rows import IMPLIED, decode_name
from warp_core.namespace.witnesses import DIRECTORIES_MAX, WITNESSES, Witnesses
from warp_core.views.objects import Attributes, Digests

ROWS = [b"d%d" % index for index in range(WITNESSES)]


async def put(objects: NamespaceObjects, key: bytes) -> None:
    await objects.put("v", key, b"x", Attributes(), Digests(etag=hashlib.md5(b"x").hexdigest()))


async def directories(namespace: Namespace) -> int:
    volume = await namespace.volumes.get("v")
    view = namespace.store.view()
    found = await view.scan(volume.prefix + b"D", volume.prefix + b"E")
    view.close()
    return sum(decode_name(row.value).kind == IMPLIED for row in found)


def test_a_directory_is_forgotten_when_half_of_its_witnesses_are_gone() -> None:
    witnesses = Witnesses()
    witnesses.seen(b"d", list(ROWS))
    for row in ROWS[: WITNESSES // 2 - 1]:
        witnesses.gone(b"d", row)
        assert witnesses.one_of(b"d") in ROWS
    witnesses.gone(b"d", ROWS[-1])
    assert witnesses.one_of(b"d") is None
    witnesses.gone(b"d", ROWS[-1])  # harmless


def test_a_directory_with_few_rows_is_not_remembered() -> None:
    witnesses = Witnesses()
    witnesses.seen(b"d", list(ROWS))
    witnesses.seen(b"d", ROWS[1:])
    assert witnesses.one_of(b"d") is None


def test_directories_remembered_have_a_limit() -> None:
    witnesses = Witnesses()
    for number in range(DIRECTORIES_MAX + 1):
        witnesses.seen(b"%d" % number, list(ROWS))
    assert witnesses.one_of(b"0") is None
    assert witnesses.one_of(b"%d" % DIRECTORIES_MAX) in ROWS


async def test_the_last_of_many_deletes_takes_the_directory_with_it(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    names = [b"a/b/%03d" % index for index in range(5 * WITNESSES)]
    for name in names:
        await put(objects, name)
    assert await directories(namespace) == 2
    for name in reversed(names[1:]):  # from the end, where witnesses are looked for
        await objects.delete("v", name)
        assert await directories(namespace) == 2
    await objects.delete("v", names[0])
    assert await directories(namespace) == 0


async def test_deletes_side_by_side_take_the_directory_with_them(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    names = [b"a/b/%03d" % index for index in range(5 * WITNESSES)]
    for again in range(3):
        for name in names:
            await put(objects, name)
        await objects.delete("v", names[0])  # remembers witnesses
        await asyncio.gather(*(objects.delete("v", name) for name in names[1:]))
        assert await directories(namespace) == 0, again
        start = (await namespace.volumes.get("v")).prefix + keys.names_of(keys.ROOT)[0]
        view = namespace.store.view()
        assert not await view.scan(start, keys.after(start))
        view.close()
