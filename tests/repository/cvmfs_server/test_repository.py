"""A repository behind `cvmfs_server`: what is published, whose transaction is whose, and what survives its failures."""

import asyncio
import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from harness.processes import wait_until
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive, LayerContent
from services.common.archive.unpack import unpack
from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.repository.cvmfs_server import readiness
from services.repository.cvmfs_server.claim import claim
from services.repository.cvmfs_server.identity import process_identity
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.repository import CvmfsServerRepository
from services.repository.cvmfs_server.tool import CvmfsServer, ToolTimeouts
from services.repository.errors import (
    ForeignTransactionError,
    ImageRefusedError,
    LayerAdditionError,
    LayerRefusedError,
    NoTransactionError,
    RepositoryError,
    TransactionLeftOpenError,
)
from services.repository.interface import ListedLayer, OwnTransaction, Publication
from services.repository.layer import VerifiedLayer
from services.repository.outputs import FlatOutput, ImageOutputs
from tests.support.cvmfs_server.held import second_mount
from tests.support.cvmfs_server.standin import StandIn
from tests.support.images import image_of_layers
from tests.support.processes import command_lines, runs
from tests.support.publisher import REPOSITORY, make_layer, verified

_PATIENT = ToolTimeouts(transaction=300, publish=300, abort=300)


@pytest.fixture(autouse=True)
def environment(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in standin.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


async def _forget(_process: str | None) -> None:
    """Stand in for the journal, which remembers which program works on a transaction."""


def _place(standin: StandIn, name: RepositoryName = REPOSITORY) -> Place:
    return Place(name=name, mount=standin.mount, spool=standin.spool, configuration=standin.configuration)


Build = Callable[..., CvmfsServerRepository]


@pytest.fixture
def build(standin: StandIn, threads: ThreadPoolExecutor) -> Build:
    """Build a repository, as a publisher does when it starts."""

    def build(
        timeouts: ToolTimeouts = _PATIENT,
        layout: LayerLayout = LayerLayout.FLAT,
        patience: float = 0.3,
        record: Callable[[str | None], Awaitable[None]] = _forget,
    ) -> CvmfsServerRepository:
        return CvmfsServerRepository(
            place=_place(standin),
            layout=layout,
            tool=CvmfsServer(repository=REPOSITORY, timeouts=timeouts, record_process=record),
            patience=patience,
            threads=threads,
        )

    return build


@pytest.fixture
def repository(build: Build) -> CvmfsServerRepository:
    return build()


async def _publish(repository: CvmfsServerRepository, *archives: LayerArchive, token: str = "token") -> int | None:  # noqa: S107
    prepared = [await repository.prepare(verified(archive)) for archive in archives]
    async with repository.transaction(token) as transaction:
        for layer in prepared:
            await transaction.add(layer)
        return await transaction.publish()


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True)


@asynccontextmanager
async def _hanging(standin: StandIn, point: str) -> AsyncIterator[None]:
    """Let the program hang at a point until the context ends."""
    standin.want(f"hang.{point}")
    try:
        yield
    finally:
        standin.no_longer(f"hang.{point}")


async def test_a_batch_becomes_a_revision(repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path) -> None:
    one, two = make_layer(tmp_path, "one", {"a/b": "content"}), make_layer(tmp_path, "two")
    await repository.recover(())
    await repository.check()
    assert await repository.lookup(one.digest) is None
    assert await _publish(repository, one, two) == 2
    assert not standin.in_transaction
    assert (standin.published / one.digest / "a" / "b").read_text() == "content"
    home = standin.published / layer_home(two.digest)
    assert sorted(os.listdir(home)) == [".cvmfscatalog", "layer.json", "layerfs"]
    assert (home / ".cvmfscatalog").stat().st_size == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert (home / "layerfs" / "name").read_text() == "two"
    assert LayerSidecar.parse((home / "layer.json").read_bytes(), where="").diff_id == two.diff_id
    assert await repository.lookup(one.digest) == Publication(revision=None)
    assert await _publish(repository, make_layer(tmp_path, "three")) == 3


async def test_an_image_with_outputs_is_refused(repository: CvmfsServerRepository) -> None:
    await repository.recover(())
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", ()), outputs=ImageOutputs(flat=FlatOutput()))
    async with repository.transaction("token") as transaction:
        with pytest.raises(ImageRefusedError, match="ask for it without outputs, or have a native repository"):
            await transaction.put_image(image)
        await transaction.publish()
    assert await repository.list_images() == []
    assert await repository.list_flats() == ()


