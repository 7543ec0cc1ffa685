"""Tables that people keep in buckets: written, appended to at once, read back and compared, by the libraries themselves."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from warp_integration.clients import REGION, s3_client
from warp_integration.requirements import needs_modules
from warp_integration.server import ACCESS_KEY, SECRET_KEY, WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

ROWS = 2000  # of a batch
WRITERS = 4
APPENDS = 3  # of each writer
LIMIT_S = 240.0  # for hangs


def columns(batch: int) -> dict[str, list[Any]]:
    """Return the columns of a batch of rows, the same for the same number."""
    rng = random.Random(batch)
    ids = range(batch * ROWS, (batch + 1) * ROWS)
    return {
        "id": list(ids),
        "kind": [f"kind {n % 5}" for n in ids],
        "value": [rng.random() for _ in ids],
    }


def every_row(*batches: int) -> list[tuple[Any, ...]]:
    """Return all rows of batches, in the order of their ids."""
    return [row for batch in sorted(batches) for row in zip(*columns(batch).values(), strict=True)]


def check(found: list[tuple[Any, ...]], *batches: int) -> None:
    """Fail unless the rows are those of the batches; says how many differ and shows none of them."""
    wanted = every_row(*batches)
    found = sorted(found)
    assert len(found) == len(wanted)
    different = sum(a != b for a, b in zip(found, wanted, strict=True))
    assert different == 0


def at_once(job: Callable[[int], None]) -> None:
    """Run a job for each writer at once."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for ended in [pool.submit(job, writer) for writer in range(WRITERS)]:
            ended.result(LIMIT_S)


def batches_of(writer: int) -> range:
    """Return the numbers of the batches that a writer appends: 0 is the first write's."""
    return range(1 + writer * APPENDS, 1 + (writer + 1) * APPENDS)


def each_batch_at_once(write: Callable[[int], None]) -> None:
    """Write the batches of all writers, each writer's in turn."""

    def writer(number: int) -> None:
        for batch in batches_of(number):
            write(batch)

    at_once(writer)


ALL = range(1 + WRITERS * APPENDS)


@pytest.fixture
def bucket(server: WarpServer, request: pytest.FixtureRequest) -> str:
    letters = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))
    name = letters[:60].strip("-")
    s3 = s3_client(server.s3)
    s3.create_bucket(Bucket=name)
    s3.close()
    return str(name)


def rust_options(endpoint: str) -> dict[str, str]:
    """Return the options by which everything built on the crate object_store finds the server."""
    return {
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "aws_region": REGION,
        "aws_endpoint_url": endpoint,
        "aws_allow_http": "true",
    }


@needs_modules(pyarrow="pyarrow")
def test_pyarrow_keeps_a_partitioned_dataset(server: WarpServer, bucket: str) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs

    files = fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_override=server.s3
    )

    def write(batch: int) -> None:
        ds.write_dataset(
            pa.table(columns(batch)),
            f"{bucket}/table",
            filesystem=files,
            format="parquet",
            partitioning=["kind"],
            basename_template=f"batch-{batch}-{{i}}.parquet",
            existing_data_behavior="overwrite_or_ignore",
        )

    write(0)
    each_batch_at_once(write)
    table = ds.dataset(f"{bucket}/table", filesystem=files, partitioning=["kind"])

    found = table.to_table(columns=["id", "kind", "value"]).to_pylist()
    check([tuple(row.values()) for row in found], *ALL)
    of_kind = table.to_table(filter=(ds.field("kind") == "kind 3") & (ds.field("id") < ROWS))
    assert of_kind.num_rows == ROWS // 5
    large = random.Random(1).randbytes(12 << 20)
    with files.open_output_stream(f"{bucket}/large") as stream:  # parts
        stream.write(large)
    with files.open_input_file(f"{bucket}/large") as file:
        assert file.size() == len(large)
        assert file.read_at(1000, 7_000_000) == large[7_000_000:7_001_000]
    files.move(f"{bucket}/large", f"{bucket}/moved")
    assert files.get_file_info(f"{bucket}/large").type == fs.FileType.NotFound
    files.delete_dir(f"{bucket}/table")
    assert [info.base_name for info in files.get_file_info(fs.FileSelector(bucket))] == ["moved"]


