"""One copy of the index by itself."""

import threading

import pytest
from warp_core.containers.segments import START, Position
from warp_core.errors import StoreFailed
from warp_local.index import Index

MIB = 1024 * 1024
ROWS = [(b"k%06d" % number, 1, b"v" * 100) for number in range(50_000)]


@pytest.fixture
def index(tmp_path):
    made = Index(tmp_path / "meta", 64 * MIB)
    made.open()
    made.begin(b"lineage")
    yield made
    made.close()


def test_closing_waits_for_a_write_of_another_thread(index):
    started = threading.Event()

    class Rows(list):
        def __getitem__(self, at):
            started.set()
            return super().__getitem__(at)

    writer = threading.Thread(target=index.apply, args=(Rows(ROWS), [], 1, Position(*START)))
    writer.start()
    started.wait(10)

    index.close()

    writer.join(10)
    assert not writer.is_alive()
    assert index.state.version == 1
    again = Index(index.folder, 64 * MIB)
    again.open()
    assert again.state.version == 1
    assert again.get(ROWS[-1][0]) == (b"v" * 100, 1)
    again.close()


def test_a_closed_index_refuses_to_be_written(index):
    index.close()

    with pytest.raises(StoreFailed, match="is closed"):
        index.apply(ROWS[:1], [], 1, Position(*START))
