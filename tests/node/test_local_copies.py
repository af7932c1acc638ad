"""Local copies: they outlive kills at any point, and go when nobody needs them any more."""

import asyncio
import dataclasses
import os
import stat
from pathlib import Path

import pytest

from services.common.archive.compression import write_archive
from services.common.archive.errors import ArchiveLimitError
from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import LayerUrl
from services.common.digest import Digest
from services.common.durable import sync_directory
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.node.layers import LayerStore
from services.node.local_copies import LocalCopies, LocalCopy
from tests.support.mounts import disk, full_disk


@pytest.fixture
def copies(home: Path) -> LocalCopies:
    LayerStore(home)
    return LocalCopies(home=home, limits=ArchiveLimits())


def _again(home: Path) -> LocalCopies:
    """Start the next process."""
    return LocalCopies(home=home, limits=ArchiveLimits())


def _make(copies: LocalCopies, tmp_path: Path, name: str) -> LocalCopy:
    """Write an archive where the committer writes one; it deletes `gone` and replaces the directory `opaque`."""
    tree = tmp_path / f"{name}.tree"
    (tree / "opaque").mkdir(parents=True)
    (tree / "file").write_text(name)
    os.mknod(tree / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(tree / "opaque", "trusted.overlay.opaque", b"y")
    archive = write_archive(tree, copies.new_spool() / "new")
    url = LayerUrl.of(RepositoryName("test.example.org"), archive.digest, LayerLayout.FLAT)
    return LocalCopy(archive, url)


def _keep(copies: LocalCopies, tmp_path: Path, name: str) -> Digest:
    copy = _make(copies, tmp_path, name)
    copies.keep(copy)
    return copy.archive.digest


async def _tree(copies: LocalCopies, digest: Digest, holder: str) -> Path:
    tree = await copies.tree(digest, holder=holder)
    assert tree is not None
    return tree


def _on_disk(home: Path) -> list[str]:
    """Return what is in the directories of copies and spooled archives."""
    return sorted(
        str(path.relative_to(home))
        for directory in ("copies", "spool")
        for path in (*(home / directory).glob("*"), *(home / directory).glob("*/*"))
    )


async def test_a_kept_archive_is_extracted_at_first_use(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    assert digest in copies
    assert _on_disk(home) == [f"copies/{digest}", f"copies/{digest}/archive", f"copies/{digest}/record.json"]
    tree = await _tree(copies, digest, "a")
    assert (tree / "file").read_text() == "one"
    assert stat.S_ISCHR((tree / "gone").lstat().st_mode)
    assert os.getxattr(tree / "opaque", "trusted.overlay.opaque") == b"y"
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert stat.S_IMODE((home / "copies").stat().st_mode) == 0o700


@pytest.mark.usefixtures("mounting")
async def test_a_copy_outlives_a_power_cut_with_its_content(tmp_path: Path) -> None:
    with disk(tmp_path / "disk") as cut_power:
        home = tmp_path / "disk/home"
        LayerStore(home)
        copies = LocalCopies(home=home, limits=ArchiveLimits())
        digest = _keep(copies, tmp_path, "one")
        archive = (home / "copies" / digest / "archive").read_bytes()
        await _tree(copies, digest, "a")
        # As any process on the machine does: names are on the disk then, and content that nobody cared for is not.
        sync_directory(home)
        cut_power(tmp_path / "copy")
        found = _again(tmp_path / "copy/home")
        assert (tmp_path / "copy/home/copies" / digest / "archive").read_bytes() == archive
        assert ((await _tree(found, digest, "a")) / "file").read_text() == "one"


async def test_many_users_at_once_extract_once(copies: LocalCopies, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    trees = await asyncio.gather(*(_tree(copies, digest, f"h{number}") for number in range(5)))
    inode = trees[0].stat().st_ino
    assert set(trees) == {trees[0]}
    assert (await _tree(copies, digest, "later")).stat().st_ino == inode


async def test_the_next_process_knows_the_copies(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    copy = _make(copies, tmp_path, "one")
    copies.keep(copy)
    [found] = _again(home).all()
    assert found.url == copy.url
    kept = home / "copies" / copy.archive.digest / "archive"
    assert found.archive == dataclasses.replace(copy.archive, path=kept)
    assert kept.stat().st_size == copy.archive.size


@pytest.mark.usefixtures("mounting")
async def test_a_copy_is_dropped_on_a_full_disk(home: Path, tmp_path: Path) -> None:
    """Which makes room on it."""
    with full_disk(home) as fill:
        LayerStore(home)
        copies = LocalCopies(home=home, limits=ArchiveLimits())
        digest = _keep(copies, tmp_path, "one")
        fill(0)
        await copies.drop(digest)
        assert _on_disk(home) == []


async def test_an_unused_copy_is_dropped_whole(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    await copies.tree(digest, holder="a")
    copies.release(holder="a")
    await copies.drop(digest)
    assert digest not in copies
    assert _on_disk(home) == []
    await copies.drop(digest)


async def test_a_copy_in_use_keeps_its_tree(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    tree = await _tree(copies, digest, "a")
    await copies.tree(digest, holder="b")
    await copies.drop(digest)
    assert _on_disk(home) == [f"copies/{digest}", f"copies/{digest}/record.json", f"copies/{digest}/tree"]
    copies.release(holder="a")
    await copies.drop(digest)
    assert (tree / "file").read_text() == "one"
    # Whoever comes now still gets it.
    assert await _tree(copies, digest, "c") == tree
    for holder in ("b", "c"):
        copies.release(holder=holder)
    await copies.drop(digest)
    assert _on_disk(home) == []


async def test_a_copy_that_was_in_use_when_the_process_died(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    await copies.tree(digest, holder="a")
    await copies.drop(digest)
    again = _again(home)
    again.claim(digest, holder="a")
    await again.drop(digest)
    assert ((await _tree(again, digest, "a")) / "file").read_text() == "one"
    again.release(holder="a")
    await again.drop(digest)
    assert _on_disk(home) == []


async def test_the_same_changes_committed_twice_are_one_copy(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("one")
    for _ in range(2):
        archive = write_archive(tmp_path / "tree", copies.new_spool() / "new")
        url = LayerUrl.of(RepositoryName("test.example.org"), archive.digest, LayerLayout.FLAT)
        copies.keep(LocalCopy(archive, url))
    [kept] = copies.all()
    assert kept.archive.path.stat().st_size == archive.size
    digest = archive.digest
    assert _on_disk(home) == [f"copies/{digest}", f"copies/{digest}/archive", f"copies/{digest}/record.json"]


async def test_kills_while_an_archive_is_written_or_kept(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    kept = _keep(copies, tmp_path, "kept")
    # Before the archive is whole.
    (copies.new_spool() / "new.partial").write_text("half")
    # Uploaded, but not taken over: nobody was told that the commit succeeded.
    whole = _make(copies, tmp_path, "whole")
    whole.archive.path.rename(whole.archive.path.with_name("archive"))
    (whole.archive.path.with_name("record.json")).write_text("{}")
    assert [copy.archive.digest for copy in _again(home).all()] == [kept]
    assert _on_disk(home) == [f"copies/{kept}", f"copies/{kept}/archive", f"copies/{kept}/record.json"]


async def test_a_kill_while_a_copy_is_extracted(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    half = home / "copies" / digest / "tree.new"
    half.mkdir()
    (half / "stale").write_text("half")
    again = _again(home)
    assert not half.exists()
    assert sorted(os.listdir(await _tree(again, digest, "a"))) == ["file", "gone", "opaque"]


async def test_a_kill_while_a_copy_is_deleted(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    (home / "copies" / digest).rename(copies.new_spool() / "copy")
    assert _again(home).all() == []
    assert _on_disk(home) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"diff_id": "x"}'])
async def test_a_damaged_copy_is_not_used_and_stops_nobody(
    copies: LocalCopies, home: Path, tmp_path: Path, content: str
) -> None:
    good, bad = _keep(copies, tmp_path, "good"), _keep(copies, tmp_path, "bad")
    (home / "copies" / bad / "record.json").write_text(content)
    again = _again(home)
    assert [copy.archive.digest for copy in again.all()] == [good]
    assert await again.tree(bad, holder="a") is None
    # A container that was running may stand on what is there.
    assert (home / "copies" / bad / "archive").exists()


async def test_limits_hold_for_copies_too(copies: LocalCopies, home: Path, tmp_path: Path) -> None:
    digest = _keep(copies, tmp_path, "one")
    strict = LocalCopies(home=home, limits=ArchiveLimits(entries=1))
    with pytest.raises(ArchiveLimitError):
        await strict.tree(digest, holder="a")
    # A later attempt with other limits begins anew.
    assert ((await _tree(copies, digest, "a")) / "file").read_text() == "one"


async def test_an_unknown_copy(copies: LocalCopies) -> None:
    assert await copies.tree(Digest("0" * 64), holder="a") is None
