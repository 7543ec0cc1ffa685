"""Tables → frozen structs, with every error noted where the key stands."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from warp_core.config.positions import Path as Keys
from warp_core.config.source import Source
from warp_core.config.types import CUSTOM, Between, Secret, convert
from warp_core.errors import WarpError

S = TypeVar("S", bound=msgspec.Struct)


def decode(source: Source, path: Keys, table: object, kind: type[S]) -> S | None:
    """Make a struct of a table; None, and problems noted, where that cannot be.

    A struct may check more in `__post_init__` and raise ValueError or InvalidArgument; a message that
    starts with `key: ` is shown at that key.
    """
    if not isinstance(table, dict):
        source.problem(path, "is no table", found=table, allowed=f"[{'.'.join(map(str, path))}]")
        return None
    before = len(source.problems)
    names = kind.__struct_encode_fields__
    unknown(source, path, table, names)
    if len(source.problems) == before:
        try:
            made = msgspec.convert(table, kind, dec_hook=convert)
        except (msgspec.ValidationError, WarpError) as error:
            _diagnose(source, path, table, kind)
            if len(source.problems) == before:
                _whole(source, path, names, error)
            return None
        _bounds(source, path, made, kind)
        return made if len(source.problems) == before else None
    _diagnose(source, path, {key: table[key] for key in table if key in names}, kind)
    return None


def unknown(source: Source, path: Keys, table: Mapping[str, object], names: Iterable[str]) -> None:
    """Note every key that nothing reads, with what was probably meant."""
    allowed = sorted(names)
    for key in table:
        if key not in allowed:
            source.problem(
                (*path, key),
                f"unknown key{meant(key, allowed)}",
                allowed=", ".join(allowed) or "none",
            )


def meant(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean "..."?` where a known word is close, else ""."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f', did you mean "{near[0]}"?' if near else ""


def describe(kind: object) -> str:
    """Say in a few words what values a type takes."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        text = describe(inner)
        for note in notes:
            text += _described(note)
        return text
    if kind in CUSTOM:
        return str(kind.ALLOWED)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{each}"' for each in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(describe(each) for each in get_args(kind) if each is not types.NoneType)
    if get_origin(kind) in (tuple, list):
        return f"a list of: {describe(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"a table of: {describe(get_args(kind)[1])}"
    simple: dict[object, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text in quotes",
    }
    return simple.get(kind, "a table")


def _described(note: object) -> str:
    if isinstance(note, Between):
        return f', from "{note.low}" to "{note.high}"'
    if not isinstance(note, msgspec.Meta):
        return ""
    text = ""
    if note.ge is not None and note.le is not None:
        text += f" from {note.ge} to {note.le}"
    elif note.ge is not None:
        text += f", at least {note.ge}"
    elif note.le is not None:
        text += f", at most {note.le}"
    if note.min_length is not None:
        text += f", at least {note.min_length} long"
    if note.max_length is not None:
        text += f", at most {note.max_length} long"
    if note.pattern is not None:
        text += f", matching {note.pattern}"
    return text


def _diagnose(source: Source, path: Keys, table: Mapping[str, Any], kind: type[Any]) -> None:
    """Try each key alone, so that all errors are told at once."""
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        here = (*path, name)
        if name not in table:
            if field.required:
                source.problem(path, f'the key "{name}" is missing', allowed=describe(field.type))
            continue
        try:
            value = msgspec.convert(table[name], field.type, dec_hook=convert)
        except (msgspec.ValidationError, WarpError) as error:
            text = str(error).partition(" - at ")[0]
            found = None if _secret(field.type) else table[name]
            source.problem(here, _plain(text), found=found, allowed=describe(field.type))
        else:
            _between(source, here, table[name], value, field.type)


def _secret(kind: object) -> bool:
    return kind is Secret or any(_secret(inner) for inner in get_args(kind))


def _bounds(source: Source, path: Keys, made: msgspec.Struct, kind: type[Any]) -> None:
    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        if source.said(here) is not None:
            value = getattr(made, field.name)
            _between(source, here, str(value), value, field.type)


def _between(source: Source, path: Keys, found: object, value: object, kind: object) -> None:
    if get_origin(kind) is not Annotated:
        return
    inner, *notes = get_args(kind)
    for note in notes:
        if isinstance(note, Between):
            low, high = inner.parse(note.low), inner.parse(note.high)
            if not low <= value <= high:
                source.problem(path, "out of range", found=found, allowed=describe(kind))


def _whole(source: Source, path: Keys, names: Iterable[str], error: Exception) -> None:
    text = str(error).partition(" - at ")[0]
    key, colon, rest = text.partition(": ")
    if colon and key in names:
        source.problem((*path, key), rest)
    else:
        source.problem(path, text)


def _plain(text: str) -> str:
    """Turn msgspec's wording into ours."""
    if text.startswith("Expected `") and "got `" in text:
        got = text.rpartition("got `")[2].rstrip("`")
        words = {
            "str": "text",
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
        }
        words |= {"array": "a list", "object": "a table"}
        return f"{words.get(got, got)} is the wrong type"
    return "not allowed" if text.startswith(("Invalid enum", "Expected")) else text
