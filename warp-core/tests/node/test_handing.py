"""What a node is handed that joins."""

from __future__ import annotations

import pytest
from warp_core.cluster.joining import Handed
from warp_core.errors import InvalidArgument
from warp_core.node.handing import FILE_MAX, FILES_MAX, take


def test_what_was_handed_over_lies_in_the_data_folder_and_is_secret(tmp_path):
    take(tmp_path, Handed({"wrap.key": b"1" * 32, "tls/authority/ca.key": b"pem"}))

    assert (tmp_path / "wrap.key").read_bytes() == b"1" * 32
    assert (tmp_path / "tls/authority/ca.key").read_bytes() == b"pem"
    assert (tmp_path / "wrap.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "files",
    [
        {"../root.key": b"x"},
        {"/etc/passwd": b"x"},
        {"a/../../b": b"x"},
        {"": b"x"},
        {"a\0b": b"x"},
        {"large": bytes(FILE_MAX + 1)},
        {str(number): b"x" for number in range(FILES_MAX + 1)},
    ],
)
def test_nothing_is_written_anywhere_else(tmp_path, files):
    folder = tmp_path / "data"
    folder.mkdir()

    with pytest.raises(InvalidArgument):
        take(folder, Handed({"first": b"x", **files}))

    assert [path.name for path in tmp_path.rglob("*")] == ["data"]
