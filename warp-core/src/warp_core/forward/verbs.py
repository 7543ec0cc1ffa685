"""The verbs that travel: methods of the views and of what they open, with their signatures as the format.

A verb's name is the view's and the method's (`objects.head`); its arguments go in the order of the signature. Parameters that are
buffers travel beside the others. A new parameter goes to the end and has a default, a verb never changes its meaning.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from warp_core.errors import InvalidArgument
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner, Range
from warp_core.namespace.shares import Access
from warp_core.views.blocks import Blocks, Disk
from warp_core.views.commands import Commands
from warp_core.views.files import Caller, Files, OpenFile, Ref
from warp_core.views.objects import Objects, Reader, Writer

OPENED = (Reader, Writer, Disk, OpenFile)
_NAMES = {
    "Access": Access,
    "Buffer": Buffer,
    "Kind": Kind,
    "Owner": Owner,
    "Caller": Caller,
    "Principal": Principal,
    "Range": Range,
    "Ref": Ref,
}

T = TypeVar("T")
Values = tuple[bytes, list[Buffer]]


def _plain(value: object) -> object:
    """Return what msgspec can write of a value that it does not know: lazy sequences, mappings that are no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | frozenset):
        return list(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel")


pack_value: Callable[[object], bytes] = msgspec.msgpack.Encoder(enc_hook=_plain).encode


class Travelling:
    """Claims as they travel: ranges go to their `last` byte, since one past the last of all is more than 64 bits hold."""

    async def add_client(self, name: str, ttl_s: float | None, tells: bool) -> int:
        """Begin a client; with `tells` its recalled leases come as events."""
        raise NotImplementedError

    async def renew(self, client: int) -> None:
        """As `Claims.renew`."""
        raise NotImplementedError

    async def drop_client(self, client: int) -> None:
        """As `Claims.drop_client`."""
        raise NotImplementedError

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        last: int,
        exclusive: bool,
        wait: bool,
        cacher: Owner | None,
        reclaim: bool,
    ) -> None:
        """As `Claims.lock`."""
        raise NotImplementedError

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, last: int, exclusive: bool
    ) -> tuple[Owner, int, int, bool] | None:
        """As `Claims.test_lock`; the range also to its last byte."""
        raise NotImplementedError

    async def unlock(self, file: Ref, owner: Owner, start: int, last: int) -> None:
        """As `Claims.unlock`."""
        raise NotImplementedError

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        """As `Claims.unlock_all`."""
        raise NotImplementedError

    async def lease(
        self, file: Ref, owner: Owner, kinds: Kind, reclaim: bool, beside_writers: bool
    ) -> Kind:
        """As `Claims.lease`."""
        raise NotImplementedError

    async def give_back(self, file: Ref, owner: Owner, keep: Kind) -> None:
        """As `Claims.give_back`."""
        raise NotImplementedError

    async def reclaimed(self, volume: str, client: int) -> None:
        """As `Claims.reclaimed`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Verb:
    """One method: how its arguments and its result are written and read."""

    name: str  # as it travels
    method: str
    parameters: tuple[str, ...]  # all, in order
    defaults: Mapping[str, object]
    buffers: frozenset[str]  # those that are buffers
    keywords: frozenset[str]
    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[Any] | None  # None: a buffer, or something that was opened

    def pack(self, args: Sequence[object], given: Mapping[str, object]) -> Values:
        """Return a call's arguments as they travel: packed ones, and buffers.

        Raises:
            TypeError: The method has no such parameters.
        """
        positional = len(args)
        values: list[object] = []
        buffers: list[Buffer] = []
        used = 0
        for place, name in enumerate(self.parameters):
            if place < positional:
                value = args[place]
            elif name in given:
                value = given[name]
                used += 1
            elif name in self.defaults:
                value = self.defaults[name]
            else:
                raise TypeError(f"{self.name} needs {name!r}")
            if name in self.buffers:
                buffers.append(value)  # type: ignore[arg-type]
            else:
                values.append(value)
        if used != len(given) or positional > len(self.parameters):
            raise TypeError(f"{self.name} takes {', '.join(self.parameters)}")
        return pack_value(values), buffers

    def unpack(self, packed: Buffer, buffers: Sequence[Buffer]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments of a call that came.

        Raises:
            InvalidArgument: They are not this verb's.
        """
        if len(buffers) != len(self.buffers):
            raise InvalidArgument(
                f"{self.name} with {len(buffers)} buffers, not {len(self.buffers)}"
            )
        try:
            values = self.arguments.decode(packed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f"arguments of {self.name}: {error}") from error
        beside = iter(buffers)
        args: list[Any] = []
        named: dict[str, Any] = {}
        for name in self.parameters:
            value = next(beside) if name in self.buffers else getattr(values, name)
            if name in self.keywords:
                named[name] = value
            else:
                args.append(value)
        return args, named


