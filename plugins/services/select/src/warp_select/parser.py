"""Tokens to a tree: recursive descent with precedence climbing, the grammar of S3 Select's SELECT.

    SELECT * | expression [[AS] name], ...
    FROM S3Object[[*]][.name | [n] | [*]]... [[AS] name]
    [WHERE expression] [LIMIT n] [;]

Source: "SQL reference for Amazon S3 Select" (S3 user guide). Beyond it, casts may be written as functions, `INT(x)`, and comparisons
chained, `a = b = TRUE`, as other servers of S3 Select allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, cast

from warp_select.errors import refused
from warp_select.lexer import Token, place, tokens
from warp_select.syntax import (
    Aggregate,
    Between,
    Binary,
    Call,
    Case,
    Cast,
    Decimal,
    Float,
    In,
    Integer,
    Is,
    Item,
    Key,
    Like,
    Logic,
    Moment,
    Node,
    Null,
    Path,
    Select,
    Step,
    Text,
    Truth,
    Unary,
)
from warp_select.words import (
    AGGREGATES,
    DATE_PARTS,
    EXTRACTED,
    FUNCTIONS,
    RESERVED,
    SYNONYMS,
    TYPES,
)

DEPTH_MAX: Final = 64
"""Nesting of parentheses, calls and NOTs: each costs a few frames of Python's stack, here and in the planner."""

CHAIN_MAX: Final = 200
"""Operators of a chain without parentheses, `a + b + ...`: it nests to the left. AND and OR do not count."""

NODES_MAX: Final = 10_000
"""Parts of an expression; what is translated stays below a few MiB."""

_COMPARISONS: Final = frozenset({"=", "!=", "<>", "<", "<=", ">", ">="})
_TIMESTAMP: Final = re.compile(
    r"\d{4}(T|-\d\d(T|-\d\d(T?|T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))))", re.ASCII
)
_NUMBER: Final = re.compile(r"-?\d+(\.\d*)?([eEdD][+-]?\d+)?", re.ASCII)
INT_MAX: Final = 2**63 - 1


def parse(expression: str) -> Select:
    """Read an expression.

    Raises:
        QueryRefused: It is not one; the message says where.
    """
    return _Parser(expression).select()


