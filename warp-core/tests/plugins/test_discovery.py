"""Discovery: what is installed is listed, what is broken is explained, the rest goes on."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from warp_core import __version__
from warp_core.errors import NotFound, PluginError
from warp_core.plugins import Plugins, State

GOOD = """
from warp_core.hooks import hookimpl
from warp_core.registry import Entry

@hookimpl
def warp_register_codecs(registry):
    registry.add(Entry("{name}", build=lambda config, context: None, summary="does something"))
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that lays out an installed distribution on the import path."""
    monkeypatch.setattr("stevedore._cache._c._disable_caching", True)
    monkeypatch.setattr("stevedore._cache._c._internal", {})
    monkeypatch.setattr("stevedore.ExtensionManager.ENTRY_POINT_CACHE", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(
        dist: str,
        *,
        entry: str,
        code: str | None = None,
        requires: str = "",
        module: str = "",
    ) -> None:
        module = module or dist.replace("-", "_")
        info = tmp_path / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        requirement = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {dist}\nVersion: 1.0\n{requirement}\nText\n"
        )
        (info / "entry_points.txt").write_text(f"[warp.plugins]\n{entry} = {module}\n")
        name = entry.partition(".")[2]
        body = GOOD.format(name=name) if code is None else textwrap.dedent(code)
        (tmp_path / f"{module}.py").write_text(body)

    return write


def test_listing_imports_nothing(install: Install) -> None:
    install("warp-toy", entry="codecs.toy", code="raise SystemExit('imported')")

    plugins = Plugins()

    assert "toy" in plugins.names("codecs")
    assert "warp_toy" not in sys.modules


def test_a_plugin_is_loaded_when_it_is_asked_for(install: Install) -> None:
    install("warp-toy1", entry="codecs.toy1")
    plugins = Plugins()

    entry = plugins.registries["codecs"].get("toy1")

    assert entry.summary == "does something"
    assert plugins.load("codecs", "toy1").state is State.LOADED
    assert plugins.registries["codecs"].owner("toy1") == "warp-toy1 1.0"


BROKEN = {
    "missing_module": ("import warp_nowhere_at_all", "needs the module warp_nowhere_at_all"),
    "import_error": ("from json import nothing_there", "cannot be imported"),
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "asserts": ("assert False, 'boom'", "AssertionError: boom"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "registers_nothing": ("x = 1", "but registers nothing"),
    "unknown_hook": (
        """
        from warp_core.hooks import hookimpl
        @hookimpl
        def warp_register_teapots(registry): ...
        """,
        "written for another release",
    ),
    "wrong_signature": (
        """
        from warp_core.hooks import hookimpl
        @hookimpl
        def warp_register_codecs(registry, extra): ...
        """,
        "written for another release",
    ),
    "hook_raises": (
        """
        from warp_core.hooks import hookimpl
        @hookimpl
        def warp_register_codecs(registry): raise ValueError("no")
        """,
        "ValueError: no",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_explained_and_the_rest_goes_on(install: Install, how: str) -> None:
    code, reason = BROKEN[how]
    install(f"warp-{how}", entry=f"codecs.{how}", code=code)
    install(f"warp-beside-{how}", entry=f"codecs.beside_{how}")
    plugins = Plugins()

    status = plugins.load("codecs", how)

    assert status.state is State.FAILED
    assert reason in status.reason
    assert f"warp-{how} 1.0" in status.reason
    assert "\n" not in status.reason.strip()
    assert plugins.registries["codecs"].get(f"beside_{how}").name == f"beside_{how}"
    with pytest.raises(PluginError, match=f'codecs "{how}" cannot be used'):
        plugins.registries["codecs"].get(how)


def test_an_import_that_hangs_is_interrupted(install: Install) -> None:
    install(
        "warp-slow",
        entry="codecs.slow",
        code="""
        import time
        try:
            time.sleep(60)
        except Exception:
            time.sleep(60)
        """,
    )
    plugins = Plugins(limit_s=0.2)

    status = plugins.load("codecs", "slow")

    assert status.state is State.FAILED
    assert "took more than 0.2 s" in status.reason


@pytest.mark.parametrize(
    "requires", ["warp-core>=2099", "warp_core (==1.0)", "warp-core~=2025.1.0"]
)
def test_a_plugin_for_another_core_is_refused_before_it_is_imported(
    install: Install, requires: str
) -> None:
    module = f"warp_old{abs(hash(requires))}"
    install("warp-old", entry="codecs.old", requires=requires, module=module)

    status = Plugins().load("codecs", "old")

    assert status.state is State.FAILED
    assert f"installed is {__version__}" in status.reason
    assert module not in sys.modules


@pytest.mark.parametrize(
    "requires", ["warp-core", f"warp-core=={__version__}", "warp-core>=2026.1,<2027"]
)
def test_a_plugin_for_this_core_is_loaded(install: Install, requires: str) -> None:
    install("warp-fit", entry="codecs.fit", requires=requires)

    assert Plugins().load("codecs", "fit").state is State.LOADED


def test_two_owners_of_a_name_are_both_named_and_neither_is_used(install: Install) -> None:
    install("warp-one", entry="codecs.same", code=GOOD.format(name="same"))
    install("warp-two", entry="codecs.same", code=GOOD.format(name="same"))

    with pytest.raises(PluginError, match=r"offered by warp-one 1\.0 and warp-two 1\.0: uninstall"):
        Plugins().registries["codecs"].get("same")


def test_a_plugin_that_takes_anothers_name_in_its_hook_is_refused(install: Install) -> None:
    install("warp-aa", entry="codecs.aa")
    install("warp-bb", entry="codecs.bb", code=GOOD.format(name="aa"))
    plugins = Plugins()
    plugins.load("codecs", "aa")

    status = plugins.load("codecs", "bb")

    assert "warp-aa 1.0" in status.reason
    assert "warp-bb 1.0" in status.reason
    assert plugins.registries["codecs"].get("aa").name == "aa"


def test_an_unknown_kind_is_reported(install: Install) -> None:
    install("warp-tea", entry="teapots.oolong")

    (status,) = [each for each in Plugins().status() if each.found.kind == "teapots"]
    assert status.state is State.FAILED
    assert "upgrade warp-core" in status.reason


def test_an_unknown_name_lists_what_is_installed_and_guesses(install: Install) -> None:
    install("warp-toy2", entry="codecs.toy2")

    with pytest.raises(NotFound, match=r'no codecs plugin "toi2" .*did you mean "toy2"'):
        Plugins().registries["codecs"].get("toi2")


def test_one_module_may_stand_behind_several_names(install: Install) -> None:
    install(
        "warp-pair",
        entry="codecs.left = warp_pair\ncodecs.right",
        code=GOOD.format(name="left") + '    registry.add(Entry("right", build=lambda *_: None))\n',
    )
    plugins = Plugins()

    assert plugins.load("codecs", "right").state is State.LOADED
    assert plugins.load("codecs", "left").state is State.LOADED


def test_the_version_is_the_packages() -> None:
    path = Path(__file__).parents[2] / "pyproject.toml"

    assert tomllib.loads(path.read_text())["project"]["version"] == __version__
