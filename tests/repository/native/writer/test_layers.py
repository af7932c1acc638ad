"""What the writer makes of layers is, for the reader, what unpacking makes of them on a disk."""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.common.archive.nametree import Directory as NamedDirectory
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from services.common.digest import Digest
from services.common.layout import layer_home, layer_tree, sidecar_path
from services.common.sidecar import LayerSidecar
from services.repository.errors import LayerRefusedError
from services.repository.native.access import RepositoryAccess
from services.repository.native.reader.entries import Entry
from services.repository.native.reader.revision import Revision
from services.repository.native.records import ContentHash, EntryFlag
from services.repository.native.removal import remove_layers
from services.repository.native.writer import layer_catalog
from services.repository.native.writer.cuts import choose_cuts
from services.repository.native.writer.pool import TRAY_SIZE
from tests.support.layers import Directory, archive_of, layers
from tests.support.native import NATIVE_NAME, NativeSite, layer_entries, publish, tar_archive
from tests.support.tars import archive, member, pax

_FIRST_TIME = (-(1 << 31), 0)
"""The earliest time of ext4, of whose second it keeps no fraction; the repository does."""
_OWN = (b"user.", b"security.capability", b"trusted.overlay.opaque")


async def _published(site: NativeSite, directory: Path, content: bytes) -> tuple[LayerArchive, LayerSidecar]:
    made = tar_archive(directory, content)
    async with site.opened() as repository:
        await publish(repository, made)
    with site.newest() as revision:
        entry = revision.stat(b"/" + sidecar_path(made.digest).encode())
        assert entry is not None
        sidecar = LayerSidecar.parse(b"".join(revision.content(entry)), where="sidecar")
    return made, sidecar


def _shown(revision: Revision, entry: Entry) -> dict[str, Any]:
    return {
        "mode": entry.mode,
        "owner": (entry.uid, entry.gid),
        "time": (entry.mtime, entry.mtime_ns),
        "target": entry.target if entry.is_symlink else None,
        "device": entry.size if entry.is_device else None,
        "xattrs": entry.xattrs,
        "content": hashlib.sha256(b"".join(revision.content(entry))).hexdigest() if entry.is_file else None,
        "size": entry.size if entry.is_file else None,
    }


def _on_disk(path: bytes) -> dict[str, Any]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    return {
        "mode": status.st_mode,
        "owner": (status.st_uid, status.st_gid),
        "time": divmod(status.st_mtime_ns, 10**9),
        "target": os.readlink(path) if kind == stat.S_IFLNK else None,
        "device": status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name.startswith(_OWN)},
        "content": hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest() if kind == stat.S_IFREG else None,
        "size": status.st_size if kind == stat.S_IFREG else None,
    }


