"""The report behind `warp conformance`, and the same from pytest's command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from warp_conformance.report import Report, check

pytestmark = pytest.mark.workspace


def test_a_plugin_that_passes_is_reported(tmp_path: Path) -> None:
    seen: list[str] = []
    report = check(
        ["fixed"], junit=tmp_path / "junit.xml", on_result=lambda result: seen.append(result.test)
    )

    assert report.passed
    assert report.counts()["passed"] == len(seen) - report.counts().get("skipped", 0)
    assert "TestFixedChunker" in (tmp_path / "junit.xml").read_text()


def test_a_report_is_json() -> None:
    report = check(["codecs/zstd"], keyword="bomb")
    told = json.loads(report.to_json())

    assert told["passed"] is True
    assert told["counts"] == {"passed": 1}
    assert msgspec.convert(told["results"], list[dict[str, object]])[0]["kit"] == "TestZstdFilter"


def test_an_unknown_plugin_is_an_error_that_lists_the_installed() -> None:
    report = check(["lz77"])

    assert not report.passed
    assert "lz77" in report.error
    assert "codecs.zstd" in report.error


def test_a_run_without_tests_does_not_pass() -> None:
    assert not check(["zstd"], keyword="nothing_of_that_name").passed
    assert not Report(plugins=("x",), results=()).passed


def test_pytest_checks_an_installed_plugin_from_anywhere(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--pyargs",
        "warp_conformance",
    ]
    done = subprocess.run(
        [*command, "--warp-plugin", "warp-fixed"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