class _Parser:
    def __init__(self, expression: str) -> None:
        self._source = expression
        self._tokens = tokens(expression)
        self._next = 0
        self._depth = 0
        self._nodes = 0

    # Tokens ---------------------------------------------------------------------------------------

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _wrong(self, code: str, token: Token | None = None) -> Exception:
        token = token or self._token
        found = f'"{token.text[:40]}"' if token.kind != "end" else "the end"
        return refused(code, f"{found} at {place(self._source, token.at)}")

    def _is_sign(self, *signs: str) -> bool:
        return self._token.kind == "sign" and self._token.text in signs

    def _sign(self, sign: str) -> bool:
        if self._is_sign(sign):
            self._next += 1
            return True
        return False

    def _word(self, word: str) -> bool:
        if self._token.word == word:
            self._next += 1
            return True
        return False

    def _expect(self, sign: str, code: str) -> None:
        if not self._sign(sign):
            raise self._wrong(code)

    # Clauses --------------------------------------------------------------------------------------

    def select(self) -> Select:
        if not self._word("SELECT"):
            raise self._wrong("ParseUnsupportedSelect")
        items = self._items()
        if not self._word("FROM"):
            ended = self._token.kind == "end" or self._is_sign(";")
            raise self._wrong("ParseSelectMissingFrom" if ended else "ParseUnexpectedToken")
        source, alias = self._source_clause()
        where = self._expression() if self._word("WHERE") else None
        limit = self._limit() if self._word("LIMIT") else None
        self._sign(";")
        if self._token.kind != "end":
            raise self._wrong("ParseUnexpectedToken")
        return Select(items, source, alias, where, limit)

    def _items(self) -> tuple[Item, ...]:
        if self._token.word == "FROM":
            raise self._wrong("ParseEmptySelect")
        if self._sign("*"):
            if self._is_sign(","):
                raise self._wrong("ParseAsteriskIsNotAloneInSelectList")
            return ()
        ahead = self._tokens[self._next : self._next + 4]
        if [token.text for token in ahead[1:3]] == [".", "*"] and ahead[3].word == "FROM":
            self._next += 3  # `s.*` alone means what the asterisk does
            return ()
        items = [self._item()]
        while self._sign(","):
            if self._is_sign("*"):
                raise self._wrong("ParseAsteriskIsNotAloneInSelectList")
            items.append(self._item())
        return tuple(items)

    def _item(self) -> Item:
        expression = self._expression()
        if self._word("AS"):
            return Item(expression, self._alias())
        if self._token.kind == "quoted" or (
            self._token.kind == "name" and self._token.word not in RESERVED
        ):
            return Item(expression, self._take().text)
        return Item(expression)

    def _alias(self) -> str:
        token = self._token
        if token.kind != "quoted" and (token.kind != "name" or token.word in RESERVED):
            raise self._wrong("ParseExpectedIdentForAlias")
        return self._take().text

    def _source_clause(self) -> tuple[tuple[Step, ...], str]:
        token = self._token
        # "stdin" is what some other servers' clients say.
        if token.kind not in {"name", "quoted"} or token.text.upper() not in {"S3OBJECT", "STDIN"}:
            if token.kind in {"name", "quoted"} and token.word not in RESERVED:
                raise self._wrong("InvalidDataSource")
            raise self._wrong("ParseUnexpectedToken")
        self._take()
        steps: list[Step] = []
        while True:
            if self._sign("["):
                steps.append(self._bracket())
            elif self._sign("."):
                token = self._token
                if token.kind not in {"name", "quoted"}:
                    raise self._wrong("ParseInvalidPathComponent")
                steps.append(Step(name=self._take().text))
            else:
                break
        if steps and steps[0] == Step():
            del steps[0]  # S3Object[*] is S3Object
        elif steps:
            raise self._wrong("InvalidKeyPath")
        alias = ""
        if self._word("AS") or (
            self._token.kind in {"name", "quoted"} and self._token.word not in RESERVED
        ):
            alias = self._alias()
        if not alias and steps and steps[-1].name is not None:
            alias = steps[-1].name  # FROM S3Object[*].a.b is called b
        return tuple(steps), alias

    def _bracket(self) -> Step:
        if self._sign("*"):
            step = Step()
        elif self._token.kind == "integer" and len(self._token.text) < 10:
            step = Step(index=int(self._take().text))
        elif self._token.kind in {"text", "quoted"}:
            step = Step(name=self._take().text)
        else:
            raise self._wrong("ParseInvalidPathComponent")
        self._expect("]", "ParseInvalidPathComponent")
        return step

    def _limit(self) -> int:
        if self._is_sign("-"):
            raise self._wrong("EvaluatorNegativeLimit")
        if self._token.kind != "integer":
            raise self._wrong("ParseExpectedNumber")
        token = self._take()
        if len(token.text) > 19 or int(token.text) > INT_MAX:
            raise self._wrong("IntegerOverflow", token)
        return int(token.text)

    # Expressions ----------------------------------------------------------------------------------

    def _expression(self) -> Node:
        """OR, the loosest."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._wrong("ExpressionTooLong")
        node = self._logic("OR", lambda: self._logic("AND", self._negation))
        self._depth -= 1
        return node

    def _logic(self, operator: Literal["AND", "OR"], read: Callable[[], Node]) -> Node:
        at = self._token.at
        operands = [read()]
        while self._word(operator):
            operands.append(read())
        return (
            operands[0]
            if len(operands) == 1
            else self._counted(Logic(at, operator, tuple(operands)))
        )

    def _negation(self) -> Node:
        at, count = self._token.at, 0
        while self._word("NOT"):
            count += 1
        node = self._comparison()
        return (
            Unary(at, "NOT", node)
            if count % 2
            else (Unary(at, "NOT", Unary(at, "NOT", node)) if count else node)
        )

    def _comparison(self) -> Node:
        node, chained = self._sum(), 0
        while True:
            at = self._token.at
            chained += 1
            if chained > CHAIN_MAX:
                raise self._wrong("ExpressionTooLong")
            if self._is_sign(*_COMPARISONS):
                operator = self._take().text
                node = self._counted(
                    Binary(at, "!=" if operator == "<>" else operator, node, self._sum())
                )
                continue
            if self._word("IS"):
                negated = self._word("NOT")
                missing = self._token.word == "MISSING"
                if not missing and self._token.word != "NULL":
                    raise self._wrong("ParseUnexpectedToken")
                self._take()
                node = Is(at, node, missing, negated)
                continue
            negated = False
            if self._token.word == "NOT" and self._tokens[self._next + 1].word in {
                "IN",
                "BETWEEN",
                "LIKE",
            }:
                self._take()
                negated = True
            if self._word("IN"):
                node = self._counted(In(at, node, self._list(), negated))
            elif self._word("BETWEEN"):
                low = self._sum()
                if not self._word("AND"):
                    raise self._wrong("ParseExpectedKeyword")
                node = self._counted(Between(at, node, low, self._sum(), negated))
            elif self._word("LIKE"):
                pattern = self._sum()
                escape = self._sum() if self._word("ESCAPE") else None
                node = self._counted(Like(at, node, pattern, escape, negated))
            else:
                return node

    def _list(self) -> tuple[Node, ...]:
        self._expect("(", "ParseExpectedLeftParenValueConstructor")
        choices = [self._expression()]
        while self._sign(","):
            choices.append(self._expression())
        self._expect(")", "ParseUnexpectedToken")
        return tuple(choices)

    def _sum(self) -> Node:
        node, chained = self._product(), 0
        while self._is_sign("+", "-", "||"):
            chained += 1
            if chained > CHAIN_MAX:
                raise self._wrong("ExpressionTooLong")
            token = self._take()
            node = self._counted(Binary(token.at, token.text, node, self._product()))
        return node

    def _product(self) -> Node:
        node, chained = self._signed(), 0
        while self._is_sign("*", "/", "%"):
            chained += 1
            if chained > CHAIN_MAX:
                raise self._wrong("ExpressionTooLong")
            token = self._take()
            node = self._counted(Binary(token.at, token.text, node, self._signed()))
        return node

    def _signed(self) -> Node:
        at, negative, signs = self._token.at, False, 0
        while self._is_sign("-", "+"):
            negative ^= self._take().text == "-"
            signs += 1
        node = self._primary()
        if not signs:
            return node
        if negative and isinstance(node, Integer):
            return Integer(at, -node.value)
        return Unary(at, "-" if negative else "+", node)

    def _primary(self) -> Node:
        token = self._token
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._wrong("ExpressionTooLong")
        match token.kind:
            case "text":
                return Text(self._take().at, token.text)
            case "integer":
                if len(token.text) > 19 or int(token.text) > INT_MAX:
                    if len(token.text) > 38:
                        raise self._wrong("IntegerOverflow")
                    return Decimal(self._take().at, token.text)
                return Integer(self._take().at, int(token.text))
            case "decimal":
                if len(token.text) > 38:
                    return Float(self._take().at, float(token.text))
                return Decimal(self._take().at, token.text)
            case "float":
                return Float(self._take().at, float(token.text))
            case "ion":
                return self._ion(self._take())
            case "quoted":
                return self._path()
            case "name":
                return self._named(token)
        if self._sign("("):
            node = self._expression()
            self._expect(")", "ParseUnexpectedToken")
            return node
        if token.kind == "end" or self._is_sign(",", ")", ";"):
            raise self._wrong("ParseExpectedExpression")
        raise self._wrong("ParseUnexpectedToken")

    def _ion(self, token: Token) -> Node:
        text = token.text.strip()
        if _TIMESTAMP.fullmatch(text):
            return Moment(token.at, text)
        if len(text) <= 38 and _NUMBER.fullmatch(text):
            if "e" in text or "E" in text:
                return Float(token.at, float(text))
            if text.lstrip("-").isdigit() and abs(int(text)) <= INT_MAX:
                return Integer(token.at, int(text))
            if "d" not in text and "D" not in text:
                return Decimal(token.at, text)
        if text in {"true", "false"}:
            return Truth(token.at, text == "true")
        if text.startswith("null"):
            return Null(token.at)
        if (
            len(text) >= 2
            and text[0] == text[-1] == '"'
            and "\\" not in text
            and '"' not in text[1:-1]
        ):
            return Text(token.at, text[1:-1])
        raise self._wrong("LexerInvalidIONLiteral", token)

    def _named(self, token: Token) -> Node:
        word = token.word
        called = self._tokens[self._next + 1]
        opens = called.kind == "sign" and called.text == "("
        if word == "CASE":
            return self._case()
        if word == "CAST":
            if not opens:
                raise self._wrong("ParseExpectedLeftParenAfterCast", called)
            return self._cast()
        if word in {"TRUE", "FALSE"}:
            return Truth(self._take().at, word == "TRUE")
        if word in {"NULL", "MISSING"}:
            return Null(self._take().at)
        if opens and word not in RESERVED:
            return self._call()
        if word in RESERVED:
            raise self._wrong("ParseUnexpectedToken")
        return self._path()

    def _path(self) -> Node:
        token = self._take()
        steps = [Key(token.text, token.kind == "quoted")]
        while True:
            if self._sign("."):
                step = self._token
                if step.kind not in {"name", "quoted"}:
                    raise self._wrong("ParseInvalidPathComponent")
                self._take()
                steps.append(Key(step.text, step.kind == "quoted"))
            elif self._sign("["):
                if self._is_sign("*"):
                    raise self._wrong("ParseUnsupportedSyntax")
                found = self._bracket()
                if found.name is not None:
                    steps.append(Key(found.name, quoted=True))
                else:
                    steps.append(Key("", index=found.index or 0))
            else:
                break
            if len(steps) > DEPTH_MAX:
                raise self._wrong("ExpressionTooLong")
        return Path(token.at, tuple(steps))

    def _case(self) -> Node:
        at = self._take().at
        operand = None if self._token.word == "WHEN" else self._expression()
        branches = []
        while self._word("WHEN"):
            condition = self._expression()
            if not self._word("THEN"):
                raise self._wrong("ParseExpectedKeyword")
            branches.append((condition, self._expression()))
        if not branches:
            raise self._wrong("ParseExpectedWhenClause")
        otherwise = self._expression() if self._word("ELSE") else None
        if not self._word("END"):
            raise self._wrong("ParseExpectedKeyword")
        return self._counted(Case(at, operand, tuple(branches), otherwise))

    def _cast(self) -> Node:
        at = self._take().at
        self._take()
        operand = self._expression()
        if not self._word("AS"):
            raise self._wrong(
                "ParseCastArity" if self._is_sign(",", ")") else "ParseExpectedKeyword"
            )
        if self._token.kind != "name":
            raise self._wrong("ParseExpectedTypeName")
        if self._token.word not in TYPES:
            raise self._wrong("InvalidDataType")
        type_ = TYPES[self._take().word]
        if type_ in {"DECIMAL", "STRING"} and self._sign("("):  # precision and scale are ignored
            while self._tokens[self._next].kind == "integer":
                self._take()
                if not self._sign(","):
                    break
            self._expect(")", "ParseExpectedRightParenBuiltinFunctionCall")
        if self._is_sign(","):
            raise self._wrong("ParseCastArity")
        self._expect(")", "ParseExpectedRightParenBuiltinFunctionCall")
        return Cast(at, operand, type_)  # type: ignore[arg-type]

    def _call(self) -> Node:
        token = self._take()
        self._take()
        name = SYNONYMS.get(token.word, token.word)
        if name in AGGREGATES:
            return self._aggregate(token)
        if name == "TRIM":
            return self._trim(token.at)
        if name == "SUBSTRING":
            return self._substring(token.at)
        if name == "EXTRACT":
            part = self._date_part(EXTRACTED)
            if not self._word("FROM"):
                raise self._wrong("ParseExpectedKeyword")
            return self._called(token.at, name, (self._expression(),), part)
        if name in {"DATE_ADD", "DATE_DIFF"}:
            part = self._date_part(DATE_PARTS)
            self._expect(",", "ParseExpectedArgumentDelimiter")
            first = self._expression()
            self._expect(",", "ParseExpectedArgumentDelimiter")
            return self._called(token.at, name, (first, self._expression()), part)
        arguments = self._arguments()
        if name in TYPES:
            if len(arguments) != 1:
                raise self._wrong("EvaluatorInvalidArguments", token)
            return Cast(token.at, arguments[0], TYPES[name])  # type: ignore[arg-type]
        if name not in FUNCTIONS:
            raise self._wrong("UnsupportedFunction", token)
        low, high = FUNCTIONS[name]
        if not low <= len(arguments) <= high:
            raise self._wrong("EvaluatorInvalidArguments", token)
        return self._counted(Call(token.at, name, arguments))

    def _arguments(self) -> tuple[Node, ...]:
        if self._sign(")"):
            return ()
        if self._is_sign("*"):
            raise self._wrong("ParseUnsupportedCallWithStar")
        found = [self._expression()]
        while self._sign(","):
            found.append(self._expression())
        self._expect(")", "ParseExpectedRightParenBuiltinFunctionCall")
        return tuple(found)

    def _called(self, at: int, name: str, arguments: tuple[Node, ...], part: str = "") -> Node:
        self._expect(")", "ParseExpectedRightParenBuiltinFunctionCall")
        return self._counted(Call(at, name, arguments, part))

    def _date_part(self, allowed: frozenset[str]) -> str:
        if self._token.word not in allowed:
            raise self._wrong("ParseExpectedDatePart")
        return self._take().word.lower()

    def _aggregate(self, token: Token) -> Node:
        function = cast("Literal['AVG', 'COUNT', 'MAX', 'MIN', 'SUM']", token.word)
        operand: Node | None = None
        if self._sign("*"):
            if function != "COUNT":
                raise self._wrong("ParseUnsupportedCallWithStar", token)
        elif self._is_sign(")"):
            raise self._wrong("ParseNonUnaryAgregateFunctionCall")
        else:
            operand = self._expression()
        if self._is_sign(","):
            raise self._wrong("ParseNonUnaryAgregateFunctionCall")
        self._expect(")", "ParseExpectedRightParenBuiltinFunctionCall")
        return self._counted(Aggregate(token.at, function, operand))

    def _substring(self, at: int) -> Node:
        arguments = [self._expression()]
        if self._word("FROM"):
            arguments.append(self._expression())
            if self._word("FOR"):
                arguments.append(self._expression())
        else:
            while self._sign(",") and len(arguments) < 3:
                arguments.append(self._expression())
        if len(arguments) < 2 and self._is_sign(")"):
            raise self._wrong("EvaluatorInvalidArguments")
        return self._called(at, "SUBSTRING", tuple(arguments))

    def _trim(self, at: int) -> Node:
        name, worded = "TRIM", False
        after = self._tokens[self._next + 1]
        ends = after.kind == "sign" and after.text in {")", ".", "["}
        if self._token.word in {"LEADING", "TRAILING", "BOTH"} and not ends:
            side = self._take().word
            name, worded = ("TRIM" if side == "BOTH" else f"TRIM_{side}"), True
        if worded and self._word("FROM"):
            return self._called(at, name, (self._expression(),))
        first = self._expression()
        if self._word("FROM"):
            return self._called(at, name, (self._expression(), first))
        if worded:
            raise self._wrong("ParseExpectedKeyword")
        return self._called(at, name, (first,))

    def _counted(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._wrong("ExpressionTooLong")
        return node
