"""The dialect's expressions to DuckDB's, with a static type for each.

Nothing that a client wrote becomes part of the SQL: texts, numbers and names are parameters (`$p7`); columns are `r[3]`, a JSON
pointer that is a parameter, or, for Parquet, a column of the file's own schema in quotes.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from warp_select import timestamps
from warp_select.comparing import MIRRORED, json_with_json, json_with_known, text_with_number
from warp_select.converting import NULL_SQL, Converter
from warp_select.errors import refused
from warp_select.sources import Source
from warp_select.sql import Kind, Parameters, Sql
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
    Like,
    Logic,
    Moment,
    Node,
    Null,
    Path,
    Text,
    Truth,
    Unary,
    has_aggregate,
)

WORK_MAX: Final = 20_000
"""Nodes translated for one expression: aliases that use aliases repeat what they stand for."""

SCALE_MAX: Final = 20
"""Decimal places of a product; of 38 digits, 18 stay in front of the point."""

NUMBERS: Final = frozenset({"INT", "DECIMAL", "FLOAT"})


class Partial(NamedTuple):
    """One aggregate: what each piece of the input gives, and how the pieces' results become one, both SQL."""

    pieces: tuple[str, ...]
    merge: Callable[[Sequence[str]], str]  # column names to SQL


@dataclass(slots=True)
class Translator(Converter):
    """Translates the expressions of one query.

    Attributes:
        partials: Aggregates met so far, in order; filled as expressions are translated.
    """

    source: Source
    items: Sequence[Item]
    parameters: Parameters
    now: str  # what UTCNOW() gives, as text
    partials: list[Partial]
    _aliases: dict[str, Node]
    _open: list[str]  # aliases on the way
    _merging: bool = False  # what is translated is about aggregates: columns have no meaning there
    _columns: int = 0
    _variables: int = 0
    _work: int = 0

    @classmethod
    def of(
        cls, source: Source, items: Sequence[Item], parameters: Parameters, now: str
    ) -> Translator:
        """Start with nothing translated."""
        aliases = {item.alias.lower(): item.expression for item in items if item.alias}
        return cls(source, items, parameters, now, [], aliases, [])

    def row(self, node: Node) -> Sql:
        """Translate an expression about one record.

        Raises:
            QueryRefused: It has a name or a type that does not fit.
        """
        self._merging = False
        return self._node(node)

    def merged(self, node: Node) -> Sql:
        """Translate an expression about all records: outside its aggregates there are no columns."""
        self._merging = True
        return self._node(node)

    def condition(self, node: Node) -> str:
        """Translate WHERE."""
        if has_aggregate(node):
            raise refused("UnsupportedSqlStructure", "WHERE with an aggregate")
        return self._truth(self.row(node)).text

    # Nodes ----------------------------------------------------------------------------------------

    def _node(self, node: Node) -> Sql:
        self._work += 1
        if self._work > WORK_MAX:
            raise refused("ExpressionTooLong")
        match node:
            case Text():
                return self._literal(node.value)
            case Integer():
                return Sql(self.parameters.add(node.value, "BIGINT"), "INT", atom=True)
            case Decimal():
                return self._decimal(node.value)
            case Float():
                return Sql(self.parameters.add(node.value, "DOUBLE"), "FLOAT", atom=True)
            case Truth():
                return Sql("true" if node.value else "false", "BOOL", atom=True)
            case Null():
                return NULL_SQL
            case Moment():
                return Sql(f"ws_timestamp({self._literal(node.value).text})", "TIME")
            case Path():
                return self._path(node)
            case Unary():
                return self._unary(node)
            case Binary():
                return self._binary(node)
            case Logic():
                operands = [self._truth(self._node(each)).text for each in node.operands]
                return Sql("(" + f" {node.operator} ".join(operands) + ")", "BOOL")
            case Is():
                return self._is(node)
            case In():
                return self._in(node)
            case Between():
                return self._between(node)
            case Like():
                return self._like(node)
            case Case():
                return self._case(node)
            case Cast():
                return self._cast(self._node(node.operand), node.type)
            case Call():
                return self._call(node)
            case Aggregate():
                return self._aggregate(node)
        raise AssertionError(node)

    def _literal(self, text: str) -> Sql:
        return Sql(self.parameters.add(text, "VARCHAR"), "TEXT", atom=True)

    def _decimal(self, text: str) -> Sql:
        number = decimal.Decimal(text)
        _, digits, exponent = number.as_tuple()
        scale = max(0, -int(exponent))
        width = max(len(digits), scale + 1)
        if width > 38 or scale > SCALE_MAX:
            return Sql(self.parameters.add(float(number), "DOUBLE"), "FLOAT", atom=True)
        return Sql(
            self.parameters.add(text, f"DECIMAL({width},{scale})"),
            "DECIMAL",
            atom=True,
            scale=scale,
        )

    def _path(self, node: Path) -> Sql:
        steps = node.steps
        if self._merging:
            alias = self._alias(steps[0].name) if len(steps) == 1 else None
            if alias is not None:
                return alias
            raise refused("UnsupportedSqlStructure", "a column beside aggregates")
        found = self.source.column(steps, self.parameters)
        if isinstance(found, Sql):
            return found
        if len(steps) == 1:
            alias = self._alias(steps[0].name)
            if alias is not None:
                return alias
            # What no column is called is a text: some other servers' clients put texts in double quotes.
            if steps[0].quoted:
                return self._literal(steps[0].name)
        raise found

    def _alias(self, name: str) -> Sql | None:
        key = name.lower()
        expression = self._aliases.get(key)
        if expression is None:
            return None
        if key in self._open:
            raise refused("UnsupportedSqlStructure", f'the alias "{name[:100]}" refers to itself')
        self._open.append(key)
        found = self._node(expression)
        self._open.pop()
        return found

    def _unary(self, node: Unary) -> Sql:
        operand = self._node(node.operand)
        if node.operator == "NOT":
            return Sql(f"(NOT {self._truth(operand).text})", "BOOL")
        number = self._number(operand)
        if node.operator == "+" or number.kind == "NULL":
            return number
        return Sql(f"(-{number.text})", number.kind, scale=number.scale)

    def _binary(self, node: Binary) -> Sql:
        left, right = self._node(node.left), self._node(node.right)
        if node.operator == "||":
            return Sql(f"({self.text(left)} || {self.text(right)})", "TEXT")
        if node.operator in {"+", "-", "*", "/", "%"}:
            return self._arithmetic(node.operator, left, right)
        return self._compare(node.operator, left, right)

    def _arithmetic(self, operator: str, left: Sql, right: Sql) -> Sql:
        left, right = self._number(left), self._number(right)
        kinds = {left.kind, right.kind}
        if "NULL" in kinds:
            return NULL_SQL
        if operator in {"/", "%"}:
            return self._divided(operator, left, right, kinds)
        if "FLOAT" in kinds:
            return Sql(f"({_double(left)} {operator} {_double(right)})", "FLOAT")
        if "DECIMAL" not in kinds:
            return Sql(f"({left.text} {operator} {right.text})", "INT")
        if operator == "*":
            scale = left.scale + right.scale
            if scale > SCALE_MAX:
                left, right = _rounded(left), _rounded(right)
                scale = left.scale + right.scale
        else:
            scale = max(left.scale, right.scale)
        return Sql(f"({_exact(left)} {operator} {_exact(right)})", "DECIMAL", scale=scale)

    def _divided(self, operator: str, left: Sql, right: Sql, kinds: set[Kind]) -> Sql:
        whole = kinds == {"INT"}
        kind: Kind = "INT" if whole else "FLOAT"
        sign = "//" if whole and operator == "/" else operator
        dividend = left.text if whole else _double(left)
        divisor = Sql(right.text if whole else _double(right), kind, atom=right.atom)
        text = self._once(
            divisor,
            lambda x: (
                f"CASE WHEN {x} = 0 THEN error('WS:ExternalEvalException:division by zero') "
                f"ELSE {dividend} {sign} {x} END"
            ),
        )
        return Sql(f"({text})", kind)

    # Comparing ------------------------------------------------------------------------------------

    def _compare(self, operator: str, left: Sql, right: Sql) -> Sql:
        return Sql(f"({self._compared(operator, left, right)})", "BOOL")

    def _compared(self, operator: str, left: Sql, right: Sql) -> str:
        kinds = (left.kind, right.kind)
        if "NULL" in kinds:
            return "CAST(NULL AS BOOLEAN)"
        if left.kind == right.kind and left.kind not in {"JSON", "TIME"}:
            return f"{left.text} {operator} {right.text}"
        if left.kind in NUMBERS and right.kind in NUMBERS:
            return f"{left.text} {operator} {right.text}"
        if left.kind == "JSON" and right.kind == "JSON":
            return self._once(
                left, lambda a: self._once(right, lambda b: json_with_json(operator, a, b))
            )
        if right.kind == "JSON" or (right.kind == "TEXT" and left.kind != "JSON"):
            return self._compared(MIRRORED[operator], right, left)
        if left.kind == "JSON":
            return self._once(
                left,
                lambda a: self._once(right, lambda b: json_with_known(operator, a, b, right)),
            )
        if left.kind == "TEXT" and right.kind in NUMBERS:
            return self._once(left, lambda a: text_with_number(operator, a, right))
        if "TIME" in kinds:
            a, b = self._time(left), self._time(right)
            return f"({a.text}).t {operator} ({b.text}).t"
        a, b = self._truth(left), self._truth(right)
        return f"{a.text} {operator} {b.text}"

    def _is(self, node: Is) -> Sql:
        operand = self._node(node.operand)
        sense = "IS NOT NULL" if node.negated else "IS NULL"
        if operand.kind == "NULL":
            return Sql("false" if node.negated else "true", "BOOL", atom=True)
        if node.missing and not operand.path:
            return Sql("true" if node.negated else "false", "BOOL", atom=True)
        if operand.kind == "JSON" and not node.missing:
            return Sql(f"({self._known(operand).text} {sense})", "BOOL")
        return Sql(f"({operand.text} {sense})", "BOOL")

    def _in(self, node: In) -> Sql:
        operand = self._node(node.operand)
        choices = [self._node(each) for each in node.choices]

        def any_of(x: str) -> str:
            bound = operand.called(x)
            return " OR ".join(f"({self._compared('=', bound, each)})" for each in choices)

        text = f"({self._once(operand, any_of)})"
        return Sql(f"(NOT {text})" if node.negated else text, "BOOL")

    def _between(self, node: Between) -> Sql:
        operand = self._node(node.operand)
        low, high = self._node(node.low), self._node(node.high)
        text = self._once(
            operand,
            lambda x: (
                f"({self._compared('>=', operand.called(x), low)})"
                f" AND ({self._compared('<=', operand.called(x), high)})"
            ),
        )
        return Sql(f"(NOT ({text}))" if node.negated else f"({text})", "BOOL")

    def _like(self, node: Like) -> Sql:
        operand, pattern = self._node(node.operand), self._node(node.pattern)
        escape = ""
        if node.escape is not None:
            character = self._constant(node.escape)
            if character is None or len(character) != 1:
                raise refused("LikeInvalidInputs", "ESCAPE takes one character")
            known = self._constant(node.pattern)
            if known is not None:
                _check_pattern(known, character)
            escape = f" ESCAPE {self._literal(character).text}"
        if pattern.kind not in {"TEXT", "JSON", "NULL"}:
            raise refused("LikeInvalidInputs", "the pattern is no text")
        if operand.kind not in {"TEXT", "JSON", "NULL"}:
            raise refused("LikeInvalidInputs", "LIKE compares texts")
        negation = "NOT " if node.negated else ""
        return Sql(
            f"({self._string(operand)} {negation}LIKE {self._string(pattern)}{escape})", "BOOL"
        )

    def _constant(self, node: Node) -> str | None:
        """Return a text that stands in the expression itself."""
        if isinstance(node, Text):
            return node.value
        if isinstance(node, Path) and len(node.steps) == 1 and node.steps[0].quoted:
            # As `_path` reads it: a text in double quotes, unless a column is called so.
            found = self.source.column(node.steps, self.parameters)
            if not isinstance(found, Sql) and node.steps[0].name.lower() not in self._aliases:
                return node.steps[0].name
        return None

    # Conversions ----------------------------------------------------------------------------------

    def _unified(self, choices: Sequence[Sql]) -> tuple[Kind, int, list[str]]:
        """Bring alternatives to one type; return it, its scale, and their SQL."""
        kinds = {each.kind for each in choices} - {"NULL"}
        if not kinds:
            return "NULL", 0, [each.text for each in choices]
        if len(kinds) == 1 and "DECIMAL" not in kinds:
            return kinds.pop(), 0, [each.text for each in choices]
        if kinds <= NUMBERS:
            if "FLOAT" in kinds:
                return "FLOAT", 0, [_double(each) for each in choices]
            scale = max(each.scale for each in choices)
            return (
                "DECIMAL",
                scale,
                [f"CAST({each.text} AS DECIMAL(38,{scale}))" for each in choices],
            )
        return "TEXT", 0, [self.text(each) for each in choices]

    # Functions ------------------------------------------------------------------------------------

    def _case(self, node: Case) -> Sql:
        results = [self._node(result) for _, result in node.branches]
        results.append(self._node(node.otherwise) if node.otherwise is not None else NULL_SQL)
        kind, scale, texts = self._unified(results)
        conditions = [self._node(condition) for condition, _ in node.branches]

        def chosen(tests: list[str]) -> str:
            whens = " ".join(
                f"WHEN {test} THEN {text}" for test, text in zip(tests, texts, strict=False)
            )
            return f"(CASE {whens} ELSE {texts[-1]} END)"

        if node.operand is None:
            return Sql(chosen([self._truth(each).text for each in conditions]), kind, scale=scale)
        operand = self._node(node.operand)
        return Sql(
            self._once(
                operand,
                lambda x: chosen(
                    [self._compared("=", operand.called(x), each) for each in conditions]
                ),
            ),
            kind,
            scale=scale,
        )

    def _call(self, node: Call) -> Sql:
        name = node.function
        if name == "UTCNOW":
            return Sql(f"ws_timestamp({self._literal(self.now).text})", "TIME")
        if name == "TO_STRING" and len(node.arguments) == 2:
            pattern = self._constant(node.arguments[1])
            if pattern is None:
                raise refused("EvaluatorInvalidTimestampFormatPattern", "it has to be a text")
            time = self._time(self._node(node.arguments[0]))
            pieces = timestamps.formatted(pattern, lambda text: self._literal(text).text)
            return Sql(self._once(time, lambda x: pieces.replace("{x}", x)), "TEXT")
        arguments = [self._node(each) for each in node.arguments]
        first = arguments[0]
        match name:
            case "COALESCE":
                kind, scale, texts = self._unified([self._known(each) for each in arguments])
                return Sql(f"coalesce({', '.join(texts)})", kind, scale=scale)
            case "NULLIF":
                return self._nullif(first, arguments[1])
            case "CHAR_LENGTH":
                return Sql(f"length({self._words(first)})", "INT")
            case "LOWER" | "UPPER":
                return Sql(f"{name.lower()}({self._words(first)})", "TEXT")
            case "TRIM" | "TRIM_LEADING" | "TRIM_TRAILING":
                function = {"TRIM": "trim", "TRIM_LEADING": "ltrim"}.get(name, "rtrim")
                characters = f", {self._words(arguments[1])}" if len(arguments) > 1 else ", ' '"
                return Sql(f"{function}({self._words(first)}{characters})", "TEXT")
            case "SUBSTRING":
                return self._substring(arguments)
            case "TO_TIMESTAMP":
                return self._time(first)
            case "TO_STRING":
                return Sql(self.text(self._time(first)), "TEXT")
            case "EXTRACT":
                time = self._time(first)
                return Sql(self._once(time, lambda x: timestamps.extracted(node.part, x)), "INT")
            case "DATE_ADD":
                count, time = self._whole(first), self._time(arguments[1])
                return Sql(
                    self._once(time, lambda x: timestamps.moved(node.part, count, x)), "TIME"
                )
        a, b = self._time(first), self._time(arguments[1])  # DATE_DIFF
        return Sql(timestamps.between(node.part, a.text, b.text), "INT")

    def _words(self, sql: Sql) -> str:
        """Return SQL for the argument of a function on texts."""
        if sql.kind in {"TEXT", "JSON", "NULL"}:
            return self._string(sql)
        raise refused("IncorrectSqlFunctionArgumentType", "a text is needed")

    def _whole(self, sql: Sql) -> str:
        if sql.kind == "NULL":
            return "CAST(NULL AS BIGINT)"
        if sql.kind in {"TIME", "BOOL"}:
            raise refused("IncorrectSqlFunctionArgumentType", "an integer is needed")
        return self._cast(sql, "INT").text

    def _nullif(self, left: Sql, right: Sql) -> Sql:
        left = self._known(left)
        if left.kind == "NULL" or right.kind == "NULL":
            return left
        text = self._once(
            left,
            lambda x: (
                f"CASE WHEN {self._compared('=', left.called(x), right)} THEN NULL ELSE {x} END"
            ),
        )
        return Sql(f"({text})", left.kind, scale=left.scale)

    def _substring(self, arguments: Sequence[Sql]) -> Sql:
        text, start = self._words(arguments[0]), self._whole(arguments[1])
        if len(arguments) == 2:
            return Sql(f"substring({text}, greatest({start}, 1))", "TEXT")
        length = self._whole(arguments[2])
        # SQL's window: what lies before the first character counts, but is not there.
        cut = self._once(
            Sql(start, "INT"),
            lambda s: (
                f"substring({text}, greatest({s}, 1), greatest(0, {s} + {length} - greatest({s}, 1)))"
            ),
        )
        return Sql(
            f"CASE WHEN {length} < 0 THEN error('WS:EvaluatorInvalidArguments:a length is negative') ELSE {cut} END",
            "TEXT",
        )

    # Aggregates -----------------------------------------------------------------------------------

    def _aggregate(self, node: Aggregate) -> Sql:
        if not self._merging:
            raise refused("UnsupportedSqlStructure", "an aggregate inside an aggregate")
        if node.operand is None:
            return self._piece(("count(*)",), _total, "INT")
        self._merging = False
        operand = self._node(node.operand)
        self._merging = True
        if node.function == "COUNT":
            known = self._known(operand)
            return self._piece((f"count({known.text})",), _total, "INT")
        if node.function in {"MIN", "MAX"} and operand.kind == "TIME":
            name = node.function.lower()
            return self._piece((f"{name}({operand.text})",), lambda c: f"{name}({c[0]})", "TIME")
        number = self._number(operand)
        if number.kind == "NULL":
            return NULL_SQL
        if node.function in {"MIN", "MAX"}:
            name = node.function.lower()
            return self._piece(
                (f"{name}({number.text})",),
                lambda c: f"{name}({c[0]})",
                number.kind,
                number.scale,
            )
        add = "fsum" if number.kind == "FLOAT" else "sum"
        if node.function == "SUM":
            return self._piece(
                (f"{add}({number.text})",), lambda c: f"{add}({c[0]})", number.kind, number.scale
            )
        return self._piece(
            (f"{add}({number.text})", f"count({number.text})"),
            lambda c: f"CAST({add}({c[0]}) AS DOUBLE) / nullif(sum({c[1]}), 0)",
            "FLOAT",
        )

    def _piece(
        self,
        pieces: tuple[str, ...],
        merge: Callable[[Sequence[str]], str],
        kind: Kind,
        scale: int = 0,
    ) -> Sql:
        name = f"m{len(self.partials)}"
        self.partials.append(Partial(pieces, merge))
        return Sql(name, kind, atom=True, scale=scale)


def _total(columns: Sequence[str]) -> str:
    return f"CAST(sum({columns[0]}) AS BIGINT)"


def _double(sql: Sql) -> str:
    return sql.text if sql.kind == "FLOAT" else f"CAST({sql.text} AS DOUBLE)"


def _exact(sql: Sql) -> str:
    return sql.text if sql.kind == "DECIMAL" else f"CAST({sql.text} AS DECIMAL(19,0))"


def _rounded(sql: Sql) -> Sql:
    if sql.scale <= SCALE_MAX // 2:
        return sql
    scale = SCALE_MAX // 2
    return Sql(f"CAST({sql.text} AS DECIMAL(38,{scale}))", "DECIMAL", scale=scale)


def _check_pattern(pattern: str, escape: str) -> None:
    at = 0
    while at < len(pattern):
        if pattern[at] == escape:
            at += 1
            if at == len(pattern) or pattern[at] not in {"%", "_", escape}:
                raise refused("EvaluatorLikePatternInvalidEscapeSequence")
        at += 1
