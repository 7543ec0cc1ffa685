"""Object lock, lifecycle and access logs through `warp serve`: what they promise outlives the server that promised it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

PATIENCE_S = 60.0
SHORT = 'access_log_interval = "1s"\n[services.lifecycle]\nday = "2s"\n'


@pytest.fixture
def server(tmp_path: Path) -> WarpServer:
    config = tmp_path / "warp.toml"
    config.write_text(config_text(extra=SHORT))
    return WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs")


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)
    return result


def keys(s3: Any, bucket: str, prefix: str = "") -> list[str]:
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in found]


def test_locks_rules_and_logs_outlive_a_kill(server: WarpServer) -> None:
    with server:
        s3 = s3_client(server.s3)
        s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        s3.create_bucket(Bucket="plain")
        s3.create_bucket(Bucket="logs")
        s3.put_bucket_logging(
            Bucket="plain",
            BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "p/"}},
        )
        lock = {
            "ObjectLockMode": "COMPLIANCE",
            "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=1),
        }
        kept = s3.put_object(Bucket="locked", Key="k", Body=b"kept", **lock)["VersionId"]
        # Rules that would take everything, everywhere.
        rules = {
            "Rules": [
                {
                    "ID": "all",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "Expiration": {"Days": 1},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                }
            ]
        }
        for bucket in ("locked", "plain"):
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
        s3.put_object(Bucket="plain", Key="k", Body=b"goes")
        s3.create_multipart_upload(Bucket="plain", Key="never finished")
        server.kill()
    with server:
        s3 = s3_client(server.s3)
        until(lambda: not keys(s3, "plain"), "the object expired")
        until(lambda: "Uploads" not in s3.list_multipart_uploads(Bucket="plain"), "the upload went")
        until(
            lambda: s3.list_object_versions(Bucket="locked").get("DeleteMarkers"),
            "a marker hides the locked object",
        )
        logs = until(lambda: keys(s3, "logs", "p/"), "the log was delivered")
        text = "".join(
            s3.get_object(Bucket="logs", Key=key)["Body"].read().decode() for key in logs
        )
        assert "REST.PUT.OBJECT k " in text
        time.sleep(
            3
        )  # sweeps that find the locked version noncurrent for more than a day of two seconds
        for bypass in (False, True):
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(
                    Bucket="locked", Key="k", VersionId=kept, BypassGovernanceRetention=bypass
                )
        answer = s3.get_object(Bucket="locked", Key="k", VersionId=kept)
        assert answer["Body"].read() == b"kept"
        assert server.terminate() == 0