def _unpacked(content: bytes, tree: Path) -> dict[bytes, dict[str, Any]]:
    """Return what unpacking makes, by path; whiteouts get their attributes from when they are made, so none count."""
    tree.mkdir()
    unpack(BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    top = os.fsencode(tree)
    shown = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            shown[os.path.relpath(path, top)] = _on_disk(path)
    return shown


def _is_whiteout(shown: dict[str, Any]) -> bool:
    return stat.S_ISCHR(shown["mode"]) and shown["device"] == 0


def _links(paths: dict[bytes, Any]) -> set[frozenset[bytes]]:
    groups: dict[Any, set[bytes]] = {}
    for path, identity in paths.items():
        groups.setdefault((path.rpartition(b"/")[0], identity), set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def _everywhere(root: NamedDirectory) -> dict[bytes, int]:
    """Cut at every directory where a catalog may begin."""
    cuts = {b""}
    waiting = [(root, b"")]
    while waiting:
        directory, path = waiting.pop()
        for name, node in directory.items():
            if isinstance(node, NamedDirectory):
                inner = path + b"/" + name if path else name
                waiting.append((node, inner))
                with suppress(UnicodeDecodeError):
                    inner.decode()
                    cuts.add(inner)
    return dict.fromkeys(cuts, 1)


@pytest.mark.parametrize("cuts", [choose_cuts, _everywhere], ids=["chosen", "everywhere"])
def test_any_layer_reads_as_it_unpacks(
    site: NativeSite,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    cuts: Callable[[NamedDirectory], dict[bytes, int]],
) -> None:
    """Wherever its catalog is split."""
    monkeypatch.setattr(layer_catalog, "choose_cuts", cuts)
    with asyncio.Runner() as runner:
        opened = site.opened()
        repository = runner.run(opened.__aenter__())

        @settings(max_examples=40, deadline=None, database=None)
        @given(root=layers(deletions=True))
        def reads(root: Directory) -> None:
            directory = tmp_path_factory.mktemp("layer")
            content = archive_of(root)
            made = tar_archive(directory, content)
            if runner.run(repository.lookup(made.digest)) is None:
                runner.run(publish(repository, made))
            _compare(site, made.digest, _unpacked(content, directory / "tree"), directory / "tree")

        try:
            reads()
        finally:
            runner.run(opened.__aexit__(None, None, None))
    assert site.problems() == []


def _compare(site: NativeSite, digest: Digest, wanted: dict[bytes, dict[str, Any]], tree: Path) -> None:
    with site.newest() as revision:
        entries = layer_entries(revision, digest)
        del entries[b""]
        assert entries.keys() == wanted.keys()
        for path, entry in entries.items():
            shown, expected = _shown(revision, entry), wanted[path]
            if expected["time"] == _FIRST_TIME:
                shown["time"] = (shown["time"][0], 0)
            if _is_whiteout(expected):
                assert _is_whiteout(shown)
            else:
                assert shown == expected, path
    inodes = {
        path: os.lstat(os.path.join(os.fsencode(tree), path)).st_ino
        for path in wanted
        if not entries[path].is_directory
    }
    assert _links({path: entry.group for path, entry in entries.items() if entry.group}) == _links(inodes)


async def test_a_layer_is_an_overlay_lower_by_itself(site: NativeSite, tmp_path: Path) -> None:
    content = archive(
        member(b"kept/", typeflag=b"5", mode=0o755),
        member(b"kept/.wh.gone"),
        member(b"replaced/", typeflag=b"5", mode=0o755),
        member(b"replaced/.wh..wh..opq"),
    )
    made, sidecar = await _published(site, tmp_path, content)
    assert (sidecar.deletions, sidecar.whiteouts, sidecar.opaque) == ("in-tree", ("kept/gone",), ("replaced",))
    assert not sidecar.needs_mask
    with site.newest() as revision:
        entries = layer_entries(revision, made.digest)
    gone = entries[b"kept/gone"]
    assert (stat.S_ISCHR(gone.mode), gone.size) == (True, 0)
    assert entries[b"replaced"].xattrs == {b"trusted.overlay.opaque": b"y"}


async def test_nothing_but_the_layer_shows_in_it(site: NativeSite, tmp_path: Path) -> None:
    made, _ = await _published(site, tmp_path, archive(member(b"file", b"content")))
    home = b"/" + layer_home(made.digest).encode()
    with site.newest() as revision:
        names = {b"layer.json", b"layer.tar-split.gz", b"layerfs"}
        assert {entry.name for entry in revision.list(home)} == names
        assert [entry.name for entry in revision.list(home + b"/layerfs")] == [b"file"]
        link = revision.stat(b"/" + made.digest.encode())
        assert link is not None
        assert link.target == home[1:] + b"/layerfs"
        marker = revision.stat(home + b"/.cvmfscatalog")
        assert marker is not None
        assert marker.is_hidden


def _large(*more: bytes) -> bytes:
    """Make a layer whose catalog is split at `usr/share`, and what is given."""
    names = [b"usr/share/%d/%d" % (number // 100, number) for number in range(4500)]
    return archive(
        pax({b"SCHILY.xattr.user.name": b"value", b"mtime": b"5.25"}),
        member(b"usr/share/", typeflag=b"5", mode=0o2750, uid=7, gid=8),
        *(member(name, name) for name in names),
        *more,
    )


def _catalogs(revision: Revision, digest: Digest) -> dict[bytes, ContentHash]:
    """Return the catalogs of a layer by the paths in it; that of the home has none."""
    home, top = b"/" + layer_home(digest).encode(), b"/" + layer_tree(digest).encode()
    found = {b"": revision.catalog_of(home)}
    for path, entry in layer_entries(revision, digest).items():
        if entry.is_directory and (reference := revision.catalog_of(entry.path)).path == entry.path != top:
            found[path] = reference
    return {path: reference.hash for path, reference in found.items()}


async def test_a_split_is_seen_by_nobody(site: NativeSite, tmp_path: Path) -> None:
    """Not in listings, nor by the attributes, link counts and sizes of the directory where it is."""
    made, sidecar = await _published(site, tmp_path, _large())
    assert sidecar.notes == ()
    with site.newest() as revision:
        catalogs = _catalogs(revision, made.digest)
        assert {b"", b"usr/share"} <= catalogs.keys()
        entries = layer_entries(revision, made.digest)
        assert not any(b".cvmfs" in path for path in entries)
        share = entries[b"usr/share"]
        assert (share.mode, share.uid, share.gid) == (stat.S_IFDIR | 0o2750, 7, 8)
        assert (share.mtime, share.mtime_ns, share.xattrs, share.links) == (
            5,
            250_000_000,
            {b"user.name": b"value"},
            47,
        )
        marker = revision.stat(share.path + b"/.cvmfscatalog")
        assert marker is not None
        assert (marker.is_hidden, marker.size) == (True, 0)
        assert b"".join(revision.content(entries[b"usr/share/44/4499"])) == b"usr/share/44/4499"
    assert site.problems() == []


async def test_an_opaque_directory_is_split_off_as_such(site: NativeSite, tmp_path: Path) -> None:
    made, _ = await _published(site, tmp_path, _large(member(b"usr/share/.wh..wh..opq")))
    with site.newest() as revision:
        assert b"usr/share" in _catalogs(revision, made.digest)
        entries = layer_entries(revision, made.digest)
    assert entries[b"usr/share"].xattrs == {b"trusted.overlay.opaque": b"y", b"user.name": b"value"}


async def test_hard_links_and_chunks_are_where_they_belong(site: NativeSite, tmp_path: Path) -> None:
    data = hashlib.shake_128(b"data").digest(2 * TRAY_SIZE + 5)
    more = (
        member(b"usr/share/one", data),
        member(b"usr/share/two", typeflag=b"1", link=b"usr/share/one"),
        member(b"usr/three", typeflag=b"1", link=b"usr/share/one"),
    )
    made, sidecar = await _published(site, tmp_path, _large(*more))
    assert len(sidecar.notes) == 1
    assert "hard links across directories" in sidecar.notes[0]
    with site.newest() as revision:
        assert b"usr/share" in _catalogs(revision, made.digest)
        entries = layer_entries(revision, made.digest)
        one, two, three = (entries[path] for path in (b"usr/share/one", b"usr/share/two", b"usr/three"))
        assert one.group == two.group != 0
        assert [entry.links for entry in (one, two, three)] == [2, 2, 1]
        for entry in (one, two, three):
            assert b"".join(revision.content(entry)) == data
    assert site.problems() == []


async def test_the_same_layer_always_has_the_same_catalogs(site: NativeSite, tmp_path: Path) -> None:
    made, _ = await _published(site, tmp_path, _large())
    other = NativeSite(root=tmp_path / "other", state=tmp_path / "other-state", keys=site.keys)
    other.create()
    await _published(other, tmp_path, _large())
    with site.newest() as one, other.newest() as two:
        assert _catalogs(one, made.digest) == _catalogs(two, made.digest)


async def test_a_layer_of_one_catalog_goes_on_in_a_repository(
    site: NativeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As former versions have made it."""
    with monkeypatch.context() as former:
        former.setattr(layer_catalog, "choose_cuts", lambda _root: {b"": 1})
        made, _ = await _published(site, tmp_path, _large())
    later, _ = await _published(site, tmp_path, _large(member(b"later")))
    with site.newest() as revision:
        assert _catalogs(revision, made.digest).keys() == {b""}
        assert len(_catalogs(revision, later.digest)) > 1
        before, after = layer_entries(revision, made.digest), layer_entries(revision, later.digest)
        assert after.keys() == before.keys() | {b"later"}
    async with site.opened() as repository:
        assert await repository.lookup(made.digest) is not None
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    remove_layers(access, [made.digest], state=None)
    assert site.problems() == []


async def test_what_the_format_cannot_hold_is_told(site: NativeSite, tmp_path: Path) -> None:
    content = archive(
        pax({b"SCHILY.xattr.user.long": b"v" * 256, b"SCHILY.xattr.user.short": b"v" * 255}),
        member(b"file", b"content"),
        member(b"link", typeflag=b"2", link=b"$(HOME)/x"),
        member(b"d/", typeflag=b"5", mode=0o755),
        member(b"d/other", typeflag=b"1", link=b"file"),
    )
    made, sidecar = await _published(site, tmp_path, content)
    assert len(sidecar.notes) == 3
    for note, part in zip(sidecar.notes, ("'user.long'", "'$(HOME)/x'", "2 names are hard links"), strict=True):
        assert part in note
    with site.newest() as revision:
        entries = layer_entries(revision, made.digest)
        assert entries[b"file"].xattrs == {b"user.short": b"v" * 255}
        assert b"".join(revision.content(entries[b"d/other"])) == b"content"
    assert site.problems() == []


@pytest.mark.parametrize("size", [TRAY_SIZE - 1, TRAY_SIZE, TRAY_SIZE + 1, 2 * TRAY_SIZE, 2 * TRAY_SIZE + 12345])
async def test_large_files_are_chunked(site: NativeSite, tmp_path: Path, size: int) -> None:
    data = hashlib.shake_128(b"data").digest(size)
    made, _ = await _published(site, tmp_path, archive(member(b"a", b"a"), member(b"file", data), member(b"z", b"z")))
    with site.newest() as revision:
        entry = layer_entries(revision, made.digest)[b"file"]
        assert b"".join(revision.content(entry)) == data
        assert (EntryFlag.CHUNKED in entry.flags) == (size > TRAY_SIZE)
    assert site.problems() == []


async def test_holes_of_sparse_files_are_zeros(site: NativeSite, tmp_path: Path) -> None:
    size = 2 * TRAY_SIZE + 7
    records = {
        b"GNU.sparse.size": b"%d" % size,
        b"GNU.sparse.numblocks": b"2",
        b"GNU.sparse.map": b"5,3,%d,4" % (TRAY_SIZE - 2),
    }
    content = archive(pax(records), member(b"sparse", b"abcDEFG"), pax({b"GNU.sparse.size": b"0"}), member(b"none"))
    made, _ = await _published(site, tmp_path, content)
    wanted = bytearray(size)
    wanted[5:8] = b"abc"
    wanted[TRAY_SIZE - 2 : TRAY_SIZE + 2] = b"DEFG"
    with site.newest() as revision:
        entries = layer_entries(revision, made.digest)
        assert b"".join(revision.content(entries[b"sparse"])) == wanted
        assert entries[b"none"].size == 0
    assert site.problems() == []


@pytest.mark.parametrize(
    "members",
    [
        [member(b"d/.cvmfscatalog")],
        [member(b".cvmfscatalog", typeflag=b"2", link=b"x")],
        [member(b"d/.cvmfscatalog", typeflag=b"6")],
        [member(b".cvmfscatalog/", typeflag=b"5")],
        [member(b"d/.cvmfscatalog/file")],
        [member(b"file"), member(b".cvmfscatalog", typeflag=b"1", link=b"file")],
        [member(b"d/.cvmfscatalog", typeflag=b"1", link=b"later"), member(b"later")],
        [member(b"d/.wh..cvmfscatalog")],
    ],
    ids=["file", "symlink", "fifo", "directory", "implied", "hard link", "early hard link", "whiteout"],
)
async def test_a_name_that_marks_catalogs_is_refused(site: NativeSite, tmp_path: Path, members: list[bytes]) -> None:
    """The stock checker looks at the name only, and fails the whole repository."""
    with pytest.raises(LayerRefusedError, match="cvmfscatalog"):
        await _published(site, tmp_path, archive(*members))


async def test_a_name_that_marks_catalogs_may_have_been_replaced(site: NativeSite, tmp_path: Path) -> None:
    await _published(site, tmp_path, archive(member(b"d/.cvmfscatalog"), member(b"d", b"a file")))
    assert site.problems() == []


async def test_attributes_that_clients_do_not_show_are_told(site: NativeSite, tmp_path: Path) -> None:
    names = (b"user.a@1", b"user.b~", b"user.hash", b"user.pid", b"user.uptime", b"user.hashes")
    content = archive(pax({b"SCHILY.xattr." + name: b"v" for name in names}), member(b"file"))
    made, sidecar = await _published(site, tmp_path, content)
    for note, name in zip(sidecar.notes, names[:-1], strict=True):
        assert f"'{name.decode()}'" in note
    with site.newest() as revision:
        assert set(layer_entries(revision, made.digest)[b"file"].xattrs) == set(names)


@pytest.mark.parametrize("chosen", [{"compressor": "zlib"}, {"hash": "shake128"}])
async def test_every_way_of_making_objects_is_kept(site: NativeSite, tmp_path: Path, chosen: dict[str, str]) -> None:
    other = NativeSite(root=tmp_path / "other", state=tmp_path / "other-state", keys=site.keys)
    other.create(**chosen)
    await _published(other, tmp_path, archive(member(b"file", b"content" * 1000), member(b"big", bytes(5 << 20))))
    assert other.problems() == []
