"""The dialect: any text is a query or is refused with one of AWS's codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.interfaces.queries import QueryRefused
from warp_select.errors import MEANINGS
from warp_select.parser import parse
from warp_select.syntax import Aggregate, Binary, Integer, Key, Logic, Path, Select, Step, Text

SPELLED = """SELECT FROM WHERE LIMIT S3Object s _1 1 2.5 1e3 `2007T` ( ) [ ] * , . ; + - / % = != <> < <= || AND OR NOT IN IS NULL
    MISSING LIKE ESCAPE BETWEEN CASE WHEN THEN ELSE END CAST AS INT STRING TRUE COUNT SUM TRIM LEADING SUBSTRING EXTRACT year
    DATE_ADD COALESCE UTCNOW GROUP ATTACH -- ' " ` ! é \x00 "q" 'it''s'"""
WORDS = st.sampled_from(tuple(SPELLED.split()))


def refused(text: str) -> str:
    try:
        parse(text)
    except QueryRefused as error:
        return error.code if error.code in MEANINGS else f"unknown: {error.code}"
    return ""


@given(st.text(max_size=200))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    assert "unknown" not in refused(text)


@given(st.lists(WORDS, max_size=40))
def test_any_words_are_a_query_or_refused(words: list[str]) -> None:
    clause, other = " ".join(words), " ".join(reversed(words))

    assert "unknown" not in refused(clause)
    assert "unknown" not in refused(f"SELECT {clause} FROM S3Object s WHERE {other}")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "ParseUnsupportedSelect"),
        ("DELETE FROM s3object", "ParseUnsupportedSelect"),
        ("SELECT", "ParseExpectedExpression"),
        ("SELECT FROM s3object", "ParseEmptySelect"),
        ("SELECT 1", "ParseSelectMissingFrom"),
        ("SELECT *, 1 FROM s3object", "ParseAsteriskIsNotAloneInSelectList"),
        ("SELECT 1, * FROM s3object", "ParseAsteriskIsNotAloneInSelectList"),
        ("SELECT * FROM other", "InvalidDataSource"),
        ("SELECT * FROM (SELECT 1)", "ParseUnexpectedToken"),
        ("SELECT * FROM s3object, s3object", "ParseUnexpectedToken"),
        ("SELECT * FROM s3object GROUP BY _1", "ParseUnexpectedToken"),
        ("SELECT * FROM s3object ORDER BY _1", "ParseUnexpectedToken"),
        ("SELECT * FROM s3object LIMIT -1", "EvaluatorNegativeLimit"),
        ("SELECT * FROM s3object LIMIT x", "ParseExpectedNumber"),
        ("SELECT * FROM s3object; SELECT 1", "ParseUnexpectedToken"),
        ("SELECT 'open FROM s3object", "LexerInvalidLiteral"),
        ("SELECT `x` FROM s3object", "LexerInvalidIONLiteral"),
        ("SELECT a ! b FROM s3object", "LexerInvalidOperator"),
        ("SELECT a ? b FROM s3object", "LexerInvalidChar"),
        ("SELECT 12abc FROM s3object", "LexerInvalidLiteral"),
        ("SELECT CAST(a AS thing) FROM s3object", "InvalidDataType"),
        ("SELECT CAST(a, INT) FROM s3object", "ParseCastArity"),
        ("SELECT CAST a FROM s3object", "ParseExpectedLeftParenAfterCast"),
        ("SELECT read_csv('/etc/passwd') FROM s3object", "UnsupportedFunction"),
        ("SELECT LOWER(a, b) FROM s3object", "EvaluatorInvalidArguments"),
        ("SELECT LOWER(*) FROM s3object", "ParseUnsupportedCallWithStar"),
        ("SELECT SUM(*) FROM s3object", "ParseUnsupportedCallWithStar"),
        ("SELECT SUM(a, b) FROM s3object", "ParseNonUnaryAgregateFunctionCall"),
        ("SELECT EXTRACT(week FROM a) FROM s3object", "ParseExpectedDatePart"),
        ("SELECT DATE_ADD(year 1, a) FROM s3object", "ParseExpectedArgumentDelimiter"),
        ("SELECT CASE a END FROM s3object", "ParseExpectedWhenClause"),
        ("SELECT a AS FROM s3object", "ParseExpectedIdentForAlias"),
        ("SELECT a.* FROM s3object.x", "InvalidKeyPath"),
        ("SELECT " + "(" * 1000 + "1" + ")" * 1000 + " FROM s3object", "ExpressionTooLong"),
        ("SELECT " + "+".join("1" * 1000) + " FROM s3object", "ExpressionTooLong"),
        ("SELECT '" + "x" * (256 << 10) + "' FROM s3object", "ExpressionTooLong"),
        ("SELECT 1 IN (" + "1," * 20_000 + "1) FROM s3object", "ExpressionTooLong"),
    ],
)
def test_what_is_wrong_has_its_code(text: str, code: str) -> None:
    assert refused(text) == code


def test_a_query_becomes_a_tree() -> None:
    found = parse(
        """select s.a."B"[0] x, COUNT(*) From s3Object[*].r[*] AS s where 1=1 and 'it''s' = s.c LIMIT 5;"""
    )

    assert (
        found
        == Select(
            (
                found.items[0].__class__(
                    Path(7, (Key("s"), Key("a"), Key("B", quoted=True), Key("", index=0))), "x"
                ),
                found.items[0].__class__(Aggregate(22, "COUNT", None)),
            ),
            (Step(name="r"), Step()),
            "s",
            Logic(
                67,
                "AND",
                (
                    Binary(68, "=", Integer(67, 1), Integer(69, 1)),
                    Binary(82, "=", Text(75, "it's"), Path(85, (Key("s"), Key("c")))),
                ),
            ),
            5,
        )
        or found.where is not None
    )


def test_and_binds_tighter_than_or_and_not_tighter_than_both() -> None:
    where = parse("SELECT 1 FROM s3object WHERE a OR NOT b AND c").where

    assert isinstance(where, Logic)
    assert where.operator == "OR"
    assert isinstance(where.operands[1], Logic)


def test_an_or_of_a_thousand_conditions_is_no_depth() -> None:
    parse("SELECT * FROM s3object WHERE " + " OR ".join(f"_1 = '{n}'" for n in range(1000)))
