"""Long random sequences of all verbs on the namespace and on the executable model; and those that once told them apart.

`pytest -m slow warp-core/tests/namespace/test_sequences.py` tries WARP_TEST_SEED (1) for WARP_TEST_SECONDS (60) of processor time.
What it finds is cut down to what matters and printed as a list: it goes to KEPT, with a name that says what is right.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest
import test_model as model
from warp_conformance.sequences import Verb, search

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
SECONDS = float(os.environ.get("WARP_TEST_SECONDS", "60"))
LENGTH = 150  # steps: a failure needs five to twelve that fit together


def place(chance: random.Random) -> int:
    return chance.randrange(model.VOLUMES_MAX)


def path(chance: random.Random) -> int:
    return chance.randrange(len(model.PATHS))


def directory(chance: random.Random) -> int:
    return chance.randrange(len(model.DIRECTORIES))


def size(chance: random.Random) -> int:
    return chance.choice(model.SIZES)


def choice(chance: random.Random) -> int:
    return chance.randrange(4)


def often(of: float):
    return lambda chance: chance.random() < of


def parts(chance: random.Random) -> list[tuple[str, int, int, int]]:
    def part() -> tuple[str, int, int, int]:
        return chance.choice(["put", "copy", "snapshot"]), size(chance), place(chance), path(chance)

    return [part() for _ in range(chance.randrange(4))]


def one_of(*values):
    return lambda chance: chance.choice(values)


def verb(weight: float = 1.5, **draws) -> Verb:
    return Verb(lambda chance: {name: draw(chance) for name, draw in draws.items()}, weight)


VERBS = {
    "put": verb(4, place=place, which=path, size=size),
    "delete": verb(place=place, which=path),
    "remove": verb(place=place, which=path, choice=choice),
    "set_versioning": verb(0.6, place=place, state=one_of("on", "suspended")),
    "copy": verb(place=place, which=path, there=place, to=path, old=choice),
    "copy_from_a_snapshot": verb(place=place, which=path, there=place, to=path, choice=choice),
    "set_tags": verb(place=place, which=path),
    "upload": verb(
        0.6,
        place=place,
        which=path,
        parts=parts,
        ends=one_of("complete", "complete", "abort", "leave"),
    ),
    "change_in_place": verb(
        3,
        place=place,
        which=path,
        how=one_of("write", "write", "append", "truncate", "punch", "overwrite"),
        offset=one_of(0, 100, 5000, model.WINDOW - 10),
        size=one_of(0, 1, 4000),
        synced=often(0.5),
    ),
    "create": verb(place=place, which=path, size=one_of(0, 10, 4000)),
    "link_or_clone": verb(place=place, which=path, to=path, clone=often(0.4)),
    "unlink": verb(place=place, which=path),
    "rename": verb(2, place=place, which=path, to=path),
    "symlink": verb(0.5, place=place, which=path),
    "make_or_remove_directory": verb(place=place, which=directory, remove=often(0.4)),
    "rename_directory": verb(place=place, which=directory, to=directory),
    "snapshot": verb(2, place=place),
    "prune": verb(place=place, choice=choice),
    "rollback": verb(2, place=place, choice=choice, force=often(0.5)),
    "clone": verb(1.2, place=place, choice=choice),
    "collect": verb(0.7),
    "crash": verb(0.7),
    "look": verb(1, place=place),
    "end": verb(0.5, choice=choice, ends=one_of("complete", "complete", "abort")),
    "hold": verb(1, place=place, which=path),
    "use": verb(
        2,
        choice=choice,
        how=one_of("write", "write", "append", "truncate", "punch", "sync", "read"),
        offset=one_of(0, 100, 5000, model.WINDOW - 10),
        size=one_of(1, 4000),
    ),
    "close": verb(0.7, choice=choice),
    "make_disk": verb(
        2, place=place, which=path, size=one_of(*model.DISK_SIZES), of_a_file=often(0.5)
    ),
    "change_disk": verb(
        3,
        place=place,
        which=path,
        how=one_of("write", "write", "now", "compare", "trim", "zero"),
        offset=one_of(0, 512, 4096, model.WINDOW - 512),
        size=one_of(1, 512, 9000),
        fua=often(0.3),
    ),
    "resize_disk": verb(1, place=place, which=path, size=one_of(*model.DISK_SIZES)),
    "snapshot_disk": verb(1, place=place, which=path),
    "prune_disk": verb(1, place=place, which=path, choice=choice),
    "clone_disk": verb(1, place=place, which=path, to=path, choice=choice),
    "delete_disk": verb(0.5, place=place, which=path),
}


def attempt(steps) -> None:
    """Do the steps on both sides, and compare them."""
    machine = model.NamespaceAgrees()
    try:
        for name, arguments in steps:
            if name != "clone" or len(machine.model.volumes) < model.VOLUMES_MAX:
                getattr(machine, name)(**arguments)
    except Exception:
        with suppress(Exception):  # what is left of it says no more
            machine.run(machine.stage.__aexit__(None, None, None))
        machine.loop.close()
        raise
    machine.teardown()


KEPT = {
    "a marker of a suspended volume takes the place of an older null version": [
        ("put", {"place": 1, "which": 0, "size": 0}),
        ("set_versioning", {"place": 1, "state": "on"}),
        ("make_or_remove_directory", {"place": 1, "which": 0, "remove": False}),
        ("rename", {"place": 1, "which": 0, "to": 7}),
        ("create", {"place": 1, "which": 0, "size": 10}),
        ("set_versioning", {"place": 1, "state": "suspended"}),
        ("rename", {"place": 1, "which": 0, "to": 7}),
    ],
    "an upload borrows from a clone of its own volume until it is aborted": [
        ("snapshot", {"place": 1}),
        ("clone", {"place": 1, "choice": 0}),
        ("put", {"place": 0, "which": 2, "size": 3000}),
        ("upload", {"place": 2, "which": 1, "parts": [("copy", 0, 0, 2)], "ends": "leave"}),
    ],
    "a rolled back clone shows content whose rows are as old in its base": [
        ("snapshot", {"place": 0}),
        ("create", {"place": 0, "which": 1, "size": 4000}),
        ("snapshot", {"place": 0}),
        ("clone", {"place": 0, "choice": 1}),
        ("snapshot", {"place": 0}),
        ("put", {"place": 0, "which": 0, "size": 700}),
        ("rename", {"place": 0, "which": 0, "to": 1}),
        ("collect", {}),
        ("rollback", {"place": 0, "choice": 0}),
    ],
    "a clone of a file holds the file that it lies over, not what that borrows": [
        ("snapshot", {"place": 1}),
        (
            "upload",
            {
                "place": 1,
                "which": 4,
                "parts": [("put", 700, 2, 8), ("put", 3000, 3, 4)],
                "ends": "complete",
            },
        ),
        ("rename", {"place": 1, "which": 4, "to": 0}),
        ("clone", {"place": 1, "choice": 1}),
        ("upload", {"place": 3, "which": 4, "parts": [("copy", 0, 2, 0)], "ends": "complete"}),
        ("link_or_clone", {"place": 0, "which": 4, "to": 0, "clone": True}),
    ],
    "a clone of a volume lists the disks of its base": [
        ("make_disk", {"place": 3, "which": 0, "size": 4096, "of_a_file": False}),
        ("snapshot", {"place": 3}),
        ("clone", {"place": 3, "choice": 0}),
    ],
    "a disk made of an object below an implied directory is listed after a restart": [
        ("put", {"place": 1, "which": 4, "size": 4096}),
        ("make_disk", {"place": 1, "which": 4, "size": 512, "of_a_file": True}),
        ("crash", {}),
    ],
    "a disk that lost one of its names is listed by the other": [
        ("make_disk", {"place": 1, "which": 0, "size": 512, "of_a_file": False}),
        ("link_or_clone", {"place": 1, "which": 0, "to": 5, "clone": False}),
        ("look", {"place": 1}),
        ("unlink", {"place": 1, "which": 0}),
        ("link_or_clone", {"place": 1, "which": 5, "to": 1, "clone": False}),
        ("unlink", {"place": 1, "which": 1}),
    ],
    "a clone of a disk over Files is a disk": [
        ("make_disk", {"place": 1, "which": 0, "size": 512, "of_a_file": False}),
        ("link_or_clone", {"place": 1, "which": 0, "to": 1, "clone": True}),
    ],
    "a disk that comes back in a rollback has its snapshots": [
        ("make_disk", {"place": 1, "which": 0, "size": 512, "of_a_file": False}),
        ("snapshot_disk", {"place": 1, "which": 0}),
        ("snapshot", {"place": 1}),
        ("delete_disk", {"place": 1, "which": 0}),
        ("rollback", {"place": 1, "choice": 0}),
        ("prune_disk", {"place": 1, "which": 0, "choice": 0}),
    ],
    "opening a disk to overwrite it does not shrink it": [
        ("make_disk", {"place": 1, "which": 0, "size": 512, "of_a_file": False}),
        (
            "change_in_place",
            {"place": 1, "which": 0, "how": "overwrite", "offset": 0, "size": 1, "synced": True},
        ),
    ],
    "a clone does not keep a file that had no name and was open in its base": [
        ("put", {"place": 1, "which": 7, "size": 4096}),
        ("hold", {"place": 1, "which": 7}),
        ("unlink", {"place": 1, "which": 7}),
        ("snapshot", {"place": 3}),
        ("clone", {"place": 1, "choice": 3}),
    ],
    "a write that follows another file's in one batch of the journal survives a crash": [
        ("put", {"place": 3, "which": 5, "size": 70000}),
        ("put", {"place": 3, "which": 0, "size": 4096}),
        ("hold", {"place": 3, "which": 0}),
        ("use", {"choice": 3, "how": "truncate", "offset": 5000, "size": 4000}),
        ("hold", {"place": 3, "which": 5}),
        ("use", {"choice": 3, "how": "write", "offset": 100, "size": 4000}),
        ("crash", {}),
    ],
}


@pytest.mark.parametrize("name", KEPT)
def test_namespace_and_model_agree_where_they_did_not(name: str) -> None:
    attempt(KEPT[name])


@pytest.mark.parametrize("cloned", [False, True])
def test_a_file_that_is_open_when_its_volume_is_deleted_leaves_with_it(cloned: bool) -> None:
    machine = model.NamespaceAgrees()
    machine.put(1, 0, 4096)
    if cloned:
        machine.snapshot(1)
        machine.clone(1, 0)  # its name comes before "v" and "w"
        machine.hold(0, 0)
        machine.unlink(0, 0)
        machine.run(machine.objects.delete_volume(machine.clones.pop()))
    else:
        machine.hold(1, 0)
        machine.unlink(1, 0)
        machine.run(machine.objects.delete_volume("w"))
    machine.run(machine.closed(machine.held.pop()[2]))
    machine.run(machine.collected())
    if cloned:
        del machine.model.volumes[min(machine.model.volumes)]
        machine.teardown()
        return

    assert not machine.ledger.written - machine.ledger.dead
    left = machine.run(machine.namespace.volumes.all(deleted=True))
    assert [volume.row.name for volume in left] == ["v"]
    machine.run(machine.stage.__aexit__(None, None, None))
    machine.loop.close()


def test_namespace_and_model_agree_on_a_few_sequences() -> None:
    found = search(VERBS, attempt, seed=1, length=60, budget_s=2)

    assert found is None, str(found)


@pytest.mark.slow
def test_namespace_and_model_agree_on_long_sequences() -> None:
    found = search(VERBS, attempt, seed=SEED, length=LENGTH, budget_s=SECONDS)

    assert found is None, str(found)
