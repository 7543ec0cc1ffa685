from __future__ import annotations

import pytest
from warp_integration import requirements


def test_a_missing_program_skips_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "locate", lambda program: None)

    with pytest.raises(pytest.skip.Exception, match=r"aws \(package awscli\)"):
        requirements.require("aws")


def test_a_program_without_a_line_in_the_list_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "locate", lambda program: None)

    with pytest.raises(LookupError, match=r"no line in packages\.txt"):
        requirements.require("frobnicate")


def test_what_is_installed_is_required_in_silence() -> None:
    try:
        requirements.require("python")
    except pytest.skip.Exception as skipped:  # would pass for a test that needs something
        pytest.fail(str(skipped))


def test_without_root_the_reason_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(pytest.skip.Exception, match="needs root"):
        requirements.require_power_cuts()


def test_root_that_may_not_mount_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_may_mount", lambda: False)
    monkeypatch.setattr(requirements, "require", lambda *programs: None)

    with pytest.raises(pytest.skip.Exception, match="CAP_SYS_ADMIN"):
        requirements.require_power_cuts()


def test_a_missing_module_skips_and_names_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"no_such_module \(PyPI: no-such\[extra\]\)"):
        requirements.require_modules(no_such_module="no-such[extra]", pytest="pytest")
