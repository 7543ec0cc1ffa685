"""Files of another node, behind a line to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from warp_core.errors import InvalidArgument, StaleHandle, Unavailable
from warp_core.forward.line import Answer, Line, Opened, Session, Size, steps, together
from warp_core.forward.messages import RECALLED, SMALL, STEP
from warp_core.forward.objects import beside
from warp_core.forward.verbs import VERBS, Verb, asking
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner, Range
from warp_core.namespace.shares import Access
from warp_core.views.claims import LOCK_END, Claims, Recalled, Tell
from warp_core.views.files import IO_MAX, ROOT, Caller, Files, OpenFile, Ref

FOREVER = float("inf")  # a queued lock waits for its holder; the session's end ends it

_opened = msgspec.msgpack.Decoder(tuple[Ref, bool])
_recalled = msgspec.msgpack.Decoder(tuple[str, int, Owner, Kind, Kind])


@asking("files", but=("create", "create_unnamed", "open"))
class RemoteFiles(Files):
    """The view, done by the home at the other end of a line."""

    def __init__(self, line: Line) -> None:
        """Take the line; it is its owner's to close."""
        self._line = line
        self._claims = RemoteClaims(line)

    @property
    def claims(self) -> Claims:
        """As `Files.claims`."""
        return self._claims

    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        session = await self._line.session()
        return await session.ask_verb(verb, args, named)

    async def create(
        self,
        directory: Ref,
        name: bytes,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> tuple[OpenFile, bool]:
        """As `Files.create`."""
        named = {
            "owner": owner,
            "access": access,
            "deny": deny,
            "exclusive": exclusive,
            "truncate": truncate,
        }
        verb = VERBS["files.create"]
        return await self._opened(verb, (directory, name, mode, caller), named, owner, access)

    async def create_unnamed(
        self,
        directory: Ref,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
    ) -> OpenFile:
        """As `Files.create_unnamed`."""
        named = {"owner": owner, "access": access, "deny": deny}
        verb = VERBS["files.create_unnamed"]
        return (await self._opened(verb, (directory, mode, caller), named, owner, access))[0]

    async def open(
        self,
        file: Ref,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        truncate: bool = False,
    ) -> OpenFile:
        """As `Files.open`."""
        named = {"owner": owner, "access": access, "deny": deny, "truncate": truncate}
        verb = VERBS["files.open"]
        return (await self._opened(verb, (file, caller), named, owner, access))[0]

    async def _opened(
        self,
        verb: Verb,
        args: Sequence[object],
        named: Mapping[str, object],
        owner: Owner,
        access: Access,
    ) -> tuple[OpenFile, bool]:
        session = await self._line.session()
        answer = await session.ask_verb(verb, args, named)
        ref, made = session.decoded(_opened, answer)
        size = session.size_of(ref.volume, ref.inode, ref.snapshot)
        size.note(answer.reply.size)
        return RemoteFile(session, answer.reply.handle, size, ref, owner, access), made


@asking("file", but=("read", "write", "append"))
class RemoteFile(Opened, OpenFile):
    """A file that the home has open. It dies with its session."""

    def __init__(
        self,
        session: Session,
        handle: int,
        size: Size,
        ref: Ref,
        owner: Owner,
        access: Access,
    ) -> None:
        """Take what `files.open` answered."""
        super().__init__(session, handle, size)
        self.ref = ref
        self.owner = owner
        self.access = access

    async def read(self, offset: int, length: int) -> Buffer:
        """As `OpenFile.read`; the bytes are received where they are returned from."""
        length = min(length, IO_MAX)
        if length < 0:
            raise InvalidArgument(f"a read of {length} bytes")
        room = memoryview(bytearray(length))
        verb = VERBS["file.read"]

        async def step(at: int) -> int:
            into = room[at : at + STEP]
            answer: Answer = await self._ask(
                verb, (offset + at, len(into)), {}, bulk=len(into) > SMALL, into=into
            )
            return len(beside(answer, len(into)))

        found = 0
        for part in await together([step(at) for at in range(0, max(length, 1), STEP)]):
            found += part
            if part < STEP:
                break
        return room[:found]

    async def write(self, offset: int, data: Buffer, *, sync: bool = False) -> int:
        """As `OpenFile.write`."""
        verb = VERBS["file.write"]

        async def step(at: int, piece: memoryview) -> int:
            done: int = await self._ask(verb, (at, piece), {"sync": sync})
            return done

        pieces = steps(offset, data) or [(offset, memoryview(b""))]
        return sum(await together([step(at, piece) for at, piece in pieces]))

    async def append(self, data: Buffer, *, sync: bool = False) -> int:
        """As `OpenFile.append`; what one message does not take is sent before."""
        if not self._handle:
            raise StaleHandle("closed")
        view = memoryview(data).cast("B")
        if len(view) <= STEP:
            offset: int = await self._ask(VERBS["file.append"], (view,), {"sync": sync})
            return offset
        verb = VERBS["file.append"]
        values, _ = verb.pack((view,), {"sync": sync})
        answer = await self._session.ask_staged(verb.name, values, view, handle=self._handle)
        self._size.note(answer.reply.size)
        assert verb.result is not None
        return int(self._session.decoded(verb.result, answer))

    async def close(self) -> None:
        """As `OpenFile.close`; returns when the home has closed it."""
        await self._shut()


@asking("claims", but=("add_client", "lock", "test_lock", "unlock", "lease", "give_back"))
class RemoteClaims(Claims):
    """The claims of a home at the other end of a line; clients end with the session that began them."""

    def __init__(self, line: Line) -> None:
        """Take the line."""
        self._line = line

    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        session = await self._line.session()
        if verb.method == "drop_client":
            session.hearing.pop((RECALLED, int(str(args[0]))), None)
        return await session.ask_verb(verb, args, named)

    async def add_client(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        tell: Tell | None = None,
        gone: Callable[[], None] | None = None,
    ) -> int:
        """As `Claims.add_client`."""
        session = await self._line.session()
        verb = VERBS["claims.add_client"]
        client: int = await session.ask_verb(verb, (name, ttl_s, tell is not None), {})

        def hear(values: Buffer | None) -> None:
            if values is None:  # the session ended: the home drops the client
                if gone is not None:
                    gone()
            elif tell is not None:
                tell(Recalled(*_recalled.decode(values)))

        if session.ended is not None:
            raise Unavailable(str(session.ended))
        session.hearing[RECALLED, client] = hear
        return client

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        end: int,
        *,
        exclusive: bool,
        wait: bool = False,
        cacher: Owner | None = None,
        reclaim: bool = False,
    ) -> None:
        """As `Claims.lock`."""
        session = await self._line.session()
        await session.ask_verb(
            VERBS["claims.lock"],
            (file, owner, start, end - 1, exclusive, wait, cacher, reclaim),
            {},
            deadline_s=FOREVER if wait else None,
        )

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """As `Claims.test_lock`."""
        session = await self._line.session()
        verb = VERBS["claims.test_lock"]
        found = await session.ask_verb(verb, (file, owner, start, end - 1, exclusive), {})
        if found is None:
            return None
        held, first, last, how = found
        return Range(held, first, last + 1, how)

    async def unlock(self, file: Ref, owner: Owner, start: int = 0, end: int = LOCK_END) -> None:
        """As `Claims.unlock`."""
        session = await self._line.session()
        await session.ask_verb(VERBS["claims.unlock"], (file, owner, start, end - 1), {})

    async def lease(
        self,
        file: Ref,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """As `Claims.lease`."""
        session = await self._line.session()
        lent: Kind = await session.ask_verb(
            VERBS["claims.lease"], (file, owner, kinds, reclaim, beside_writers), {}
        )
        return lent

    async def give_back(self, file: Ref, owner: Owner, keep: Kind | None = None) -> None:
        """As `Claims.give_back`."""
        session = await self._line.session()
        verb = VERBS["claims.give_back"]
        await session.ask_verb(verb, (file, owner, Kind.NONE if keep is None else keep), {})
