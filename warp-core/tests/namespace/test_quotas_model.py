"""Random sequences of verbs on the namespace and on the model, with quotas of volumes and of their account: both refuse the same."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import files_stage as stage_module
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from warp_conformance.kits.objects import digests
from warp_conformance.model import File, Held, ModelVolume
from warp_core.errors import QuotaExceeded
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.quotas import Quota
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.quotas import set_volume_quota
from warp_core.views.objects import Attributes, PartInfo

PLAIN = Attributes()
ME = Owner(HERE, b"me")
ACCOUNT = "me"
VOLUMES = ("v", "w")
KEYS = (b"a", b"b", b"c")
SIZES = (0, 500, 2000, 5000)

volumes = st.sampled_from(VOLUMES)
names = st.sampled_from(KEYS)
sizes = st.sampled_from(SIZES)
limits = st.none() | st.builds(Held, st.integers(0, 8), st.sampled_from([0, 2000, 7500, 20_000]))


class QuotasAgree(RuleBasedStateMachine):
    """Each rule does one verb on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.models = {name: ModelVolume() for name in VOLUMES}
        self.account: Held | None = None
        self.uploads: list[tuple[str, bytes, str, dict[int, int]]] = []
        self.run(self.begin())

    def run(self, coroutine: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def begin(self) -> None:
        self.stage = stage_module.Stage()
        await self.stage.__aenter__()
        self.objects = NamespaceObjects(self.stage.namespace)
        await self.objects.create_volume("w", owner=Principal(ACCOUNT))

    def teardown(self) -> None:
        self.run(self.stage.__aexit__(None, None, None))
        self.loop.close()

    def total(self) -> Held:
        return Held(*map(sum, zip(*(each.held() for each in self.models.values()), strict=True)))

    def change(
        self, volume: str, wanted: Callable[[ModelVolume], Any], verb: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Do a verb that the model foresees; what is refused leaves no trace. A version's id is followed afterwards."""
        before = self.models[volume]
        after = copy.deepcopy(before)
        wanted(after)
        admitted = before.admits(after, before.limit, before.held()) and before.admits(
            after, self.account, self.total()
        )
        try:
            made = self.run(verb())
        except QuotaExceeded:
            assert not admitted, f"refused: {before.held()} to {after.held()}"
            return None
        assert admitted, f"let through: {before.held()} to {after.held()}"
        self.models[volume] = after
        return made

    # Verbs ----------------------------------------------------------------------------------------

    @rule(volume=volumes, key=names, size=sizes, how=st.sampled_from(["put", "sized", "stream"]))
    def put(self, volume: str, key: bytes, size: int, how: str) -> None:
        data = bytes(size)
        made: list[Any] = []

        async def verb() -> Any:
            if how == "put":
                return await self.objects.put(volume, key, data, PLAIN, digests(data))
            writer = await self.objects.writer(
                volume, key, PLAIN, size=size if how == "sized" else None
            )
            try:
                await writer.write(data)
                return await writer.commit(digests(data))
            finally:
                await writer.abort()

        info = self.change(volume, lambda model: made.append(model.put(key, File(data), "?")), verb)
        if info is not None:
            self.follow(volume, key, info.version)

    def follow(self, volume: str, key: bytes, version: str) -> None:
        """Give the newest version the id that was drawn; a null version replaces an older one."""
        model = self.models[volume]
        [newest, *older] = model.names[key]
        model.names[key] = older
        if not older:
            del model.names[key]
        assert newest.file is not None
        model.put(key, newest.file, version)

    @rule(volume=volumes, key=names)
    def delete(self, volume: str, key: bytes) -> None:
        before = self.models[volume]
        marked = f"m{before.made}" if before.versioning == "on" else "null"
        gone = self.change(
            volume,
            lambda model: model.delete(key, marked),
            lambda: self.objects.delete(volume, key),
        )
        model = self.models[volume]
        if gone is not None and gone.version and key in model.names:
            model.names[key][0] = type(model.names[key][0])(
                gone.version, None, model.names[key][0].made
            )

    @rule(volume=volumes, key=names, choice=st.integers(0, 5))
    def remove(self, volume: str, key: bytes, choice: int) -> None:
        ids = [each.version for each in self.models[volume].names.get(key, ())]
        if ids:
            version = ids[choice % len(ids)]
            self.change(
                volume,
                lambda model: model.remove(key, version),
                lambda: self.objects.delete(volume, key, version=version),
            )

    @rule(volume=volumes, key=names, there=volumes, to=names)
    def copy(self, volume: str, key: bytes, there: str, to: bytes) -> None:
        found = self.models[volume].current(key)
        if found is None or found.file is None:
            return
        content = found.file.content
        info = self.change(
            there,
            lambda model: model.put(to, File(content), "?"),
            lambda: self.objects.copy(volume, key, there, to),
        )
        if info is not None:
            self.follow(there, to, info.version)

    @rule(volume=volumes, key=names, size=sizes)
    def append(self, volume: str, key: bytes, size: int) -> None:
        """Let a file grow in place, over the Files view."""
        if self.models[volume].current(key) is None:
            return

        async def verb() -> bool:
            files = self.stage.files
            found = await files.walk(volume, key)
            file = await files.open(found.ref, owner=ME, access=Access.WRITE, deny=Access.NONE)
            try:
                await file.append(bytes(size))
            finally:
                await file.close()
            return True

        def grown(model: ModelVolume) -> None:
            if model.versioning != "off":  # an edit keeps what the file was
                model.edit(key, "?")
            model.append(key, bytes(size))

        if size and self.change(volume, grown, verb) and self.models[volume].versioning != "off":
            self.follow(volume, key, self.run(self.objects.head(volume, key)).version)

    @rule(volume=volumes, key=names, to=names)
    def rename(self, volume: str, key: bytes, to: bytes) -> None:
        model = self.models[volume]
        if model.versioning != "off" or model.current(key) is None or key == to:
            return

        async def verb() -> bool:
            root = await self.stage.files.root(volume)
            await self.stage.files.rename(root, key, root, to)
            return True

        self.change(volume, lambda model: model.names.update({to: model.names.pop(key)}), verb)

    @rule(volume=volumes, key=names, parts=st.lists(sizes, min_size=1, max_size=3))
    def upload(self, volume: str, key: bytes, parts: list[int]) -> None:
        upload = self.change(
            volume,
            lambda model: model.uploads.update({"?": {}}),
            lambda: self.objects.create_upload(volume, key, PLAIN),
        )
        if upload is None:
            return
        uploads = self.models[volume].uploads
        uploads[upload.upload] = uploads.pop("?")
        done: dict[int, int] = {}
        for number, size in enumerate(parts, 1):

            async def verb(number: int = number, size: int = size) -> Any:
                writer = await self.objects.part_writer(
                    volume, key, upload.upload, number, size=size if number % 2 else None
                )
                try:
                    await writer.write(bytes(size))
                    return await writer.commit(digests(bytes(size)))
                finally:
                    await writer.abort()

            def add(model: ModelVolume, number: int = number, size: int = size) -> None:
                model.uploads[upload.upload][number] = size

            if self.change(volume, add, verb) is not None:
                done[number] = size
        self.uploads.append((volume, key, upload.upload, done))

    @rule(choice=st.integers(0, 3), complete=st.booleans())
    def end(self, choice: int, complete: bool) -> None:
        if not self.uploads:
            return
        volume, key, upload, done = self.uploads.pop(choice % len(self.uploads))
        if not complete or not done:
            self.change(
                volume,
                lambda model: model.uploads.pop(upload),
                lambda: self.objects.abort_upload(volume, key, upload),
            )
            return
        named = [
            PartInfo(number=each, size=size, etag=digests(bytes(size)).etag)
            for each, size in done.items()
        ]

        def wanted(model: ModelVolume) -> None:
            model.uploads.pop(upload)
            model.put(key, File(bytes(sum(done.values()))), "?")

        info = self.change(
            volume,
            wanted,
            lambda: self.objects.complete_upload(volume, key, upload, named, digests(b"")),
        )
        if info is not None:
            self.follow(volume, key, info.version)
        else:
            self.uploads.append((volume, key, upload, done))

    # What limits ----------------------------------------------------------------------------------

    @rule(volume=volumes, limit=limits)
    def limit_volume(self, volume: str, limit: Held | None) -> None:
        self.models[volume].limit = limit
        quota = Quota(bytes=limit.bytes, objects=limit.objects) if limit else None
        self.run(set_volume_quota(self.stage.namespace.volumes, volume, quota))

    @rule(limit=limits)
    def limit_account(self, limit: Held | None) -> None:
        self.account = limit
        quota = Quota(bytes=limit.bytes, objects=limit.objects) if limit else None
        self.run(self.stage.namespace.quotas.set_account(ACCOUNT, quota))

    @rule(volume=volumes)
    def set_versioning(self, volume: str) -> None:
        self.models[volume].versioning = "on"
        self.run(self.objects.set_versioning(volume, "on"))

    @rule()
    def crash(self) -> None:
        async def body() -> None:
            await self.stage.journal.flush()
            await self.stage.crash()
            self.objects = NamespaceObjects(self.stage.namespace)

        self.run(body())

    @invariant()
    def counted_right(self) -> None:
        async def body() -> None:
            quotas = self.stage.namespace.quotas
            for name, model in self.models.items():
                assert await audit(self.stage.namespace, name) == []
                pool = await quotas.pool(volume=name)
                assert (pool is None) == (model.limit is None)
                if pool is not None:
                    assert (pool.objects, pool.bytes) == model.held()
                    assert (pool.reserved_objects, pool.reserved_bytes) == (0, 0)
            account = await quotas.pool(account=ACCOUNT)
            assert (account is None) == (self.account is None)
            if account is not None:
                assert (account.objects, account.bytes) == self.total()

        if hasattr(self, "stage"):
            self.run(body())


QuotasAgree.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestQuotasAgree = QuotasAgree.TestCase