async def test_the_ducc_layout_links_nothing_at_the_root(build: Build, standin: StandIn, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    await _publish(build(layout=LayerLayout.DUCC), archive)
    assert os.listdir(standin.published) == [".layers"]
    assert (standin.published / LayerLayout.DUCC.path(archive.digest) / "name").read_text() == "one"


async def test_a_layer_keeps_what_cvmfs_can_keep_and_lists_its_deletions(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    standin.configure("CVMFS_INCLUDE_XATTRS", "true")
    tree = tmp_path / "layer.tree"
    (tree / "replaced").mkdir(parents=True)
    os.setxattr(tree / "replaced", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    (tree / "program").write_bytes(b"#!")
    os.chown(tree / "program", 1234, 5678)
    (tree / "program").chmod(0o4755)
    os.setxattr(tree / "program", "user.name", b"value")
    (tree / "link").hardlink_to(tree / "program")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tree / "variant").symlink_to("$(HOME)/x")
    archive = make_layer(tmp_path, "layer", {})
    await _publish(repository, archive)
    published = standin.published / archive.digest
    assert sorted(os.listdir(published)) == ["link", "null", "program", "replaced", "variant"]
    status = (published / "program").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 1234, 5678)
    assert os.getxattr(published / "program", "user.name") == b"value"
    assert (published / "link").read_bytes() == b"#!"
    sidecar = LayerSidecar.parse((standin.published / sidecar_path(archive.digest)).read_bytes(), where="")
    assert (sidecar.whiteouts, sidecar.opaque, sidecar.deletions) == (("deleted",), ("replaced",), "listed")
    assert "1 hard links become files of their own" in sidecar.notes
    assert "'variant': clients of CVMFS expand the variable in its target '$(HOME)/x'" in sidecar.notes


async def test_what_is_lost_of_extended_attributes_is_noted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    def layer(name: str) -> LayerArchive:
        program = tmp_path / f"{name}.tree" / "program"
        program.parent.mkdir()
        program.write_text(name)
        for size in (255, 256):
            os.setxattr(program, f"user.{size}", b"x" * size)
        return make_layer(tmp_path, name, {})

    standin.configure("CVMFS_INCLUDE_XATTRS", "true")
    notes = (await repository.prepare(verified(layer("one")))).sidecar.notes
    assert notes == ("'program': the attribute 'user.256' has a value of 256 bytes, CVMFS holds 255; lost",)
    standin.configure("CVMFS_INCLUDE_XATTRS", "false")
    (note,) = (await repository.prepare(verified(layer("two")))).sidecar.notes
    assert note.startswith("1 files lose their extended attributes")
    standin.configure("CVMFS_INCLUDE_XATTRS", "true")
    assert (await repository.prepare(verified(layer("three")))).sidecar.notes == notes


async def test_what_is_published_shows_whether_attributes_are_kept_where_nothing_says_so(
    build: Build, tmp_path: Path
) -> None:
    tree = tmp_path / "two.tree"
    tree.mkdir()
    (tree / "program").touch()
    os.setxattr(tree / "program", "user.name", b"value")
    repository = build()
    await _publish(repository, make_layer(tmp_path, "one"))
    (note,) = (await repository.prepare(verified(make_layer(tmp_path, "two", {})))).sidecar.notes
    assert note.startswith("1 files lose their extended attributes")
    # So it is when the publisher is started again.
    again = build()
    await again.recover(())
    assert (await again.prepare(verified(make_layer(tmp_path, "two", {})))).sidecar.notes == (note,)


async def test_a_link_that_cvmfs_takes_for_a_deletion_is_refused(
    repository: CvmfsServerRepository, tmp_path: Path
) -> None:
    tree = tmp_path / "layer.tree"
    tree.mkdir()
    (tree / "link").symlink_to("(overlay-whiteout)")
    with pytest.raises(LayerRefusedError, match=r"'link': CVMFS takes a link to '\(overlay-whiteout\)' for a deletion"):
        await repository.prepare(verified(make_layer(tmp_path, "layer", {})))


@pytest.mark.parametrize(
    "name",
    [
        *(".cvmfsgraft-file", "a/.cvmfsgraft-", ".cvmfscatalog/file", "a/.cvmfsgraft-x/y"),
        *(".cvmfsbundles", "a/.cvmfsbundles", ".cvmfsgraft-x/.cvmfscatalog"),
    ],
)
async def test_a_name_that_is_reserved_by_cvmfs_is_refused(
    repository: CvmfsServerRepository, tmp_path: Path, name: str
) -> None:
    layer = verified(make_layer(tmp_path, "one", {name: "size=1\nchecksum=0"}))
    with pytest.raises(LayerRefusedError, match="is reserved by CVMFS") as caught:
        await repository.prepare(layer)
    assert caught.value.kind == "archive"


def _tar(directory: Path, *members: tarfile.TarInfo) -> VerifiedLayer:
    """Write a layer archive that no tree can be made of where the tests run."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.addfile(member)
    content = buffer.getvalue()
    path = directory / "layer.tar"
    path.write_bytes(content)
    digest = Digest(hashlib.sha256(content).hexdigest())
    return VerifiedLayer(
        path=path, digest=digest, diff_id=digest, size=len(content), uncompressed_size=None, limits=ArchiveLimits()
    )


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize("name", [".WH.x", ".Wh.x", ".wH.x", "a/.WH..wh..opq", ".WH.a/x", ".WH."])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
async def test_a_name_that_cvmfs_takes_for_a_deletion_is_refused(
    repository: CvmfsServerRepository, tmp_path: Path, name: str, kind: bytes
) -> None:
    layer = _tar(tmp_path, _member("target"), _member(name, kind, "target"))
    with pytest.raises(LayerRefusedError, match=rf"'{name}' cannot be published: CVMFS takes '") as caught:
        await repository.prepare(layer)
    assert caught.value.kind == "archive"


async def test_a_deletion_below_a_name_that_cvmfs_takes_for_one_is_refused(
    repository: CvmfsServerRepository, tmp_path: Path
) -> None:
    with pytest.raises(LayerRefusedError, match=r"CVMFS takes '\.WH\.a' for a deletion"):
        await repository.prepare(_tar(tmp_path, _member(".WH.a/.wh.x")))


@pytest.mark.parametrize("name", ["x.wh.", "a/.whx", ".wha", "wh.x"])
async def test_names_that_only_look_like_deletions_are_kept(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, name: str
) -> None:
    archive = make_layer(tmp_path, "one", {name: "content"})
    await _publish(repository, archive)
    assert (standin.published / archive.digest / name).read_text() == "content"


async def test_a_path_that_is_too_long_only_in_its_place_is_refused_before_a_transaction(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    place = standin.spool / REPOSITORY / "scratch" / "current" / layer_home(Digest("0" * 64)) / "layerfs"
    longest = 4095 - len(f"{place}/")
    name = "/".join(["x" * 200] * 30)[: longest - 1] + "y"
    await repository.prepare(_tar(tmp_path, _member(name)))
    with pytest.raises(LayerRefusedError, match=f"is longer than {longest} bytes, and with the place of layers"):
        await repository.prepare(_tar(tmp_path, _member(f"{name}z")))
    archive = make_layer(tmp_path, "one", {name[-100:]: ""})
    assert await _publish(repository, archive) == 2


async def test_more_attributes_than_the_scratch_area_holds_are_refused_before_a_transaction(
    repository: CvmfsServerRepository, tmp_path: Path
) -> None:
    member = _member("file")
    member.pax_headers = {f"SCHILY.xattr.user.{number}": "x" * 200 for number in range(256)}
    with pytest.raises(LayerRefusedError, match=r"'file' has 256 extended attributes, more than the file system of"):
        await repository.prepare(_tar(tmp_path, member))
    member.pax_headers = {f"SCHILY.xattr.user.{number}": "x" * 100 for number in range(10)}
    await repository.prepare(_tar(tmp_path, member))


async def test_a_time_that_the_scratch_area_does_not_hold_is_noted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    members = [_member("ordinary"), _member("future", tarfile.DIRTYPE), _member("link", tarfile.SYMTYPE, "x")]
    for member in members[1:]:
        member.mtime = 253_400_000_000
    layer = _tar(tmp_path, *members)
    prepared = await repository.prepare(layer)
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
        await transaction.publish()
    held = time.gmtime((standin.published / layer_home(layer.digest) / "layerfs" / "future").stat().st_mtime).tm_year
    assert held < 9999
    (note,) = prepared.sidecar.notes
    assert note.startswith("2 files get the nearest times that can be held: 'future' has one of the year 9999, ")
    assert note.endswith(f" and gets one of the year {held}")


async def test_a_catalog_marker_in_a_layer_is_kept_and_noted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one", {".cvmfscatalog": "", "a/.cvmfsdirtab": "/*"})
    await _publish(repository, archive)
    assert sorted(os.listdir(standin.published / archive.digest)) == [".cvmfscatalog", "a"]
    sidecar = LayerSidecar.parse((standin.published / sidecar_path(archive.digest)).read_bytes(), where="")
    assert sidecar.notes == ("'.cvmfscatalog': makes its directory a nested catalog",)


async def test_an_archive_that_breaks_a_rule_never_sees_a_transaction(
    repository: CvmfsServerRepository, tmp_path: Path
) -> None:
    layer = verified(make_layer(tmp_path, "one"))
    layer.path.write_bytes(layer.path.read_bytes()[:-20])
    with pytest.raises(LayerRefusedError, match="cut short"):
        await repository.prepare(layer)


async def test_what_is_not_published_is_aborted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    prepared = await repository.prepare(verified(make_layer(tmp_path, "one")))
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
        assert standin.in_transaction
        assert await repository.lookup(prepared.layer.digest) is None
    assert not standin.in_transaction
    assert standin.revision == 1
    assert await repository.lookup(prepared.layer.digest) is None


async def test_half_a_layer_of_another_attempt_is_cleaned_away(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    prepared = await repository.prepare(verified(archive))
    async with repository.transaction("token") as transaction:
        left = standin.area / layer_home(archive.digest) / "layerfs" / "left"
        left.parent.mkdir(parents=True)
        left.touch()
        await transaction.add(prepared)
        await transaction.publish()
    assert os.listdir(standin.published / archive.digest) == ["name"]


async def test_a_layer_that_is_there_already_is_added_without_work(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    # A look-up can miss a layer while the published tree is being remounted.
    archive = make_layer(tmp_path, "one")
    await _publish(repository, archive)
    before = (standin.published / sidecar_path(archive.digest)).stat().st_mtime_ns
    await _publish(repository, archive)
    assert (standin.published / sidecar_path(archive.digest)).stat().st_mtime_ns == before


async def test_a_place_that_somebody_else_has_filled_is_left_alone(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive, other = make_layer(tmp_path, "one"), make_layer(tmp_path, "other")
    standin.run("transaction", REPOSITORY)
    (standin.area / layer_home(archive.digest) / "layerfs").mkdir(parents=True)
    standin.run("publish", REPOSITORY)
    prepared = [await repository.prepare(verified(item)) for item in (archive, other)]
    async with repository.transaction("token") as transaction:
        with pytest.raises(LayerRefusedError, match="something that this suite has not published is in the place of"):
            await transaction.add(prepared[0])
        await transaction.add(prepared[1])
        await transaction.publish()
    assert os.listdir(standin.published / layer_home(archive.digest)) == ["layerfs"]
    assert (standin.published / other.digest / "name").read_text() == "other"


async def test_a_layer_of_duccs_outlives_an_addition_while_the_published_tree_is_being_remounted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    tree = standin.area / layer_home(archive.digest) / "layerfs"
    standin.run("transaction", REPOSITORY)
    tree.mkdir(parents=True)
    (tree / "theirs").touch()
    standin.run("publish", REPOSITORY)
    prepared = await repository.prepare(verified(archive))
    async with repository.transaction("token") as transaction:
        await asyncio.to_thread(_run, "umount", "--lazy", _place(standin).published)
        assert not os.listdir(_place(standin).published)
        with pytest.raises(LayerRefusedError, match="something that this suite has not published is in the place of"):
            await transaction.add(prepared)
        assert os.listdir(tree) == ["theirs"]


@pytest.mark.parametrize("target", ["the layer", "/elsewhere", None])
async def test_a_link_is_ones_own_if_it_leads_to_the_place_of_the_layer(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, target: str | None
) -> None:
    """What an operator leaves who removes a layer that is not whole."""
    archive = make_layer(tmp_path, "one")
    standin.run("transaction", REPOSITORY)
    if target is None:
        (standin.area / archive.digest).touch()
    else:
        (standin.area / archive.digest).symlink_to(layer_tree(archive.digest) if target == "the layer" else target)
    standin.run("publish", REPOSITORY)
    if target == "the layer":
        assert await _publish(repository, archive) == 3
        assert (standin.published / archive.digest / "name").read_text() == "one"
    else:
        with pytest.raises(LayerRefusedError, match="something that this suite has not published"):
            await _publish(repository, archive)


async def test_a_layer_that_cannot_be_written_fails_alone(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    prepared = [await repository.prepare(verified(archive)) for archive in (one, two)]
    two_s_directory = standin.area / layer_home(two.digest)
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared[0])
        two_s_directory.parent.parent.mkdir(exist_ok=True)
        two_s_directory.parent.write_text("in the way")
        with pytest.raises(LayerAdditionError, match=f"layer {two.digest} cannot be added: .*File exists"):
            await transaction.add(prepared[1])
        two_s_directory.parent.unlink()
        await transaction.publish()
    assert await repository.lookup(one.digest) is not None
    assert await repository.lookup(two.digest) is None


async def test_what_cannot_be_removed_of_a_layer_is_not_published(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a layer in the published tree would be somebody else's for ever, and the layer be refused."""
    archive = make_layer(tmp_path, "one")
    prepared = await repository.prepare(verified(archive))

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    deletions = iter([delete_tree, fail])

    def fail_later(home: Path) -> None:
        next(deletions)(home)

    async with repository.transaction("token") as transaction:
        with monkeypatch.context() as patched:
            patched.setattr("services.repository.cvmfs_server.transaction.write_file", fail)
            patched.setattr("services.repository.cvmfs_server.transaction.delete_tree", fail_later)
            with pytest.raises(RepositoryError, match="the disk fails") as caught:
                await transaction.add(prepared)
        assert not isinstance(caught.value, LayerAdditionError)  # which the batch would go on without
    assert (standin.revision, standin.in_transaction) == (1, False)
    assert await _publish(repository, archive) == 2


async def test_a_publish_that_ends_well_without_its_layers_is_a_failure(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    """As where something else was mounted over the transaction's area, in the publisher's view only."""
    archive = make_layer(tmp_path, "one")
    prepared = await repository.prepare(verified(archive))
    async with repository.transaction("token") as transaction:
        await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "tmpfs", standin.area)
        try:
            await transaction.add(prepared)
        finally:
            await asyncio.to_thread(_run, "umount", standin.area)
        with pytest.raises(RepositoryError, match=f"has published, but layer {archive.digest} is not in"):
            await transaction.publish()
    assert await repository.lookup(archive.digest) is None
    assert await _publish(repository, archive, token="later") == 3
    assert await repository.lookup(archive.digest) is not None


async def test_a_foreign_transaction_is_never_touched(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    standin.run("transaction", REPOSITORY)
    (standin.area / "somebody's").touch()
    for _ in range(2):
        with pytest.raises(
            ForeignTransactionError, match=r"somebody else has a transaction of test\.cern\.ch open"
        ) as caught:
            await _publish(repository, archive)
    assert caught.value.is_over is not None
    assert not await caught.value.is_over()
    await repository.recover((OwnTransaction(token="another", process=None),))
    assert (standin.area / "somebody's").exists()
    standin.run("publish", REPOSITORY)
    assert await caught.value.is_over()
    assert await _publish(repository, archive) == 3
    assert (standin.published / "somebody's").exists()


async def test_a_foreign_transaction_that_comes_between_is_not_touched_either(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    async with _hanging(standin, "transaction.begin"):
        publishing = asyncio.create_task(_publish(repository, archive))
        await standin.reached("transaction.begin")
        (standin.spool / REPOSITORY / "in_transaction.lock").touch()
    with pytest.raises(ForeignTransactionError):
        await publishing
    assert standin.in_transaction


async def test_a_foreign_transaction_after_a_publish_is_not_taken_for_the_published_one(
    build: Build, standin: StandIn, tmp_path: Path
) -> None:
    # The publisher was killed after its publish had succeeded; its journal still has the token, which is in the tree.
    await _publish(build(), make_layer(tmp_path, "one"), token="first")
    standin.run("transaction", REPOSITORY)
    (standin.area / "somebody's").touch()
    await build().recover((OwnTransaction(token="first", process=None),))
    assert standin.in_transaction
    assert (standin.area / "somebody's").exists()


async def test_the_transaction_of_a_killed_publisher_is_aborted(build: Build, standin: StandIn, tmp_path: Path) -> None:
    await _publish(build(), make_layer(tmp_path, "one"), token="first")
    standin.run("transaction", REPOSITORY)
    claim(standin.flag, "second")
    await build().recover(tuple(OwnTransaction(token=token, process=None) for token in ("first", "second", "third")))
    assert not standin.in_transaction


async def test_a_program_of_a_killed_publisher_is_ended_when_it_hangs(build: Build, standin: StandIn) -> None:
    standin.run("transaction", REPOSITORY)
    claim(standin.flag, "first")
    async with _hanging(standin, "publish.sync"):
        program = await asyncio.create_subprocess_exec(
            "cvmfs_server", "publish", "-f", REPOSITORY, start_new_session=True
        )
        await standin.reached("publish.sync")
        left = OwnTransaction(token="first", process=process_identity(program.pid))
        await build().recover((left,))
    assert await program.wait() == 143
    assert (standin.revision, standin.in_transaction, standin.healthy) == (1, False, True)


async def test_the_transaction_of_a_killed_publisher_is_known_where_nothing_is_mounted(
    build: Build, standin: StandIn
) -> None:
    standin.run("transaction", REPOSITORY)
    claim(standin.flag, "first")
    standin.lose_mounts()
    await build().recover((OwnTransaction(token="first", process=None),))
    assert (standin.in_transaction, standin.healthy) == (False, True)


@pytest.mark.parametrize(
    "point", ["transaction.begin", "transaction.checked", "transaction.flagged", "transaction.opened"]
)
async def test_a_transaction_is_ones_own_wherever_everything_was_killed_while_it_opened(
    build: Build, standin: StandIn, tmp_path: Path, point: str
) -> None:
    archive = make_layer(tmp_path, "one")
    async with _hanging(standin, point):
        publishing = asyncio.create_task(_publish(build(), archive, token="killed"))
        await standin.reached(point)
        await standin.kill_programs()
        with pytest.raises(NoTransactionError, match="failed with status -9"):
            await publishing
    repository = build()
    await repository.recover((OwnTransaction(token="killed", process=None),))
    assert (standin.in_transaction, standin.healthy) == (False, True)
    assert await _publish(repository, archive) == 2


@pytest.mark.parametrize("point", ["transaction.begin", "transaction.checked"])
async def test_a_foreign_transaction_that_comes_between_is_not_aborted_after_a_kill(
    build: Build, standin: StandIn, tmp_path: Path, point: str
) -> None:
    async with _hanging(standin, point):
        publishing = asyncio.create_task(_publish(build(), make_layer(tmp_path, "one"), token="killed"))
        await standin.reached(point)
        await standin.kill_programs()
        with pytest.raises(NoTransactionError):
            await publishing
    standin.run("transaction", REPOSITORY)
    (standin.area / "somebody's").touch()
    await build().recover((OwnTransaction(token="killed", process=None),))
    assert (standin.area / "somebody's").exists()
    with pytest.raises(ForeignTransactionError):
        await _publish(build(), make_layer(tmp_path, "two"))


async def test_an_opener_that_lives_is_waited_for(build: Build, standin: StandIn) -> None:
    async with _hanging(standin, "transaction.flagged"):
        opener = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.repository.cvmfs_server.opener", str(os.getpid()), str(standin.flag)),
            *(str(standin.area / ".layers" / "marker"), "killed", "cvmfs_server", "transaction", REPOSITORY),
            start_new_session=True,
        )
        await standin.reached("transaction.flagged")
        recovering = asyncio.create_task(build(patience=300).recover((OwnTransaction(token="killed", process=None),)))
        await asyncio.wait((recovering,), timeout=0.5)
        assert not recovering.done()
    await recovering
    assert await opener.wait() == 0
    assert (standin.in_transaction, standin.healthy) == (False, True)


async def _killed_publish(standin: StandIn, point: str) -> None:
    """Kill a publish of a transaction that is claimed by the token `killed`."""
    standin.run("transaction", REPOSITORY)
    claim(standin.flag, "killed")
    async with _hanging(standin, point):
        publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", REPOSITORY)
        await standin.reached(point)
        publish.kill()
        await publish.wait()


@pytest.mark.parametrize("point", ["publish.mounted", "publish.hook"])
async def test_a_lock_that_a_killed_publish_has_left_to_the_client_is_removed(
    build: Build, standin: StandIn, tmp_path: Path, point: str
) -> None:
    await _killed_publish(standin, point)
    assert standin.in_transaction is (point == "publish.mounted")
    repository = build()
    with pytest.raises(RepositoryError, match=r"is_publishing\.lock is held by the CVMFS client \d+ only"):
        await repository.check()
    await repository.recover((OwnTransaction(token="killed", process=None),))
    await repository.check()
    assert (standin.in_transaction, standin.healthy) == (False, True)
    assert await _publish(repository, make_layer(tmp_path, "one")) == 3


async def test_such_a_lock_is_removed_before_a_transaction_as_well(
    build: Build, standin: StandIn, tmp_path: Path
) -> None:
    await _killed_publish(standin, "publish.hook")
    assert await _publish(build(), make_layer(tmp_path, "one")) == 3


async def test_the_lock_of_a_publish_that_lives_is_left_alone(build: Build, standin: StandIn) -> None:
    standin.run("transaction", REPOSITORY)
    claim(standin.flag, "own")
    async with _hanging(standin, "publish.mounted"):
        publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", REPOSITORY)
        await standin.reached("publish.mounted")
        repository = build()
        await repository.check()
        with pytest.raises(RepositoryError, match=r"status 22: Could not acquire lock .*/is_publishing\.lock"):
            await repository.recover((OwnTransaction(token="own", process=None),))
        with pytest.raises(RepositoryError, match="Could not acquire lock"):
            await repository.check()
    assert await publish.wait() == 0
    await repository.recover((OwnTransaction(token="own", process=None),))
    await repository.check()
    assert standin.revision == 2


async def test_the_lock_is_left_alone_while_a_program_works_on_the_repository(
    build: Build, standin: StandIn, tmp_path: Path
) -> None:
    await _killed_publish(standin, "publish.hook")
    (tmp_path / "cvmfs_server").write_text("import time; time.sleep(1000)")
    program = await asyncio.create_subprocess_exec(
        sys.executable, tmp_path / "cvmfs_server", "publish", REPOSITORY, start_new_session=True
    )
    named = lambda: asyncio.sleep(  # noqa: E731 - a condition
        0, REPOSITORY.encode() in Path(f"/proc/{program.pid}/cmdline").read_bytes()
    )
    await wait_until(named, what="it has begun")
    try:
        await build().check()  # nobody can tell what it is about to do
        assert standin.publishing_lock.exists()
    finally:
        program.kill()
        await program.wait()


async def test_a_client_that_has_died_is_mounted_anew_by_a_look_up(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await _publish(repository, archive)
    standin.lose_client()
    with pytest.raises(RepositoryError, match="is not connected"):
        await repository.check()
    found = await asyncio.gather(*(repository.lookup(archive.digest) for _ in range(3)))
    assert found == [Publication(revision=None)] * 3
    assert standin.healthy
    standin.lose_client()
    assert [layer.digest for layer in await repository.list_layers(archive.digest[:2])] == [archive.digest]
    assert await _publish(repository, make_layer(tmp_path, "two")) == 3


async def test_a_remount_by_another_publisher_is_waited_for(
    repository: CvmfsServerRepository, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_REMOUNT", 60)  # for a busy machine
    mounted, seen = repository._branch.mounted, list[bool]()  # noqa: SLF001 - so that it has looked too early

    def look() -> bool:
        seen.append(mounted())
        return seen[-1]

    monkeypatch.setattr(repository._branch, "mounted", look)  # noqa: SLF001
    standin.run("transaction", REPOSITORY)
    async with _hanging(standin, "publish.unmounted"):
        publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", REPOSITORY)
        await standin.reached("publish.unmounted")
        checking = asyncio.create_task(repository.check())
        await wait_until(lambda: asyncio.sleep(0, False in seen), what="it has found nothing mounted")
    await checking
    assert await publish.wait() == 0


async def test_it_is_seen_that_nothing_is_mounted(repository: CvmfsServerRepository, standin: StandIn) -> None:
    standin.lose_mounts()
    with pytest.raises(RepositoryError, match=r"repository test\.cern\.ch is not mounted at /"):
        await repository.check()


@pytest.mark.parametrize("private", [True, False])
async def test_no_transaction_is_opened_while_the_tree_is_mounted_a_second_time(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, *, private: bool
) -> None:
    standin.run("transaction", REPOSITORY)
    (standin.area / "lower").mkdir()
    standin.run("publish", REPOSITORY)
    async with second_mount(standin, tmp_path, private=private) as where:
        with pytest.raises(NoTransactionError, match=f"is mounted a second time, .*{re.escape(where)}") as caught:
            await _publish(repository, make_layer(tmp_path, "one"))
        assert caught.value.is_over is not None
        assert not await caught.value.is_over()
        with pytest.raises(RepositoryError, match="is mounted a second time"):
            await repository.check()
        assert not standin.in_transaction
    assert await caught.value.is_over()
    assert await _publish(repository, make_layer(tmp_path, "two")) == 3
    await repository.check()


async def test_a_namespace_that_follows_what_is_unmounted_is_in_nobodys_way(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    async with second_mount(standin, tmp_path, private=True, follows=True):
        assert await _publish(repository, make_layer(tmp_path, "one")) == 2


async def test_a_second_mount_that_comes_while_something_is_published_is_named(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository._branch, "_look", 0.2)  # noqa: SLF001 - else it is twenty seconds
    async with _hanging(standin, "publish.sync"):
        publishing = asyncio.create_task(_publish(repository, make_layer(tmp_path, "one")))
        await standin.reached("publish.sync")
        await repository.check()
        second = second_mount(standin, tmp_path, private=True)
        where = await second.__aenter__()

    async def named() -> bool:
        try:
            await repository.check()
        except RepositoryError as error:
            return where in str(error)
        return False

    try:
        await wait_until(named, what="it is named")
        assert not publishing.done()
    finally:
        await second.__aexit__(None, None, None)
    assert await publishing == 2
    await repository.check()


async def test_a_publish_that_hangs_without_mounts_is_named(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the tree mounted may be in another container."""
    monkeypatch.setattr(repository._branch, "_look", 0.2)  # noqa: SLF001 - else it is twenty seconds

    async def named() -> bool:
        try:
            await repository.check()
        except RepositoryError as error:
            return "something that cannot be seen from here" in str(error)
        return False

    async with _hanging(standin, "publish.unmounted"):
        publishing = asyncio.create_task(_publish(repository, make_layer(tmp_path, "one")))
        await standin.reached("publish.unmounted")
        await wait_until(named, what="it is named")
    assert await publishing == 2
    await repository.check()


async def test_a_client_that_has_died_in_somebody_elses_transaction_is_theirs(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    standin.run("transaction", REPOSITORY)
    standin.lose_client()
    with pytest.raises(RepositoryError, match=r"the published tree .* cannot be read: .*not connected"):
        await repository.lookup(make_layer(tmp_path, "one").digest)
    assert standin.in_transaction


async def test_what_a_machine_does_not_mount_when_it_starts_is_mounted(
    build: Build, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await _publish(build(), archive)
    standin.lose_mounts()
    repository = build()
    await repository.recover(())
    assert standin.healthy
    assert await repository.lookup(archive.digest) is not None


async def test_what_cannot_be_mounted_is_named(repository: CvmfsServerRepository, standin: StandIn) -> None:
    standin.lose_mounts()
    standin.want("fail.mount.begin", "Failed to mount test.cern.ch")
    with pytest.raises(RepositoryError, match=r"cvmfs_server mount .*: Failed to mount test\.cern\.ch"):
        await repository.recover(())


async def test_a_foreign_transaction_is_nothing_to_recover_from(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    standin.run("transaction", REPOSITORY)
    standin.lose_mounts()
    await repository.recover((OwnTransaction(token="first", process=None),))
    assert (standin.in_transaction, standin.healthy) == (True, False)
    with pytest.raises(ForeignTransactionError):
        await _publish(repository, archive)


async def test_somebody_who_aborts_the_publishers_transaction_gets_nothing_of_it_into_his_own(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    prepared = [await repository.prepare(verified(archive)) for archive in (one, two)]
    with pytest.raises(ForeignTransactionError, match="somebody has aborted the publisher's"):  # noqa: PT012 - a context
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared[0])
            standin.run("abort", "-f", REPOSITORY)
            standin.run("transaction", REPOSITORY)
            await transaction.add(prepared[1])
    assert os.listdir(standin.area) == []
    with pytest.raises(ForeignTransactionError):
        await _publish(repository, one)
    standin.run("abort", "-f", REPOSITORY)
    with pytest.raises(NoTransactionError, match="somebody has aborted") as caught:  # noqa: PT012 - a context
        async with repository.transaction("second") as transaction:
            await transaction.add(prepared[0])
            standin.run("abort", "-f", REPOSITORY)
            await transaction.publish()
    assert not isinstance(caught.value, ForeignTransactionError)
    assert standin.revision == 1


@pytest.mark.parametrize("reopened", [True, False])
async def test_somebody_who_aborts_it_while_a_layer_is_added_does_not_get_the_layer(
    repository: CvmfsServerRepository,
    standin: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    reopened: bool,
) -> None:
    prepared = await repository.prepare(verified(make_layer(tmp_path, "one")))

    def unpack_and_abort(*arguments: Any, **options: Any) -> LayerContent:  # noqa: ANN401
        standin.run("abort", "-f", REPOSITORY)
        if reopened:
            standin.run("transaction", REPOSITORY)
            os.makedirs(arguments[1])
        return unpack(*arguments, **options)

    monkeypatch.setattr("services.repository.cvmfs_server.transaction.unpack", unpack_and_abort)
    with pytest.raises(NoTransactionError, match="somebody has aborted"):
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared)
    assert not (standin.area / layer_home(prepared.layer.digest)).exists()
    assert standin.in_transaction is reopened


async def _is_publish(process: int) -> bool:
    # What it is called with shows a moment after the start.
    while runs(process):
        if line := command_lines().get(process):
            return b"publish" in line.split(b"\0")
        await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("point", ["publish.begin", "publish.sync", "publish.mounted", "publish.hook"])
async def test_a_publish_that_hangs_is_ended_and_aborted(
    build: Build, standin: StandIn, tmp_path: Path, point: str
) -> None:
    archive = make_layer(tmp_path, "one")

    async def until_it_hangs(process: str | None) -> None:
        """Let the time of the program begin when it hangs."""
        if process is not None and await _is_publish(int(process.partition("/")[0])):
            await standin.reached(point)

    repository = build(ToolTimeouts(transaction=300, publish=0.2, abort=300), record=until_it_hangs)
    async with _hanging(standin, point):
        if point in ("publish.mounted", "publish.hook"):
            assert await _publish(repository, archive) == 2  # the token is in the published tree
        else:
            with pytest.raises(
                RepositoryError, match=r"cvmfs_server publish .* took longer than 0\.2 s and was killed"
            ):
                await _publish(repository, archive)
    assert not standin.in_transaction
    await repository.check()
    revision = standin.revision
    assert revision == (1 if point in ("publish.begin", "publish.sync") else 2)
    assert await _publish(build(), make_layer(tmp_path, "two")) == revision + 1


async def test_a_transaction_that_hangs_is_killed(build: Build, standin: StandIn, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    repository = build(ToolTimeouts(transaction=0.5, publish=300, abort=300))
    async with _hanging(standin, "transaction.begin"):
        with pytest.raises(NoTransactionError, match=r"cvmfs_server transaction .* took longer than 0\.5 s"):
            await _publish(repository, archive)
    assert await _publish(build(), archive) == 2


async def test_a_transaction_that_nobody_waits_for_any_more_is_aborted(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    async with _hanging(standin, "transaction.opened"):
        publishing = asyncio.create_task(_publish(repository, make_layer(tmp_path, "one")))
        await standin.reached("transaction.opened")
        publishing.cancel()
        await asyncio.wait((publishing,), timeout=0.2)
        assert not publishing.done()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert not standin.in_transaction


async def test_an_abort_that_fails_is_made_good_later(build: Build, standin: StandIn, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    repository = build()
    standin.want("fail.publish.sync", "no space left on device")
    standin.want("fail.abort.begin", "cannot unmount")
    with pytest.raises(TransactionLeftOpenError, match=r"could not be aborted: .*cannot unmount"):
        await _publish(repository, archive)
    assert standin.in_transaction
    with pytest.raises(NoTransactionError, match="cannot unmount"):
        await _publish(repository, archive, token="later")
    standin.no_longer("fail.abort.begin")
    standin.no_longer("fail.publish.sync")
    assert await _publish(repository, archive, token="latest") == 2


async def test_an_abort_that_ends_well_and_has_done_nothing_is_made_good_later(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    standin.want("fail.publish.sync", "no space left on device")
    standin.want("fail.abort.unmount", "Trying to unmount /cvmfs/test.cern.ch... fail")
    with pytest.raises(TransactionLeftOpenError, match=r"is still open: Trying to unmount /cvmfs/test\.cern\.ch"):
        await _publish(repository, archive)
    standin.no_longer("fail.abort.unmount")
    standin.no_longer("fail.publish.sync")
    assert await _publish(repository, archive, token="later") == 2


@pytest.mark.parametrize("point", ["publish.committed", "publish.unmounted", "publish.closed"])
async def test_a_publish_that_fails_after_it_has_succeeded_is_not_repeated(
    build: Build, standin: StandIn, tmp_path: Path, point: str
) -> None:
    archive = make_layer(tmp_path, "one")
    standin.want(f"fail.{point}", "the remount failed")
    repository = build()
    if point == "publish.closed":
        assert await _publish(repository, archive) == 2
    else:
        # The new revision is not mounted, so nobody here can know; after the abort the layer is found.
        with pytest.raises(RepositoryError, match="the remount failed"):
            await _publish(repository, archive)
        assert await repository.lookup(archive.digest) is not None
    assert (standin.revision, standin.in_transaction, standin.healthy) == (2, False, True)


async def test_what_the_program_says_is_in_the_error_but_not_all_of_it(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    standin.want("garbage.publish", "3000000")
    standin.want("fail.publish.begin", "Repository whitelist for test.cern.ch is expired!")
    with pytest.raises(RepositoryError, match=r"Repository whitelist for test\.cern\.ch is expired!$") as caught:
        await _publish(repository, make_layer(tmp_path, "one"))
    assert 1000 < len(str(caught.value)) < 2000
    assert not standin.in_transaction


async def test_the_stack_of_the_program_s_exceptions_is_in_no_error(
    repository: CvmfsServerRepository, standin: StandIn, tmp_path: Path
) -> None:
    standin.want(
        "fail.transaction.begin",
        "terminate called after throwing an instance of 'publish::EPublish'\n  what():  cannot establish writable "
        "mountpoint\n\nStacktrace:\n/usr/bin/cvmfs_publish(+0x4f3a1) [0x55d0c6e4f3a1]\n"
        "/usr/bin/cvmfs_publish(_ZN7publish9PublisherC1ERKNS_17SettingsPublisherE+0x1b) [0x55d0c6e5a01b]\n"
        "/lib/x86_64-linux-gnu/libc.so.6(__libc_start_main+0x85) [0x7f1dd2a0c305]\n/usr/bin/cvmfs_publish() [0x40]\n"
        "Aborted",
    )
    with pytest.raises(NoTransactionError) as caught:
        await _publish(repository, make_layer(tmp_path, "one"))
    assert str(caught.value).endswith("what():  cannot establish writable mountpoint\n\nAborted")


@pytest.mark.parametrize(
    ("wanted", "text", "problem"),
    [
        (
            "whitelist",
            "Whitelist is expired",
            "cvmfs_server calls the repository whitelist expired: cvmfs_server resign",
        ),
        ("unreachable", "connection refused", "cvmfs_server info .*: failed to load the whitelist: connection refused"),
    ],
)
async def test_a_repository_that_is_not_fit_is_named_at_start(
    repository: CvmfsServerRepository, standin: StandIn, wanted: str, text: str, problem: str
) -> None:
    standin.want(wanted, text)
    with pytest.raises(RepositoryError, match=problem):
        await repository.recover(())
    with pytest.raises(RepositoryError, match=problem):
        await repository.check()
    standin.no_longer(wanted)
    await repository.recover(())
    await repository.check()


async def test_a_replica_is_no_place_to_publish_to(repository: CvmfsServerRepository, standin: StandIn) -> None:
    standin.configure("CVMFS_REPOSITORY_TYPE", "'stratum1'  # since spring")
    with pytest.raises(RepositoryError, match=r"is not published from here: .* says CVMFS_REPOSITORY_TYPE=stratum1"):
        await repository.recover(())


async def test_other_repositories_of_the_machine_are_not_looked_at(
    repository: CvmfsServerRepository, standin: StandIn
) -> None:
    for number in range(3):
        standin.run("mkfs", f"other{number}.cern.ch")
        standin.want("unanswering", "1000", repository=f"other{number}.cern.ch")
    async with asyncio.timeout(300):
        await repository.recover(())


async def test_a_program_that_is_not_there_is_named(
    repository: CvmfsServerRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        RepositoryError, match=r"cvmfs_server info test\.cern\.ch cannot be started: No such file or directory"
    ):
        await repository.recover(())


async def test_a_repository_that_is_not_there_is_named(standin: StandIn, threads: ThreadPoolExecutor) -> None:
    name = RepositoryName("other.cern.ch")
    repository = CvmfsServerRepository(
        place=_place(standin, name),
        layout=LayerLayout.FLAT,
        tool=CvmfsServer(repository=name, timeouts=_PATIENT, record_process=_forget),
        patience=1,
        threads=threads,
    )
    with pytest.raises(
        RepositoryError, match=r"knows no repository other\.cern\.ch: there is no /.*/other\.cern\.ch/server\.conf"
    ):
        await repository.recover(())
    with pytest.raises(RepositoryError, match=r"repository other\.cern\.ch is not mounted"):
        await repository.check()


async def test_the_published_tree_is_listed_and_an_open_transaction_is_not(
    repository: CvmfsServerRepository, tmp_path: Path
) -> None:
    published, waiting = make_layer(tmp_path, "published"), make_layer(tmp_path, "waiting")
    await _publish(repository, published)
    prepared = await repository.prepare(verified(waiting))
    async with repository.transaction("second") as transaction:
        await transaction.add(prepared)
        listed = [layer for number in range(256) for layer in await repository.list_layers(f"{number:02x}")]
    assert listed == [ListedLayer(digest=published.digest, whole=True, linked=True)]


async def test_no_layer_counts_as_gone_while_nothing_is_mounted(
    repository: CvmfsServerRepository, standin: StandIn
) -> None:
    standin.lose_mounts()
    with pytest.raises(RepositoryError, match=r"the published tree of test\.cern\.ch cannot be read: .*No data"):
        await repository.list_layers("00")


@pytest.mark.parametrize(
    ("said", "days"),
    [("", 29), ("Whitelist is valid for another 0 days", 0), ("Whitelist is expired", 0)],
)
async def test_it_is_known_when_the_whitelist_expires(
    repository: CvmfsServerRepository, standin: StandIn, said: str, days: int
) -> None:
    standin.want("whitelist", said)
    assert await repository.trusted_until() == pytest.approx(time.time() + days * 86400, abs=60)


async def test_a_program_that_says_nothing_of_the_whitelist_is_an_error(
    repository: CvmfsServerRepository, standin: StandIn
) -> None:
    standin.want("whitelist", "Whitelist is somewhere")
    with pytest.raises(RepositoryError, match="says nothing of the whitelist: Repository name"):
        await repository.trusted_until()