@needs_modules(polars="polars")
def test_polars_scans_what_it_sank(server: WarpServer, bucket: str) -> None:
    import polars as pl

    options: dict[str, Any] = {"storage_options": rust_options(server.s3)}

    def write(batch: int) -> None:
        frame = pl.DataFrame(columns(batch))
        target = f"s3://{bucket}/table/batch={batch}/part.parquet"
        if batch % 2:
            frame.lazy().sink_parquet(target, **options)
        else:
            frame.write_parquet(target, **options)

    write(0)
    each_batch_at_once(write)
    table = pl.scan_parquet(f"s3://{bucket}/table/", hive_partitioning=True, **options)

    check(table.select("id", "kind", "value").collect().rows(), *ALL)
    some = table.filter((pl.col("kind") == "kind 2") & (pl.col("batch") == 4))
    assert some.select(pl.len()).collect().item() == ROWS // 5
    pl.DataFrame(columns(1)).write_csv(f"s3://{bucket}/rows.csv", **options)
    check(pl.scan_csv(f"s3://{bucket}/rows.csv", **options).collect().rows(), 1)


def duck(endpoint: str) -> Any:
    """Return a DuckDB that reaches the server over httpfs."""
    import duckdb
    import duckdb_ext

    database = duckdb.connect()
    folder = Path(next(iter(duckdb_ext.__path__))) / "extensions"
    (extension,) = folder.glob("*/*/httpfs.duckdb_extension")
    database.execute(f"LOAD '{extension}'")
    database.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{ACCESS_KEY}', SECRET '{SECRET_KEY}', REGION '{REGION}',"
        f" ENDPOINT '{endpoint.partition('//')[2]}', URL_STYLE 'path', USE_SSL false)"
    )
    return database


