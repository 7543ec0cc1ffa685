"""XML answers: parsed by botocore, which is what most clients do."""

from typing import Any
from xml.etree import ElementTree

import botocore.parsers
import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.views.objects import (
    Attributes,
    Listing,
    ObjectInfo,
    PartInfo,
    UploadInfo,
    VersionListing,
    VolumeInfo,
)
from warp_s3 import xml_output as xml

TIME = 1_700_000_000_123_456_789
MODEL = botocore.session.get_session().get_service_model("s3")
PARSER = botocore.parsers.create_parser("rest-xml")


def client_reads(operation: str, body: bytes) -> dict[str, Any]:
    shape = MODEL.operation_model(operation).output_shape
    answer: dict[str, Any] = PARSER.parse({"status_code": 200, "headers": {}, "body": body}, shape)
    del answer["ResponseMetadata"]
    return answer


def owner(name: str) -> str:
    return xml.owner_element(name, "display")


def entry(key: bytes, **more: Any) -> ObjectInfo:
    return ObjectInfo(key=key, size=5, etag="e" * 32, modified_ns=TIME, owner="o", **more)


def test_a_client_reads_a_listing_with_everything_in_it() -> None:
    listing = Listing(
        [entry(b"a&b", checksum_algorithms=("CRC32",), checksum_type="FULL_OBJECT"), entry(b"c")],
        [b"p/"],
        b"p/",
    )

    body = xml.objects_v2(
        "bucket",
        listing,
        prefix=b"",
        delimiter=b"/",
        limit=3,
        encoding_type="url",
        start_after=b"A",
        token="t",
        next_token="n",
        owners=owner,
    )
    answer = client_reads("ListObjectsV2", body)

    assert answer["Name"] == "bucket"
    assert answer["KeyCount"] == 3
    assert answer["IsTruncated"] is True
    assert (answer["ContinuationToken"], answer["NextContinuationToken"]) == ("t", "n")
    assert answer["CommonPrefixes"] == [{"Prefix": "p/"}]
    first = answer["Contents"][0]
    assert first["Key"] == "a%26b"
    assert first["ETag"] == f'"{"e" * 32}"'
    assert first["Owner"] == {"ID": "o", "DisplayName": "display"}
    assert first["ChecksumAlgorithm"] == ["CRC32"]
    assert first["LastModified"].isoformat() == "2023-11-14T22:13:20+00:00"


def test_the_first_version_of_listing_names_where_to_go_on() -> None:
    listing = Listing([entry(b"a")], [b"b/"], b"b/")

    body = xml.objects_v1(
        "bucket",
        listing,
        prefix=b"",
        marker=b"",
        delimiter=b"/",
        limit=2,
        encoding_type="",
        owners=owner,
    )
    answer = client_reads("ListObjects", body)

    assert (answer["NextMarker"], answer["IsTruncated"]) == ("b/", True)
    assert answer["Contents"][0]["Owner"]["ID"] == "o"


def test_versions_and_markers_keep_their_order() -> None:
    listing = VersionListing(
        [entry(b"k", marker=True, version="3"), entry(b"k", version="2", latest=False)],
        [],
        b"k",
        "2",
    )

    body = xml.versions(
        "bucket",
        listing,
        prefix=b"",
        delimiter=b"",
        key_marker=b"",
        version_marker="",
        limit=2,
        encoding_type="",
        owners=owner,
    )
    answer = client_reads("ListObjectVersions", body)

    assert body.index(b"<DeleteMarker>") < body.index(b"<Version>")
    assert answer["DeleteMarkers"][0]["VersionId"] == "3"
    assert answer["DeleteMarkers"][0]["IsLatest"] is True
    assert answer["Versions"][0]["IsLatest"] is False
    assert (answer["NextKeyMarker"], answer["NextVersionIdMarker"]) == ("k", "2")


def test_uploads_and_parts_are_read_by_a_client() -> None:
    upload = UploadInfo(b"k", "u", TIME, Attributes(owner="o"), "CRC32", "COMPOSITE")

    body = xml.uploads(
        "bucket",
        [upload],
        [b"p/"],
        truncated=True,
        prefix=b"",
        delimiter=b"/",
        key_marker=b"",
        upload_marker="",
        limit=2,
        encoding_type="",
        owners=owner,
    )
    listed = client_reads("ListMultipartUploads", body)
    parts = client_reads(
        "ListParts",
        xml.parts(
            "bucket",
            b"k",
            upload,
            [PartInfo(number=1, size=5, etag="e", modified_ns=TIME, checksums={"CRC32": "AA=="})],
            truncated=False,
            after=0,
            limit=1000,
            encoding_type="",
            owner=owner("o"),
        ),
    )

    assert listed["Uploads"][0]["UploadId"] == "u"
    assert listed["Uploads"][0]["Initiator"]["ID"] == "o"
    assert listed["NextKeyMarker"] == "p/"
    assert parts["Parts"][0] | {"LastModified": None} == {
        "PartNumber": 1,
        "LastModified": None,
        "ETag": '"e"',
        "Size": 5,
        "ChecksumCRC32": "AA==",
    }
    assert parts["ChecksumType"] == "COMPOSITE"


