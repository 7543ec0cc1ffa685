"""Every request as a line of a file, in the format that log analysers know: Apache's "combined".

    127.0.0.1 - AKIA… [10/Oct/2026:13:55:36 +0000] "GET /bucket/key?partNumber=1 HTTP/1.1" 200 2326 "-" "aws-cli/2.0"

The user is the access key that the request names, before it is known whether it is right; bytes are those of the answer's body, `-`
where their number was not known when it began. Signatures and session tokens in queries are left out. A file that was renamed or
removed (logrotate) is begun anew.
"""

import os
import re
from pathlib import Path
from time import gmtime, strftime
from typing import Final

from warp_core import logs

from warp_s3.http import Request

LINES_MAX: Final = 50_000
"""Lines that wait for the next flush, a few MiB; more are dropped and counted."""

_UNSAFE: Final = re.compile(r'[\x00-\x1f"\\\x7f]')
_SECRET: Final = re.compile(
    r"(?i)((?:^|&)(?:x-amz-signature|x-amz-security-token|signature)=)[^&]*"
)
_KEY: Final = re.compile(
    r"Credential=([^/,\s]{1,128})/|^AWS ([^:\s]{1,128}):"
    r"|(?:^|&)(?:X-Amz-Credential=([^%/&]{1,128})|AWSAccessKeyId=([^&]{1,128}))"
)

_log = logs.get("warp_s3")


class HttpLog:
    """Lines of this server's requests, on their way to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._dropped = 0
        self._failing = False
        self._descriptor = -1
        self._inode = 0

    def write(
        self, request: Request | None, *, client: str, second: int, status: int, sent: int | None
    ) -> None:
        """Take a request that is being answered; without `request` what came could not be read."""
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
            return
        self._lines.append(line(request, client=client, second=second, status=status, sent=sent))

    def flush(self) -> None:
        """Write the lines that wait to the file."""
        if not self._lines:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        try:
            self._reopen()
            os.write(self._descriptor, data)
        except OSError as error:  # a full disk: requests go on without their lines
            if not self._failing:
                _log.error("the HTTP log is not written", file=str(self._path), error=str(error))
            self._failing = True
            return
        if self._dropped:
            _log.warning("lines of the HTTP log were dropped", count=self._dropped)
        self._failing, self._dropped = False, 0

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _reopen(self) -> None:
        if self._descriptor >= 0:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return
            except FileNotFoundError:
                pass
            os.close(self._descriptor)
            self._descriptor = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._inode = os.fstat(self._descriptor).st_ino


def line(
    request: Request | None, *, client: str, second: int, status: int, sent: int | None
) -> str:
    """Write a line, with its line feed."""
    moment = strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(second))
    size = "-" if sent is None else str(sent)
    if request is None:
        return f'{client or "-"} - - [{moment}] "-" {status} {size} "-" "-"\n'
    headers = request.headers
    path = request.path
    if request.query:
        path += "?" + _SECRET.sub(r"\1-", request.query)
    found = _KEY.search(headers.get("authorization", "")) or _KEY.search(request.query)
    user = next((group for group in found.groups() if group), "-") if found else "-"
    asked = f'"{request.method} {_plain(path)} HTTP/1.1"'
    about = [_plain(headers.get(name, "")) or "-" for name in ("referer", "user-agent")]
    who = f"{client or '-'} - {_plain(user)} [{moment}]"
    return f'{who} {asked} {status} {size} "{about[0]}" "{about[1]}"\n'


def _plain(text: str) -> str:
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
