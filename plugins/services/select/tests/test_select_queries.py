"""Queries and what they give; expectations are written by hand, or computed with Python's csv and json."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.interfaces.queries import (
    CsvInput,
    CsvOutput,
    JsonInput,
    JsonOutput,
    ParquetInput,
    Query,
)
from warp_select import reading
from warp_select.csv_pieces import CsvCutter
from warp_select.json_pieces import Elements
from warp_select.syntax import Step

PEOPLE = 'id,Name,price\n1,ann,2.5\n2,"b,""o""b",3.25\n3,,\n'
USE = CsvInput(header="USE")
LINES = JsonInput(lines=True)
DOCUMENT = JsonInput()
JSON = JsonOutput()

VALUES = [
    ("1", "1"),
    ("1.50", "1.50"),
    ("1e3", "1000"),
    ("7/2", "3"),
    ("-7/2", "-3"),
    ("7%4", "3"),
    ("7.0/2", "3.5"),
    ("1.1+2.2", "3.3"),
    ("0.1*3", "0.3"),
    ("2-3*4", "-10"),
    ("-(2+3)", "-5"),
    ("'a'||'b'||1", "ab1"),
    ("TRUE AND NOT FALSE", "true"),
    ("NULL IS NULL", "true"),
    ("NULL = 1", ""),
    ("1 = 1 = TRUE", "true"),
    ("'x' = \"x\"", "true"),
    ("2 IN (1, 2)", "true"),
    ("2 NOT IN (1, 3)", "true"),
    ("2 BETWEEN 1 AND 2", "true"),
    ("2 NOT BETWEEN 1 AND 2", "false"),
    ("'abc' LIKE 'a%'", "true"),
    ("'abc' LIKE 'a_'", "false"),
    ("'a%c' LIKE 'a$%c' ESCAPE '$'", "true"),
    ("'abc' LIKE 'a$%c' ESCAPE '$'", "false"),
    ("'abc' NOT LIKE '%z%'", "true"),
    ("CASE WHEN 1=2 THEN 'x' WHEN 2=2 THEN 'y' END", "y"),
    ("CASE 3 WHEN 1 THEN 'x' ELSE 'z' END", "z"),
    ("CASE WHEN FALSE THEN 1 END", ""),
    ("COALESCE(NULL, NULL, 5)", "5"),
    ("NULLIF(5, 5)", ""),
    ("NULLIF(5, 6)", "5"),
    ("CHAR_LENGTH('héllo')", "5"),
    ("CHARACTER_LENGTH('')", "0"),
    ("LOWER('ÀB')", "àb"),
    ("UPPER('àb')", "ÀB"),
    ("SUBSTRING('123456789', 0)", "123456789"),
    ("SUBSTRING('123456789', 2, 3)", "234"),
    ("SUBSTRING('123456789', 0, 3)", "12"),
    ("SUBSTRING('123456789', -1, 4)", "12"),
    ("SUBSTRING('123456789' FROM 3 FOR 2)", "34"),
    ("TRIM('  x ')", "x"),
    ("TRIM(LEADING FROM '  x ')||'|'", "x |"),
    ("TRIM(TRAILING 'x' FROM 'axx')", "a"),
    ("TRIM(BOTH '12' FROM '1112foobar22211122')", "foobar"),
    ("CAST('5' AS INT) + 1", "6"),
    ("CAST(5.9 AS INT)", "5"),
    ("CAST('2.50' AS DECIMAL)", "2.5"),
    ("CAST('12345678901234567890.5' AS DECIMAL)", "12345678901234567890.5"),
    ("CAST('1.5' AS FLOAT)", "1.5"),
    ("CAST(1 AS BOOL)", "true"),
    ("CAST('true' AS BOOL)", "true"),
    ("CAST(5 AS STRING) || 'x'", "5x"),
    ("CAST('2007-04-05T14:30Z' AS TIMESTAMP)", "2007-04-05T14:30Z"),
    ("INT('7') + FLOAT('0.5')", "7.5"),
    ("TO_TIMESTAMP('2007T')", "2007T"),
    ("TO_TIMESTAMP('2007-02-23')", "2007-02-23"),
    ("TO_TIMESTAMP('2007-02-23T12:14:33.079-08:00')", "2007-02-23T12:14:33.079-08:00"),
    ("TO_TIMESTAMP('20070223T121433Z')", "2007-02-23T12:14:33Z"),
    ("EXTRACT(YEAR FROM TO_TIMESTAMP('2010-01-01T'))", "2010"),
    ("EXTRACT(HOUR FROM `2010-01-01T22:59:01+07:08`)", "22"),
    ("EXTRACT(TIMEZONE_HOUR FROM `2010-01-01T22:59:01+07:08`)", "7"),
    ("EXTRACT(TIMEZONE_MINUTE FROM `2010-01-01T22:59:01-07:08`)", "-8"),
    ("DATE_ADD(year, 5, `2010-01-01T`)", "2015-01-01"),
    ("DATE_ADD(month, 1, `2010T`)", "2010-02T"),
    ("DATE_ADD(month, 13, `2010T`)", "2011-02T"),
    ("DATE_ADD(day, -1, `2017-01-10T`)", "2017-01-09"),
    ("DATE_ADD(hour, 1, `2017T`)", "2017-01-01T01:00Z"),
    ("DATE_ADD(minute, 1, `2017-01-02T03:04:05.006Z`)", "2017-01-02T03:05:05.006Z"),
    ("DATE_ADD(second, 1, `2017-01-02T03:04:05.006Z`)", "2017-01-02T03:04:06.006Z"),
    ("DATE_DIFF(year, `2010-01-01T`, `2011-01-01T`)", "1"),
    ("DATE_DIFF(year, `2010T`, `2010-05T`)", "0"),
    ("DATE_DIFF(month, `2010T`, `2011T`)", "12"),
    ("DATE_DIFF(month, `2011T`, `2010T`)", "-12"),
    ("DATE_DIFF(day, `2010-01-01T23:00Z`, `2010-01-02T01:00Z`)", "0"),
    ("DATE_DIFF(hour, UTCNOW(), DATE_ADD(day, 1, UTCNOW()))", "24"),
    ("TO_STRING(`1969-07-20T20:18Z`, 'MMMM d, y')", '"July 20, 1969"'),
    ("TO_STRING(`1969-07-20T20:18Z`, 'MMM d, yyyy')", '"Jul 20, 1969"'),
    ("TO_STRING(`1969-07-20T20:18Z`, 'M-d-yy')", "7-20-69"),
    ("TO_STRING(`1969-07-20T20:18Z`, 'MMMM d, y h:m a')", '"July 20, 1969 8:18 PM"'),
    ("TO_STRING(`1969-07-20T20:18:00+08:00`, 'y-MM-dd''T''H:m:ssX')", "1969-07-20T20:18:00+08"),
    ("TO_STRING(`1969-07-20T20:18:00Z`, 'H:mX')", "20:18Z"),
    ("TO_STRING(`1969-07-20T20:18:00+08:00`, 'XXXX XXXXX')", "+0800 +08:00"),
    ("UTCNOW()", "2026-01-02T03:04:05.000000Z"),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES)
def test_an_expression_has_its_value(run: Any, expression: str, expected: str) -> None:
    assert run(f"SELECT {expression} FROM S3Object", "row\n") == expected + "\n"


REFUSED = [
    ("SELECT CAST('x' AS INT) FROM S3Object", "CastFailed"),
    ("SELECT CAST('1.5' AS INT) FROM S3Object", "CastFailed"),
    ("SELECT CAST('' AS FLOAT) FROM S3Object", "CastFailed"),
    ("SELECT 1/0 FROM S3Object", "ExternalEvalException"),
    ("SELECT 9223372036854775807 + 1 FROM S3Object", "IntegerOverflow"),
    ("SELECT TO_TIMESTAMP('x') FROM S3Object", "ValueParseFailure"),
    (
        "SELECT TO_STRING(UTCNOW(), 'QQ') FROM S3Object",
        "EvaluatorInvalidTimestampFormatPatternSymbol",
    ),
    ("SELECT TO_STRING(UTCNOW(), 'y''') FROM S3Object", "EvaluatorInvalidTimestampFormatPattern"),
    ("SELECT 'a' LIKE 'a$b' ESCAPE '$' FROM S3Object", "EvaluatorLikePatternInvalidEscapeSequence"),
    ("SELECT 'a' LIKE 'a' ESCAPE 'xy' FROM S3Object", "LikeInvalidInputs"),
    ("SELECT 5 LIKE 'a' FROM S3Object", "LikeInvalidInputs"),
    ("SELECT LOWER(5) FROM S3Object", "IncorrectSqlFunctionArgumentType"),
    ("SELECT UTCNOW() + 1 FROM S3Object", "IncorrectSqlFunctionArgumentType"),
    ("SELECT foo FROM S3Object", "InvalidColumnIndex"),
    ("SELECT _0 FROM S3Object", "InvalidColumnIndex"),
    ("SELECT t._1 FROM S3Object s", "InvalidTableAlias"),
    ("SELECT _1, COUNT(*) FROM S3Object", "UnsupportedSqlStructure"),
    ("SELECT SUM(COUNT(*)) FROM S3Object", "UnsupportedSqlStructure"),
    ("SELECT * FROM S3Object WHERE COUNT(*) > 1", "UnsupportedSqlStructure"),
    ("SELECT a+1 AS b, b+1 AS a FROM S3Object", "UnsupportedSqlStructure"),
    ("SELECT * FROM S3Object[*].a", "InvalidDataSource"),
    ("SELECT SUM(_1) FROM S3Object", "CastFailed"),
    (
        "SELECT INT(_2) AS a0"
        + "".join(f", a{n} + a{n} AS a{n + 1}" for n in range(40))
        + " FROM S3Object",
        "ExpressionTooLong",
    ),
]


@pytest.mark.parametrize(("expression", "code"), REFUSED)
def test_what_cannot_be_answered_has_its_code(run: Any, expression: str, code: str) -> None:
    assert run(expression) == code


TABLE = [
    ("SELECT * FROM S3Object", '1,ann,2.5\n2,"b,""o""b",3.25\n3,,\n'),
    ("SELECT s.name FROM S3Object s", 'ann\n"b,""o""b"\n\n'),
    ('SELECT s."Name", s._1 FROM S3Object s LIMIT 1', "ann,1\n"),
    ('SELECT s."name" FROM S3Object s LIMIT 1', "MissingHeaders"),
    ("SELECT nope FROM S3Object", "MissingHeaders"),
    ("SELECT id FROM S3Object WHERE id > 1", "2\n3\n"),
    ("SELECT id FROM S3Object WHERE id != 1 AND price != 3.25", "3\n"),
    ("SELECT id FROM S3Object WHERE name = ''", "3\n"),
    ("SELECT _9 FROM S3Object WHERE _9 IS MISSING", "\n\n\n"),
    ("SELECT id FROM S3Object WHERE name IS NULL", ""),
    ("SELECT COUNT(*), COUNT(_9), SUM(CAST(id AS INT)), MIN(INT(id))+1 FROM S3Object", "3,0,6,2\n"),
    (
        "SELECT AVG(CAST(id AS INT)), MAX(CAST(price AS DECIMAL)) FROM S3Object WHERE id < 3",
        "1.5,3.25\n",
    ),
    ("SELECT SUM(INT(id)), AVG(INT(id)), COUNT(*) FROM S3Object WHERE id > 99", ",,0\n"),
    ("SELECT INT(id) AS a, a * 10 AS b FROM S3Object WHERE b > 10", "2,20\n3,30\n"),
    ("SELECT id FROM S3Object LIMIT 0", ""),
    ("SELECT COUNT(*) FROM S3Object LIMIT 0", ""),
]


@pytest.mark.parametrize(("expression", "expected"), TABLE)
def test_a_table_is_asked(run: Any, expression: str, expected: str) -> None:
    assert run(expression, PEOPLE, USE) == expected


@pytest.mark.parametrize("expression", [query for query, _ in TABLE])
def test_json_has_the_same_records(run: Any, expression: str) -> None:
    rows, objects = run(expression, PEOPLE, USE), run(expression, PEOPLE, USE, JSON)
    if rows[-1:] != "\n":
        assert objects == rows
        return
    found = [list(json.loads(line).values()) for line in objects.splitlines()]

    assert len(found) == len(list(csv.reader(io.StringIO(rows)))) or rows.strip() == ""


def test_names_in_json(run: Any) -> None:
    query = "SELECT s.name, s._3, INT(id) AS n, 1+1, _9, NULLIF(1, 1) FROM S3Object s LIMIT 1"

    assert run(query, PEOPLE, USE, JSON) == ('{"name":"ann","_3":"2.5","n":1,"_4":2,"_6":null}\n')


OPTIONS: list[tuple[str, CsvInput, str]] = [
    ("a|b;c|d;", CsvInput(field_delimiter="|", record_delimiter=";"), "a,b\nc,d\n"),
    ("a,b\r\nc,d\r\n", CsvInput(), "a,b\nc,d\n"),
    ('"a",b\r\n"c""",d\r\n', CsvInput(), 'a,b\n"c""",d\n'),
    ("a,b~~c,d", CsvInput(record_delimiter="~~"), "a,b\nc,d\n"),
    ("# no\na,b\n\n#x\n", CsvInput(), "a,b\n"),
    ("%no\n#a,b\n", CsvInput(comments="%"), "#a,b\n"),
    (r'"a\"b",c' + "\n", CsvInput(quote_escape="\\"), '"a""b",c\n'),
    (r'C:\x,"y"' + "\n", CsvInput(quote_escape="\\"), "C:\\x,y\n"),
    ("'a,b',c\n", CsvInput(quote="'"), '"a,b",c\n'),
    ('"a\nb",c\n', CsvInput(quoted_delimiters=True, comments=""), '"a\nb",c\n'),
    ('"a\nb",c\nd,"e"\n', CsvInput(quoted_delimiters=True), '"a\nb",c\nd,e\n'),
    ('x"y,z\n', CsvInput(), '"x""y",z\n'),
    ("\ufeffa,b\n", CsvInput(), "a,b\n"),
    ("h,i\na,b\n", CsvInput(header="IGNORE"), "a,b\n"),
    ("h,i\n", CsvInput(header="USE"), ""),
    ("", CsvInput(header="USE"), ""),
    ("", CsvInput(), ""),
    ("é,日本\n", CsvInput(), "é,日本\n"),
    ("a", CsvInput(), "a\n"),
    ('a,\x1f,\x1e,"\x1d"\n', CsvInput(), "a,\x1f,\x1e,\x1d\n"),
]


