"""What the verbs of the namespace mean, in as few words as possible: no rows, no transactions, no time.

A name has versions, newest first; the first one is current unless it is a marker. A version leads to a `File`, which links share.
Version ids are given from outside, so that a model can follow a subject that draws them.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from warp_core.views.objects import Attributes, Digests, PartInfo

NULL = "null"
PLAIN = Attributes()
NONE = Digests(etag="")


@dataclass(slots=True)
class File:
    """Content and what was said of it. Names that are links of one another share it; noncurrent versions have it frozen."""

    content: bytes
    attributes: Attributes = PLAIN
    digests: Digests = NONE
    parts: tuple[PartInfo, ...] = ()
    disk: bool = False  # its size is fixed; a version is none
    writers: int = 0  # who has it open for writing
    unedited: bool = False  # their first change keeps what it was


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a name; a marker has no file."""

    version: str
    file: File | None
    made: int  # counts versions of the model: greater is newer

    @property
    def marker(self) -> bool:
        """Whether it says that the name was deleted."""
        return self.file is None


class Page(NamedTuple):
    """What a listing shows."""

    entries: list[tuple[bytes, str]]  # key, version id
    prefixes: list[bytes]
    more: bool


class Held(NamedTuple):
    """What counts towards a quota."""

    objects: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Kept:
    """What a snapshot keeps."""

    names: dict[bytes, list[Version]]
    directories: set[bytes]
    symlinks: dict[bytes, bytes]


