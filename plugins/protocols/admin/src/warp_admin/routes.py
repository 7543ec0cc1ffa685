"""From the table of verbs to paths: each verb gets its place by its name and its arguments, so that a new one needs no line here.

```
noun.list                       GET     /v1/nouns
noun.create, noun.add           POST    /v1/nouns
noun.show   (name, ...)         GET     /v1/nouns/{name}
noun.set    (name, ...)         PATCH   /v1/nouns/{name}
noun.delete (name, ...)         DELETE  /v1/nouns/{name}
noun.other  (name, ...)         POST    /v1/nouns/{name}/other      GET if it only looks
noun.other  (...)               POST    /v1/nouns/other
other                           POST    /v1/other
```

What a verb is about are the required texts that its arguments begin with. Names in the path are escaped,
`vms%2Fone`. What is left goes into the query where the method has no body, else into the body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from warp_core.node.control import Role, Verb

PREFIX: Final = "v1"
ITEM: Final = {
    "show": "GET",
    "set": "PATCH",
    "delete": "DELETE",
    "remove": "DELETE",
    "revoke": "DELETE",
    "clear": "DELETE",
}
"""Last words of verbs about one thing, and their methods."""

COLLECTION: Final = {"list": "GET", "create": "POST", "add": "POST"}
QUERIED: Final = frozenset({"GET", "DELETE"})
"""Methods without a body."""

SEGMENTS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Route:
    """Where a verb is.

    Attributes:
        verb: Its name.
        method: Of HTTP.
        segments: Of the path; names of arguments in braces.
        named: Those arguments.
        others: Further arguments, in the query or the body.
        arguments: The struct of all.
        role: Who may.
        reads: It changes nothing.
        long: It can tell of its progress.
        summary: What it does.
    """

    verb: str
    method: str
    segments: tuple[str, ...]
    named: tuple[str, ...]
    others: tuple[str, ...]
    arguments: type[msgspec.Struct]
    role: Role
    reads: bool
    long: bool
    summary: str

    @property
    def path(self) -> str:
        """The path as OpenAPI writes it."""
        return "/" + "/".join(self.segments)

    @property
    def noun(self) -> str:
        """What it is about, for headings."""
        return self.verb.rpartition(".")[0] or self.verb

    @property
    def status(self) -> int:
        """What it answers when it is done: 201 where something is there that was not."""
        return 201 if self.verb.rpartition(".")[2] in COLLECTION and self.method == "POST" else 200

    @property
    def queried(self) -> bool:
        """Whether further arguments are in the query."""
        return self.method in QUERIED


def routes_of(verbs: Mapping[str, Verb[Any]]) -> list[Route]:
    """Return the place of every verb, in the order of the table; no two have the same."""
    found: dict[tuple[str, ...], Route] = {}
    for name, verb in verbs.items():
        route = _route(name, verb, verbs)
        if _shape(route) in found:  # verbs with names that nobody foresaw
            route = _elsewhere(route)
        found[_shape(route)] = route
    return list(found.values())


def _shape(route: Route) -> tuple[str, ...]:
    """Return what a request tells routes by."""
    return (
        route.method,
        *("{}" if each.startswith("{") else each for each in route.segments),
    )


def _elsewhere(route: Route) -> Route:
    """Return a verb at a place that is its own, whatever others are called."""
    return replace(
        route,
        method="GET" if route.reads and not route.long else "POST",
        segments=(PREFIX, "verbs", route.verb),
        named=(),
        others=route.arguments.__struct_fields__,
    )


def _route(name: str, verb: Verb[Any], verbs: Mapping[str, Verb[Any]]) -> Route:
    *noun, word = name.split(".")
    own = _names(verb.arguments)
    reads = verb.only_reads(name)
    named: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    if noun and word in COLLECTION and _first(noun, word, COLLECTION, verbs):
        method = COLLECTION[word]
    elif noun and word in ITEM and own and _first(noun, word, ITEM, verbs):
        method, named = ITEM[word], own
    else:
        method = "GET" if reads and not verb.long else "POST"
        tail = (word,)
        about = _item(noun, verbs)
        if about and own[: len(about)] == about:
            named = about
    places = (*noun[:-1], plural(noun[-1])) if noun else ()
    fields = verb.arguments.__struct_fields__
    return Route(
        name,
        method,
        (PREFIX, *places, *(f"{{{each}}}" for each in named), *tail),
        named,
        tuple(each for each in fields if each not in named),
        verb.arguments,
        verb.role_of(name),
        reads,
        verb.long,
        (verb.run.__doc__ or name).strip().split("\n")[0],
    )


def _first(
    noun: Sequence[str], word: str, words: Mapping[str, str], verbs: Mapping[str, Verb[Any]]
) -> bool:
    """Say whether of a noun's words with the same method this is the first: `remove` and `revoke` cannot both be DELETE."""
    same = (each for each, method in words.items() if method == words[word])
    return next(each for each in same if ".".join((*noun, each)) in verbs) == word


def _names(arguments: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the required texts that arguments begin with."""
    found = []
    for field in msgspec.structs.fields(arguments):
        if not field.required or field.type is not str:
            break
        found.append(field.name)
    return tuple(found)


def _item(noun: Sequence[str], verbs: Mapping[str, Verb[Any]]) -> tuple[str, ...]:
    """Return what verbs about one thing of a noun are about."""
    for word in ITEM:
        verb = verbs.get(".".join((*noun, word)))
        if verb is not None:
            return _names(verb.arguments)
    return ()


def plural(noun: str) -> str:
    """Return the name of a collection."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("x", "ch", "sh")):
        return noun + "es"
    return noun if noun.endswith("s") else noun + "s"


class Table:
    """Routes by their paths."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root: dict[str, Any] = {}
        for route in routes:
            node = self._root
            for segment in route.segments:
                node = node.setdefault("{}" if segment.startswith("{") else segment, {})
            methods = node.setdefault("", {})
            if route.method in methods:
                other = methods[route.method].verb
                raise ValueError(f"{route.method} {route.path}: both {other} and {route.verb}")
            methods[route.method] = route

    def find(self, segments: Sequence[str]) -> tuple[dict[str, Route], list[str]]:
        """Return the routes of a path by their methods, and what stands for the names in it; neither where there is none."""
        for methods, values in _walk(self._root, segments):
            return methods, values
        return {}, []


def _walk(
    node: Mapping[str, Any], segments: Sequence[str]
) -> Iterator[tuple[dict[str, Route], list[str]]]:
    if not segments:
        if "" in node:
            yield node[""], []
        return
    first, rest = segments[0], segments[1:]
    if first and first != "{}" and first in node:
        yield from _walk(node[first], rest)
    if first and "{}" in node:
        for methods, values in _walk(node["{}"], rest):
            yield methods, [first, *values]


def split_path(path: str) -> list[str]:
    """Return the segments of a path, unescaped.

    Raises:
        ValueError: It is no path, or not UTF-8.
    """
    segments = path.removeprefix("/").split("/")
    if not path.startswith("/") or len(segments) > SEGMENTS_MAX:
        raise ValueError("not a path")
    found = [unquote_to_bytes(each).decode("utf-8") for each in segments]
    if any("\0" in each for each in found):
        raise ValueError("a zero character")
    return found
