"""Two nodes: one keeps its second copy of everything on the other."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import s3_client
from warp_integration.ports import free_ports
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
HANG_S = 60.0
SIZES = (0, 100, 5000, 300_000, 9 * MIB)


class Pair:
    """Node "a" serves S3; node "b" only has a disk for it."""

    def __init__(self, folder: Path) -> None:
        from warp_core.certificates import issue, make_authority

        make_authority(folder / "authority")
        for name in "ab":
            issue(folder / "authority", name, folder / name / "data" / "tls")
        port = free_ports(1)[0]
        self.folder = folder
        (folder / "b.toml").write_text(f"""
[node]
name = "b"
[peers]
listen = "127.0.0.1:{port}"
[[export]]
name = "d0"
path = "{folder}/b/disk"
to = ["a"]
""")
        (folder / "a.toml").write_text(f"""
[node]
name = "a"
[metadata]
copies = 1
[[store]]
path = "{folder}/a/disk"
[[store]]
kind = "peer"
node = "b"
address = "127.0.0.1:{port}"
export = "d0"
deadline = "5s"
[policy.default]
redundancy = "replica:2"
[protocols.s3]
listen = "127.0.0.1:0"
""")
        self.a, self.b = (
            WarpServer(
                folder / name / "data", config=folder / f"{name}.toml", logs=folder / name / "logs"
            )
            for name in "ab"
        )


@pytest.fixture
def pair(warp_serve: None, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with ExitStack() as stack:
        stack.callback(pair.a.close)
        stack.callback(pair.b.close)
        yield pair


def body(number: int) -> bytes:
    size = SIZES[number % len(SIZES)]
    return (b"%d " % number * (size // 3 + 1))[:size]


def test_what_one_node_cannot_read_or_write_is_on_the_other(pair: Pair) -> None:
    pair.a.launch()  # waits for the other one
    time.sleep(0.5)
    pair.b.start()
    pair.a.wait_ready()
    s3 = s3_client(pair.a.s3)
    s3.create_bucket(Bucket="two")
    for number in range(20):
        s3.put_object(Bucket="two", Key=f"k{number}", Body=body(number))

    pair.b.kill()
    for number in range(20):  # what is here is read without the other
        assert s3.get_object(Bucket="two", Key=f"k{number}")["Body"].read() == body(number)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="two", Key="large", Body=bytes(MIB))
    assert refused.value.response["Error"]["Code"] in {"ServiceUnavailable", "SlowDown"}

    pair.b.start()
    deadline = time.monotonic() + HANG_S
    while True:
        try:
            s3.put_object(Bucket="two", Key="large", Body=bytes(MIB))
            break
        except ClientError:
            assert time.monotonic() < deadline, pair.a.log_tail()
            time.sleep(0.2)

    assert pair.a.terminate() == 0
    assert spoil(pair.folder / "a" / "disk", b"4 " * 4096) > 0
    pair.a.start()
    s3 = s3_client(pair.a.s3)
    for number in range(20):
        assert s3.get_object(Bucket="two", Key=f"k{number}")["Body"].read() == body(number)


def spoil(disk: Path, content: bytes) -> int:
    """Change some content wherever it lies on a disk; return in how many files."""
    spoiled = 0
    for file in disk.rglob("*"):
        if file.is_file() and content in (held := file.read_bytes()):
            file.chmod(0o600)  # who is not root may not write to a whole blob
            file.write_bytes(held.replace(content, b"?" * len(content)))
            spoiled += 1
    return spoiled


def test_a_node_without_the_right_name_is_refused(pair: Pair) -> None:
    text = (pair.folder / "b.toml").read_text()
    (pair.folder / "b.toml").write_text(text.replace('to = ["a"]', 'to = ["c"]'))
    pair.b.start()
    shown = (pair.folder / "a.toml").read_text().replace('"5s"', '"5s"\nwait = "1s"')
    (pair.folder / "a.toml").write_text(shown)

    pair.a.launch()
    deadline = time.monotonic() + HANG_S
    while pair.a.running and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not pair.a.running
    assert 'no store "d0" for node "a"' in pair.a.log()
    assert "Traceback" not in pair.a.log()
    assert "export refused" in pair.b.log()
    shutil.rmtree(pair.folder / "a", ignore_errors=True)