@dataclass(slots=True)
class ModelVolume:
    """A volume. `directories` are those that stay when they are empty; names imply others. `symlinks` are no objects."""

    versioning: str = "off"
    names: dict[bytes, list[Version]] = field(default_factory=dict)
    directories: set[bytes] = field(default_factory=set)
    symlinks: dict[bytes, bytes] = field(default_factory=dict)
    snapshots: dict[str, Kept] = field(default_factory=dict)
    made: int = 0
    uploads: dict[str, dict[int, int]] = field(default_factory=dict)  # id → part → bytes
    limit: Held | None = None

    # Quotas ---------------------------------------------------------------------------------------

    def held(self) -> Held:
        """Return what counts: every version, marker and upload is an object, links have their bytes once."""
        live, size, older, older_size = self.usage()
        parts = sum(sum(each.values()) for each in self.uploads.values())
        return Held(live + older + len(self.uploads), size + older_size + parts)

    def admits(self, after: ModelVolume, limit: Held | None, held: Held) -> bool:
        """Say whether it may become `after` where `held` counts towards `limit`; a delete may leave a marker."""
        if limit is None or after.usage()[0] < self.usage()[0]:
            return True
        before, then = self.held(), after.held()
        return all(
            now <= was or total + now - was <= most
            for was, now, total, most in zip(before, then, held, limit, strict=True)
        )

    # Objects --------------------------------------------------------------------------------------

    def current(self, key: bytes) -> Version | None:
        """Return the current version of a name."""
        versions = self.names.get(key)
        return versions[0] if versions and not versions[0].marker else None

    def find(self, key: bytes, version: str) -> Version | None:
        """Return a version by its id."""
        return next((each for each in self.names.get(key, ()) if each.version == version), None)

    def put(self, key: bytes, file: File, version: str = NULL) -> Version:
        """Make a file the current version."""
        return self._insert(key, version, file)

    def delete(self, key: bytes, marker: str = NULL) -> bool:
        """Delete a name as versioning says; return whether it had a current version."""
        found = self.current(key) is not None
        if key in self.symlinks:
            return False
        if self.versioning == "off":
            self.names.pop(key, None)
        else:
            self._insert(key, marker, None)
        return found

    def remove(self, key: bytes, version: str) -> Version | None:
        """Remove a version for good; return it."""
        found = self.find(key, version)
        if found is not None:
            self.names[key].remove(found)
            if not self.names[key]:
                del self.names[key]
        return found

    def _insert(self, key: bytes, version: str, file: File | None) -> Version:
        self.made += 1
        self.symlinks.pop(key, None)
        made = Version(version, file, self.made)
        older = self.names.get(key, [])
        if self.versioning == "off":
            older = []
        elif version == NULL:
            older = [each for each in older if each.version != NULL]
        self.names[key] = [made, *map(_frozen, older)]
        return made

    # Listings -------------------------------------------------------------------------------------

    def list(
        self, prefix: bytes = b"", delimiter: bytes = b"", after: bytes = b"", limit: int = 1000
    ) -> Page:
        """List current versions."""
        rows = [
            (key, versions[0].version)
            for key, versions in sorted(self.names.items())
            if not versions[0].marker and key > after
        ]
        return _page(rows, prefix, delimiter, after, limit)

    def list_versions(
        self,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        version_marker: str = "",
        limit: int = 1000,
    ) -> Page:
        """List all versions, newest first within a name."""
        rows = []
        for key, versions in sorted(self.names.items()):
            if key < key_marker or (key == key_marker and key_marker and not version_marker):
                continue
            ids = [each.version for each in versions]
            if key == key_marker and version_marker in ids:
                ids = ids[ids.index(version_marker) + 1 :]
            rows += [(key, each) for each in ids]
        after = b"" if version_marker else key_marker
        return _page(rows, prefix, delimiter, after, limit)

    def usage(self) -> tuple[int, int, int, int]:
        """Return names with a current version, bytes of their files (links once), noncurrent versions and markers, their bytes."""
        live = [each for key in self.names if (each := self.current(key)) is not None]
        files = {id(each.file): each.file for each in live}
        older = [
            each
            for versions in self.names.values()
            for number, each in enumerate(versions)
            if number or each.marker
        ]
        size = sum(len(file.content) for file in files.values() if file)
        return len(live), size, len(older), _bytes(older)

    # Files ----------------------------------------------------------------------------------------

    def open(self, file: File) -> None:
        """Open a file for writing; its first writer begins an edit."""
        if not file.writers:
            file.unedited = self.versioning != "off" and not file.disk
        file.writers += 1

    def close(self, file: File) -> None:
        """Close a file that was opened for writing."""
        file.writers -= 1

    def keeps(self, key: bytes, file: File) -> bool:
        """Say whether a change through this name keeps what the file was, before its edit's first."""
        current = self.current(key)
        if not file.unedited or self.versioning == "off" or current is None:
            return False
        replaced = self.versioning == "suspended" and current.version == NULL
        return current.file is file and not replaced

    def edit(self, key: bytes, version: str) -> None:
        """Keep what a file was as a version; it goes on as another one."""
        self._insert(key, version, self._file(key))

    def write(self, key: bytes, offset: int, data: bytes) -> None:
        """Write in place: every link sees it, versions do not."""
        file = self._file(key)
        content = file.content.ljust(offset, b"\0")
        file.content = content[:offset] + data + content[offset + len(data) :]

    def append(self, key: bytes, data: bytes) -> None:
        """Write at the end."""
        self.write(key, len(self._file(key).content), data)

    def truncate(self, key: bytes, size: int) -> None:
        """Cut, or extend by zeros."""
        file = self._file(key)
        file.content = file.content[:size].ljust(size, b"\0")

    def create(self, key: bytes, version: str = NULL) -> None:
        """Make an empty file; the name is free."""
        self.settle(key)
        self._insert(key, version, File(b""))

    def punch(self, key: bytes, offset: int, length: int) -> None:
        """Make a range read as zeros; the size stays."""
        file = self._file(key)
        end = min(offset + length, len(file.content))
        if offset < end:
            file.content = file.content[:offset] + bytes(end - offset) + file.content[end:]

    def clone_file(self, source: bytes, target: bytes, version: str = NULL) -> None:
        """Make a file with the content of another; the target is free."""
        self.settle(target)
        file = self._file(source)
        self._insert(target, version, File(file.content, disk=file.disk))

    def link(self, source: bytes, target: bytes, version: str = NULL) -> None:
        """Give a file another name; the target is free."""
        self.settle(target)
        self._insert(target, version, self._file(source))

    def unlink(self, key: bytes, marker: str = NULL) -> None:
        """Remove a file's name, or a symbolic link."""
        self.settle(key)
        if self.symlinks.pop(key, None) is None:
            self.delete(key, marker)

    def rename(self, source: bytes, target: bytes, version: str = NULL, marker: str = NULL) -> None:
        """Move a file's name; what the target was becomes a version, or goes. Two names of one file: nothing happens."""
        there = self.current(target)
        file = self._file(source)
        if there is not None and there.file is file:
            return
        self.settle(source)
        self.settle(target)
        self._insert(target, version, file)
        self.delete(source, marker)

    def symlink(self, key: bytes, target: bytes) -> None:
        """Make a symbolic link; the name is free."""
        self.settle(key)
        self.symlinks[key] = target

    # Directories ----------------------------------------------------------------------------------

    def settle(self, key: bytes) -> None:
        """Note that the Files view changed an entry: the directories that it lies in stay from now on."""
        while key := key.rpartition(b"/")[0]:
            self.directories.add(key)

    def children(self, path: bytes) -> dict[bytes, str]:
        """Return a directory's entries (b"": the root), as the Files view shows them: a directory hides a file of its name."""
        prefix = path + b"/" if path else b""
        found: dict[bytes, str] = {}
        live = {key: "file" for key in self.names if self.current(key) is not None}
        live |= dict.fromkeys(self.symlinks, "symlink")
        live |= {each + b"/": "directory" for each in self.directories}
        for key, kind in live.items():
            if not key.startswith(prefix) or key == prefix:
                continue
            name, slash, _ = key[len(prefix) :].partition(b"/")
            if slash:
                found[name] = "directory"
            else:
                found.setdefault(name, kind)
        return found

    def is_directory(self, path: bytes) -> bool:
        """Say whether a path is a directory, made or implied."""
        return not path or path in self.directories or bool(self.children(path))

    def mkdir(self, path: bytes) -> None:
        """Make a directory; the name is free."""
        self.settle(path)
        self.directories.add(path)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        self.settle(path)
        self.directories.discard(path)

    def rename_directory(self, source: bytes, target: bytes) -> None:
        """Move a directory with its history; the target is free, and had none."""
        self.settle(source)
        self.settle(target)
        self.directories.add(source)

        def moved(path: bytes) -> bytes:
            if path == source or path.startswith(source + b"/"):
                return target + path[len(source) :]
            return path

        below = source + b"/"
        self.names = {
            moved(key) if key.startswith(below) else key: value for key, value in self.names.items()
        }
        self.symlinks = {
            moved(key) if key.startswith(below) else key: value
            for key, value in self.symlinks.items()
        }
        self.directories = {moved(path) for path in self.directories}
        self.directories.add(target)

    def _file(self, key: bytes) -> File:
        found = self.current(key)
        assert found is not None
        assert found.file is not None
        return found.file

    # Snapshots ------------------------------------------------------------------------------------

    def snapshot(self, name: str) -> None:
        """Keep everything as it is now."""
        self.snapshots[name] = self._kept()

    def rollback(self, name: str) -> None:
        """Make everything as a snapshot has it."""
        kept = copy.deepcopy(self.snapshots[name])
        self.names, self.directories, self.symlinks = kept.names, kept.directories, kept.symlinks

    def prune(self, name: str) -> None:
        """Forget a snapshot."""
        del self.snapshots[name]

    def _kept(self) -> Kept:
        kept = copy.deepcopy(Kept(self.names, self.directories, self.symlinks))
        for version in itertools.chain.from_iterable(kept.names.values()):
            if version.file is not None:  # nobody has it open there
                version.file.writers, version.file.unedited = 0, False
        return kept


