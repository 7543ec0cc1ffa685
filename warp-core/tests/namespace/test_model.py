"""Random sequences of all verbs on the namespace and on the executable model: they agree, and in the end nothing is left over.

Every chunk that is written is followed: one that was handed back as garbage is never read again, and when everything is deleted
every one has been handed back.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from warp_conformance.kits.objects import agree, digests, get, noise, put
from warp_conformance.model import File, Model, ModelVolume
from warp_core.errors import Busy, CrossesVolumes, NotFound
from warp_core.interfaces.auth import Principal
from warp_core.namespace.audit import audit
from warp_core.namespace.extents import WINDOW
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.upkeep import Upkeep
from warp_core.views.objects import Attributes, PartInfo

_spec = importlib.util.spec_from_file_location(
    "files_stage", Path(__file__).with_name("files_stage.py")
)
assert _spec is not None
assert _spec.loader is not None
stage_module = sys.modules.setdefault("files_stage", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(stage_module)

ALICE = Principal("alice")
PLAIN = Attributes()
ME = Owner(HERE, b"me")
KEYS = [b"a", b"b", b"d/c", b"d/e", b"d/f/g", b"x" * 210]
PATHS = [*KEYS, b"linked", b"d/linked", b"e/n"]
DIRECTORIES = [b"d", b"d/f", b"e", b"g"]
SIZES = [0, 700, 3000, 70_000]
VOLUMES_MAX = 4

paths = st.integers(0, len(PATHS) - 1)
sizes = st.sampled_from(SIZES)
places = st.integers(0, VOLUMES_MAX - 1)


class Ledger:
    """Follows chunks through the containers of a stage."""

    def __init__(self) -> None:
        self.written: set = set()
        self.dead: set = set()

    def follow(self, containers) -> None:
        append, writer = containers.append, containers.writer
        read, read_now = containers.read, containers.read_now
        reclaim, discard = containers.reclaim, containers.discard

        def appending(payload, **how):
            chunk = append(payload, **how)
            self.written.add(chunk)
            return chunk

        def writing(*args, **how):
            stream = writer(*args, **how)
            finish = stream.finish

            async def finishing(**more):
                made = await finish(**more)
                self.written.update(chunk for _, chunk in made)
                return made

            stream.finish = finishing
            return stream

        def reading_now(chunk, **how):
            assert chunk not in self.dead, f"{chunk} was handed back, and is read"
            return read_now(chunk, **how)

        async def reading(chunk, **how):
            assert chunk not in self.dead, f"{chunk} was handed back, and is read"
            return await read(chunk, **how)

        async def reclaiming(chunks):
            self.dead.update(chunks)
            await reclaim(chunks)

        def discarding(chunks):
            self.dead.update(chunks)
            discard(chunks)

        containers.append, containers.writer = appending, writing
        containers.read, containers.read_now = reading, reading_now
        containers.reclaim, containers.discard = reclaiming, discarding


class NamespaceAgrees(RuleBasedStateMachine):
    """Each rule does one verb on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.model = Model()
        self.ledger = Ledger()
        self.clones: list[str] = []
        self.run(self.begin())

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 30))

    async def begin(self) -> None:
        self.stage = stage_module.Stage()
        await self.stage.__aenter__()
        self.model.create("v")
        self.attach()
        await self.objects.create_volume("w", owner=ALICE)
        self.model.create("w")

    def attach(self) -> None:
        self.ledger.follow(self.stage.containers)
        self.namespace = self.stage.namespace
        self.objects = NamespaceObjects(self.namespace)
        self.snapshots = Snapshots(self.namespace, self.stage.inodes)
        self.garbage = Garbage(self.namespace)
        self.upkeep = Upkeep(self.namespace)

    def at(self, place: int) -> tuple[str, ModelVolume]:
        names = sorted(self.model.volumes)
        name = names[place % len(names)]
        return name, self.model.volumes[name]

    def fresh(self, size: int) -> bytes:
        self.number += 1
        return noise(size, self.number)

    # Objects --------------------------------------------------------------------------------------

    @rule(place=places, which=paths, size=sizes)
    def put(self, place, which, size):
        volume, model = self.at(place)
        data = self.fresh(size)

        async def stream():
            writer = await self.objects.writer(volume, PATHS[which], PLAIN)
            await writer.write(data)
            return await writer.commit(digests(data))

        made = self.run(
            put(self.objects, volume, PATHS[which], data) if size <= 65_536 else stream()
        )
        model.put(PATHS[which], File(data), made.version)

    @rule(place=places, which=paths)
    def delete(self, place, which):
        volume, model = self.at(place)
        gone = self.run(self.objects.delete(volume, PATHS[which]))
        assert gone.found == model.delete(PATHS[which], gone.version or "null")

    @rule(place=places, which=paths, choice=st.integers(0, 5))
    def remove(self, place, which, choice):
        volume, model = self.at(place)
        ids = [each.version for each in model.names.get(PATHS[which], ())]
        if ids:
            version = ids[choice % len(ids)]
            assert self.run(self.objects.delete(volume, PATHS[which], version=version)).found
            model.remove(PATHS[which], version)

    @rule(place=places, state=st.sampled_from(["on", "suspended"]))
    def set_versioning(self, place, state):
        volume, model = self.at(place)
        self.run(self.objects.set_versioning(volume, state))
        model.versioning = state

    @rule(place=places, which=paths, there=places, to=paths, old=st.integers(0, 3))
    def copy(self, place, which, there, to, old):
        source, model = self.at(place)
        volume, other = self.at(there)
        versions = [each for each in model.names.get(PATHS[which], ()) if not each.marker]
        chosen = versions[old % len(versions)] if versions and old else model.current(PATHS[which])
        version = chosen.version if chosen and old else ""
        call = self.objects.copy(source, PATHS[which], volume, PATHS[to], source_version=version)
        try:
            made = self.run(call)
        except NotFound:
            assert chosen is None
        else:
            assert chosen is not None
            other.put(PATHS[to], File(chosen.file.content), made.version)

    @rule(place=places, which=paths, there=places, to=paths, choice=st.integers(0, 3))
    def copy_from_a_snapshot(self, place, which, there, to, choice):
        source, model = self.at(place)
        volume, other = self.at(there)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        versions = model.snapshots[name].names.get(PATHS[which])
        found = versions[0] if versions and not versions[0].marker else None
        call = self.objects.copy(f"{source}.snap-{name}", PATHS[which], volume, PATHS[to])
        try:
            made = self.run(call)
        except NotFound:
            assert found is None
        else:
            assert found is not None
            other.put(PATHS[to], File(found.file.content), made.version)

    @rule(place=places, which=paths)
    def set_tags(self, place, which):
        volume, model = self.at(place)
        try:
            self.run(self.objects.set_tags(volume, PATHS[which], {"n": str(self.number)}))
        except NotFound:
            assert model.current(PATHS[which]) is None

    @rule(
        place=places,
        which=paths,
        parts=st.lists(
            st.tuples(st.sampled_from(["put", "copy"]), sizes, places, paths), max_size=4
        ),
        ends=st.sampled_from(["complete", "complete", "abort", "leave"]),
    )
    def upload(self, place, which, parts, ends):
        volume, model = self.at(place)

        async def body():
            upload = (await self.objects.create_upload(volume, PATHS[which], PLAIN)).upload
            content, made = [], []
            for number, (how, size, other, source) in enumerate(parts, 1):
                if how == "put":
                    data = self.fresh(size)
                    writer = await self.objects.part_writer(volume, PATHS[which], upload, number)
                    await writer.write(data)
                    part = await writer.commit(digests(data))
                    made.append(PartInfo(number=number, size=part.size, etag=part.etag))
                else:
                    origin, other_model = self.at(other)
                    found = other_model.current(PATHS[source])
                    if found is None:
                        continue
                    data = found.file.content[len(found.file.content) // 3 :]
                    made.append(
                        await self.objects.copy_part(
                            origin,
                            PATHS[source],
                            volume,
                            PATHS[which],
                            upload,
                            number,
                            offset=len(found.file.content) // 3,
                        )
                    )
                content.append(data)
            if ends == "abort":
                await self.objects.abort_upload(volume, PATHS[which], upload)
            elif ends == "complete" and made:
                kept = made[1:] if len(made) > 2 else made
                info = await self.objects.complete_upload(
                    volume, PATHS[which], upload, kept, digests(b"")
                )
                data = b"".join(content[1:] if len(made) > 2 else content)
                model.put(PATHS[which], File(data), info.version)

        self.run(body())

    # Files ----------------------------------------------------------------------------------------

    async def above(self, volume: str, path: bytes):
        """Return the directory that a path lies in, and its name there."""
        parent, _, name = path.rpartition(b"/")
        files = self.stage.files
        return (await files.walk(volume, parent)).ref if parent else await files.root(volume), name

    async def newest(self, volume: str, key: bytes) -> str:
        """Return the id of a name's newest version or marker."""
        found = (await self.objects.list_versions(volume, prefix=key)).entries
        return next((entry.version for entry in found if entry.key == key), "null")

    def free(self, model: ModelVolume, path: bytes) -> bool:
        """Say whether an entry of this name can be made."""
        parent, _, name = path.rpartition(b"/")
        return model.is_directory(parent) and name not in model.children(parent)

    def is_file(self, model: ModelVolume, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        return model.children(parent).get(name) == "file"

    @rule(
        place=places,
        which=paths,
        how=st.sampled_from(["write", "write", "append", "truncate", "punch", "overwrite"]),
        offset=st.sampled_from([0, 100, 5000, WINDOW - 10]),
        size=st.sampled_from([0, 1, 4000]),
        synced=st.booleans(),
    )
    def change_in_place(self, place, which, how, offset, size, synced):
        volume, model = self.at(place)
        path = PATHS[which]
        if not self.is_file(model, path):
            return
        data = self.fresh(size)

        async def body():
            info = await self.stage.files.walk(volume, path)
            file = await self.stage.files.open(
                info.ref,
                owner=ME,
                access=Access.READ | Access.WRITE,
                deny=Access.NONE,
                truncate=how == "overwrite",
            )
            if how == "append":
                await file.append(data)
            elif how == "truncate":
                await file.truncate(offset)
            elif how == "punch":
                await file.punch(offset, size + 1)
            else:
                await file.write(offset, data)
            if synced:
                await file.sync()
            content = bytes(await file.read(0, 1 << 21))
            await file.close()
            return content

        content = self.run(body())
        if how == "append":
            model.append(path, data)
        elif how == "truncate":
            model.truncate(path, offset)
        elif how == "punch":
            model.punch(path, offset, size + 1)
        else:
            if how == "overwrite":
                model.truncate(path, 0)
            if data:
                model.write(path, offset, data)
        assert content == model.current(path).file.content

    @rule(place=places, which=paths, size=st.sampled_from([0, 10, 4000]))
    def create(self, place, which, size):
        volume, model = self.at(place)
        path = PATHS[which]
        if not self.free(model, path):
            return
        data = self.fresh(size)

        async def body():
            directory, name = await self.above(volume, path)
            file, made = await self.stage.files.create(
                directory, name, 0o644, owner=ME, access=Access.WRITE, deny=Access.NONE
            )
            assert made
            await file.write(0, data)
            await file.close()
            return await self.newest(volume, path)

        model.create(path, self.run(body()))
        if data:
            model.write(path, 0, data)

    @rule(place=places, which=paths, to=paths, clone=st.booleans())
    def link_or_clone(self, place, which, to, clone):
        volume, model = self.at(place)
        path, target = PATHS[which], PATHS[to]
        if not self.is_file(model, path) or not self.free(model, target):
            return

        async def body():
            info = await self.stage.files.walk(volume, path)
            verb = self.stage.files.clone if clone else self.stage.files.link
            await verb(info.ref, *await self.above(volume, target))
            return await self.newest(volume, target)

        (model.clone_file if clone else model.link)(path, target, self.run(body()))

    @rule(place=places, which=paths)
    def unlink(self, place, which):
        volume, model = self.at(place)
        path = PATHS[which]
        parent, _, name = path.rpartition(b"/")
        if model.children(parent).get(name) not in ("file", "symlink"):
            return

        async def body():
            await self.stage.files.unlink(*await self.above(volume, path))
            return await self.newest(volume, path)

        model.unlink(path, self.run(body()))

    @rule(place=places, which=paths, to=paths)
    def rename(self, place, which, to):
        volume, model = self.at(place)
        path, target = PATHS[which], PATHS[to]
        if not self.is_file(model, path) or path == target:
            return
        if not self.free(model, target) and not self.is_file(model, target):
            return

        async def body():
            source = await self.above(volume, path)
            await self.stage.files.rename(*source, *await self.above(volume, target))
            return await self.newest(volume, target), await self.newest(volume, path)

        model.rename(path, target, *self.run(body()))

    @rule(place=places, which=paths)
    def symlink(self, place, which):
        volume, model = self.at(place)
        path = PATHS[which]
        if not self.free(model, path) or path in model.names:
            return

        async def body():
            await self.stage.files.symlink(*await self.above(volume, path), b"to/there")

        self.run(body())
        model.symlink(path, b"to/there")

    @rule(place=places, which=st.integers(0, len(DIRECTORIES) - 1), remove=st.booleans())
    def make_or_remove_directory(self, place, which, remove):
        volume, model = self.at(place)
        path = DIRECTORIES[which]

        async def body(verb, *how):
            await verb(*await self.above(volume, path), *how)

        if remove and path in model.directories and not model.children(path):
            self.run(body(self.stage.files.rmdir))
            model.rmdir(path)
        elif not remove and self.free(model, path):
            self.run(body(self.stage.files.mkdir, 0o755))
            model.mkdir(path)

    @rule(
        place=places,
        which=st.integers(0, len(DIRECTORIES) - 1),
        to=st.integers(0, len(DIRECTORIES) - 1),
    )
    def rename_directory(self, place, which, to):
        volume, model = self.at(place)
        path, target = DIRECTORIES[which], DIRECTORIES[to]
        if not model.children(path) or not self.free(model, target):
            return
        if target.startswith(path + b"/"):
            return

        async def body():
            source = await self.above(volume, path)
            await self.stage.files.rename(*source, *await self.above(volume, target))

        history = any(key.startswith(target + b"/") for key in model.names)
        try:
            self.run(body())
        except CrossesVolumes:
            assert history
        else:
            assert not history
            model.rename_directory(path, target)

    # Snapshots ------------------------------------------------------------------------------------

    @rule(place=places)
    def snapshot(self, place):
        volume, model = self.at(place)
        if len(model.snapshots) < 4:
            self.number += 1
            name = f"s{self.number}"
            self.run(self.snapshots.create(volume, name))
            model.snapshot(name)

    @rule(place=places, choice=st.integers(0, 3))
    def prune(self, place, choice):
        volume, model = self.at(place)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        try:
            self.run(self.snapshots.delete(volume, name))
        except Busy:
            assert self.clones
        else:
            model.prune(name)

    @rule(place=places, choice=st.integers(0, 3))
    def rollback(self, place, choice):
        volume, model = self.at(place)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        self.run(self.snapshots.rollback(volume, name))
        model.rollback(name)

    @precondition(lambda self: len(self.model.volumes) < VOLUMES_MAX)
    @rule(place=places, choice=st.integers(0, 3))
    def clone(self, place, choice):
        volume, model = self.at(place)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        self.number += 1
        target = f"c{self.number}"
        self.run(self.snapshots.clone(volume, target, snapshot=name, owner="alice"))
        versioning = self.run(self.objects.volume(target)).versioning
        self.model.clone(volume, name, target).versioning = versioning
        self.clones.append(target)

    # Time and trouble -----------------------------------------------------------------------------

    @rule()
    def collect(self):
        self.run(self.collected())

    async def collected(self) -> None:
        await self.stage.files.settle_collections()
        while any((await self.upkeep.work()).values()) or await self.garbage.drain():
            pass
        while await self.garbage.reclaim():
            pass

    @rule()
    def crash(self):
        self.run(self.stage.crash())
        self.attach()

    @rule(place=places)
    def look(self, place):
        self.run(self.compare(*self.at(place)))

    async def compare(self, volume: str, model: ModelVolume) -> None:
        await agree(self.objects, volume, model, self.usage)
        assert await audit(self.namespace, volume) == []
        await self.compare_directories(await self.stage.files.root(volume), b"", model)
        for name, kept in model.snapshots.items():
            names = kept.names
            shown = f"{volume}.snap-{name}"
            then = ModelVolume("", kept.names, kept.directories, kept.symlinks)
            root = await self.stage.files.root(volume, snapshot=name)
            await self.compare_directories(root, b"", then)
            wanted = {
                key: versions[0].file.content
                for key, versions in names.items()
                if not versions[0].marker
            }
            page = await self.objects.list(shown)
            found = {entry.key: await get(self.objects, shown, entry.key) for entry in page.entries}
            assert found == wanted
            for key, versions in names.items():
                for each in versions:
                    if not each.marker:
                        content = await get(self.objects, shown, key, each.version)
                        assert content == each.file.content

    async def compare_directories(self, directory, path: bytes, model: ModelVolume) -> None:
        entries, _ = await self.stage.files.readdir(directory)
        assert {entry.name: entry.kind for entry in entries} == model.children(path)
        for entry in entries:
            if entry.kind == "directory":
                below = path + b"/" + entry.name if path else entry.name
                await self.compare_directories(entry.ref, below, model)
            elif entry.kind == "symlink":
                target = model.symlinks[path + b"/" + entry.name if path else entry.name]
                assert await self.stage.files.readlink(entry.ref) == target

    async def usage(self, volume: str):
        found = await self.namespace.usage(volume)
        return found[:4]

    def teardown(self):
        try:
            self.run(self.finish())
        finally:
            self.run(self.stage.__aexit__(None, None, None))
            self.loop.close()

    async def finish(self) -> None:
        for volume, model in self.model.volumes.items():
            await self.compare(volume, model)
        await self.collected()
        for volume, model in self.model.volumes.items():
            await self.compare(volume, model)
        for volume in (*reversed(self.clones), "w", "v"):
            model = self.model.volumes[volume]
            for upload in (await self.objects.list_uploads(volume))[0]:
                await self.objects.abort_upload(volume, upload.key, upload.upload)
            for key, versions in list(model.names.items()):
                for each in versions:
                    await self.objects.delete(volume, key, version=each.version)
            assert (await self.objects.list_versions(volume)).entries == []
            for path in model.symlinks:
                await self.stage.files.unlink(*await self.above(volume, path))
                model.settle(path)
            for path in sorted(model.directories, reverse=True):
                await self.stage.files.rmdir(*await self.above(volume, path))
        left = dict(self.model.volumes)
        for _ in range(4 * VOLUMES_MAX):  # who is read through, or borrowed from, goes last
            for volume, model in list(left.items()):
                for name in list(model.snapshots):
                    with suppress(Busy):
                        await self.snapshots.delete(volume, name)
                        model.prune(name)
                if not model.snapshots:
                    await self.objects.delete_volume(volume)
                    del left[volume]
                await self.collected()
        assert not left
        lost = self.ledger.written - self.ledger.dead
        assert not lost, f"never handed back: {lost}"


class NamespaceAgreesAtLength(NamespaceAgrees):
    """The same, for as long as somebody waits."""


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


NamespaceAgrees.TestCase.settings = _settings(150, 30)
NamespaceAgreesAtLength.TestCase.settings = _settings(2_000, 50)
TestNamespaceAgrees = NamespaceAgrees.TestCase
TestNamespaceAgreesAtLength = pytest.mark.slow(NamespaceAgreesAtLength.TestCase)