@pytest.mark.parametrize(("data", "options", "expected"), OPTIONS)
def test_options_of_csv(run: Any, data: str, options: CsvInput, expected: str) -> None:
    assert run("SELECT * FROM S3Object", data, options) == expected


def test_output_is_quoted_as_asked(run: Any) -> None:
    odd = CsvOutput(
        always_quote=True, field_delimiter="$", record_delimiter="#", quote="'", quote_escape="\\"
    )

    assert run("SELECT _2, 'it''s', _9 FROM S3Object", "a,1\n", None, odd) == r"'1'$'it\'s'$''#"
    assert run("SELECT * FROM S3Object", "a,1\n", None, odd) == "'a'$'1'#"


FIELD = st.text(st.sampled_from("ab,\"\n'é\x1f "), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(FIELD, min_size=2, max_size=4), min_size=1, max_size=6), st.integers(1, 9))
def test_the_csv_module_reads_the_same(rows: list[list[str]], step: int) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    text = written.getvalue()
    cutter = CsvCutter(CsvInput(quoted_delimiters=True, comments=""))
    found: list[list[str]] = []
    for at in range(0, len(text), step):
        for piece in cutter.feed(text[at : at + step], final=at + step >= len(text)):
            found += [record.split(piece.field) for record in piece.text.split(piece.record)]

    assert found == rows


