"""Views that answer only while their node is the home: each verb asks first, also those of readers, writers and open files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from warp_core.views.blocks import Disk
from warp_core.views.claims import Claims
from warp_core.views.files import OpenFile
from warp_core.views.objects import Reader, Writer

T = TypeVar("T")

HANDLES: Final[tuple[type, ...]] = (Reader, Writer, OpenFile, Disk, Claims)
ENDINGS: Final = frozenset({"close", "abort", "drop_client"})  # what only lets go is never refused


def leased(view: T, kind: type[T], demand: Callable[[], None]) -> T:
    """Return a view as `view`, an implementation of `kind`, with `demand` called at the beginning of each verb.

    Handles that its verbs return are treated alike.
    """
    guarded: Callable[[object, Callable[[], None]], T] = _guarded(kind)
    return guarded(view, demand)


def _guarded(kind: type[Any]) -> type[Any]:
    """Return a class that is a `kind`, made of an implementation and what to ask first; always the same one."""
    known = _MADE.get(kind)
    if known is None:
        known = _MADE[kind] = _make(kind)
    return known


_MADE: Final[dict[type[Any], type[Any]]] = {}


def _make(kind: type[Any]) -> type[Any]:

    def begin(self: Any, inner: Any, demand: Callable[[], None]) -> None:
        self._inner = inner
        self._demand = demand

    members: dict[str, Any] = {"__init__": begin, "__doc__": kind.__doc__}
    for name, member in inspect.getmembers(kind):
        if name.startswith("_"):
            continue
        if inspect.iscoroutinefunction(member):
            members[name] = _awaited(name)
        elif inspect.isfunction(member):
            members[name] = _called(name)
        elif isinstance(member, property):
            members[name] = property(_read(name))
    for name in kind.__annotations__:
        if not name.startswith("_"):
            members.setdefault(name, property(_read(name)))
    return type(f"Leased{kind.__name__}", (kind,), members)


def _awaited(name: str) -> Callable[..., Any]:
    async def verb(self: Any, *args: Any, **options: Any) -> Any:
        if name not in ENDINGS:
            self._demand()
        return _kept(await getattr(self._inner, name)(*args, **options), self._demand)

    verb.__name__ = name
    return verb


def _called(name: str) -> Callable[..., Any]:
    def verb(self: Any, *args: Any, **options: Any) -> Any:
        if name not in ENDINGS:
            self._demand()
        return _kept(getattr(self._inner, name)(*args, **options), self._demand)

    verb.__name__ = name
    return verb


def _read(name: str) -> Callable[[Any], Any]:
    return lambda self: _kept(getattr(self._inner, name), self._demand)


def _kept(result: Any, demand: Callable[[], None]) -> Any:
    for kind in HANDLES:
        if isinstance(result, kind):
            return leased(result, kind, demand)
    return result
