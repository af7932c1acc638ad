"""Files of unions over repositories, which FUSE serves, have numbers as files of one file system have.

What programs such as `tar`, `rsync` and `du` tell hard links and mounts by.
"""

import dataclasses
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.node import mounts, overlay_check
from services.node.layers import Layer
from services.node.mounts import mount_table
from tests.node.conftest import Build, Core
from tests.support.fuse import served
from tests.support.mounts import ext4
from tests.support.repositories import Repository

_FILES = {"file": "x" * 5000, "directory/inner": "y" * 5000, "directory/deep/leaf": "z" * 5000}


@pytest.fixture
def home(tmp_path: Path, mounting: None, request: pytest.FixtureRequest) -> Iterator[Path]:  # noqa: ARG001 - ends after
    """Home of a driver on a file system of its own, which has a UUID unless a test asks for one that has none."""
    home = tmp_path / "disk"
    ext4(home, uuid=getattr(request, "param", True))
    yield home
    subprocess.run(["umount", str(home)], check=True)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Repository, Repository]:
    return Repository(tmp_path / "sources"), Repository(tmp_path / "sources", "other.example.org")


@pytest.fixture
def clients(cvmfs_root: Path, sources: tuple[Repository, Repository]) -> Iterator[None]:
    """Serve both repositories as clients of CVMFS do."""
    with ExitStack() as stack:
        for source in sources:
            stack.enter_context(served(source.root, cvmfs_root / source.name))
        yield


@pytest.fixture(autouse=True)
async def _unmount(core: Core, clients: None) -> AsyncIterator[None]:  # noqa: ARG001 - end after this
    yield
    for layer_id in core.unions.mounted():
        await core.unions.discard(layer_id)
    await core.repositories.shut_down()


@pytest.fixture
async def thin(core: Core, sources: tuple[Repository, Repository]) -> Layer:
    """A container of a thin image, as the engine makes it."""
    core.add_thin("thin", None, [sources[0].publish("one", _FILES, whiteouts=[b"gone"])])
    core.add("c-init", "thin", {"hosts": ""}, container=True)
    return core.add("c", "c-init", container=True)


def _numbers(file: Path) -> tuple[int, int, int]:
    status = file.lstat()
    return status.st_dev, status.st_ino, status.st_nlink


def _forget() -> None:
    """Have the kernel forget what it knows of files that nobody uses."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


def _devices(union: Path) -> set[int]:
    return {path.lstat().st_dev for path in (union, *union.rglob("*"))}


def _usage(union: Path, *options: str) -> int:
    du = subprocess.run(["du", "--summarize", "--bytes", *options, str(union)], check=True, capture_output=True)
    return int(du.stdout.split()[0])


def _options(union: Path) -> list[str]:
    [found] = [mount for mount in mount_table() if mount.point == str(union)]
    return found.options.split(",")


async def test_a_hard_link_made_in_a_container_is_the_file_itself(core: Core, thin: Layer) -> None:
    union = await core.mount(thin)
    (union / "directory/deep/leaf").stat()
    os.link(union / "directory/deep/leaf", union / "second")
    os.link(union / "second", union / "directory/third")
    names = [union / "directory/deep/leaf", union / "second", union / "directory/third"]
    [first] = set(map(_numbers, names))
    assert first[2] == 3
    with names[0].open("ab") as file:
        file.write(b"more")
        file.flush()
        # Also where one name is in use and the others have to be looked up anew.
        _forget()
        assert len(set(map(_numbers, names))) == 1
    _forget()
    assert len(set(map(_numbers, reversed(names)))) == 1
    assert [name.read_bytes() for name in names] == [b"z" * 5000 + b"more"] * 3


async def test_a_file_keeps_its_number_when_it_is_changed(core: Core, thin: Layer) -> None:
    union = await core.mount(thin)
    with (union / "file").open("rb") as kept:
        before = _numbers(union / "file")
        (union / "file").chmod(0o600)
        assert _numbers(union / "file") == before
        assert (os.fstat(kept.fileno()).st_dev, os.fstat(kept.fileno()).st_ino) == before[:2]


async def test_all_files_are_of_one_device(core: Core, thin: Layer) -> None:
    union = await core.mount(thin)
    (union / "own").write_text("own")
    (union / "file").chmod(0o600)
    assert _devices(union) == {union.stat().st_dev}
    assert _usage(union, "--one-file-system") == _usage(union) > 15000


async def test_files_of_several_repositories_are_of_one_device_too(
    core: Core, sources: tuple[Repository, Repository]
) -> None:
    core.add_thin("thin", None, [sources[0].publish("one", {"a/b": "one"}), sources[1].publish("two", {"a/c": "two"})])
    union = await core.mount(core.add("c", "thin", container=True))
    assert _devices(union) == {union.stat().st_dev}


@pytest.mark.parametrize("home", [False], indirect=True)
async def test_files_are_of_one_device_on_a_home_without_uuid(core: Core, thin: Layer) -> None:
    union = await core.mount(thin)
    assert _devices(union) == {union.stat().st_dev}


@pytest.mark.parametrize(
    ("home", "told"),
    [
        (True, "one file to programs, but on images of several repositories"),
        (False, "two files to programs: the file system of {home} has no UUID"),
    ],
    indirect=["home"],
)
async def test_the_status_says_what_can_be_had(build: Build, home: Path, told: str) -> None:
    status = dict(await build().reports.status())
    assert status["Hard links made in thin containers"] == told.format(home=home)


async def test_the_status_of_a_driver_that_began_on_a_full_disk(
    build: Build, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(overlay_check, "mount_overlay", full)
    status = dict(await build().reports.status())
    assert status["Hard links made in thin containers"] == f"not known: {home} was full when it was to be tried"


async def test_a_kernel_without_such_numbers_is_not_asked_for_them(
    core: Core, thin: Layer, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own parameters say what it knows; here they are those of Linux 4.16."""
    parameters = tmp_path / "parameters"
    parameters.mkdir()
    for name in ("index", "redirect_dir"):
        (parameters / name).touch()
    monkeypatch.setattr(mounts, "_OVERLAY_PARAMETERS", parameters)
    union = await core.mount(thin)
    assert not [option for option in _options(union) if option.startswith("xino")]
    status = dict(await build().reports.status())
    assert status["Hard links made in thin containers"] == (
        "two files to programs, and du -x leaves files out: the kernel is older than Linux 4.17"
    )


async def test_numbers_in_regular_images_fit_into_32_bits(core: Core) -> None:
    """Old programs cannot take longer ones, and all files are of one file system anyway."""
    core.add("base", None, {"file": ""})
    union = await core.mount(core.add("c", "base", container=True))
    assert not [option for option in _options(union) if option.startswith("xino")]
    assert (union / "file").stat().st_ino < 1 << 32


async def test_such_a_union_is_taken_over_by_the_next_process(core: Core, thin: Layer) -> None:
    union = await core.mount(thin)
    assert "xino=on" in _options(union)
    adopted = await dataclasses.replace(core).unions.adopt()
    lowers = await core.builder.lowers(core.lineage(thin), holder=thin.id)
    assert adopted == {thin: frozenset(lowers)}
