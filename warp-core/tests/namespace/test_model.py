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
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from warp_conformance.kits.objects import agree, digests, get, noise, put
from warp_conformance.model import File, Model, ModelVolume
from warp_core.errors import Busy, NotFound
from warp_core.interfaces.auth import Principal
from warp_core.namespace.audit import audit
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
SIZES = [0, 700, 3000, 70_000]
VOLUMES_MAX = 4

keys_ = st.integers(0, len(KEYS) - 1)
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

    @rule(place=places, which=keys_, size=sizes)
    def put(self, place, which, size):
        volume, model = self.at(place)
        data = self.fresh(size)

        async def stream():
            writer = await self.objects.writer(volume, KEYS[which], PLAIN)
            await writer.write(data)
            return await writer.commit(digests(data))

        made = self.run(
            put(self.objects, volume, KEYS[which], data) if size <= 65_536 else stream()
        )
        model.put(KEYS[which], File(data), made.version)

    @rule(place=places, which=keys_)
    def delete(self, place, which):
        volume, model = self.at(place)
        gone = self.run(self.objects.delete(volume, KEYS[which]))
        assert gone.found == model.delete(KEYS[which], gone.version or "null")

    @rule(place=places, which=keys_, choice=st.integers(0, 5))
    def remove(self, place, which, choice):
        volume, model = self.at(place)
        ids = [each.version for each in model.names.get(KEYS[which], ())]
        if ids:
            version = ids[choice % len(ids)]
            assert self.run(self.objects.delete(volume, KEYS[which], version=version)).found
            model.remove(KEYS[which], version)

    @rule(place=places, state=st.sampled_from(["on", "suspended"]))
    def set_versioning(self, place, state):
        volume, model = self.at(place)
        self.run(self.objects.set_versioning(volume, state))
        model.versioning = state

    @rule(place=places, which=keys_, there=places, to=keys_, old=st.integers(0, 3))
    def copy(self, place, which, there, to, old):
        source, model = self.at(place)
        volume, other = self.at(there)
        versions = [each for each in model.names.get(KEYS[which], ()) if not each.marker]
        chosen = versions[old % len(versions)] if versions and old else model.current(KEYS[which])
        version = chosen.version if chosen and old else ""
        call = self.objects.copy(source, KEYS[which], volume, KEYS[to], source_version=version)
        try:
            made = self.run(call)
        except NotFound:
            assert chosen is None
        else:
            assert chosen is not None
            other.put(KEYS[to], File(chosen.file.content), made.version)

    @rule(place=places, which=keys_, there=places, to=keys_, choice=st.integers(0, 3))
    def copy_from_a_snapshot(self, place, which, there, to, choice):
        source, model = self.at(place)
        volume, other = self.at(there)
        if not model.snapshots:
            return
        name = sorted(model.snapshots)[choice % len(model.snapshots)]
        versions = model.snapshots[name].get(KEYS[which])
        found = versions[0] if versions and not versions[0].marker else None
        call = self.objects.copy(f"{source}.snap-{name}", KEYS[which], volume, KEYS[to])
        try:
            made = self.run(call)
        except NotFound:
            assert found is None
        else:
            assert found is not None
            other.put(KEYS[to], File(found.file.content), made.version)

    @rule(place=places, which=keys_)
    def set_tags(self, place, which):
        volume, model = self.at(place)
        try:
            self.run(self.objects.set_tags(volume, KEYS[which], {"n": str(self.number)}))
        except NotFound:
            assert model.current(KEYS[which]) is None

    @rule(
        place=places,
        which=keys_,
        parts=st.lists(
            st.tuples(st.sampled_from(["put", "copy"]), sizes, places, keys_), max_size=4
        ),
        ends=st.sampled_from(["complete", "complete", "abort", "leave"]),
    )
    def upload(self, place, which, parts, ends):
        volume, model = self.at(place)

        async def body():
            upload = (await self.objects.create_upload(volume, KEYS[which], PLAIN)).upload
            content, made = [], []
            for number, (how, size, other, source) in enumerate(parts, 1):
                if how == "put":
                    data = self.fresh(size)
                    writer = await self.objects.part_writer(volume, KEYS[which], upload, number)
                    await writer.write(data)
                    part = await writer.commit(digests(data))
                    made.append(PartInfo(number=number, size=part.size, etag=part.etag))
                else:
                    origin, other_model = self.at(other)
                    found = other_model.current(KEYS[source])
                    if found is None:
                        continue
                    data = found.file.content[len(found.file.content) // 3 :]
                    made.append(
                        await self.objects.copy_part(
                            origin,
                            KEYS[source],
                            volume,
                            KEYS[which],
                            upload,
                            number,
                            offset=len(found.file.content) // 3,
                        )
                    )
                content.append(data)
            if ends == "abort":
                await self.objects.abort_upload(volume, KEYS[which], upload)
            elif ends == "complete" and made:
                kept = made[1:] if len(made) > 2 else made
                info = await self.objects.complete_upload(
                    volume, KEYS[which], upload, kept, digests(b"")
                )
                data = b"".join(content[1:] if len(made) > 2 else content)
                model.put(KEYS[which], File(data), info.version)

        self.run(body())

    # Files ----------------------------------------------------------------------------------------

    @rule(
        place=places,
        which=keys_,
        offset=st.sampled_from([0, 100, 5000]),
        size=st.sampled_from([1, 4000]),
    )
    def write_in_place(self, place, which, offset, size):
        volume, model = self.at(place)
        if model.current(KEYS[which]) is None:
            return
        data = self.fresh(size)

        async def body():
            info = await self.stage.files.walk(volume, KEYS[which])
            file = await self.stage.files.open(
                info.ref, owner=ME, access=Access.READ | Access.WRITE, deny=Access.NONE
            )
            await file.write(offset, data)
            await file.sync()
            await file.close()

        self.run(body())
        model.write(KEYS[which], offset, data)

    @rule(place=places, which=keys_, to=st.sampled_from([b"linked", b"d/linked"]))
    def link(self, place, which, to):
        volume, model = self.at(place)
        if model.versioning != "off" or not model.current(KEYS[which]) or model.current(to):
            return
        if to.startswith(b"d/") and not any(key.startswith(b"d/") for key in model.names):
            return

        async def body():
            files = self.stage.files
            info = await files.walk(volume, KEYS[which])
            root = await files.root(volume)
            above = root if b"/" not in to else (await files.walk(volume, b"d")).ref
            await files.link(info.ref, above, to.rpartition(b"/")[2])

        self.run(body())
        model.link(KEYS[which], to)

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
        for name, names in model.snapshots.items():
            shown = f"{volume}.snap-{name}"
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
            for key, versions in list(model.names.items()):
                for each in versions:
                    await self.objects.delete(volume, key, version=each.version)
            assert (await self.objects.list_versions(volume)).entries == []
            with suppress(NotFound):  # a link made over Files keeps the directory that keys implied
                root = await self.stage.files.root(volume)
                await self.stage.files.rmdir(root, b"d")
            for name in list(model.snapshots):
                await self.snapshots.delete(volume, name)
            await self.objects.delete_volume(volume)
            await self.collected()
        lost = self.ledger.written - self.ledger.dead
        assert not lost, f"never handed back: {lost}"


NamespaceAgrees.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestNamespaceAgrees = NamespaceAgrees.TestCase