# JSON ---------------------------------------------------------------------------------------------

THINGS = '{"a":{"B":[1,2]},"n":5,"t":"x"}\n{"n":null}\n{"n":2.5,"t":"5"}\n'

QUERIES = [
    ("SELECT * FROM S3Object[*]", THINGS),
    ("SELECT * FROM S3Object s", THINGS),
    (
        "SELECT s.n, s.t, s.a.b[0] FROM S3Object s",
        '{"n":5,"t":"x","_3":1}\n{"n":null}\n{"n":2.5,"t":"5"}\n',
    ),
    ('SELECT s.a."b" FROM S3Object s', "{}\n{}\n{}\n"),
    ("SELECT _1.n FROM S3Object WHERE n > 3", '{"n":5}\n'),
    ("SELECT n FROM S3Object s WHERE s.t = '5' OR s.n = 5", '{"n":5}\n{"n":2.5}\n'),
    ("SELECT n FROM S3Object s WHERE s.t IS MISSING", '{"n":null}\n'),
    ("SELECT n FROM S3Object s WHERE s.n IS NULL AND s.n IS NOT MISSING", '{"n":null}\n'),
    ("SELECT SUM(s.n), COUNT(s.n), COUNT(*) FROM S3Object s", '{"_1":7.5,"_2":2,"_3":3}\n'),
    (
        "SELECT CAST(s.n AS INT) AS i, CAST(s.t AS STRING) AS t FROM S3Object s",
        '{"i":5,"t":"x"}\n{"i":null,"t":null}\n{"i":2,"t":"5"}\n',
    ),
    ("SELECT * FROM S3Object[*].a.B[*]", '{"_1":1}\n{"_1":2}\n'),
    ("SELECT b FROM S3Object[*].a.B b", '{"b":1}\n{"b":2}\n{}\n{}\n'),
    ("SELECT n FROM S3Object[*].n", '{"n":5}\n{"n":null}\n{"n":2.5}\n'),
    ("SELECT t FROM S3Object[*].t", '{"t":"x"}\n{}\n{"t":"5"}\n'),
]


