"""Random calls of several callers in a tree of files, and what POSIX says of each: the same errors, then the same modes and lists.

`pytest -m slow warp-core/tests/namespace/test_access_model.py` tries WARP_TEST_SEED (1) for WARP_TEST_SECONDS (60) of processor time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Awaitable, Sequence
from typing import Any

import files_stage as stage_module
import pytest
from warp_conformance.model.access import READ, WRITE, AccessModel, List, Node
from warp_conformance.sequences import Step, Verb, drawn, search
from warp_core.errors import NotADirectory, WarpError
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.posix_acls import ACCESS, DEFAULT, PosixAcl, pack, parse
from warp_core.views.files import Caller, Files, Ref, SetInfo, Want

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
SECONDS = float(os.environ.get("WARP_TEST_SECONDS", "60"))
LENGTH = 80

ME = Owner(HERE, b"me")
CALLERS = [
    Caller(uid=0, gid=0, superuser=True),
    Caller(uid=1, gid=1, umask=0o027),
    Caller(uid=2, gid=2, groups=frozenset({1})),
    Caller(uid=3, gid=1, groups=frozenset({4}), umask=0o077),
    Caller(uid=4, gid=4, groups=frozenset({2, 5})),
]
PATHS = [b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a", b"f", b"f/a"]
MODES = [0, 0o070, 0o600, 0o640, 0o644, 0o700, 0o711, 0o755, 0o770, 0o777, 0o1777, 0o2775, 0o6777]
IDS = [1, 2, 3, 4, 5]


def draw_list(chance: random.Random) -> tuple[Any, ...] | None:
    """Draw a POSIX ACL as literals; None: take it away."""
    if chance.random() < 0.15:
        return None
    named = [dict[int, int](), dict[int, int]()]
    for digits in named:
        for number in chance.sample(IDS, chance.choice((0, 1, 2))):
            digits[number] = chance.randrange(8)
    needs = any(named) or chance.random() < 0.3
    mask = chance.choice((4, 5, 6, 7, 7, 0)) if needs else None
    digits3 = chance.choice((6, 7)), chance.choice((0, 4, 5, 7)), chance.choice((0, 4, 5))
    return (*digits3, *named, mask)


def verb(weight: float, **draws: Sequence[Any]) -> Verb:
    def draw(chance: random.Random) -> dict[str, Any]:
        arguments = {name: chance.choice(values) for name, values in draws.items()}
        if "acl" in arguments:
            arguments["acl"] = draw_list(chance)
        return {"who": chance.choice((0, 1, 1, 2, 2, 3, 4)), **arguments}

    return Verb(draw, weight)


VERBS = {
    "make": verb(6, path=PATHS, mode=MODES, directory=(True, False)),
    "remove": verb(1.5, path=PATHS, directory=(True, False)),
    "rename": verb(2, path=PATHS, to=PATHS),
    "open": verb(4, path=PATHS, want=(READ, WRITE, READ | WRITE)),
    "chmod": verb(3, path=PATHS, mode=MODES),
    "chown": verb(2, path=PATHS, uid=(None, 1, 2, 3), gid=(None, 1, 2, 4, 5)),
    "set_list": verb(5, path=PATHS, default=(True, False), acl=(None,)),
}


async def code_of(attempt: Awaitable[Any]) -> int:
    try:
        await attempt
    except WarpError as error:
        return error.errno
    return 0


class Both:
    """The namespace, and the model."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.model = AccessModel()

    async def begin(self) -> None:
        self.root = await self.files.root("v")
        await self.files.setattr(self.root, SetInfo(mode=0o777))

    async def _above(self, path: bytes, caller: Caller) -> tuple[Ref, bytes]:
        above, _, name = path.rpartition(b"/")
        info = await self.files.walk("v", above, caller)
        if info.kind != "directory":
            raise NotADirectory(f"{above!r} is none")
        return info.ref, name

    async def step(self, verb: str, who: int, path: bytes, **arguments: Any) -> None:
        caller = CALLERS[who]
        if verb == "rename":
            to = arguments["to"]
            there = self.model.find(to, CALLERS[0])
            if isinstance(there, Node) or to.startswith(path):
                return
        expected = getattr(self, f"_model_{verb}")(path, caller, **arguments)
        found = await code_of(getattr(self, f"_{verb}")(path, caller, **arguments))
        assert found == expected, (
            f"{verb} {path!r} by {who}: {errno.errorcode.get(found)}, "
            f"the model says {errno.errorcode.get(expected)}"
        )

    async def _make(self, path: bytes, caller: Caller, mode: int, directory: bool) -> None:
        above, name = await self._above(path, caller)
        if directory:
            await self.files.mkdir(above, name, mode, caller)
            return
        made = await self.files.create(
            above, name, mode, caller,
            owner=ME, access=Access.READ, deny=Access.NONE, exclusive=True,
        )  # fmt: skip
        await made[0].close()

    def _model_make(self, path: bytes, caller: Caller, mode: int, directory: bool) -> int:
        return self.model.make(path, mode, caller, directory=directory)

    async def _remove(self, path: bytes, caller: Caller, directory: bool) -> None:
        above, name = await self._above(path, caller)
        await (self.files.rmdir if directory else self.files.unlink)(above, name, caller)

    def _model_remove(self, path: bytes, caller: Caller, directory: bool) -> int:
        return self.model.remove(path, caller, directory=directory)

    async def _rename(self, path: bytes, caller: Caller, to: bytes) -> None:
        above, name = await self._above(path, caller)
        below, new = await self._above(to, caller)
        await self.files.rename(above, name, below, new, caller)

    def _model_rename(self, path: bytes, caller: Caller, to: bytes) -> int:
        return self.model.rename(path, to, caller)

    async def _open(self, path: bytes, caller: Caller, want: int) -> None:
        info = await self.files.walk("v", path, caller)
        access = (Access.READ if want & READ else Access.NONE) | (
            Access.WRITE if want & WRITE else Access.NONE
        )
        handle = await self.files.open(info.ref, caller, owner=ME, access=access, deny=Access.NONE)
        try:
            if want & WRITE:
                await handle.write(0, b"x")
        finally:
            await handle.close()

    def _model_open(self, path: bytes, caller: Caller, want: int) -> int:
        return self.model.open(path, want, caller)

    async def _chmod(self, path: bytes, caller: Caller, mode: int) -> None:
        info = await self.files.walk("v", path, caller)
        await self.files.setattr(info.ref, SetInfo(mode=mode), caller)

    def _model_chmod(self, path: bytes, caller: Caller, mode: int) -> int:
        return self.model.chmod(path, mode, caller)

    async def _chown(self, path: bytes, caller: Caller, uid: int | None, gid: int | None) -> None:
        info = await self.files.walk("v", path, caller)
        if (uid, gid) != (None, None):
            await self.files.setattr(info.ref, SetInfo(uid=uid, gid=gid), caller)

    def _model_chown(self, path: bytes, caller: Caller, uid: int | None, gid: int | None) -> int:
        if (uid, gid) == (None, None):
            found = self.model.find(path, caller)
            return found if isinstance(found, int) else 0
        return self.model.chown(path, uid, gid, caller)

    async def _set_list(self, path: bytes, caller: Caller, acl: Any, default: bool) -> None:
        info = await self.files.walk("v", path, caller)
        value = None
        if acl is not None:
            user, group, other, users, groups, mask = acl
            value = pack(
                PosixAcl(user, group, other, tuple(users.items()), tuple(groups.items()), mask)
            )
        await self.files.set_xattr(info.ref, DEFAULT if default else ACCESS, value, caller)

    def _model_set_list(self, path: bytes, caller: Caller, acl: Any, default: bool) -> int:
        made = None if acl is None else List(*acl)
        return self.model.set_list(path, made, caller, default=default)

    async def compare(self) -> None:
        """See that every file is as the model has it, and what everybody may do to it."""
        await self._same(self.root, self.model.root, b"")

    async def _same(self, ref: Ref, node: Node, path: bytes) -> None:
        info = await self.files.getattr(ref)
        assert (info.kind == "directory", info.uid, info.gid, info.mode) == (
            node.directory, node.uid, node.gid, node.mode,
        ), path  # fmt: skip
        lists = await self.files.xattrs(ref)
        for name, expected in ((ACCESS, node.shown()), (DEFAULT, node.default)):
            assert _plain(lists.get(name)) == expected, (path, name)
        for caller in CALLERS:
            for want in range(1, 8):
                allowed = await self.files.access(ref, Want(want), caller)
                assert (allowed == Want(want)) == node.may(caller, want), (path, caller, want)
        if node.directory:
            entries = {each.name: each.ref for each in (await self.files.readdir(ref))[0]}
            assert entries.keys() == node.children.keys(), path
            for name, below in node.children.items():
                await self._same(entries[name], below, path + b"/" + name)


def _plain(value: bytes | None) -> List | None:
    acl = parse(value) if value is not None else None
    if acl is None:
        return None
    return List(acl.user, acl.group, acl.other, dict(acl.users), dict(acl.groups), acl.mask)


def attempt(steps: Sequence[Step]) -> None:
    async def run() -> None:
        async with stage_module.Stage() as stage:
            both = Both(stage.files)
            await both.begin()
            for number, (name, arguments) in enumerate(steps):
                await both.step(name, **arguments)
                if number % 10 == 9:
                    await both.compare()
            await both.compare()

    asyncio.run(run())


@pytest.mark.parametrize("seed", [1, 2])
def test_everybody_may_what_posix_says(seed: int) -> None:
    attempt(drawn(VERBS, random.Random(seed), LENGTH))


@pytest.mark.slow
def test_long_sequences_of_calls_end_as_posix_says() -> None:
    found = search(VERBS, attempt, seed=SEED, length=LENGTH, budget_s=SECONDS)
    assert found is None, found
