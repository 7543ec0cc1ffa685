"""Certificates from the command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from warp_core.contexts import TransportContext
from warp_core.metrics import Metrics
from warp_tcp.__main__ import main
from warp_tcp.config import Config
from warp_tcp.transport import Tcp


async def test_what_it_makes_opens_the_transport(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["authority", str(tmp_path / "ca")]) == 0
    assert main(["issue", str(tmp_path / "ca"), "a", str(tmp_path / "data" / "tls")]) == 0

    assert "certificate of node a" in capsys.readouterr().out
    assert stat.S_IMODE((tmp_path / "data" / "tls" / "node.key").stat().st_mode) == 0o600
    async with Tcp(Config(), TransportContext("a", tmp_path / "data", Metrics())):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["issue", "gone", "a", "out"], "No such file"),
        (["issue", "ca", "a b", "out"], "no spaces"),
        (["authority", "ca"], "holds an authority already"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["authority", "ca"])

    assert main(words) == 1

    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