@dataclass(slots=True)
class Model:
    """Volumes by name."""

    volumes: dict[str, ModelVolume] = field(default_factory=dict)

    def create(self, name: str) -> ModelVolume:
        """Make an empty volume."""
        made = self.volumes[name] = ModelVolume()
        return made

    def clone(self, volume: str, snapshot: str, target: str) -> ModelVolume:
        """Make a volume of a snapshot."""
        source = self.volumes[volume]
        kept = copy.deepcopy(source.snapshots[snapshot])
        made = ModelVolume(source.versioning, kept.names, kept.directories, kept.symlinks)
        self.volumes[target] = made
        return made


def _frozen(version: Version) -> Version:
    return replace(version, file=replace(version.file, disk=False)) if version.file else version


def _bytes(versions: list[Version]) -> int:
    return sum(len(each.file.content) for each in versions if each.file)


def _page(
    rows: list[tuple[bytes, str]], prefix: bytes, delimiter: bytes, after: bytes, limit: int
) -> Page:
    entries: list[tuple[bytes, str]] = []
    prefixes: list[bytes] = []
    for key, version in rows:
        if not key.startswith(prefix):
            continue
        found = key.find(delimiter, len(prefix)) if delimiter else -1
        common = key[: found + len(delimiter)] if found >= 0 else b""
        if common and (common in prefixes or common == after):
            continue
        if len(entries) + len(prefixes) == limit:
            return Page(entries, prefixes, True)
        if common:
            prefixes.append(common)
        else:
            entries.append((key, version))
    return Page(entries, prefixes, False)
