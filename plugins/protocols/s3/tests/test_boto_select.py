"""SelectObjectContent as boto3 sees it: frames, errors before and behind the first, and what is answered where no plugin is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import given
from hypothesis import strategies as st
from warp_core.interfaces.queries import (
    CsvInput,
    CsvOutput,
    JsonInput,
    JsonOutput,
    ParquetInput,
    Progress,
    Queries,
    Query,
    QueryRefused,
    Readable,
)
from warp_s3 import event_stream
from warp_s3.errors import S3Error
from warp_s3.operations.selecting import read_request


class Key(NamedTuple):
    """A key that the server of these tests knows."""

    access_key: str
    secret: str


class Scripted(Queries):
    """Answers what the expression says: `records`, `refuse`, `break` behind records, or `hang`."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.ended = 0

    async def __aenter__(self) -> Scripted:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def run(
        self, query: Query, content: Readable, size: int
    ) -> AsyncGenerator[bytes | Progress, None]:
        self.asked.append(query)
        try:
            if query.expression == "refuse":
                raise QueryRefused("ParseUnexpectedToken", "no")
            while query.expression == "hang":
                await asyncio.sleep(0.05)
                yield Progress(1, 1)
            data = bytes(await content.read(0, size))
            yield Progress(size, size)
            yield data
            if query.expression == "break":
                raise QueryRefused("CastFailed", "late")
            yield data * 300_000
            yield Progress(size, size)
        finally:
            self.ended += 1


@pytest.fixture
def running(serve: Callable[..., Any]) -> Any:
    return serve()


@pytest.fixture
def s3(running: Any, connect: Callable[..., Any]) -> Iterator[Any]:
    s3 = connect(running.url)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"a,1\n")
    yield s3
    s3.close()


def select(s3: Any, expression: str, **more: Any) -> Any:
    arguments: dict[str, Any] = {
        "Bucket": "bucket",
        "Key": "key",
        "ExpressionType": "SQL",
        "Expression": expression,
        "InputSerialization": {"CSV": {}},
        "OutputSerialization": {"CSV": {}},
    }
    return s3.select_object_content(**(arguments | more))["Payload"]


def test_without_the_plugin_the_answer_names_it(s3: Any) -> None:
    with pytest.raises(ClientError, match="warp-select") as refused:
        select(s3, "records")

    assert refused.value.response["Error"]["Code"] == "NotImplemented"


def test_records_progress_and_counts_arrive(running: Any, s3: Any) -> None:
    queries = running.server.service.queries = Scripted()
    events = list(select(s3, "records", RequestProgress={"Enabled": True}))
    records = [each["Records"]["Payload"] for each in events if "Records" in each]
    details = {"BytesScanned": 4, "BytesProcessed": 4, "BytesReturned": 1_200_004}

    assert b"".join(records) == b"a,1\n" * 300_001
    assert max(map(len, records)) <= 1 << 20
    assert events[-3:] == [
        {"Progress": {"Details": details}},
        {"Stats": {"Details": details}},
        {"End": {}},
    ]
    assert queries.ended == 1
    assert [list(each) for each in select(s3, "records")][-2:] == [["Stats"], ["End"]]


def test_errors_have_their_codes_before_and_behind_the_first_record(running: Any, s3: Any) -> None:
    running.server.service.queries = Scripted()
    with pytest.raises(ClientError) as early:
        select(s3, "refuse")
    with pytest.raises(EventStreamError) as late:
        list(select(s3, "break"))
    with pytest.raises(ClientError) as missing:
        select(s3, "records", Key="nothing")

    assert early.value.response["Error"]["Code"] == "ParseUnexpectedToken"
    assert early.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert late.value.response["Error"]["Code"] == "CastFailed"
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"
    assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == b"a,1\n"


def test_a_client_that_leaves_ends_the_query(running: Any, s3: Any) -> None:
    queries = running.server.service.queries = Scripted()
    payload = select(s3, "hang")
    next(iter(payload))
    payload.close()
    s3.close()

    async def ended() -> None:
        async with asyncio.timeout(30):
            while not queries.ended:
                await asyncio.sleep(0.01)

    asyncio.run(ended())


def test_who_may_not_read_may_not_ask(running: Any, s3: Any, connect: Callable[..., Any]) -> None:
    running.server.service.queries = Scripted()
    with pytest.raises(ClientError) as refused:
        select(connect(running.url, Key("BOBKEY", "bob-secret")), "records")

    assert refused.value.response["Error"]["Code"] == "AccessDenied"


