"""The check of the reference log beside a publisher, and after one that was killed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker, Report
from services.repository.native.records import MANIFEST, REFLOG, WAITING_REFLOG
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.tags import Tags
from services.repository.native.writer.history import TagName
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.thin_repository import thin_repository


class Changing:
    """A source that is changed by somebody else before the first reads of reference log and manifest."""

    def __init__(self, site: NativeSite, change: Callable[[], None], *, times: int) -> None:
        self._storage = DirectoryStorage(site.root)
        self._change = change
        self._left = times

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        if path in (REFLOG, MANIFEST) and self._left:
            self._left -= 1
            self._change()
        with self._storage.open(path) as file:
            yield file

    def size(self, path: str) -> int | None:
        return self._storage.size(path)


def checked(site: NativeSite, source: Changing | DirectoryStorage) -> Report:
    return Checker(source, name=NATIVE_NAME, master_keys=[site.keys.public.read_bytes()]).run()


@pytest.mark.parametrize("times", [2, 3, 4])
def test_what_is_published_during_a_check_is_no_defect(site: NativeSite, times: int) -> None:
    numbers = iter(range(100))

    def publish() -> None:
        access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
        Tags(access).add(TagName(f"tag-{next(numbers)}"), description="", revision=None)

    assert checked(site, Changing(site, publish, times=times)).problems == ()
    assert next(numbers) == times


def test_another_log_is_told_whoever_has_put_it_there(site: NativeSite) -> None:
    with (site.root / REFLOG).open("ab") as file:
        file.write(bytes(1024))
    (problem,) = checked(site, site.storage).problems
    assert (problem.place, problem.what.partition(" ")[0]) == (REFLOG, "its")
    assert problem.remedy == "start the publisher, which signs the manifest again, as every change does"


def test_a_log_that_waits_is_noted_and_no_defect(site: NativeSite) -> None:
    assert checked(site, site.storage).note is None
    (site.root / REFLOG).rename(site.root / WAITING_REFLOG)
    report = checked(site, site.storage)
    assert report.problems == ()
    assert report.note is not None
    assert "The next start of the publisher puts it in its place" in report.note

    arguments = ("check", NATIVE_NAME, "--directory", site.root, "--keys", site.keys.public.parent)
    ended = thin_repository(*arguments)
    assert ended.status == 0
    assert ended.output.startswith(f"note: {report.note}\nno problem: ")
    assert json.loads(thin_repository(*arguments, "--json").output)["note"] == report.note


async def test_a_start_of_the_publisher_puts_right_what_an_earlier_version_left(site: NativeSite) -> None:
    """Which replaced the log first, and could be killed before the manifest."""
    before = site.storage.read(REFLOG)
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    manifest = site.storage.read(MANIFEST)
    Tags(access).add(TagName("x"), description="", revision=None)
    assert site.storage.read(REFLOG) != before
    site.storage.replace(MANIFEST, manifest)
    assert site.problems() != []
    async with site.opened():
        assert site.problems() == []
