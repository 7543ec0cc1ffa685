"""Forms as browsers send them: multipart/form-data, taken apart as it arrives. Pure.

    --boundary CR LF  Content-Disposition: form-data; name="key" CR LF CR LF  value
    CR LF --boundary  ... name="file"; filename="a.txt" ...  content  CR LF --boundary-- CR LF

Fields stand before the file; what comes behind it is ignored, as S3 does.

Source: RFC 7578, and "POST Object" in the Amazon S3 API reference.
"""

import re
from typing import Final

from warp_s3.errors import S3Error

FIELDS_MAX: Final = 20 * 1024
"""Bytes of everything before the file's content; S3's own figure."""

BEHIND_MAX: Final = 64 * 1024
"""Bytes behind the file that are read and ignored."""

_BOUNDARY: Final = re.compile(
    r'multipart/form-data\s*;.*?boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_PARAMETER: Final = re.compile(r';\s*(name|filename)="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type header says.

    Raises:
        S3Error: `PreconditionFailed`, as S3 answers other bodies.
    """
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise S3Error(
            "PreconditionFailed",
            "Bucket POST must be of the enclosure-type multipart/form-data",
            details={"Condition": "Bucket POST must be of the enclosure-type multipart/form-data"},
        )
    return (match[1] or match[2]).encode("latin-1")


class Form:
    """A form on its way in.

    Attributes:
        fields: Values by name in lower case, complete when `in_file`.
        filename: What the file is called by the browser.
        in_file: The file's content has begun.
        done: The file's content has ended.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._waiting = bytearray(b"\r\n")  # so that the first delimiter looks like the others
        self._name: str | None = None  # of the field whose value comes
        self._began = False
        self._before = self._behind = (
            0  # bytes before the file's content that were read, and behind it
        )
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.in_file = False
        self.done = False

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes; return what they tell of the file's content.

        Raises:
            S3Error: `MalformedPOSTRequest`, `MaxPostPreDataLengthExceeded`.
        """
        if self.done:
            self._behind += len(data)
            if self._behind > BEHIND_MAX:
                raise S3Error("MalformedPOSTRequest")
            return b""
        self._waiting += data
        while not self.in_file and self._field():
            pass
        if self.in_file:
            return self._content()
        if self._before + len(self._waiting) > FIELDS_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")
        return b""

    def _field(self) -> bool:
        """Read one delimiter with the head behind it, and the value before; False if more has to come."""
        waiting = self._waiting
        at = waiting.find(self._delimiter)
        if at < 0:
            return False
        if not self._began and at:
            raise S3Error("MalformedPOSTRequest")
        begin = at + len(self._delimiter)
        if len(waiting) < begin + 2:
            return False
        if waiting[begin : begin + 2] == b"--":
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.")
        if waiting[begin : begin + 2] != b"\r\n":
            raise S3Error("MalformedPOSTRequest")
        end = waiting.find(b"\r\n\r\n", begin)
        if end < 0:
            return False
        self._keep(bytes(waiting[:at]))
        self._head(bytes(waiting[begin:end]))
        del waiting[: end + 4]
        self._before += end + 4
        if self._before > FIELDS_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")
        return True

    def _keep(self, value: bytes) -> None:
        if self._name is None:
            return
        try:
            self.fields.setdefault(self._name, value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise S3Error("MalformedPOSTRequest") from error

    def _head(self, head: bytes) -> None:
        self._began = True
        lines = head.decode("utf-8", "replace").split("\r\n")
        disposition = next(
            (line for line in lines if line.lower().startswith("content-disposition:")), ""
        )
        said = {match[1].lower(): _unquoted(match[2]) for match in _PARAMETER.finditer(disposition)}
        if "name" not in said:
            raise S3Error("MalformedPOSTRequest")
        name = said["name"].lower()
        if name == "file":
            self._name = None
            self.in_file = True
            # Some browsers send the whole path of their machine.
            self.filename = re.split(r"[/\\]", said.get("filename", ""))[-1]
        else:
            self._name = name

    def _content(self) -> bytes:
        waiting = self._waiting
        at = waiting.find(self._delimiter)
        if at >= 0:
            self.done = True
            content = bytes(waiting[:at])
            self._behind = len(waiting) - at
            waiting.clear()
            return content
        # The last bytes may be the begin of a delimiter.
        keep = len(self._delimiter) - 1
        if len(waiting) <= keep:
            return b""
        content = bytes(waiting[:-keep])
        del waiting[:-keep]
        return content


def _unquoted(text: str) -> str:
    """Read a quoted parameter: browsers escape quotes by `%22`, others by a backslash, which paths of Windows contain, too."""
    return text.replace('\\"', '"').replace("%22", '"')
