"""The documentation is complete and its links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from warp_core import hooks

ROOT = Path(__file__).resolve().parent.parent
SKIP = {".venv", ".tox", ".ci-venv", "node_modules", "build", "dist"}
PAGES = [p for p in sorted(ROOT.rglob("*.md")) if not SKIP & set(p.parts)]
PLUGINS = sorted(p.parent for p in ROOT.glob("plugins/*/*/pyproject.toml"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def project(folder: Path) -> dict[str, object]:
    with (folder / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    targets = [
        t for t in LINK.findall(page.read_text()) if "://" not in t and not t.startswith("#")
    ]
    missing = [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]

    assert not missing


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_is_documented_and_tested(folder: Path) -> None:
    name = str(project(folder)["name"])
    readme = (folder / "README.md").read_text()

    assert name in readme
    assert len(readme.split()) > 60, "say what it serves, how to try it, its limits"
    assert list(folder.glob("tests/test_conformance*.py")), "a plugin adopts its kit"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_is_installed_by_default_or_is_an_extra(folder: Path) -> None:
    name = str(project(folder)["name"])
    meta = project(ROOT)
    extras = meta.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    offered = [*meta["dependencies"], *(d for group in extras.values() for d in group)]  # type: ignore[misc]

    assert any(str(d).startswith(f"{name}==") for d in offered)


def test_every_hook_has_its_place_in_the_hooks_page() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    names = [name for name in vars(hooks) if name.startswith("warp_")]

    assert names
    assert not [name for name in names if name not in page]


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [
        p
        for folder in ("decisions", "formats", "guides")
        for p in (ROOT / "docs" / folder).glob("*.md")
    ]

    assert pages
    assert not [str(p.relative_to(ROOT)) for p in pages if f"{p.parent.name}/{p.name}" not in index]
