"""A server in this process on a free port, over dictionaries, and clients for it."""

import asyncio
import importlib.util
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import Unauthenticated
from warp_core.interfaces.accounts import Accounts, account
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal
from warp_core.metrics import Metrics
from warp_core.views import Objects
from warp_s3.config import Config
from warp_s3.server import Server


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"warp_s3_tests_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


memory_objects = _load("memory_objects")
sinks = _load("sinks")

ROOT = Credential("ROOTKEY", "root-secret", Principal("account:root", "root", admin=True))
ALICE = Credential("ALICEKEY", "alice-secret", Principal("account:alice", "Alice"))
BOB = Credential("BOBKEY", "bob-secret", Principal("account:bob", "Bob"))


class Keys(Authenticator):
    """Three known keys; every second lookup has to wait."""

    capabilities = AuthCapabilities(shared_secrets=True)

    def __init__(self) -> None:
        self._known = {one.access_key: one for one in (ROOT, ALICE, BOB)}

    async def __aenter__(self) -> "Keys":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def lookup_now(self, access_key: str) -> Credential | None:
        return self._known.get(access_key) if access_key != BOB.access_key else None

    async def accounts(self) -> Accounts:
        return Accounts(
            account(one.principal.name, display=one.principal.display)
            for one in self._known.values()
        )

    async def lookup(self, access_key: str) -> Credential:
        await asyncio.sleep(0)
        if access_key not in self._known:
            raise Unauthenticated(access_key)
        return self._known[access_key]


@asynccontextmanager
async def dictionaries() -> AsyncIterator[Objects]:
    """Objects of this folder: in dictionaries, and they fail on request."""
    yield memory_objects.MemoryObjects()


@asynccontextmanager
async def namespace() -> AsyncIterator[Objects]:
    """Objects of core over engines in memory."""
    from warp_core.containers import Containers, StoreSlot
    from warp_core.namespace.namespace import Namespace
    from warp_core.namespace.objects import NamespaceObjects
    from warp_fixed.chunker import Fixed
    from warp_meta_memory.engine import Memory as MemoryMeta
    from warp_store_memory import Memory as MemoryStore

    def codec(name: str) -> Fixed:
        assert name.startswith("fixed:")
        return Fixed(8 * 1024 * 1024)

    async with (
        MemoryMeta() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=codec) as containers,
    ):
        yield NamespaceObjects(Namespace(meta, containers))


class Running:
    """A server on a loop in a thread of its own."""

    objects: Any  # known once it runs
    alice, bob = ALICE, BOB
    server: Server

    def __init__(
        self,
        data: Path,
        view: Callable[[], AbstractAsyncContextManager[Objects]] = dictionaries,
        **options: Any,
    ) -> None:
        self._view = view
        self._data = data
        self.metrics = Metrics()
        options.setdefault("listen", Address("127.0.0.1:0"))
        self._drain_s = options.pop("drain_s", 5.0)
        self._authenticator = options.pop("authenticator", Keys)
        self._config = Config(**options)
        self.errors: list[BaseException] = []
        self.sinks = {
            "queue": sinks.Sink("queue"),
            "topic": sinks.Sink("topic"),
            "away": sinks.Sink("away", away=True),
        }
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._started.wait()
        if self.errors:
            self._thread.join()
            raise self.errors[0]

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.loop.set_exception_handler(
            lambda _, context: self.errors.append(
                context.get("exception") or RuntimeError(context["message"])
            )
        )
        try:
            async with (
                self._view() as self.objects,
                self._authenticator() as authenticator,
                self._make(authenticator) as self.server,
            ):
                self._started.set()
                await self._stop.wait()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._started.set()

    def _make(self, authenticator: Authenticator) -> Server:
        return Server(
            self._config,
            ProtocolContext(
                node="test",
                data=self._data,
                objects=self.objects,
                files=None,  # type: ignore[arg-type]
                blocks=None,  # type: ignore[arg-type]
                authenticator=authenticator,
                metrics=self.metrics,
                drain_s=self._drain_s,
                targets=self.sinks,
            ),
        )

    @property
    def url(self) -> str:
        return self.server.endpoint

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def begin_stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.begin_stop()
            self._thread.join(20)
        assert not self._thread.is_alive()
        assert self.errors == []


def client(url: str, credential: Credential = ROOT, **more: Any) -> Any:
    import boto3
    from botocore.config import Config as ClientConfig

    options: dict[str, Any] = {
        "signature_version": "s3v4",
        "retries": {"max_attempts": 1},
        "s3": {"addressing_style": "path"},
        "parameter_validation": True,
    }
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=credential.access_key,
        aws_secret_access_key=credential.secret,
        region_name="us-east-1",
        config=ClientConfig(**(options | more)),
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers with options of the test's own."""
    running: list[Running] = []

    def start(**options: Any) -> Running:
        running.append(Running(tmp_path, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(
    scope="module",
    params=[dictionaries, pytest.param(namespace, marks=pytest.mark.workspace)],
    ids=["dictionaries", "namespace"],
)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One server for the tests of a module, each with buckets of its own."""
    running = Running(tmp_path_factory.mktemp("data"), request.param)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def run_server() -> Callable[..., AbstractContextManager[Running]]:
    """Run servers over core's view whose accounts, users and roles are kept: alice, bob, and an operator who may everything."""

    def accounts(data: Path) -> Callable[[], AbstractAsyncContextManager[Authenticator]]:
        from warp_core.contexts import AuthContext
        from warp_core.interfaces.accounts import DeclaredAccount
        from warp_keys import Config as KeysConfig
        from warp_keys.keys import Keys as KeptKeys
        from warp_meta_memory.engine import Memory as MemoryMeta

        known = (
            DeclaredAccount(
                account(f"account:{name}", number=digit * 12, admin=admin), [(key, secret)]
            )
            for name, digit, admin, key, secret in (
                ("alice", "1", False, "ALICEKEY", "alice-secret"),
                ("bob", "2", False, "BOBKEY", "bob-secret"),
                ("operator", "3", True, "OPKEY", "op-secret"),
            )
        )
        declared = tuple(known)

        @asynccontextmanager
        async def kept() -> AsyncIterator[Authenticator]:
            async with MemoryMeta() as meta:
                context = AuthContext(data, meta, ("ROOTKEY", "root-secret"), declared)
                async with KeptKeys(KeysConfig(password_cost=10), context) as authenticator:
                    yield authenticator

        return kept

    @contextmanager
    def run(data: Path, **options: Any) -> Iterator[Running]:
        running = Running(data, namespace, authenticator=accounts(data), **options)
        try:
            yield running
        finally:
            running.stop()

    return run


@pytest.fixture(scope="session")
def serving() -> type[Running]:
    """What runs a server over a view of the test's own."""
    return Running


@pytest.fixture
def running_namespace(tmp_path: Path) -> Iterator[Running]:
    """A server of this test's own over core's view."""
    running = Running(tmp_path, namespace)
    yield running
    running.stop()


@pytest.fixture
def s3(shared: Running) -> Any:
    """A boto3 client of an administrator."""
    return client(shared.url)


@pytest.fixture
def connect() -> Callable[..., Any]:
    """Make boto3 clients."""
    return client


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of this test's own."""
    name = f"bucket-{abs(hash(request.node.name)):x}"
    s3.create_bucket(Bucket=name)
    return name