@pytest.mark.parametrize("source", [LINES, DOCUMENT])
@pytest.mark.parametrize(("expression", "expected"), QUERIES)
def test_json_is_asked(run: Any, expression: str, expected: str, source: JsonInput) -> None:
    assert run(expression, THINGS, source, JSON) == expected


@pytest.mark.parametrize("source", [LINES, DOCUMENT])
def test_values_need_no_lines(run: Any, source: JsonInput) -> None:
    data = '{"a":\n 1}{"a":2}\n\n {"a" :3}'

    assert run("SELECT s.a FROM S3Object s", data, source) == "1\n2\n3\n"


def test_a_list_at_the_top_is_one_value(run: Any) -> None:
    data = '[{"a":1},{"a":2}]'

    assert run("SELECT COUNT(*) FROM S3Object s", data, DOCUMENT) == "1\n"
    assert run("SELECT s.a FROM S3Object[*][*] s", data, DOCUMENT) == "1\n2\n"
    assert run("SELECT s[1].a FROM S3Object s", data, DOCUMENT) == "2\n"
    assert run("SELECT s.a FROM S3Object[*][1] s", data, DOCUMENT) == "2\n"


@pytest.mark.parametrize(
    "data",
    [
        '{"a":',
        '{"a" 1}',
        "{]",
        "[1,2",
        '{"a":1}}',
        "nope",
        '{"a":1,"a',
        "{1:2}",
        "\x00",
        '"\\',
        "[" * 5000,
    ],
)
@pytest.mark.parametrize("source", [LINES, DOCUMENT])
@pytest.mark.parametrize("path", ["", ".a", "[*]", ".a[*].b"])
def test_broken_json_is_refused(run: Any, data: str, source: JsonInput, path: str) -> None:
    found = run(f"SELECT * FROM S3Object[*]{path}", data, source)

    assert found in {"JSONParsingError", "TruncatedInput"} or path


