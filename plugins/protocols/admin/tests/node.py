"""A node of a few verbs, served over HTTP in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from warp_admin.config import Config
from warp_admin.server import Server
from warp_conformance.reference.auth import Disk, MemoryAuth
from warp_conformance.reference.consistency import Plain
from warp_core.audit.log import AuditLog
from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyExists, NotFound, WarpError
from warp_core.metrics import Metrics
from warp_core.node.administration import Administration
from warp_core.node.control import Nothing, Progress, Role, Verb
from warp_core.node.tokens import Tokens


class Box(msgspec.Struct, frozen=True):
    """One box."""

    name: str


class NewBox(msgspec.Struct, frozen=True):
    """A box to be."""

    name: str
    size: int = 1
    labels: dict[str, str] = {}
    secret: str = ""


class Which(msgspec.Struct, frozen=True):
    """Which boxes."""

    least: int = 0
    heavy: bool | None = None


class Steps(msgspec.Struct, frozen=True):
    """How long."""

    count: int = 3
    fail: bool = False
    hang: bool = False


@dataclass
class Boxes:
    """What is administered."""

    sizes: dict[str, int] = field(default_factory=dict)
    working: int = 0
    cancelled: int = 0
    error: Exception | None = None


async def box_list(node: Boxes, arguments: Which, progress: Progress) -> object:
    """List boxes."""
    if node.error is not None:
        raise node.error
    return [{"name": n, "size": s} for n, s in node.sizes.items() if s >= arguments.least]


async def box_create(node: Boxes, arguments: NewBox, progress: Progress) -> object:
    """Make a box."""
    if arguments.name in node.sizes:
        raise AlreadyExists(f"box {arguments.name!r} exists")
    node.sizes[arguments.name] = arguments.size
    return {"name": arguments.name}


async def box_show(node: Boxes, arguments: Box, progress: Progress) -> object:
    """Show a box."""
    if arguments.name not in node.sizes:
        raise NotFound(f"no box {arguments.name!r}")
    return {"name": arguments.name, "size": node.sizes[arguments.name]}


async def box_delete(node: Boxes, arguments: Box, progress: Progress) -> object:
    """Remove a box."""
    node.sizes.pop(arguments.name, None)
    return {"deleted": arguments.name}


async def count(node: Boxes, arguments: Steps, progress: Progress) -> object:
    """Count for a while."""
    node.working += 1
    try:
        for step in range(arguments.count):
            progress({"done": step})
            await asyncio.sleep(0.01)
        if arguments.hang:
            await asyncio.get_running_loop().create_future()
        if arguments.fail:
            raise WarpError("half way")
    except asyncio.CancelledError:
        node.cancelled += 1
        raise
    finally:
        node.working -= 1
    return {"counted": arguments.count}


async def metrics_text(node: Boxes, arguments: Nothing, progress: Progress) -> object:
    """Tell metrics."""
    return "boxes 1\n"


VERBS: Mapping[str, Verb[Boxes]] = {
    "box.list": Verb(Which, box_list),
    "box.create": Verb(NewBox, box_create, role=Role.OPERATOR),
    "box.show": Verb(Box, box_show),
    "box.delete": Verb(Box, box_delete),
    "count": Verb(Steps, count, role=Role.OPERATOR, long=True),
    "metrics.text": Verb(Nothing, metrics_text),
}


@dataclass
class Served:
    """A server and what stands behind it."""

    server: Server
    boxes: Boxes
    tokens: Tokens
    folder: Path
    stopped: list[str]
    made: dict[str, str] = field(default_factory=dict)

    async def bearer(self, role: str = "admin", expires_s: float = 0.0) -> dict[str, str]:
        """Return the header of a new token."""
        text, _ = await self.tokens.create(role, Role[role.upper()], expires_s=expires_s)
        return {"Authorization": f"Bearer {text}"}


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Served]:
    """Serve boxes."""
    boxes, stopped = Boxes(), list[str]()
    config = Config(**{"listen": Address("127.0.0.1:0"), **options})
    async with Plain() as store, AuditLog(folder / "audit", store, node="a", identity="i") as audit:
        tokens = Tokens(store)
        context = ProtocolContext(
            node="a",
            data=folder,
            objects=None,  # type: ignore[arg-type]
            files=None,  # type: ignore[arg-type]
            blocks=None,  # type: ignore[arg-type]
            authenticator=MemoryAuth(Disk(), ("root", "secret-secret")),
            metrics=Metrics(),
            drain_s=0.5,
            audit=audit,
            administration=Administration(
                boxes, lambda: VERBS, audit, tokens, stopped=lambda: "".join(stopped)
            ),
        )
        async with Server(config, context) as server:
            yield Served(server, boxes, tokens, folder, stopped)