@needs_modules(duckdb="duckdb==1.4.4", duckdb_ext="duckdb-ext-httpfs==1.4.4.*", pyarrow="pyarrow")
def test_duckdb_copies_out_and_queries(server: WarpServer, bucket: str) -> None:
    import pyarrow as pa

    def write(database: Any, batch: int) -> None:
        database.register("rows", pa.table(columns(batch)))
        target = f"s3://{bucket}/table/batch-{batch}.parquet"
        database.execute(f"COPY rows TO '{target}' (FORMAT parquet)")

    def writer(number: int) -> None:
        with duck(server.s3) as mine:
            for batch in batches_of(number):
                write(mine, batch)

    with duck(server.s3) as database:
        write(database, 0)
        at_once(writer)
        table = f"read_parquet('s3://{bucket}/table/*.parquet')"

        check(database.execute(f"SELECT id, kind, value FROM {table}").fetchall(), *ALL)
        wanted = sum(value for _, kind, value in every_row(*ALL) if kind == "kind 1")
        total = database.execute(f"SELECT sum(value) FROM {table} WHERE kind = 'kind 1'").fetchone()
        assert total[0] == pytest.approx(wanted)
        database.execute(
            f"COPY (SELECT * FROM {table}) TO 's3://{bucket}/by-kind'"
            " (FORMAT parquet, PARTITION_BY (kind))"
        )
        many = database.execute(
            f"SELECT kind, count(*) FROM read_parquet('s3://{bucket}/by-kind/*/*.parquet',"
            " hive_partitioning = true) GROUP BY kind"
        ).fetchall()
        assert dict(many) == {f"kind {n}": len(ALL) * ROWS // 5 for n in range(5)}


@needs_modules(duckdb="duckdb", s3fs="s3fs")
def test_duckdb_reads_through_s3fs(server: WarpServer, bucket: str) -> None:
    import duckdb
    import s3fs

    files = s3fs.S3FileSystem(key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=server.s3)
    with duckdb.connect() as database:
        database.register_filesystem(files)
        database.execute(
            f"COPY (SELECT unnest(range({ROWS})) AS id) TO 's3://{bucket}/ids.parquet'"
        )
        found = database.execute(f"SELECT sum(id) FROM 's3://{bucket}/ids.parquet'").fetchone()

    assert found == (ROWS * (ROWS - 1) // 2,)


@needs_modules(deltalake="deltalake", pyarrow="pyarrow")
def test_delta_takes_commits_of_several_writers(server: WarpServer, bucket: str) -> None:
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    uri = f"s3://{bucket}/table"
    options = rust_options(server.s3)  # no lock table: commits are put with If-None-Match

    def write(batch: int) -> None:
        write_deltalake(uri, pa.table(columns(batch)), mode="append", storage_options=options)

    write_deltalake(uri, pa.table(columns(0)), storage_options=options, partition_by=["kind"])
    each_batch_at_once(write)
    table = DeltaTable(uri, storage_options=options)

    assert table.version() == WRITERS * APPENDS
    assert sorted(entry["version"] for entry in table.history()) == [*range(len(ALL))]
    check(rows_of_delta(table), *ALL)
    check(rows_of_delta(DeltaTable(uri, version=0, storage_options=options)), 0)
    table.delete(f"id >= {ROWS}")
    check(rows_of_delta(table), 0)
    change = pa.table({"id": [5, -1], "kind": ["kind 0", "kind 9"], "value": [0.5, 1.5]})
    merge = table.merge(
        change, "target.id = source.id", source_alias="source", target_alias="target"
    )
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    rows = {row[0]: row for row in rows_of_delta(table)}
    assert (rows[5], rows[-1]) == ((5, "kind 0", 0.5), (-1, "kind 9", 1.5))
    assert len(rows) == ROWS + 1
    table.create_checkpoint()
    table.optimize.compact()
    assert table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    again = DeltaTable(uri, storage_options=options)
    assert {row[0]: row for row in rows_of_delta(again)} == rows


def rows_of_delta(table: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a Delta table."""
    found = table.to_pyarrow_table(columns=["id", "kind", "value"]).to_pylist()
    return [tuple(row.values()) for row in found]


@needs_modules(
    pyiceberg="pyiceberg[pyarrow,sql-sqlite]",
    pyarrow="pyarrow",
    sqlalchemy="sqlalchemy",
    s3fs="s3fs",
)
@pytest.mark.parametrize("io", ["pyarrow", "fsspec"])
def test_iceberg_takes_commits_of_several_writers(
    server: WarpServer, bucket: str, tmp_path: Path, io: str
) -> None:
    import pyarrow as pa
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import CommitFailedException

    kind = {"pyarrow": "PyArrowFileIO", "fsspec": "FsspecFileIO"}[io]
    settings = {
        "uri": f"sqlite:///{tmp_path}/catalog.db?timeout=60",
        "warehouse": f"s3://{bucket}/warehouse",
        "py-io-impl": f"pyiceberg.io.{io}.{kind}",
        "s3.endpoint": server.s3,
        "s3.access-key-id": ACCESS_KEY,
        "s3.secret-access-key": SECRET_KEY,
        "s3.region": REGION,
    }
    catalog = SqlCatalog("tests", **settings)
    catalog.create_namespace("space")
    first = pa.table(columns(0))
    table = catalog.create_table("space.rows", schema=first.schema)
    table.append(first)
    oldest = table.current_snapshot()
    assert oldest

    def writer(number: int) -> None:
        mine = SqlCatalog("tests", **settings)
        for batch in batches_of(number):
            ended = time.monotonic() + LIMIT_S
            while True:
                try:
                    mine.load_table("space.rows").append(pa.table(columns(batch)))
                    break
                except CommitFailedException:  # another one was faster: its snapshot first
                    assert time.monotonic() < ended

    at_once(writer)
    table = catalog.load_table("space.rows")

    found = table.scan().to_arrow().select(["id", "kind", "value"]).to_pylist()
    check([tuple(row.values()) for row in found], *ALL)
    assert len(table.snapshots()) == len(ALL)
    before = table.scan(snapshot_id=oldest.snapshot_id).to_arrow().to_pylist()
    check([tuple(row.values()) for row in before], 0)
    table.delete("id >= 100")
    assert catalog.load_table("space.rows").scan().to_arrow().num_rows == 100


@needs_modules(icechunk="icechunk", zarr="zarr")
def test_icechunk_takes_commits_of_several_writers(server: WarpServer, bucket: str) -> None:
    import icechunk
    import numpy as np
    import zarr

    def repository(make: Callable[..., Any]) -> Any:
        storage = icechunk.s3_storage(
            bucket=bucket,
            prefix="repository",
            region=REGION,
            endpoint_url=server.s3,
            allow_http=True,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            force_path_style=True,
        )
        return make(storage)

    session = repository(icechunk.Repository.create).writable_session("main")
    shape = (len(ALL), ROWS)
    array = zarr.create_array(session.store, name="rows", shape=shape, chunks=(1, ROWS), dtype="f8")
    array[0] = columns(0)["value"]
    first = session.commit("first")

    def writer(number: int) -> None:
        mine = repository(icechunk.Repository.open)
        for batch in batches_of(number):
            session = mine.writable_session("main")
            zarr.open_array(session.store, path="rows", mode="r+")[batch] = columns(batch)["value"]
            session.commit(
                f"batch {batch}", rebase_with=icechunk.ConflictDetector(), rebase_tries=1000
            )

    at_once(writer)
    reader = repository(icechunk.Repository.open)

    found = zarr.open_array(reader.readonly_session("main").store, path="rows", mode="r")[:]
    wanted = np.array([columns(batch)["value"] for batch in ALL])
    assert bool((found == wanted).all())
    messages = {each.message for each in reader.ancestry(branch="main")}
    assert {f"batch {batch}" for batch in ALL[1:]} < messages
    old = zarr.open_array(reader.readonly_session(snapshot_id=first).store, path="rows", mode="r")[
        :
    ]
    assert bool((old[0] == wanted[0]).all())
    assert not old[1:].any()


@needs_modules(s3torchconnectorclient="s3torchconnectorclient")
def test_the_client_of_pytorch_streams_a_data_set(
    server: WarpServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client, S3Exception

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    client = MountpointS3Client(
        region=REGION, endpoint=server.s3, force_path_style=True, part_size=5 << 20
    )
    samples = {f"data/{n:04d}": random.Random(n).randbytes(1000 * n) for n in range(40)}
    samples["model/checkpoint"] = random.Random(1).randbytes(13 << 20)

    def writer(number: int) -> None:
        for key in sorted(samples)[number::WRITERS]:
            stream = client.put_object(bucket, key)
            stream.write(samples[key])
            stream.close()

    at_once(writer)

    listed = [info.key for page in client.list_objects(bucket) for info in page.object_info]
    assert listed == sorted(samples)
    for key in listed:
        assert b"".join(client.get_object(bucket, key)) == samples[key], key
    middle = b"".join(client.get_object(bucket, "model/checkpoint", 6_000_000, 6_000_100))
    assert middle == samples["model/checkpoint"][6_000_000:6_000_100]
    client.copy_object(bucket, "model/checkpoint", bucket, "model/copy")
    assert client.head_object(bucket, "model/copy").size == 13 << 20
    client.delete_object(bucket, "model/copy")
    with pytest.raises(S3Exception):
        client.head_object(bucket, "model/copy")
