"""Random sequences of all verbs on the namespace and on the executable model: they agree, and in the end nothing is left over.

Every chunk that is written is followed: one that was handed back as garbage is never read again, and when everything is deleted
every one has been handed back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import files_stage as stage_module
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from warp_conformance.kits.objects import agree, digests, get, noise, put
from warp_conformance.model import File, Model, ModelVolume, Version
from warp_core.containers import DataPolicy
from warp_core.errors import Busy, CrossesVolumes, InvalidArgument, NotFound, TooLarge
from warp_core.interfaces.auth import Principal
from warp_core.namespace.audit import audit
from warp_core.namespace.blocks import SNAPSHOT_DIRECTORY
from warp_core.namespace.classes import set_storage_class
from warp_core.namespace.extents import WINDOW
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.upkeep import Upkeep
from warp_core.views.objects import Attributes, PartInfo

ALICE = Principal("alice")
PLAIN = Attributes()
ME = Owner(HERE, b"me")
KEYS = [b"a", b"b", b"d/c", b"d/e", b"d/f/g", b"x" * 210]
PATHS = [*KEYS, b"linked", b"d/linked", b"e/n"]
DIRECTORIES = [b"d", b"d/f", b"e", b"g"]
SIZES = [0, 700, 3000, 4096, 70_000]
DISK_SIZES = [512, 4096, WINDOW + 8192]
VOLUMES_MAX = 4
HELD_MAX = 3
UPLOADS_MAX = 3

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
        self.held: list[tuple[str, File, object]] = []  # volume, file, handle
        self.opened_by = {}  # handle → the ref, with a name, that it was opened by
        self.uploads: list[tuple[str, bytes, str, list[PartInfo], list[bytes]]] = []
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
        # A class whose contents lie otherwise: it moves them, and nobody can tell.
        self.namespace.classes = {"GLACIER": DataPolicy(verify="scrub")}

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
        old=st.integers(0, 3),
        kind=st.sampled_from(["GLACIER", "STANDARD"]),
    )
    def change_class(self, place, which, old, kind):
        volume, model = self.at(place)
        versions = [each for each in model.names.get(PATHS[which], ()) if not each.marker]
        if versions:
            version = versions[old % len(versions)].version
            assert self.run(set_storage_class(self.namespace, volume, PATHS[which], version, kind))

    @rule(
        place=places,
        which=paths,
        parts=st.lists(
            st.tuples(st.sampled_from(["put", "copy", "snapshot"]), sizes, places, paths),
            max_size=4,
        ),
        ends=st.sampled_from(["complete", "complete", "abort", "leave"]),
    )
    def upload(self, place, which, parts, ends):
        volume, _ = self.at(place)

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
                    if how == "snapshot":
                        if not other_model.snapshots:
                            continue
                        name = sorted(other_model.snapshots)[size % len(other_model.snapshots)]
                        origin = f"{origin}.snap-{name}"
                        then = other_model.snapshots[name].names.get(PATHS[source])
                        found = then[0] if then and not then[0].marker else None
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
            self.uploads.append((volume, PATHS[which], upload, made, content))
            if ends != "leave":
                await self.end_upload(-1, ends)

        if ends != "leave" or len(self.uploads) < UPLOADS_MAX:
            self.run(body())

    async def end_upload(self, choice: int, ends: str) -> None:
        volume, key, upload, made, content = self.uploads.pop(choice)
        if ends == "abort" or not made:
            await self.objects.abort_upload(volume, key, upload)
            return
        kept = made[1:] if len(made) > 2 else made
        info = await self.objects.complete_upload(volume, key, upload, kept, digests(b""))
        data = b"".join(content[1:] if len(made) > 2 else content)
        self.model.volumes[volume].put(key, File(data), info.version)

    @rule(choice=st.integers(0, UPLOADS_MAX - 1), ends=st.sampled_from(["complete", "abort"]))
    def end(self, choice, ends):
        """End an upload that was left."""
        if self.uploads:
            self.run(self.end_upload(choice % len(self.uploads), ends))

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

    def file_at(self, model: ModelVolume, which: int) -> bytes:
        """Return that path if it is a file, else one that is, if there is one."""
        files = [path for path in PATHS if self.is_file(model, path)]
        return files[which % len(files)] if files and PATHS[which] not in files else PATHS[which]

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
        path = self.file_at(model, which)
        if not self.is_file(model, path):
            return
        data = self.fresh(size)
        file = model.current(path).file
        if file.disk:
            end = {"append": len(file.content), "truncate": 0, "punch": 0}.get(how, offset)
            if how in ("truncate", "overwrite") or (
                how != "punch" and end + len(data) > len(file.content)
            ):
                self.refused(volume, path, how, offset, data)
                return

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
            return content, await self.newest(volume, path)

        file = model.current(path).file
        empty = how == "overwrite" and not file.content
        changes = (
            (data and how != "punch")
            or how in ("truncate", "punch")
            or (how == "overwrite" and not empty)
        )
        model.open(file)
        keeps = changes and model.keeps(path, file)
        content, newest = self.run(body())
        if keeps:
            model.edit(path, newest)
        if changes:
            file.unedited = False
        model.close(file)
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

    def refused(self, volume: str, path: bytes, how: str, offset: int, data: bytes) -> None:
        """Try what would change the size of a disk."""

        async def body():
            info = await self.stage.files.walk(volume, path)
            file = await self.stage.files.open(
                info.ref,
                owner=ME,
                access=Access.WRITE,
                deny=Access.NONE,
                truncate=how == "overwrite",
            )
            try:
                if how == "append":
                    await file.append(data)
                elif how == "truncate":
                    await file.truncate(offset)
                else:
                    await file.write(offset, data)
            finally:
                await file.close()

        with pytest.raises((InvalidArgument, TooLarge)):
            self.run(body())

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
        path, target = self.file_at(model, which), PATHS[to]
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
        path, target = self.file_at(model, which), PATHS[to]
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

    # Open files: they go on when their names are gone, and versions do not change with them -------

    @rule(place=places, which=paths)
    def hold(self, place, which):
        """Open a file and keep it open."""
        volume, model = self.at(place)
        path = self.file_at(model, which)
        if len(self.held) == HELD_MAX or not self.is_file(model, path):
            return

        async def body():
            info = await self.stage.files.walk(volume, path)
            handle = await self.stage.files.open(
                info.ref, owner=ME, access=Access.READ | Access.WRITE, deny=Access.NONE
            )
            self.opened_by[handle] = info.ref
            return handle

        file = model.current(path).file
        self.held.append((volume, file, self.run(body())))
        model.open(file)

    @rule(
        choice=st.integers(0, HELD_MAX - 1),
        how=st.sampled_from(["write", "append", "truncate", "punch", "sync", "read"]),
        offset=st.sampled_from([0, 100, 5000, WINDOW - 10]),
        size=st.sampled_from([1, 4000]),
    )
    def use(self, choice, how, offset, size):
        """Do something with a file that is kept open."""
        if not self.held:
            return
        volume, file, handle = self.held[choice % len(self.held)]
        data = self.fresh(size)
        if file.disk and how in ("append", "truncate"):
            return
        if file.disk and how == "write":
            data = data[: max(0, len(file.content) - offset)]
        alone = ModelVolume(names={b"it": [Version("null", file, 0)]})

        async def body():
            if how == "write" and data:
                await handle.write(offset, data)
                alone.write(b"it", offset, data)
            elif how == "append":
                await handle.append(data)
                alone.append(b"it", data)
            elif how == "truncate":
                await handle.truncate(offset)
                alone.truncate(b"it", offset)
            elif how == "punch":
                await handle.punch(offset, size)
                alone.punch(b"it", offset, size)
            elif how == "sync":
                await handle.sync()
            return bytes(await handle.read(0, 1 << 21))

        before = file.content
        assert self.run(body()) == file.content
        if how in ("append", "truncate", "punch") or (how == "write" and data):
            self.run(self.edited(volume, file, handle, before))

    async def edited(self, volume: str, file: File, handle, before: bytes) -> None:
        """Note that an open file was changed: its edit's first change kept a version, at the name that it was opened by."""
        model = self.model.volumes[volume]
        names = [key for key in model.names if model.keeps(key, file)]
        found = {key: await self.newest(volume, key) for key in names}
        found = {key: new for key, new in found.items() if new != model.names[key][0].version}
        for key in names:
            directory, name = await self.above(volume, key)
            opened_by = self.opened_by[handle]
            if (directory.inode, name) == (opened_by.directory, opened_by.name):
                assert list(found) == [key]
        assert len(found) <= 1
        after, file.content = file.content, before
        for key, newest in found.items():
            model.edit(key, newest)
        file.content = after
        file.unedited = False

    @rule(choice=st.integers(0, HELD_MAX - 1))
    def close(self, choice):
        """Close a file that was kept open."""
        if self.held:
            volume, file, handle = self.held.pop(choice % len(self.held))
            self.run(self.closed(handle))
            self.model.volumes[volume].close(file)

    async def closed(self, handle) -> None:
        await handle.close()
        await self.stage.files.settle_collections()

    # Blocks ---------------------------------------------------------------------------------------

    def disk_at(self, place: int, which: int) -> tuple[str, ModelVolume, bytes]:
        """Return that place if it is a disk, else a disk somewhere, if there is one: of all names few are disks."""
        volume, model = self.at(place)
        every = [
            (name, each, path)
            for name, each in sorted(self.model.volumes.items())
            for path in PATHS
            if self.is_disk(each, path)
        ]
        if not every or self.is_disk(model, PATHS[which]):
            return volume, model, PATHS[which]
        return every[(place * len(PATHS) + which) % len(every)]

    def is_disk(self, model: ModelVolume, path: bytes) -> bool:
        return self.is_file(model, path) and model.current(path).file.disk

    @rule(place=places, which=paths, size=st.sampled_from(DISK_SIZES), of_a_file=st.booleans())
    def make_disk(self, place, which, size, of_a_file):
        volume, model = self.at(place)
        path = PATHS[which]
        if of_a_file and self.is_file(model, path):
            file = model.current(path).file
            if file.content and len(file.content) % 512 == 0:
                self.run(self.stage.blocks.create(volume, path, size=None))
                model.settle(path)
                file.disk = True
        elif not of_a_file and self.free(model, path):

            async def body():
                await self.stage.blocks.create(volume, path, size=size)
                return await self.newest(volume, path)

            model.create(path, self.run(body()))
            model.truncate(path, size)
            model.current(path).file.disk = True

    @rule(
        place=places,
        which=paths,
        how=st.sampled_from(["write", "write", "now", "compare", "trim", "zero"]),
        offset=st.sampled_from([0, 512, 4096, WINDOW - 512]),
        size=st.sampled_from([1, 512, 9000]),
        fua=st.booleans(),
    )
    def change_disk(self, place, which, how, offset, size, fua):
        volume, model, path = self.disk_at(place, which)
        if not self.is_disk(model, path):
            return
        file = model.current(path).file
        size = min(size, len(file.content) - offset)
        if size <= 0:
            return
        data = self.fresh(size)
        expected = file.content[offset : offset + size]

        async def body():
            disk = await self.stage.blocks.open(volume, path, initiator="me")
            if how == "write" or (how == "now" and not disk.write_now(offset, data)):
                await disk.write(offset, data, fua=fua)
            elif how == "compare":
                await disk.compare_and_write(offset, expected, data, fua=fua)
            elif how == "trim":
                await disk.trim(offset, size, fua=fua)
            elif how == "zero":
                await disk.zero(offset, size, fua=fua, may_trim=fua)
            content = bytes(await disk.read(0, disk.size))
            at = 0
            for run in await disk.status(0, disk.size):
                assert run.offset == at
                at += run.length
                assert not run.hole or not any(content[run.offset : at])
            assert at == disk.size
            await disk.close()
            return content

        content = self.run(body())
        model.write(path, offset, bytes(size) if how in ("trim", "zero") else data)
        assert content == file.content

    @rule(place=places, which=paths, size=st.sampled_from(DISK_SIZES))
    def resize_disk(self, place, which, size):
        volume, model, path = self.disk_at(place, which)
        if self.is_disk(model, path):
            self.run(self.stage.blocks.resize(volume, path, size))
            model.truncate(path, size)

    async def kept_below(self, volume: str, path: bytes) -> bytes:
        """Return the directory with a disk's snapshots."""
        info = await self.stage.blocks.show(volume, path)
        return SNAPSHOT_DIRECTORY + f"/{info.ref.inode:016x}".encode()

    @rule(place=places, which=paths)
    def snapshot_disk(self, place, which):
        volume, model, path = self.disk_at(place, which)
        if not self.is_disk(model, path):
            return
        self.number += 1
        name = f"d{self.number}"

        async def body():
            await self.stage.blocks.snapshot(volume, path, name)
            key = await self.kept_below(volume, path) + b"/" + name.encode()
            return key, await self.newest(volume, key)

        key, version = self.run(body())
        model.mkdir(key.rpartition(b"/")[0])
        model.clone_file(path, key, version)

    @rule(place=places, which=paths, choice=st.integers(0, 3))
    def prune_disk(self, place, which, choice):
        volume, model, path = self.disk_at(place, which)
        if not self.is_disk(model, path):
            return
        below = self.run(self.kept_below(volume, path))
        names = sorted(model.children(below))
        assert sorted(self.run(self.stage.blocks.snapshots(volume, path))) == [
            name.decode() for name in names
        ]
        if names:
            name = names[choice % len(names)]
            self.run(self.stage.blocks.delete_snapshot(volume, path, name.decode()))
            key = below + b"/" + name
            model.unlink(key, self.run(self.newest(volume, key)))
            if len(names) == 1:
                model.rmdir(below)

    @rule(place=places, which=paths, to=paths, choice=st.integers(0, 3))
    def clone_disk(self, place, which, to, choice):
        volume, model, path = self.disk_at(place, which)
        target = PATHS[to]
        if not self.is_disk(model, path) or not self.free(model, target):
            return
        below = self.run(self.kept_below(volume, path))
        names = ["", *sorted(name.decode() for name in model.children(below))]
        snapshot = names[choice % len(names)]

        async def body():
            await self.stage.blocks.clone(volume, path, target, snapshot=snapshot)
            return await self.newest(volume, target)

        version = self.run(body())
        model.clone_file(below + b"/" + snapshot.encode() if snapshot else path, target, version)

    @rule(place=places, which=paths)
    def delete_disk(self, place, which):
        volume, model, path = self.disk_at(place, which)
        if not self.is_disk(model, path):
            return
        below = self.run(self.kept_below(volume, path))
        file = model.current(path).file
        try:
            self.run(self.stage.blocks.delete(volume, path))
        except Busy:
            assert any(each is file for _, each, _ in self.held)
            return
        for name in model.children(below):
            key = below + b"/" + name
            model.unlink(key, self.run(self.newest(volume, key)))
            model.directories.discard(below)
        model.unlink(path, self.run(self.newest(volume, path)))

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

    @rule(place=places, choice=st.integers(0, 3), force=st.booleans())
    def rollback(self, place, choice, force=False):
        volume, model = self.at(place)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        here = [each for each in self.held if each[0] == volume]
        if here and not force:
            with pytest.raises(Busy):
                self.run(self.snapshots.rollback(volume, name))
            return
        self.run(self.snapshots.rollback(volume, name, force=force))
        model.rollback(name)
        self.held = [each for each in self.held if each[0] != volume]
        for _, _, handle in here:
            self.run(self.closed(handle))

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
        for _, file, handle in self.held:
            self.run(handle.sync())
            file.writers = 0
        self.held.clear()
        self.run(self.stage.crash())
        self.attach()

    @rule(place=places)
    def look(self, place):
        self.run(self.compare(*self.at(place)))

    async def compare(self, volume: str, model: ModelVolume) -> None:
        await agree(self.objects, volume, model, self.usage)
        await self.compare_disks(volume, model)
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

    async def compare_disks(self, volume: str, model: ModelVolume) -> None:
        """Compare which disks are listed, each by one of its names."""
        found = await self.stage.blocks.disks(volume)
        disks: dict[int, set[bytes]] = {}
        for key in model.names:
            if model.current(key) is None or key.startswith(SNAPSHOT_DIRECTORY + b"/"):
                continue
            file = model.current(key).file
            if file.disk:
                disks.setdefault(id(file), set()).add(key)
        assert len(found) == len(disks)
        for names in disks.values():
            [disk] = [each for each in found if each.path in names]
            assert disk.size == len(model.current(disk.path).file.content)
        assert len({disk.serial for disk in found}) == len(found)

    async def usage(self, volume: str):
        """Return what is counted, without what only open files hold."""
        named = {
            id(each.file)
            for versions in self.model.volumes[volume].names.values()
            for each in versions[:1]
        }
        alone = {
            id(file): (file, handle)
            for where, file, handle in self.held
            if where == volume and id(file) not in named
        }
        for _, handle in alone.values():
            await self.stage.inodes.settle(
                (await self.namespace.volumes.get(volume)).number, handle.ref.inode
            )
        found = await self.namespace.usage(volume)
        held = sum(len(file.content) for file, _ in alone.values())
        return found[0], found[1] - held, found[2], found[3]

    def teardown(self):
        try:
            self.run(self.finish())
        finally:
            self.run(self.stage.__aexit__(None, None, None))
            self.loop.close()

    async def finish(self) -> None:
        for volume, model in self.model.volumes.items():
            await self.compare(volume, model)
        while self.held:
            await self.closed(self.held.pop()[2])
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