# The request and the frames -----------------------------------------------------------------------


def document(inner: str) -> bytes:
    return f"<SelectObjectContentRequest>{inner}</SelectObjectContentRequest>".encode()


START = "<Expression>e</Expression><ExpressionType>SQL</ExpressionType>"
IN = "<InputSerialization><CSV/></InputSerialization>"
OUT = "<OutputSerialization><CSV/></OutputSerialization>"


def test_a_request_is_read_with_every_option() -> None:
    asked = read_request(
        document(
            START + "<RequestProgress><Enabled>true</Enabled></RequestProgress><InputSerialization>"
            "<CompressionType>GZIP</CompressionType><CSV><FileHeaderInfo>USE</FileHeaderInfo><Comments>%</Comments>"
            "<QuoteEscapeCharacter>\\</QuoteEscapeCharacter><RecordDelimiter>&#13;&#10;</RecordDelimiter>"
            "<FieldDelimiter>\t</FieldDelimiter><QuoteCharacter>'</QuoteCharacter>"
            "<AllowQuotedRecordDelimiter>TRUE</AllowQuotedRecordDelimiter></CSV></InputSerialization>"
            "<OutputSerialization><CSV><QuoteFields>ALWAYS</QuoteFields><FieldDelimiter> </FieldDelimiter></CSV>"
            "</OutputSerialization><ScanRange><Start>1</Start><End>9</End></ScanRange>"
        )
    )

    assert asked.progress
    assert asked.query == Query(
        expression="e",
        input=CsvInput("USE", "%", "\\", "\r\n", "\t", "'", True),
        output=CsvOutput(always_quote=True, field_delimiter=" "),
        compression="GZIP",
        start=1,
        end=9,
    )
    lines = read_request(
        document(
            START
            + "<InputSerialization><JSON><Type>Lines</Type></JSON></InputSerialization>"
            + "<OutputSerialization><JSON><RecordDelimiter>,</RecordDelimiter></JSON></OutputSerialization>"
        )
    )
    assert (lines.query.input, lines.query.output) == (JsonInput(lines=True), JsonOutput(","))
    parquet = "<InputSerialization><Parquet/></InputSerialization>"
    assert read_request(document(START + parquet + OUT)).query.input == ParquetInput()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "EmptyRequestBody"),
        (b"<", "MalformedXML"),
        (document(""), "MissingRequiredParameter"),
        (document(START + IN), "MissingRequiredParameter"),
        (document(START + "<InputSerialization/>" + OUT), "MissingRequiredParameter"),
        (document((START + IN + OUT).replace("SQL", "XPATH")), "InvalidExpressionType"),
        (
            document(START + IN.replace("<CSV/>", "<CSV/><JSON/>") + OUT),
            "ObjectSerializationConflict",
        ),
        (document(START + IN.replace("<CSV/>", "<JSON/>") + OUT), "InvalidJsonType"),
        (
            document(
                START + IN.replace("<CSV/>", "<CSV><FileHeaderInfo>X</FileHeaderInfo></CSV>") + OUT
            ),
            "InvalidFileHeaderInfo",
        ),
        (
            document(
                START + IN.replace("<CSV/>", "<CSV/><CompressionType>X</CompressionType>") + OUT
            ),
            "InvalidCompressionFormat",
        ),
        (
            document(
                START + IN.replace("<CSV/>", "<CSV><FieldDelimiter>ab</FieldDelimiter></CSV>") + OUT
            ),
            "InvalidRequestParameter",
        ),
        (
            document(START + IN + OUT.replace("<CSV/>", "<CSV><QuoteFields>X</QuoteFields></CSV>")),
            "InvalidQuoteFields",
        ),
        (document(START + IN + OUT + "<ScanRange/>"), "InvalidScanRange"),
        (
            document(START + IN + OUT + "<ScanRange><Start>9</Start><End>1</End></ScanRange>"),
            "InvalidScanRange",
        ),
        (
            document(START + IN + OUT + "<ScanRange><Start>-1</Start></ScanRange>"),
            "InvalidScanRange",
        ),
    ],
)
def test_what_is_wrong_with_a_request_has_its_code(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as refused:
        read_request(body)

    assert refused.value.code == code


@given(st.dictionaries(st.sampled_from([":a", ":b"]), st.text(max_size=50)), st.binary(max_size=99))
def test_botocore_reads_the_frames(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    for _ in range(2):
        buffer.add_data(event_stream.frame(headers, payload))
    for message in buffer:
        assert message.headers == headers
        assert message.payload == payload