def test_a_name_in_two_cases_is_ambiguous(run: Any) -> None:
    assert run("SELECT s.ab FROM S3Object s", '{"Ab":1,"aB":2}', LINES) == "AmbiguousFieldName"
    assert run('SELECT s."aB" FROM S3Object s', '{"Ab":1,"aB":2}', LINES) == "2\n"


JSON_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.sampled_from('a"\\{}[],:é'), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=12,
)


def walk(value: Any, path: list[Step]) -> list[Any]:
    """What a path leads to, as the dialect says; `...` is a record that is missing."""
    if not path:
        return [value]
    step, rest = path[0], path[1:]
    if step == Step():
        return (
            [one for each in value for one in walk(each, rest)] if isinstance(value, list) else []
        )
    stars = Step() in rest
    missing: list[Any] = [] if stars else [...]
    if not isinstance(value, dict) or step.name not in value:
        return missing
    found = value[step.name or ""]
    if not rest and isinstance(found, list):
        return list(found)
    return walk(found, rest)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(JSON_VALUE, max_size=3),
    st.lists(st.sampled_from([Step(name="a"), Step(name="b"), Step()]), max_size=3),
    st.integers(1, 30),
    st.booleans(),
)
def test_a_path_leads_to_what_json_has(
    values: list[Any], path: list[Step], step: int, indented: bool
) -> None:
    text = "\n".join(json.dumps(value, indent=2 if indented else None) for value in values)
    expected = [one for value in values for one in walk(value, path)]
    elements = Elements(path)
    found: list[Any] = []
    for at in range(0, len(text) + 1, step):
        last = at + step >= len(text) + 1
        given_now = elements.feed(text[at : at + step], final=last)
        found += [... if one is None else json.loads(one) for one in given_now]

    # An empty list at the path's end gives nothing, and is no missing record.
    assert [one for one in found if one is not ...] == [one for one in expected if one is not ...]


