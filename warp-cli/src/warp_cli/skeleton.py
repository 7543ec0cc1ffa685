"""`warp plugin new`: a package whose tests fail until its methods are filled.

The templates are a package named `skeleton` for each kind; names are replaced, nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import tomli
from warp_core.errors import AlreadyExists, InvalidArgument, StoreFailed
from warp_core.registry import KINDS

SHAPES = ("filter", "chunker", "fingerprint", "striper")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_PARTS = {
    "stores": "store.py",
    "consistency": "engine.py",
    "transports": "transport.py",
    "auth": "authenticator.py",
    "services": "service.py",
    "protocols": "server.py",
}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the folder, its files, and the one to fill."""

    folder: Path
    files: tuple[str, ...]
    part: str


def write(what: str, folder: Path | None = None, *, shape: str = "filter") -> Written:
    """Write the skeleton of a plugin.

    Args:
        what: KIND/NAME.
        folder: Where; by default plugins/KIND/NAME inside a WARP workspace, else warp-NAME here.
        shape: Which of a codec's four shapes.

    Raises:
        InvalidArgument: No kind, name or shape.
        AlreadyExists: The folder is not empty.
        StoreFailed: It cannot be written.
    """
    kind, _, name = what.partition("/")
    if kind not in KINDS or not _NAME.match(name) or len(name) > 40:
        raise InvalidArgument(
            f'"{what}": allowed: KIND/NAME with a kind of {", ".join(KINDS)} and a name of lower-case'
            " letters, digits and dashes"
        )
    if shape not in SHAPES:
        raise InvalidArgument(f'shape "{shape}": allowed: {", ".join(SHAPES)}')
    inside = _in_workspace() and (folder is None or folder.parts[:1] == ("plugins",))
    target = folder or (Path("plugins", kind, name) if inside else Path(f"warp-{name}"))
    if target.exists() and any(target.iterdir()):
        raise AlreadyExists(f"{target} is not empty: choose another with --folder")
    template = f"codecs-{shape}" if kind == "codecs" else kind
    with as_file(files("warp_cli").joinpath("templates/plugin")) as root:
        sources = {
            path.relative_to(root / source): path
            for source in ("common", template)
            for path in sorted((root / source).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
        made = {
            Path(_renamed(str(relative), kind, name)): _renamed(
                path.read_text(encoding="utf-8"), kind, name
            )
            for relative, path in sources.items()
        }
    if inside:
        made[Path("pyproject.toml")] += "\n[tool.uv.sources]\nwarp-core = { workspace = true }\n"
    else:
        made[Path("pyproject.toml")] += _STANDALONE
    try:
        for relative, text in made.items():
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreFailed(f"{target} cannot be written ({error.strerror})") from None
    part = _PARTS.get(kind, f"{shape}.py")
    module = f"warp_{name.replace('-', '_')}"
    return Written(target, tuple(sorted(map(str, made))), str(target / "src" / module / part))


_STANDALONE = """
[dependency-groups]
dev = ["warp-conformance", "pytest>=9.0", "pytest-asyncio>=1.3"]

[tool.pytest.ini_options]
asyncio_mode = "auto"
addopts = "--import-mode=importlib"
"""


def _renamed(text: str, kind: str, name: str) -> str:
    words = name.split("-")
    named = text.replace("warp_skeleton", f"warp_{'_'.join(words)}")
    named = named.replace("Skeleton", "".join(word.capitalize() for word in words))
    named = named.replace("skeleton", name)
    return named.replace("SUMMARY", f"the {kind} plugin {name}").replace("KIND", kind)


def _in_workspace() -> bool:
    try:
        document = tomli.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError):
        return False
    members = document.get("tool", {}).get("uv", {}).get("workspace", {}).get("members", [])
    return "plugins/*/*" in members
