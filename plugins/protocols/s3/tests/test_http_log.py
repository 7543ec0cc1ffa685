"""Lines of the HTTP log, and the file that they go to."""

import re
from pathlib import Path

import pytest
from warp_s3.http import parse_head
from warp_s3.http_log import LINES_MAX, HttpLog, line

NOON = 1_791_028_800
COMBINED = re.compile(r'(\S+) - (\S+) \[(.+?)\] "(.*?)" (\d{3}) (\d+|-) "(.*?)" "(.*?)"\n')


def told(head: bytes, *, status: int = 200, sent: int | None = 7) -> tuple[str, ...]:
    text = line(parse_head(head), client="10.0.0.1", second=NOON, status=status, sent=sent)
    match = COMBINED.fullmatch(text)
    assert match, text
    return match.groups()


def test_a_line_is_in_the_combined_format() -> None:
    head = (
        b"GET /bucket/a%20key?partNumber=1 HTTP/1.1\r\nHost: h\r\nReferer: http://r/\r\n"
        b"User-Agent: aws-cli/2\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIA1/20261003/x/s3/aws4_request, "
        b"SignedHeaders=host, Signature=00"
    )
    assert told(head) == (
        "10.0.0.1",
        "AKIA1",
        "03/Oct/2026:12:00:00 +0000",
        "GET /bucket/a%20key?partNumber=1 HTTP/1.1",
        "200",
        "7",
        "http://r/",
        "aws-cli/2",
    )


@pytest.mark.parametrize(
    ("query", "user", "kept"),
    [
        (
            b"X-Amz-Credential=AKIA2%2F2026%2Fx&X-Amz-Signature=beef&x-amz-security-token=cafe&z=1",
            "AKIA2",
            "X-Amz-Credential=AKIA2%2F2026%2Fx&X-Amz-Signature=-&x-amz-security-token=-&z=1",
        ),
        (
            b"AWSAccessKeyId=AKIA3&Expires=1&Signature=beef%3D",
            "AKIA3",
            "AWSAccessKeyId=AKIA3&Expires=1&Signature=-",
        ),
        (b"prefix=Signature", "-", "prefix=Signature"),
    ],
)
def test_secrets_of_queries_are_left_out(query: bytes, user: str, kept: str) -> None:
    found = told(b"GET /b?" + query + b" HTTP/1.1\r\nHost: h")

    assert (found[1], found[3]) == (user, f"GET /b?{kept} HTTP/1.1")


def test_what_a_client_writes_stays_within_its_field() -> None:
    head = b'GET /b HTTP/1.1\r\nHost: h\r\nUser-Agent: a" 200 1 "\\x"'
    text = line(parse_head(head), client="", second=NOON, status=403, sent=None)

    assert text.endswith(r'403 - "-" "a\x22 200 1 \x22\x5cx\x22"' + "\n")
    assert line(None, client="1.2.3.4", second=NOON, status=400, sent=3).endswith(
        '"-" 400 3 "-" "-"\n'
    )


def test_a_file_that_was_renamed_is_begun_anew(tmp_path: Path) -> None:
    log = HttpLog(tmp_path / "log")
    for status in (200, 201):
        log.write(None, client="", second=NOON, status=status, sent=0)
        log.flush()
        if status == 200:
            (tmp_path / "log").rename(tmp_path / "log.1")
    log.close()

    assert " 200 " in (tmp_path / "log.1").read_text()
    assert " 201 " in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_lines_that_cannot_be_written_are_bounded_and_stop_nothing(tmp_path: Path) -> None:
    log = HttpLog(tmp_path / "missing" / "log")
    for _ in range(LINES_MAX + 10):
        log.write(None, client="", second=NOON, status=200, sent=0)
    log.flush()
    (tmp_path / "missing").mkdir()
    log.write(None, client="", second=NOON, status=201, sent=0)
    log.close()

    assert (tmp_path / "missing" / "log").read_text().count("\n") == 1
