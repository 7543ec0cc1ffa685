"""What an import decides, without endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from warp_cli.importing.carrying import Carrier, canned_acl
from warp_cli.importing.listing import Version, arranged, entries_of, missing
from warp_cli.importing.progress import Kept, Order

LISTED = b"""<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>b</Name><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>
<DeleteMarker><Key>a%2Fb+c</Key><VersionId>3</VersionId><IsLatest>true</IsLatest>
<LastModified>2026-01-02T03:04:05.678Z</LastModified></DeleteMarker>
<Version><Key>a%2Fb+c</Key><VersionId>2</VersionId><IsLatest>false</IsLatest>
<LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Version>
<DeleteMarker><Key>a%2Fb+c</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>
<LastModified>1970-01-01T00:00:01Z</LastModified></DeleteMarker>
</ListVersionsResult>"""


def test_versions_and_markers_are_read_in_their_order() -> None:
    assert list(entries_of(LISTED)) == [
        Version("a/b c", "3", 1767323045678000000, marker=True),
        Version("a/b c", "2", 1767323045678000000, 7, "e", latest=False),
        Version("a/b c", "null", 10**9, marker=True, latest=False),
    ]


def test_markers_that_are_told_apart_are_put_where_they_belong() -> None:
    page = [
        Version("a", "4", 40, latest=True),
        Version("a", "2", 20, latest=False),
        Version("b", "1", 10, latest=False),
        Version("a", "3", 30, marker=True, latest=False),
        Version("b", "2", 10, marker=True, latest=True),
    ]
    assert [(one.key, one.version) for one in arranged(page)] == [
        *(("a", version) for version in "432"),
        *(("b", version) for version in "21"),
    ]
    for told in (page[:3], [page[4], page[2]], [page[3], page[1], page[4], page[2]]):
        assert arranged(told) == told


def versions(count: int) -> list[Version]:
    return [
        Version("k", f"v{number}", number * 10**9, number, marker=number % 3 == 2)
        for number in range(count)
    ]


@given(count=st.integers(0, 8), there=st.integers(0, 8), ids=st.booleans())
def test_what_is_there_and_what_is_missing_is_everything(count: int, there: int, ids: bool) -> None:
    source = versions(count)
    target = [one._replace(version=one.version if ids else "new") for one in source[:there]]
    lacks = missing(source, target, ids=ids, history=True)
    assert lacks == source[there:]
    assert missing(source, [*target, *(lacks or ())], ids=ids, history=True) == []


def test_other_versions_are_never_taken_for_copies() -> None:
    source = versions(3)
    for other in (
        source[0]._replace(size=9),
        source[0]._replace(modified_ns=99 * 10**9),
        source[0]._replace(marker=True),
    ):
        assert missing(source, [other], ids=False, history=True) is None
    assert missing(source[:1], source, ids=False, history=True) is None
    digests = [source[0]._replace(etag=digit * 32) for digit in "ab"]
    assert missing(digests[:1], digests[1:], ids=False, history=False) == digests[:1]
    assert missing(digests[:1], digests[:1], ids=False, history=False) == []


def test_a_null_version_is_known_by_what_it_is() -> None:
    source = [Version("k", "null", 10**9, 5), *versions(2)]
    target = [Version("k", "other", 10**9, 5)]
    assert missing(source, target, ids=True, history=True) == source[1:]


@given(count=st.integers(1, 10_000), size=st.integers(1, 5 * 2**40))
def test_guessed_parts_are_the_whole(count: int, size: int) -> None:
    nobody: Any = None
    carrier = Carrier(nobody, nobody, "b", nobody, "v", ids=False, lock=False, acl=False)
    sizes = carrier._guessed(count, size)
    assert sum(sizes) == size
    assert min(sizes) > 0
    assert len(set(sizes[:-1])) <= 1


@given(st.permutations(range(6)))
def test_a_run_goes_on_behind_the_last_key_before_which_all_are_done(order: list[int]) -> None:
    kept = Order()
    for number in range(6):
        kept.begin(str(number))
    done: set[int] = set()
    for number in order:
        kept.done(str(number))
        done.add(number)
        first = next((each for each in range(6) if each not in done), 6)
        assert kept.after == (str(first - 1) if first else "")


def test_how_far_an_import_is_is_kept_until_it_ends(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "s", "t")
    kept.state.after = "key"
    kept.save()
    assert Kept(tmp_path, "s", "t").state.after == "key"
    assert Kept(tmp_path, "s", "other").state.after == ""
    kept.state.finished = True
    kept.save()
    assert Kept(tmp_path, "s", "t").state.after == ""
    [file] = (tmp_path / "imports").iterdir()
    file.write_bytes(b"damaged")
    assert Kept(tmp_path, "s", "t").state.after == ""


def test_acls_that_have_a_name_are_called_by_it() -> None:
    everybody = {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}
    owner = {"Grantee": {"ID": "me"}, "Permission": "FULL_CONTROL"}
    read = {"Grantee": everybody, "Permission": "READ"}
    other = {"Grantee": {"ID": "you"}, "Permission": "READ"}
    assert canned_acl({"Owner": {"ID": "me"}, "Grants": [owner]}) == "private"
    assert canned_acl({"Owner": {"ID": "me"}, "Grants": [owner, read]}) == "public-read"
    assert canned_acl({"Owner": {"ID": "me"}, "Grants": [owner, other]}) is None