def _verb(view: str, owner: type, method: str) -> Verb:
    function = getattr(owner, method)
    hints = typing.get_type_hints(function, localns=_NAMES)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    buffers = frozenset(each.name for each in parameters if hints[each.name] == Buffer)
    fields = [(each.name, hints[each.name]) for each in parameters if each.name not in buffers]
    result = hints.get("return", type(None))
    if method == "read_runs":  # the bytes of the runs that have some go beside
        result = list[tuple[int, int, bool]]
    opened = result in OPENED or any(each in OPENED for each in typing.get_args(result))
    plain = result != Buffer and not opened
    return Verb(
        f"{view}.{method}",
        method,
        tuple(each.name for each in parameters),
        {each.name: each.default for each in parameters if each.default is not each.empty},
        buffers,
        frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY),
        msgspec.msgpack.Decoder(msgspec.defstruct("Arguments", fields, array_like=True)),
        msgspec.msgpack.Decoder(result) if plain else None,
    )


# Which methods are verbs. Not among them: what answers at once or not at all (`*_now`, `buffer`, `size`, ...).
OF: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "objects": (
        Objects,
        (
            "create_volume",
            "delete_volume",
            "volume",
            "volumes",
            "set_versioning",
            "set_lock",
            "set_document",
            "head",
            "readable",
            "open",
            "put",
            "writer",
            "copy",
            "delete",
            "delete_together",
            "set_tags",
            "set_acl",
            "set_replication",
            "restore",
            "set_retention",
            "set_legal_hold",
            "list",
            "list_versions",
            "create_upload",
            "upload",
            "part_writer",
            "copy_part",
            "list_parts",
            "complete_upload",
            "abort_upload",
            "list_uploads",
        ),
    ),
    "reader": (Reader, ("read",)),
    "writer": (Writer, ("write", "commit", "abort")),
    "files": (
        Files,
        (
            "number",
            "root",
            "lookup",
            "walk",
            "parent",
            "readdir",
            "mkdir",
            "rmdir",
            "unlink",
            "rename",
            "link",
            "symlink",
            "readlink",
            "mknod",
            "create",
            "create_unnamed",
            "open",
            "getattr",
            "setattr",
            "access",
            "xattrs",
            "xattr",
            "set_xattr",
            "statfs",
            "sync",
            "clone",
        ),
    ),
    "file": (
        OpenFile,
        ("read", "write", "append", "sync", "truncate", "allocate", "punch", "seek", "info"),
    ),
    "blocks": (
        Blocks,
        (
            "create",
            "open",
            "show",
            "disks",
            "resize",
            "clone",
            "snapshot",
            "snapshots",
            "delete_snapshot",
            "delete",
        ),
    ),
    "disk": (
        Disk,
        (
            "read",
            "write",
            "read_runs",
            "flush",
            "trim",
            "zero",
            "status",
            "compare_and_write",
            "register",
            "reserve",
            "release",
            "preempt",
            "clear",
            "reservations",
        ),
    ),
    "commands": (Commands, ("run",)),
    "claims": (
        Travelling,
        (
            "add_client",
            "renew",
            "drop_client",
            "lock",
            "test_lock",
            "unlock",
            "unlock_all",
            "lease",
            "give_back",
            "reclaimed",
        ),
    ),
}
VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for view, (owner, methods) in OF.items()
    for verb in (_verb(view, owner, method) for method in methods)
}


def asking(view: str, *, but: Sequence[str] = ()) -> Callable[[type[T]], type[T]]:
    """Give a class of the calling side all verbs of a view but those that it has itself: each goes through its `_ask`."""

    def give(kind: type[T]) -> type[T]:
        for method in OF[view][1]:
            if method not in but:
                setattr(kind, method, _method(VERBS[f"{view}.{method}"]))
        return kind

    return give


def _method(verb: Verb) -> Callable[..., Awaitable[Any]]:
    async def asks(self: Any, *args: object, **named: object) -> Any:
        return await self._ask(verb, args, named)

    asks.__name__ = verb.method
    asks.__doc__ = f"As the view's `{verb.method}`."
    return asks
