"""S3 Select on a real server: boto3 asks, worker processes answer."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]


def select(s3: Any, key: str, expression: str, source: Any, **more: Any) -> tuple[bytes, Any]:
    answer = s3.select_object_content(
        Bucket="select",
        Key=key,
        ExpressionType="SQL",
        Expression=expression,
        InputSerialization=source,
        OutputSerialization={"CSV": {}},
        **more,
    )
    events = list(answer["Payload"])
    records = b"".join(each["Records"]["Payload"] for each in events if "Records" in each)
    assert events[-1] == {"End": {}}
    return records, events[-2]["Stats"]["Details"]


def test_select_answers_over_csv_json_and_gzip(server: WarpServer) -> None:
    s3 = s3_client(server.s3)
    s3.create_bucket(Bucket="select")
    rows = [(n, f"name {n}", n % 7) for n in range(20_000)]
    table = "id,name,kind\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows)
    lines = "".join(json.dumps({"id": a, "at": {"kind": c}}) + "\n" for a, _, c in rows)
    s3.put_object(Bucket="select", Key="csv", Body=table.encode())
    s3.put_object(Bucket="select", Key="gz", Body=gzip.compress(table.encode()))
    s3.put_object(Bucket="select", Key="json", Body=lines.encode())
    use = {"CSV": {"FileHeaderInfo": "USE"}}
    wanted = sum(a for a, _, c in rows if c == 3)

    found, counts = select(s3, "csv", "SELECT SUM(INT(id)) FROM S3Object s WHERE s.kind = '3'", use)
    assert (found, counts["BytesScanned"]) == (f"{wanted}\n".encode(), len(table))
    found, counts = select(
        s3, "gz", "SELECT name FROM S3Object LIMIT 2", use | {"CompressionType": "GZIP"}
    )
    assert found == b"name 0\nname 1\n"
    found, _ = select(
        s3,
        "json",
        "SELECT SUM(s.id) FROM S3Object s WHERE s.at.kind = 3",
        {"JSON": {"Type": "LINES"}},
    )
    assert found == f"{wanted}\n".encode()
    with pytest.raises(ClientError) as refused:
        select(s3, "csv", "SELECT * FROM read_csv('/etc/passwd')", use)
    assert refused.value.response["Error"]["Code"] == "InvalidDataSource"
    s3.close()
