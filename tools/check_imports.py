"""Check the direction of imports: inwards only, and no I/O in pure modules.

Rules (docs/architecture.md): core imports no other package of ours; a plugin imports core and itself; `wire` and `session` modules
do no I/O and know no clock; inside core, `namespace` does not import `views`, and `interfaces` imports nothing above it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PURE_FORBIDDEN = {
    "asyncio",
    "socket",
    "ssl",
    "time",
    "random",
    "threading",
    "selectors",
    "subprocess",
}
# What each package may import of ours, besides itself.
ALLOWED = {
    "warp_core": set[str](),
    "warp_cli": {"warp_core", "warp_conformance"},  # the kits where they are installed
    "warp_conformance": {"warp_core"},
}
# Inside core: a layer may import those below it, never one above.
# Views are contracts, which the namespace implements.
LAYERS = [
    "interfaces",
    "peers",
    "views",
    "metadata",
    "containers",
    "namespace",
    "forward",
    "cluster",
    "node",
]


def packages() -> Iterator[tuple[str, Path]]:
    """Yield the import name and source folder of each package of the workspace."""
    for source in sorted(ROOT.glob("**/src")):
        if {".venv", ".tox", "templates"} & set(source.parts):
            continue
        for package in sorted(source.iterdir()):
            if (package / "__init__.py").exists():
                yield package.name, package


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports at run time."""
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module


def faults(name: str, folder: Path, ours: set[str]) -> Iterator[str]:
    """Yield one line for each import of a package that breaks a rule."""
    allowed = ours if name == "warp_integration" else ALLOWED.get(name, {"warp_core"})
    for path in sorted(folder.rglob("*.py")):
        module = path.relative_to(folder).with_suffix("")
        if "templates" in module.parts:  # of new plugins: packages of their own
            continue
        pure = path.stem in {"wire", "session"}
        for line, target in imported(ast.parse(path.read_text())):
            top = target.partition(".")[0]
            where = f"{path.relative_to(ROOT)}:{line}"
            if top in ours and top != name and top not in allowed:
                yield f"{where}: {name} must not import {top}"
            if pure and top in PURE_FORBIDDEN and name != "warp_core":
                yield f"{where}: a {path.stem} module does no I/O and knows no clock, so it must not import {top}"
            parts = target.split(".")
            if name == "warp_core" and top == name and len(parts) > 1:
                here, there = module.parts[0], parts[1]
                if here in LAYERS and there in LAYERS and LAYERS.index(there) > LAYERS.index(here):
                    yield f"{where}: {here} lies below {there} and must not import it"


def main() -> int:
    """Print every fault; exit 1 if there is one."""
    found = list(packages())
    ours = {name for name, _ in found}
    lines = [line for name, folder in found for line in faults(name, folder, ours)]
    print("\n".join(lines) or f"imports of {len(found)} packages point inwards")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
