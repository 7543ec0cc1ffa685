"""The query protocol's bytes: forms in, XML out. Pure.

    Action=CreateUser&UserName=ada&Tags.member.1.Key=team&Tags.member.1.Value=red

Source: "Making query requests" in the IAM user guide.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from warp_s3.iam.errors import QueryError

FORM_MAX: Final = 256 * 1024
"""Bytes of a form: the longest document that is accepted, with every character escaped, is a fifth of it."""

UNSIGNED_MAX: Final = 64 * 1024
"""Bytes of a form that nobody signed: a token of 20,000 characters fits, and a policy."""

FIELDS_MAX: Final = 2048
"""Fields of a form; 50 tags are 100."""

LIST_MAX: Final = 512
"""Members of a list in a form."""

Tree: TypeAlias = "str | int | bool | datetime | Mapping[str, Tree] | Sequence[Tree] | None"
"""What an answer says: a mapping is elements by name, a sequence members, None nothing at all."""

_BAD: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Form:
    """The fields of a request."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Take fields, each name once."""
        self._fields = fields

    def get(self, name: str, default: str = "") -> str:
        """Return a field, or the default where it is not said."""
        return self._fields.get(name, default)

    def says(self, name: str) -> bool:
        """Tell whether a field is there."""
        return name in self._fields

    def need(self, name: str) -> str:
        """Return a field.

        Raises:
            QueryError: `MissingParameter`.
        """
        value = self._fields.get(name, "")
        if not value:
            raise QueryError("MissingParameter", f"The request must contain the parameter {name}.")
        return value

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a number.

        Raises:
            QueryError: `ValidationError`.
        """
        text = self._fields.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise QueryError(
                "ValidationError",
                f"Value '{text[:32]}' at '{name}' failed to satisfy constraint: "
                f"Member must be between {least} and {most}",
            )
        return int(text)

    def flag(self, name: str) -> bool:
        """Return whether a field says true."""
        return self._fields.get(name, "").lower() == "true"

    def texts(self, name: str) -> list[str]:
        """Return the members of a list of texts."""
        found: list[str] = []
        for index in range(1, LIST_MAX + 1):
            value = self._fields.get(f"{name}.member.{index}")
            if value is None:
                return found
            found.append(value)
        raise QueryError("ValidationError", f"{name} has more than {LIST_MAX} members")

    def structs(self, name: str, *fields: str) -> list[tuple[str, ...]]:
        """Return the members of a list of structures, each as the named fields, empty where not said."""
        found: list[tuple[str, ...]] = []
        for index in range(1, LIST_MAX + 1):
            start = f"{name}.member.{index}."
            if not any(start + field in self._fields for field in fields):
                return found
            found.append(tuple(self._fields.get(start + field, "") for field in fields))
        raise QueryError("ValidationError", f"{name} has more than {LIST_MAX} members")


def read_form(body: bytes, query: str = "") -> Form:
    """Read a request's fields, from its body and its query.

    Raises:
        QueryError: `ValidationError`, it is no form.
    """
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(
            f"{query}&{text}",
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError as error:
        raise QueryError("ValidationError", "The request is no form.") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields and fields[name] != value:
            raise QueryError("ValidationError", f"{name[:64]} is said twice")
        if _BAD.search(value):
            raise QueryError("ValidationError", f"{name[:64]} has characters that are no text")
        fields[name] = value
    return Form(fields)


def answer(
    action: str, namespace: str, result: Mapping[str, Tree] | None, request_id: str
) -> bytes:
    """Write an answer; None where an operation has no result."""
    inner = f"<{action}Result>{_elements(result)}</{action}Result>" if result is not None else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{namespace}">{inner}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def error(error: QueryError, namespace: str, request_id: str) -> bytes:
    """Write an error."""
    kind = "Sender" if error.status < 500 else "Receiver"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ErrorResponse xmlns="{namespace}"><Error>'
        f"<Type>{kind}</Type><Code>{error.code}</Code><Message>{_text(error.message)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _elements(tree: Mapping[str, Tree]) -> str:
    return "".join(_element(name, value) for name, value in tree.items())


def _element(name: str, value: Tree) -> str:
    if value is None:
        return ""
    return f"<{name}>{_content(value)}</{name}>"


def _content(value: Tree) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str | int):
        return _text(str(value))
    if isinstance(value, Mapping):
        return _elements(value)
    members: Iterable[Tree] = value or ()
    return "".join(_element("member", each) for each in members)


def _text(text: str) -> str:
    return escape(_BAD.sub("�", text))
