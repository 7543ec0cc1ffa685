"""The dialect as a typed tree: what the parser yields and the planner walks."""

from __future__ import annotations

from typing import Literal

import msgspec


class Node(msgspec.Struct, frozen=True, gc=False):
    """An expression; `at` is where it stands."""

    at: int


class Text(Node, frozen=True, gc=False):
    """'text'."""

    value: str


class Integer(Node, frozen=True, gc=False):
    """5."""

    value: int


class Decimal(Node, frozen=True, gc=False):
    """5.0, digits as they were written."""

    value: str


class Float(Node, frozen=True, gc=False):
    """5e0."""

    value: float


class Truth(Node, frozen=True, gc=False):
    """TRUE or FALSE."""

    value: bool


class Null(Node, frozen=True, gc=False):
    """NULL or MISSING."""


class Moment(Node, frozen=True, gc=False):
    """`2007-02-23T`: an Ion timestamp."""

    value: str


class Key(msgspec.Struct, frozen=True, gc=False):
    """One step of a path: a name, which counts in upper and lower case if it was quoted, or an index."""

    name: str
    quoted: bool = False
    index: int = -1


class Path(Node, frozen=True, gc=False):
    """`s.address."Street"[0]`."""

    steps: tuple[Key, ...]  # not empty


class Unary(Node, frozen=True, gc=False):
    """-x, +x, NOT x."""

    operator: Literal["-", "+", "NOT"]
    operand: Node


class Binary(Node, frozen=True, gc=False):
    """x + y and the like; comparisons, too."""

    operator: str  # + - * / % || = != < <= > >=
    left: Node
    right: Node


class Logic(Node, frozen=True, gc=False):
    """x AND y AND z."""

    operator: Literal["AND", "OR"]
    operands: tuple[Node, ...]


class Is(Node, frozen=True, gc=False):
    """x IS [NOT] NULL, x IS [NOT] MISSING."""

    operand: Node
    missing: bool
    negated: bool


class In(Node, frozen=True, gc=False):
    """x [NOT] IN (a, b)."""

    operand: Node
    choices: tuple[Node, ...]
    negated: bool


class Between(Node, frozen=True, gc=False):
    """x [NOT] BETWEEN a AND b."""

    operand: Node
    low: Node
    high: Node
    negated: bool


class Like(Node, frozen=True, gc=False):
    """x [NOT] LIKE pattern [ESCAPE character]."""

    operand: Node
    pattern: Node
    escape: Node | None
    negated: bool


class Case(Node, frozen=True, gc=False):
    """CASE [x] WHEN a THEN b ... ELSE c END."""

    operand: Node | None
    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node | None


class Cast(Node, frozen=True, gc=False):
    """CAST(x AS type)."""

    operand: Node
    type: Literal["BOOL", "INT", "STRING", "FLOAT", "DECIMAL", "TIMESTAMP"]


class Call(Node, frozen=True, gc=False):
    """A function; what stands before a comma or a word such as FROM is an argument."""

    function: str  # upper case, in its plainest spelling: CHAR_LENGTH, TRIM_LEADING
    arguments: tuple[Node, ...]
    part: str = ""  # of a date: "year"


class Aggregate(Node, frozen=True, gc=False):
    """SUM(x), COUNT(*)."""

    function: Literal["AVG", "COUNT", "MAX", "MIN", "SUM"]
    operand: Node | None  # None: the asterisk


class Item(msgspec.Struct, frozen=True, gc=False):
    """One thing to select."""

    expression: Node
    alias: str = ""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step of the path in FROM: a name, an index, or (neither) every element."""

    name: str | None = None
    index: int | None = None


class Select(msgspec.Struct, frozen=True, gc=False):
    """The whole expression. No items: the asterisk."""

    items: tuple[Item, ...]
    source: tuple[Step, ...]  # behind S3Object[*]
    alias: str
    where: Node | None
    limit: int | None


def has_aggregate(node: Node | None) -> bool:
    """Tell whether an expression contains an aggregate."""
    if isinstance(node, Aggregate):
        return True
    return any(has_aggregate(each) for each in children(node)) if node is not None else False


def children(node: Node) -> list[Node]:
    """Return the expressions that an expression is made of."""
    found: list[Node] = []
    for name in node.__struct_fields__:
        value = getattr(node, name)
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, tuple):
            for each in value:
                if isinstance(each, Node):
                    found.append(each)
                elif isinstance(each, tuple):
                    found.extend(each)
    return found
