"""Reference log and manifest belong together at every moment, whatever step a kill comes at."""

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import StorageError
from services.repository.native.records import MANIFEST, REFLOG, WAITING_REFLOG, WHITELIST
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.tags import Tags
from services.repository.native.writer.history import TagName
from services.repository.native.writer.reflog import ReferenceLog
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.stock_rules import faults_of_reflog


class Killed(BaseException):
    """What nothing handles, as nothing handles a kill."""


class Interrupted(DirectoryStorage):
    """A storage whose user is killed before one of its changes of the root, or after it."""

    def __init__(self, root: Path, last: int, *, after: bool) -> None:
        super().__init__(root)
        self._left = last
        self._after = after

    def _step(self, change: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        change()
        if self._left == 0:
            raise Killed

    def replace(self, name: str, content: bytes) -> None:
        self._step(lambda: super(Interrupted, self).replace(name, content))

    def move(self, name: str, place: str) -> None:
        self._step(lambda: super(Interrupted, self).move(name, place))

    def delete(self, paths: "list[str]") -> None:  # type: ignore[override]  # only lists come here
        self._step(lambda: super(Interrupted, self).delete(paths))


def opened(site: NativeSite, storage: DirectoryStorage | None = None) -> RepositoryAccess:
    return RepositoryAccess.open(name=NATIVE_NAME, storage=storage or site.storage, keys=site.keys)


def faults(site: NativeSite) -> list[str]:
    def read(name: str) -> bytes | None:
        path = site.root / name
        return path.read_bytes() if path.exists() else None

    return faults_of_reflog(read)


def add_tag(access: RepositoryAccess, name: str) -> None:
    Tags(access).add(TagName(name), description="", revision=None)


@pytest.mark.parametrize("last", range(1, 5))
@pytest.mark.parametrize("after", [False, True])
async def test_a_kill_leaves_what_checkers_accept_and_the_next_start_makes_it_whole(
    site: NativeSite, last: int, *, after: bool
) -> None:
    add_tag(opened(site), "before")
    known = set(ReferenceLog().read(site.storage.read(REFLOG), name=NATIVE_NAME))
    manifest = site.storage.read(MANIFEST)
    with pytest.raises(Killed):
        add_tag(opened(site, Interrupted(site.root, last, after=after)), "killed")
    assert faults(site) == []
    assert site.problems() == []
    published = site.storage.read(MANIFEST) != manifest
    assert published == ((last, after) >= (3, True))

    opened(site)
    assert site.storage.size(REFLOG) is not None
    assert faults(site) == []
    async with site.opened():
        assert site.storage.size(REFLOG) is not None
        assert faults(site) == []
        assert site.problems() == []
    assert ("killed" in [tag.name for tag in Tags(opened(site)).list()]) == published
    assert known <= set(ReferenceLog().read(site.storage.read(REFLOG), name=NATIVE_NAME))
    add_tag(opened(site), "after")
    assert not (site.root / WAITING_REFLOG).exists()
    assert faults(site) == []
    assert site.problems() == []


def test_what_cannot_be_finished_yet_is_left_to_the_next_one(site: NativeSite) -> None:
    with pytest.raises(Killed):
        add_tag(opened(site, Interrupted(site.root, 3, after=False)), "killed")
    with capture_logs() as logs, site.storage.exclusive():
        opened(site)
    assert [entry["event"] for entry in logs] == ["an interrupted change of the head is not finished yet"]
    assert site.storage.size(REFLOG) is None
    whitelist = site.root / WHITELIST
    content = whitelist.read_bytes()
    whitelist.write_bytes(b"damaged")
    opened(site).whitelist.renew()  # which is what puts it right
    whitelist.write_bytes(content)
    opened(site)
    assert site.storage.size(REFLOG) is not None
    assert site.problems() == []


def test_a_change_has_four_steps(site: NativeSite) -> None:
    add_tag(opened(site, Interrupted(site.root, 5, after=False)), "whole")
    assert not (site.root / WAITING_REFLOG).exists()
    assert faults(site) == []


class Failing(DirectoryStorage):
    """A storage that fails at one step of a change."""

    def __init__(self, root: Path, step: str) -> None:
        super().__init__(root)
        self.step = step

    def replace(self, name: str, content: bytes) -> None:
        if name == self.step:
            raise StorageError("no space left")
        super().replace(name, content)

    def move(self, name: str, place: str) -> None:
        if place == self.step:
            raise StorageError("no space left")
        super().move(name, place)


@pytest.mark.parametrize("step", [WAITING_REFLOG, MANIFEST, REFLOG])
def test_a_failure_of_the_storage_leaves_what_checkers_accept(site: NativeSite, step: str) -> None:
    storage = Failing(site.root, step)
    access = opened(site, storage)
    with capture_logs() as logs:
        if step == REFLOG:
            add_tag(access, "done")  # the manifest is there, so this is no failure
            assert [entry["reason"] for entry in logs] == ["no space left"]
        else:
            with pytest.raises(StorageError, match="no space left"):
                add_tag(access, "not-done")
    assert faults(site) == []
    assert site.problems() == []
    storage.step = ""
    add_tag(access, "again")
    assert faults(site) == []
    assert site.problems() == []
    assert {"done"} & {tag.name for tag in Tags(access).list()} == ({"done"} if step == REFLOG else set())


def test_a_log_that_other_tools_have_put_there_is_what_counts(site: NativeSite) -> None:
    log = site.storage.read(REFLOG)
    with pytest.raises(Killed):
        add_tag(opened(site, Interrupted(site.root, 2, after=True)), "killed")
    site.storage.replace(REFLOG, log)  # as a collection by the stock tools does
    add_tag(opened(site), "x")
    assert not (site.root / WAITING_REFLOG).exists()
    assert faults(site) == []
    assert site.problems() == []
