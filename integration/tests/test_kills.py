"""SIGKILL at random moments under S3 load."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from warp_integration.crashes import kill_under_load
from warp_integration.powercut import Ledger
from warp_integration.s3load import S3Load
from warp_integration.server import REPLACE_STORES, WarpServer, config_text

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]


def server_on_three_disks(tmp_path: Path) -> tuple[WarpServer, list[Path]]:
    stores = [tmp_path / f"store{n}" for n in range(3)]
    config = tmp_path / "warp.toml"
    config.write_text(config_text(stores=stores, copies=3, redundancy="replica:2"))
    return WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs"), stores


def plain_server(tmp_path: Path) -> WarpServer:
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    return WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs")


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, kills: int) -> None:
    load = S3Load(Ledger(), seed=SEED, parts=1)
    with_result = kill_under_load(plain_server(tmp_path), load, kills=kills, seed=SEED)

    print(with_result, dict(load.answers), sep="\n")
    assert with_result.kills == kills
    assert with_result.acknowledged > 5 * kills
    assert not with_result.findings, with_result


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_nothing_is_lost_when_a_copy_of_the_metadata_goes_as_well(
    tmp_path: Path, kills: int
) -> None:
    server, stores = server_on_three_disks(tmp_path)
    rng = random.Random(SEED)

    def lose_an_index(number: int) -> tuple[str, ...]:
        shutil.rmtree(rng.choice(stores) / "meta", ignore_errors=True)
        return ()

    load = S3Load(Ledger(), seed=SEED)
    result = kill_under_load(server, load, kills=kills, seed=SEED, while_down=lose_an_index)

    print(result, dict(load.answers), sep="\n")
    assert not result.findings, result


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_nothing_is_lost_when_a_whole_disk_goes_as_well(tmp_path: Path, lost: int) -> None:
    server, stores = server_on_three_disks(tmp_path)

    def lose_a_disk(number: int) -> tuple[str, ...]:
        if number != 0:
            return ()
        shutil.rmtree(stores[lost])
        return (REPLACE_STORES,)

    load = S3Load(Ledger(), seed=SEED)
    result = kill_under_load(server, load, kills=2, seed=SEED, while_down=lose_a_disk)

    print(result, dict(load.answers), sep="\n")
    assert not result.findings, result