# Compression, ranges, garbage ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("GZIP", gzip.compress(b"a,1\n" * 3000) + gzip.compress(b"b,2\n")),
        ("BZIP2", bz2.compress(b"a,1\n" * 3000) + bz2.compress(b"b,2\n")),
    ],
)
def test_compressed_objects_are_read(
    run: Any, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    monkeypatch.setattr(reading, "STEP", 777)

    assert run("SELECT COUNT(*) FROM S3Object", data, compression=name) == "3001\n"
    assert run("SELECT * FROM S3Object WHERE _1 = 'b'", data, compression=name) == "b,2\n"
    assert run("SELECT * FROM S3Object", data[:-9], compression=name) == "TruncatedInput"
    assert run("SELECT * FROM S3Object", b"x" * 99, compression=name) == "InvalidCompressionFormat"


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
@pytest.mark.parametrize("delimiter", ["\n", "ab"])
def test_a_scan_range_takes_the_records_that_begin_in_it(
    remote: Any, monkeypatch: pytest.MonkeyPatch, step: int, delimiter: str
) -> None:
    monkeypatch.setattr(reading, "STEP", step)
    records = ["x" * n for n in (1, 3, 2, 5, 4)]
    data = delimiter.join(records) + delimiter
    begins = [len(delimiter.join(records[:n])) + (len(delimiter) if n else 0) for n in range(5)]
    for start in range(len(data)):
        for end in range(start, len(data)):
            expected = [r for r, at in zip(records, begins, strict=True) if start <= at <= end]
            query = Query(expression="", input=CsvInput(), output=CsvOutput(), start=start, end=end)
            texts = reading.texts(remote(data.encode()), query, len(data), delimiter)
            found = "".join(text for text, _ in texts).split(delimiter)
            assert [one for one in found if one] == expected, (start, end)


def test_scan_ranges_that_cannot_be(run: Any) -> None:
    assert run("SELECT * FROM S3Object", start=100) == "InvalidScanRange"
    assert run("SELECT _1 FROM S3Object", end=4) == "b\n"  # the last four bytes
    assert run("SELECT * FROM S3Object", "{}", DOCUMENT, start=0) == "UnsupportedScanRangeInput"
    assert (
        run("SELECT * FROM S3Object", b"", compression="GZIP", end=1) == "UnsupportedScanRangeInput"
    )


def test_bytes_that_are_no_text_are_refused(run: Any) -> None:
    assert run("SELECT * FROM S3Object", b"a,\xff\n") == "InvalidTextEncoding"


@pytest.mark.parametrize("seed", range(8))
def test_garbage_is_refused_or_read(run: Any, seed: int) -> None:
    noise = random.Random(seed).randbytes(3000)
    text = "".join(chr(32 + byte % 95) if byte > 20 else "\n" for byte in noise)
    for source in (CsvInput(), CsvInput(header="USE", quoted_delimiters=True), LINES, DOCUMENT):
        for data in (noise, text.encode()):
            assert isinstance(run("SELECT * FROM S3Object s", data, source), str)
    for data in (noise, b"PAR1" + noise + b"PAR1", b"PAR1PAR1PAR1", b""):
        assert run("SELECT * FROM S3Object", data, ParquetInput()) == "ParquetParsingError"
    for name in ("GZIP", "BZIP2"):
        found = run("SELECT * FROM S3Object", noise, compression=name)
        assert found == "InvalidCompressionFormat"


def test_a_record_without_an_end_is_refused(run: Any) -> None:
    data = b"x" * (9 << 20)

    assert run("SELECT COUNT(*) FROM S3Object", data) == "OverMaxRecordSize"
    assert run("SELECT COUNT(*) FROM S3Object", b'{"a":"' + data, DOCUMENT) == "OverMaxRecordSize"


def test_pieces_come_to_the_same(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(n, f"n,{n}" if n % 7 == 0 else f"n{n}", n / 4) for n in range(500)]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    data = written.getvalue()
    lines = "".join(json.dumps({"a": a, "b": b, "c": c}) + "\n" for a, b, c in rows)
    monkeypatch.setattr(reading, "STEP", 301)

    assert run("SELECT * FROM S3Object", data) == data
    assert run("SELECT _1 FROM S3Object LIMIT 123", data) == "".join(f"{n}\n" for n in range(123))
    query = (
        "SELECT COUNT(*), SUM(INT(_1)), MIN(FLOAT(_3)), MAX(INT(_1)), AVG(FLOAT(_3)) FROM S3Object"
    )
    assert run(query, data) == f"500,{sum(range(500))},0,499,62.375\n"
    document = json.dumps(
        {"x": [1], "rows": [json.loads(line) for line in lines.splitlines()]}, indent=1
    )
    for source, path, text in ((LINES, "", lines), (DOCUMENT, ".rows[*]", document)):
        query = f"SELECT SUM(s.a), COUNT(*) FROM S3Object[*]{path} s WHERE s.b LIKE 'n,%'"
        assert run(query, text, source) == f"{sum(range(0, 500, 7))},{len(range(0, 500, 7))}\n"
