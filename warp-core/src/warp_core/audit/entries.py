"""Lines of the audit log: JSON objects, each with the hash of the one before it.

```
{"v":1,"seq":7,...,"prev":"<hash of line 6>","hash":"<SHA-256 of this line up to here, without the hash itself>"}
```

The hash is over the bytes of the line, so nothing depends on how somebody else writes JSON: `sha256sum` and `cut` can check it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from warp_core.errors import Corrupt
from warp_core.logs import SECRET_WORDS

FORMAT: Final = 1
LINE_MAX: Final = (
    64 * 1024
)  # bytes of a line: a filesystem's page or more, and short enough to read by eye
TEXT_MAX: Final = (
    1024  # characters kept of one value: names are shorter, documents are not for a log
)
VALUES_MAX: Final = 64  # values kept of one mapping or list
DEPTH_MAX: Final = 4
NO_HASH: Final = "0" * 64  # what comes before the first line
HIDDEN: Final = "***"

_SECRETS: Final = (*SECRET_WORDS, "private", "passphrase", "key_material")
_TAIL: Final = re.compile(rb',"hash":"([0-9a-f]{64})"}\Z')

Event = Literal["begun", "done", "noted"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a line says.

    Attributes:
        v: Version of the format.
        seq: Number of the line, from 1, through all files.
        time: When it was written, UTC, RFC 3339 with microseconds.
        node: Name of the node.
        event: `begun` before a change, `done` after it, `noted` where nothing was begun.
        by: Who, `via` which way, `address` from where.
        what: The verb or operation.
        of: What it is about; secrets are replaced by `***`.
        begun: Of `done`: the line that said `begun`.
        result: Of `done` and `noted`: `ok`, `refused` (an error that was answered), `failed` (a defect), `cancelled`.
        error: Class of the error; `message` is its text.
        prev: Hash of the line before, 64 zeros for the first.
    """

    v: int
    seq: int
    time: str
    node: str
    event: Event
    by: str
    via: str
    address: str = ""
    what: str
    of: dict[str, Any] = {}
    begun: int = 0
    result: str = ""
    error: str = ""
    message: str = ""
    prev: str


_decoder = msgspec.json.Decoder(Entry)


def seal(entry: Entry) -> tuple[bytes, str]:
    """Return an entry's line, with its end, and its hash."""
    body = msgspec.json.encode(entry)[:-1]
    hash = sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, hash.encode()), hash


def open_line(line: bytes) -> tuple[Entry, str]:
    """Return what a line says, and its hash; `line` has no end.

    Raises:
        Corrupt: It is not as it was written; the message says in what.
    """
    found = _TAIL.search(line)
    if found is None:
        raise Corrupt("the line does not end with a hash")
    body, hash = line[: found.start()], found[1].decode()
    if sha256(body).hexdigest() != hash:
        raise Corrupt("the line is not what its hash says")
    try:
        entry = _decoder.decode(body + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"the line is no entry: {error}") from None
    if entry.v != FORMAT:
        raise Corrupt(f"the line has format {entry.v}, not {FORMAT}")
    return entry, hash


def told(arguments: object) -> dict[str, object]:
    """Return what an entry tells of a request's arguments: short, and without secrets."""
    plain = msgspec.to_builtins(arguments, enc_hook=str)
    if not isinstance(plain, dict):
        return {}
    return {name: value for name, value in _mapping(plain, 0).items() if not _empty(value)}


def _mapping(values: Mapping[Any, Any], depth: int) -> dict[str, object]:
    kept = list(values.items())[:VALUES_MAX]
    return {
        _text(str(name)): HIDDEN if _secret(str(name)) and value else _value(value, depth + 1)
        for name, value in kept
    }


def _value(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return _mapping(value, depth) if depth < DEPTH_MAX else "{...}"
    if isinstance(value, list | tuple):
        return (
            [_value(each, depth + 1) for each in value[:VALUES_MAX]]
            if depth < DEPTH_MAX
            else "[...]"
        )
    return _text(str(value))


def _text(text: str) -> str:
    """Return text short enough, and such that every reader of JSON takes it."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= TEXT_MAX else f"{clean[:TEXT_MAX]}... ({len(clean)} characters)"


def clipped(text: str) -> str:
    """Return a message as short as values are."""
    return _text(text)


def _secret(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in _SECRETS)


def _empty(value: object) -> bool:
    return value is None or value == "" or value == {} or value == []
