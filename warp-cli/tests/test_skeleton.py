"""`warp plugin new`: what it writes fails its kit, and passes it once the methods are filled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warp_cli.skeleton import SHAPES, write
from warp_core.errors import AlreadyExists, InvalidArgument
from warp_core.registry import KINDS


def run_tests(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [
            *command,
            "--rootdir",
            str(folder),
            "-c",
            str(folder / "pyproject.toml"),
            *options,
            "tests",
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )


def fill(path: Path, *bodies: tuple[str, str]) -> None:
    """Replace `raise NotImplementedError` in the named methods by a body."""
    text = path.read_text()
    for method, body in bodies:
        start = text.index(f"def {method}(")
        end = text.index("raise NotImplementedError", start)
        indented = body.strip().replace("\n", "\n        ")
        text = text[:end] + indented + text[end + len("raise NotImplementedError") :]
    path.write_text(text)


KIND_AND_SHAPE = [(kind, "filter") for kind in KINDS] + [("codecs", shape) for shape in SHAPES[1:]]


@pytest.mark.parametrize(("kind", "shape"), KIND_AND_SHAPE)
def test_a_skeleton_of_every_kind_is_a_package_that_type_checks_and_imports(
    tmp_path: Path, kind: str, shape: str
) -> None:
    written = write(f"{kind}/my-part", tmp_path / "new", shape=shape)
    code = (
        "import warp_my_part, sys; from warp_core.registry import Registry;"
        f"r = Registry('{kind}'); r.offering_as('x'); warp_my_part.warp_register_{kind}(r);"
        "print([e.name for e in r])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(written.folder / "src")},
        capture_output=True,
        text=True,
    )

    assert told.stdout.strip() == "['my-part']", told.stderr
    assert Path(written.part).is_file()
    files = [path for path in written.folder.rglob("*") if path.is_file()]
    text = "".join(path.read_text() for path in files if path.suffix != ".pyc")
    assert "keleton" not in text
    assert "SUMMARY" not in text
    assert f'"{kind}.my-part" = "warp_my_part"' in text


@pytest.mark.parametrize(
    "what", ["lz4", "codecs", "codecs/", "codecs/LZ4", "codec/lz4", "codecs/a/b"]
)
def test_other_names_are_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(InvalidArgument, match="KIND/NAME"):
        write(what, tmp_path / "new")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(AlreadyExists):
        write("codecs/lz4", tmp_path)


def test_in_a_workspace_it_lands_beside_the_other_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write("stores/tape").folder == Path("warp-tape")
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["plugins/*/*"]\n')

    written = write("stores/tape")

    assert written.folder == Path("plugins/stores/tape")
    assert "workspace = true" in (written.folder / "pyproject.toml").read_text()


def test_a_codec_is_green_when_its_methods_are_filled(tmp_path: Path) -> None:
    written = write("codecs/plain", tmp_path / "new")
    red = run_tests(written.folder, "-x")
    fill(
        Path(written.part),
        (
            "encode",
            "import zlib\nstored = zlib.compress(frame, 1)\n"
            "return stored if len(stored) < len(frame) else None",
        ),
        (
            "decode",
            "import zlib\nfrom warp_core.errors import Corrupt\ntry:\n"
            "    engine = zlib.decompressobj()\n    data = engine.decompress(stored, length + 1)\n"
            "except zlib.error as error:\n    raise Corrupt(str(error)) from error\n"
            "if len(data) != length or not engine.eof or engine.unused_data:\n"
            '    raise Corrupt("wrong length")\nreturn data',
        ),
    )
    green = run_tests(written.folder)

    assert red.returncode == 1, red.stdout
    assert green.returncode == 0, green.stdout


def test_a_store_is_green_when_its_methods_are_filled(tmp_path: Path) -> None:
    written = write("stores/dict", tmp_path / "new")
    fill(
        Path(written.part),
        ("__aenter__", "import secrets\nself.id = secrets.token_hex(8)\nreturn self"),
        ("put", 'BLOBS[name] = b"".join(bytes(each) for each in buffers)'),
        ("read", "return self._get(name)[offset : offset + length]"),
        ("delete", "self._get(name)\ndel BLOBS[name]"),
        (
            "list",
            "names = sorted(name for name in BLOBS if name.startswith(prefix) and name > after)\n"
            "return [await self.stat(name) for name in names[:limit]]",
        ),
        ("stat", "size = len(self._get(name))\nreturn BlobInfo(name, size, size)"),
        (
            "space",
            "used = sum(map(len, BLOBS.values()))\nreturn Space(1 << 30, (1 << 29) - used, 1 << 20)",
        ),
    )
    path = Path(written.part)
    text = path.read_text() + (
        "\n    def _get(self, name: str) -> bytes:\n        from warp_core.errors import NotFound\n\n"
        "        check_blob_name(name)\n        if name not in BLOBS:\n            raise NotFound(name)\n"
        "        return BLOBS[name]\n"
    )
    path.write_text(
        text.replace("\n\nclass Dict(", "\n\nBLOBS: dict[str, bytes] = {}\n\n\nclass Dict(")
    )
    tests = written.folder / "tests" / "test_conformance.py"
    tests.write_text(
        tests.read_text().replace(
            "        async with AsyncExitStack() as stack:\n",
            "        from warp_dict.store import BLOBS\n\n        BLOBS.clear()\n"
            "        async with AsyncExitStack() as stack:\n",
        )
    )
    green = run_tests(written.folder)

    assert green.returncode == 0, green.stdout


def test_a_protocol_is_green_when_its_methods_are_filled(tmp_path: Path) -> None:
    written = write("protocols/echo", tmp_path / "new")
    red = run_tests(written.folder)
    fill(
        written.folder / "src/warp_echo/session.py",
        (
            "receive",
            "from warp_core.errors import RemoteProtocolError\n\n"
            'self.inbox = getattr(self, "inbox", b"") + data\n'
            'while b"\\r\\n" in self.inbox:\n'
            '    line, _, self.inbox = self.inbox.partition(b"\\r\\n")\n    yield Request(line)\n'
            'if len(self.inbox) > 1000:\n    raise RemoteProtocolError("a line of over 1000 bytes")',
        ),
        ("answer", 'return request.command + b"\\r\\n"'),
    )
    green = run_tests(written.folder)

    assert red.returncode == 1
    assert green.returncode == 0, green.stdout


def test_a_service_is_green_when_its_method_is_filled(tmp_path: Path) -> None:
    written = write("services/sweep", tmp_path / "new")
    red = run_tests(written.folder, "-x")
    fill(
        Path(written.part),
        (
            "work",
            "from warp_core.namespace.garbage import Garbage\n\n"
            "rows = await Garbage(context.namespace).reclaim()\n"
            'return Report({"rows": rows}, idle=not rows)',
        ),
    )
    green = run_tests(written.folder)

    assert red.returncode == 1, red.stdout
    assert green.returncode == 0, green.stdout
    assert "passed" in green.stdout