def test_attributes_hold_what_was_wanted_and_nothing_else() -> None:
    info = entry(
        b"k",
        checksums={"CRC32": "AA==-2"},
        checksum_type="COMPOSITE",
        parts=tuple(
            PartInfo(number=number, size=1, etag="e", checksums={"CRC32": "AA=="})
            for number in (1, 2, 3)
        ),
    )

    everything = client_reads(
        "GetObjectAttributes",
        xml.attributes(
            info,
            frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}),
            part_limit=2,
        ),
    )
    size = client_reads("GetObjectAttributes", xml.attributes(info, frozenset({"ObjectSize"})))

    assert everything["ETag"] == "e" * 32
    assert everything["Checksum"] == {"ChecksumCRC32": "AA==-2", "ChecksumType": "COMPOSITE"}
    assert everything["ObjectParts"]["TotalPartsCount"] == 3
    assert everything["ObjectParts"]["IsTruncated"] is True
    assert [part["PartNumber"] for part in everything["ObjectParts"]["Parts"]] == [1, 2]
    assert size == {"ObjectSize": 5}


def test_small_documents_are_read_by_a_client() -> None:
    volumes = [VolumeInfo("a", TIME), VolumeInfo("b", TIME)]
    buckets = client_reads(
        "ListBuckets", xml.buckets(volumes, owner="o", display="d", prefix="", token="b")
    )
    copied = client_reads("CopyObject", xml.copied("CopyObjectResult", entry(b"k")))
    tags = client_reads("GetObjectTagging", xml.tagging({"<": "&"}))
    acl = client_reads("GetBucketAcl", xml.access_control("o", "d"))
    done = client_reads(
        "CompleteMultipartUpload", xml.upload_completed("http://h/b/k", "b", entry(b"k"))
    )

    assert [bucket["Name"] for bucket in buckets["Buckets"]] == ["a", "b"]
    assert buckets["ContinuationToken"] == "b"
    assert copied["CopyObjectResult"]["ETag"] == f'"{"e" * 32}"'
    assert tags["TagSet"] == [{"Key": "<", "Value": "&"}]
    assert acl["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert acl["Grants"][0]["Grantee"]["Type"] == "CanonicalUser"
    assert (done["Location"], done["Key"]) == ("http://h/b/k", "k")
    assert client_reads("GetBucketVersioning", xml.versioning("on")) == {"Status": "Enabled"}
    assert client_reads("GetBucketVersioning", xml.versioning("off")) == {}
    assert (
        client_reads("CreateMultipartUpload", xml.upload_created("b", b"k", "u"))["UploadId"] == "u"
    )


def test_an_error_names_code_resource_and_request() -> None:
    body = xml.error("NoSuchKey", "gone <&>", resource="/b/k", request_id="R", details={"Key": "k"})
    root = ElementTree.fromstring(body)

    assert [(child.tag, child.text) for child in root] == [
        ("Code", "NoSuchKey"),
        ("Message", "gone <&>"),
        ("Key", "k"),
        ("Resource", "/b/k"),
        ("RequestId", "R"),
    ]


@pytest.mark.parametrize(("region", "text"), [("us-east-1", None), ("eu-west-1", "eu-west-1")])
def test_the_first_region_has_no_name(region: str, text: str | None) -> None:
    assert ElementTree.fromstring(xml.location(region)).text == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="￾￿")))
def test_escaped_text_comes_back(text: str) -> None:
    assert (ElementTree.fromstring(f"<a>{xml.escape(text)}</a>".encode()).text or "") == text


@given(st.binary(max_size=30))
def test_url_encoded_keys_come_back(key: bytes) -> None:
    from urllib.parse import unquote_to_bytes

    written = xml.url_key(key)

    assert unquote_to_bytes(written) == key
    assert xml.escape(written) == written


def test_control_characters_are_referred_to_as_s3_does() -> None:
    assert xml.escape("a\x01\r") == "a&#x1;&#xd;"
