"""SelectObjectContent: a query about one object, answered by the service that is installed for it."""

import time
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast
from xml.etree.ElementTree import Element

import msgspec
from warp_core import logs
from warp_core.errors import WarpError
from warp_core.interfaces.queries import (
    CsvInput,
    CsvOutput,
    JsonInput,
    JsonOutput,
    ParquetInput,
    Progress,
    Query,
    QueryRefused,
)
from warp_core.views.objects import Reader

from warp_s3 import event_stream
from warp_s3.call import Answer, Call
from warp_s3.errors import S3Error, from_core
from warp_s3.operations.objects import open_object
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

PROGRESS_S: Final = 1.0
"""Between two frames about progress, or, without any other news, that the query goes on."""

SCAN_MAX: Final = 2**63 - 1

_log = logs.get("warp_s3")


class SelectError(S3Error):
    """One of the many codes that only this operation has."""

    def __init__(self, code: str, message: str) -> None:
        Exception.__init__(self, code, message)
        self.code = code
        self.status = {"Busy": 503, "InternalError": 500}.get(code, 400)
        self.message = message
        self.details: Mapping[str, str] = {}
        self.headers: Mapping[str, str] = {}
        self.closes = False


class Asked(msgspec.Struct, frozen=True):
    """What the request says."""

    query: Query
    progress: bool


async def select_object(service: "Service", call: Call) -> Answer:
    """Answer with the frames of a query's result; what is wrong before the first is an answer of its own."""
    if service.queries is None:
        raise S3Error(
            "NotImplemented",
            "SelectObjectContent is answered by the plugin warp-select, which is not installed here: "
            "pip install warp-select",
        )
    if call.query.get("select-type") != "2":
        raise S3Error("InvalidArgument", "select-type has to be 2.")
    asked = read_request(await read_document(call))
    reader = await open_object(service, call)
    try:
        answers = service.queries.run(asked.query, reader, reader.info.size)
        first = await anext(answers)
    except QueryRefused as error:
        reader.close()
        raise SelectError(error.code, str(error)) from error
    except BaseException:
        reader.close()
        raise
    return Answer(
        200,
        [("Content-Type", "application/vnd.amazon.eventstream")],
        stream=_frames(answers, first, reader, asked.progress),
    )


async def _frames(
    answers: AsyncGenerator[bytes | Progress, None],
    first: bytes | Progress,
    reader: Reader,
    tells: bool,
) -> AsyncGenerator[bytes, None]:
    """Give the frames of an answer; closing it ends the query."""
    item: bytes | Progress | None = first
    progress, returned, told = Progress(), 0, time.monotonic()
    try:
        while item is not None:
            if isinstance(item, Progress):
                progress = item
            else:
                for at in range(0, len(item), event_stream.PAYLOAD_MAX):
                    piece = item[at : at + event_stream.PAYLOAD_MAX]
                    returned += len(piece)
                    yield event_stream.records(piece)
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                yield (
                    _counts("Progress", progress, returned) if tells else event_stream.CONTINUATION
                )
            else:
                yield b""  # so that whoever sends notices a client that is gone
            item = await anext(answers, None)
        if tells:
            yield _counts("Progress", progress, returned)
        yield _counts("Stats", progress, returned)
        yield event_stream.END
    except QueryRefused as error:
        yield event_stream.error(error.code, str(error))
    except WarpError as error:
        _log.exception("query failed", error)
        told_error = from_core(error)
        yield event_stream.error(told_error.code, told_error.message)
    finally:
        await answers.aclose()
        reader.close()


def _counts(kind: str, progress: Progress, returned: int) -> bytes:
    return event_stream.counts(
        kind, scanned=progress.scanned, processed=progress.processed, returned=returned
    )


# The request --------------------------------------------------------------------------------------


def read_request(body: bytes) -> Asked:
    """Read a SelectObjectContentRequest.

    Raises:
        S3Error: It is not one, or asks for what there is not.
    """
    if not body:
        raise SelectError("EmptyRequestBody", "The request has no body.")
    document = parse(body, "SelectObjectContentRequest")
    expression, kind = document.findtext("Expression"), document.findtext("ExpressionType")
    source, target = document.find("InputSerialization"), document.find("OutputSerialization")
    if not expression or kind is None or source is None or target is None:
        raise SelectError(
            "MissingRequiredParameter",
            "Expression, ExpressionType, InputSerialization and OutputSerialization are needed.",
        )
    if kind.strip() != "SQL":
        raise SelectError("InvalidExpressionType", "The ExpressionType has to be SQL.")
    compression = _choice(
        source, "CompressionType", ("NONE", "GZIP", "BZIP2"), "InvalidCompressionFormat"
    )
    start, end = _scan_range(document.find("ScanRange"))
    query = Query(
        expression=expression,
        input=_input(source),
        output=_output(target),
        compression=cast("Literal['NONE', 'GZIP', 'BZIP2']", compression),
        start=start,
        end=end,
    )
    told = document.findtext("RequestProgress/Enabled", "false").strip().lower() == "true"
    return Asked(query, told)


