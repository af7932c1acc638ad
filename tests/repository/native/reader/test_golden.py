"""What the reader finds in the real server's repository against what the real client shows."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError, StorageError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.revision import Revision
from services.repository.native.reader.source import HttpSource
from services.repository.native.records import HashAlgorithm
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.golden import GOLDEN, Open, client_view, expected
from tests.support.static_files import StaticFiles, served


class _Counting:
    """A source that remembers what was opened."""

    def __init__(self) -> None:
        self._storage = DirectoryStorage(GOLDEN)
        self.opened: list[str] = []

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        self.opened.append(path)
        with self._storage.open(path) as file:
            yield file

    def size(self, path: str) -> int | None:
        return self._storage.size(path)


def test_the_head_is_what_the_client_shows(open_golden: Open) -> None:
    reader = open_golden()
    assert client_view(reader.newest(reader.head())) == expected("expected")


def test_a_tag_is_what_the_client_shows(open_golden: Open) -> None:
    reader = open_golden()
    assert client_view(reader.tagged(reader.head(), "v1")) == expected("expected-v1")


def test_a_web_server_shows_the_same(open_golden: Open) -> None:
    with served(GOLDEN) as url:
        reader = open_golden(HttpSource(url))
        assert client_view(reader.newest(reader.head())) == expected("expected")


def test_what_a_web_server_lacks_is_missing_and_one_that_is_gone_has_failed(open_golden: Open) -> None:
    with served(GOLDEN) as url, pytest.raises(ObjectMissingError, match=r"data/none does not exist \(HTTP 404\)"):
        HttpSource(url).open("data/none").__enter__()
    with served(GOLDEN) as url:
        assert HttpSource(url).size("data/none") is None
        assert HttpSource(url).size(".cvmfspublished") == 600
    with pytest.raises(StorageError, match="Connection refused"):
        open_golden(HttpSource(url)).head()


class _CutOff(StaticFiles):
    """Ends connections before what it has announced is there."""

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        outputfile.write(source.read(100))
        self.close_connection = True


def test_an_answer_that_ends_too_early_is_a_failure_of_the_server_not_of_the_repository(open_golden: Open) -> None:
    with (
        served(GOLDEN, _CutOff) as url,
        pytest.raises(StorageError, match=r"\.cvmfswhitelist cannot be read to its end: 311 bytes are missing"),
    ):
        open_golden(HttpSource(url)).head()


@pytest.mark.parametrize("url", ["ftp://host/", "file:///etc", "/srv/cvmfs", "http://"])
def test_only_web_servers_have_addresses(url: str) -> None:
    with pytest.raises(StorageError, match="not the address of a repository"):
        HttpSource(url)


def test_the_manifest_says_what_it_says(open_golden: Open) -> None:
    reader = open_golden()
    head = reader.head()
    assert (head.manifest.revision, head.manifest.ttl, head.manifest.published) == (7, 240, 1795505437)
    assert head.manifest.collectable
    assert (
        head.certificate.fingerprint(HashAlgorithm.SHA1)
        == "72:71:7F:29:7C:E1:0E:44:37:02:6C:03:8B:FB:23:B4:1B:7C:88:C9"
    )
    assert f"{head.whitelist.expires:%Y-%m-%d}" == "2095-05-06"
    assert json.loads(reader.meta(head))["administrator"] == "Your Name"


def test_tags_come_newest_first(open_golden: Open) -> None:
    reader = open_golden()
    tags = [(tag.name, tag.revision, tag.description) for tag in reader.tags(reader.head())]
    assert tags == [
        ("trunk", 7, "current HEAD"),
        ("v2", 7, "second"),
        ("trunk-previous", 6, "default undo target"),
        ("v1", 5, "first"),
    ]


def test_a_tag_that_is_not_there_is_named(open_golden: Open) -> None:
    reader = open_golden()
    with pytest.raises(BrokenRepositoryError, match="has no tag 'v3'"):
        reader.tagged(reader.head(), "v3")


def test_a_look_up_opens_the_catalogs_on_its_way_and_no_others(open_golden: Open) -> None:
    source = _Counting()
    reader = open_golden(source)
    revision = reader.newest(reader.head())
    source.opened.clear()
    catalogs = {
        b"/files/small.txt": 1,  # in the root catalog
        b"/nested1": 0,  # the root catalog has its row
        b"/nested1/deep/nested2": 1,
        b"/nested1/deep/nested2/n2.txt": 1,
        b"/nested1/deep": 0,  # all there by now
        b"/ingested/d/none": 1,
        b"": 0,
    }
    found = {}
    for path in catalogs:
        entry = revision.stat(path)
        assert (entry is None) == path.endswith(b"none")
        found[path] = len(source.opened)
        source.opened.clear()
    assert found == catalogs


def test_catalogs_are_let_go_when_there_is_no_room(open_golden: Open) -> None:
    source = _Counting()
    with CatalogCache(source, room=1) as cache:
        reader = open_golden(source)
        revision = Revision(source, reader.newest(reader.head()).root, catalogs=cache)
        source.opened.clear()
        for _ in range(2):
            assert revision.stat(b"/nested1/n1.txt") is not None
        assert len(source.opened) == 4  # the catalogs of the root and of /nested1, twice


def test_the_directory_of_temporary_files_may_have_any_name(
    open_golden: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "50%41?mode=rw#x"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    reader = open_golden()
    assert reader.newest(reader.head()).stat(b"/files/small.txt") is not None
    assert list(odd.iterdir()) == []  # an open file needs no name
