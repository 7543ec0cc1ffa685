"""Answers whose content begins to be read before their head is sent.

What lies in a bucket elsewhere may be out of reach. Then an error is the answer, instead of a head that promises what does not come.
"""

import msgspec
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import Reader

from warp_s3.call import Answer
from warp_s3.sending import PIECE


class Begun(Reader):
    """Reads on behind a first piece that is in memory."""

    def __init__(self, reader: Reader, offset: int, first: Buffer) -> None:
        self.info = reader.info
        self._reader = reader
        self._offset = offset
        self._first = first

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """See `Reader.read_now`."""
        if offset == self._offset and self._first:
            first, self._first = self._first, b""
            if len(first) >= length:
                return memoryview(first)[:length]
        return self._reader.read_now(offset, length)

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Reader.read`."""
        return await self._reader.read(offset, length)

    def close(self) -> None:
        """See `Reader.close`."""
        self._reader.close()


async def begun(answer: Answer) -> Answer:
    """Return an answer of which the first piece was read.

    Raises:
        What `Reader.read` raises; the reader is closed then.
    """
    reader = answer.reader
    if reader is None or not answer.length:
        return answer
    try:
        first = await reader.read(answer.offset, min(PIECE, answer.length))
    except BaseException:
        reader.close()
        raise
    return msgspec.structs.replace(answer, reader=Begun(reader, answer.offset, first))
