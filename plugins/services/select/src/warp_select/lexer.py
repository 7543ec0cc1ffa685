"""Expressions to tokens."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from warp_select.errors import refused

EXPRESSION_MAX: Final = 256 * 1024
"""Bytes of an expression; S3's own figure."""

Kind = Literal["name", "quoted", "text", "integer", "decimal", "float", "ion", "sign", "end"]


class Token(NamedTuple):
    """A word or sign, and where it stands (characters, from 0)."""

    kind: Kind
    text: str  # without quotes; names as they were written
    at: int

    @property
    def word(self) -> str:
        """The name in upper case; empty for anything that is no plain name."""
        return self.text.upper() if self.kind == "name" else ""


_TOKEN: Final = re.compile(
    r"""
      (?P<space> (?: \s+ | --[^\n]* )+ )
    | (?P<float> (?: \d+ (?:\.\d*)? | \.\d+ ) [eE] [+-]? \d+ )
    | (?P<decimal> \d+\.\d* | \.\d+ )
    | (?P<integer> \d+ )
    | (?P<name> [^\W\d] [\w$]* )
    | (?P<text> ' (?: [^'] | '' )* ' )
    | (?P<quoted> " (?: [^"] | "" )* " )
    | (?P<ion> ` [^`]* ` )
    | (?P<sign> <> | != | <= | >= | \|\| | [-+*/%=<>(),.;:\[\]{}] )
    """,
    re.VERBOSE,
)


def tokens(expression: str) -> list[Token]:
    """Cut an expression into tokens; the last is the end.

    Raises:
        QueryRefused: `LexerInvalidChar`, `LexerInvalidLiteral`, `LexerInvalidOperator` or `ExpressionTooLong`.
    """
    if (
        len(expression) > EXPRESSION_MAX
        or len(expression.encode("utf-8", "replace")) > EXPRESSION_MAX
    ):
        raise refused("ExpressionTooLong")
    found: list[Token] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise _wrong(expression, at)
        kind, text = match.lastgroup, match.group()
        if kind in {"integer", "decimal", "float"}:
            after = expression[match.end() : match.end() + 1]
            if after.isalnum() or after == "_":
                raise refused("LexerInvalidLiteral", place(expression, at))
        if kind == "text":
            text = text[1:-1].replace("''", "'")
        elif kind == "quoted":
            text = text[1:-1].replace('""', '"')
        elif kind == "ion":
            text = text[1:-1]
        if kind != "space":
            found.append(Token(kind, text, at))  # type: ignore[arg-type]
        at = match.end()
    found.append(Token("end", "", at))
    return found


def _wrong(expression: str, at: int) -> Exception:
    character = expression[at]
    code = "LexerInvalidChar"
    if character in "'\"`":
        code = "LexerInvalidIONLiteral" if character == "`" else "LexerInvalidLiteral"
    elif character in "!|&^~":
        code = "LexerInvalidOperator"
    return refused(code, place(expression, at))


def place(expression: str, at: int) -> str:
    """Say where a character stands."""
    line = expression.count("\n", 0, at) + 1
    column = at - (expression.rfind("\n", 0, at) + 1) + 1
    return f"line {line}, column {column}"