def _one_of(element: Element, names: tuple[str, ...]) -> Element:
    found = [child for child in element if child.tag in names]
    if len(found) > 1:
        raise SelectError("ObjectSerializationConflict", f"{element.tag} names several formats.")
    if not found:
        raise SelectError("MissingRequiredParameter", f"{element.tag} names no format.")
    return found[0]


def _input(element: Element) -> CsvInput | JsonInput | ParquetInput:
    chosen = _one_of(element, ("CSV", "JSON", "Parquet"))
    if chosen.tag == "Parquet":
        return ParquetInput()
    if chosen.tag == "JSON":
        kind = _choice(chosen, "Type", ("DOCUMENT", "LINES"), "InvalidJsonType", default="")
        if not kind:
            raise SelectError("InvalidJsonType", "The JSON type has to be DOCUMENT or LINES.")
        return JsonInput(lines=kind == "LINES")
    header = _choice(chosen, "FileHeaderInfo", ("NONE", "USE", "IGNORE"), "InvalidFileHeaderInfo")
    quoted = _flag(chosen, "AllowQuotedRecordDelimiter")
    return CsvInput(
        header=cast("Literal['NONE', 'USE', 'IGNORE']", header),
        comments=_characters(chosen, "Comments", "#", 1),
        quote_escape=_characters(chosen, "QuoteEscapeCharacter", '"', 1),
        record_delimiter=_characters(chosen, "RecordDelimiter", "\n", 2),
        field_delimiter=_characters(chosen, "FieldDelimiter", ",", 1),
        quote=_characters(chosen, "QuoteCharacter", '"', 1, may_be_empty=True),
        quoted_delimiters=quoted,
    )


def _output(element: Element) -> CsvOutput | JsonOutput:
    chosen = _one_of(element, ("CSV", "JSON"))
    if chosen.tag == "JSON":
        return JsonOutput(record_delimiter=_characters(chosen, "RecordDelimiter", "\n", 2))
    quoting = _choice(
        chosen, "QuoteFields", ("ASNEEDED", "ALWAYS"), "InvalidQuoteFields", default="ASNEEDED"
    )
    return CsvOutput(
        always_quote=quoting == "ALWAYS",
        quote_escape=_characters(chosen, "QuoteEscapeCharacter", '"', 1),
        record_delimiter=_characters(chosen, "RecordDelimiter", "\n", 2),
        field_delimiter=_characters(chosen, "FieldDelimiter", ",", 1),
        quote=_characters(chosen, "QuoteCharacter", '"', 1, may_be_empty=True),
    )


_CHOICES: Final = MappingProxyType(
    {
        "InvalidCompressionFormat": "The CompressionType",
        "InvalidFileHeaderInfo": "The FileHeaderInfo",
        "InvalidJsonType": "The JSON type",
        "InvalidQuoteFields": "QuoteFields",
    }
)


def _choice(
    element: Element, name: str, allowed: tuple[str, ...], code: str, *, default: str = "NONE"
) -> str:
    found = element.findtext(name, default).strip().upper() or default
    if found not in allowed and found != default:
        raise SelectError(code, f"{_CHOICES[code]} has to be {' or '.join(allowed)}.")
    return found


def _flag(element: Element, name: str) -> bool:
    found = element.findtext(name, "false").strip().lower()
    if found not in {"", "true", "false"}:
        raise SelectError("InvalidRequestParameter", f"{name} has to be true or false.")
    return found == "true"


def _characters(
    element: Element, name: str, default: str, length_max: int, *, may_be_empty: bool = False
) -> str:
    """Return delimiters as they are: spaces and line ends mean themselves."""
    found = element.find(name)
    if found is None:
        return default
    text = found.text or ""
    if len(text) > length_max:
        wanted = "one character" if length_max == 1 else f"{length_max} characters at most"
        raise SelectError("InvalidRequestParameter", f"{name} has to be {wanted}.")
    return text if text or may_be_empty else default


def _scan_range(element: Element | None) -> tuple[int | None, int | None]:
    if element is None:
        return None, None
    start, end = _count(element, "Start"), _count(element, "End")
    if (start is None and end is None) or (start is not None and end is not None and start > end):
        raise SelectError(
            "InvalidScanRange", "The scan range needs a start, an end, or both in order."
        )
    return start, end


def _count(element: Element, name: str) -> int | None:
    text = (element.findtext(name) or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) > SCAN_MAX:
        raise SelectError("InvalidScanRange", f"{name} of the scan range has to be a number.")
    return int(text)


HANDLERS: Final = MappingProxyType({"SelectObjectContent": select_object})
