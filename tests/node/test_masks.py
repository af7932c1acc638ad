"""Masks hold exactly a layer's deletions, and nothing of a sidecar that contradicts itself."""

import os
import stat
from pathlib import Path

import pytest

from services.common.sidecar import LayerSidecar
from services.node.errors import RepositoryError
from services.node.layers import LayerStore
from services.node.masks import MaskStore
from tests.support.repositories import Repository, digest_of

OPAQUE = "trusted.overlay.opaque"


@pytest.fixture
def masks(home: Path) -> MaskStore:
    LayerStore(home)
    return MaskStore(home)


@pytest.fixture
def repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root)


def _content(mask: Path) -> dict[bytes, str]:
    """Describe a mask: every path below its root and what overlayfs makes of it."""
    found = {}
    for root, directories, files in os.walk(os.fsencode(mask)):
        for name in (*directories, *files):
            path = os.path.join(root, name)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                opaque = OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"
                kind = f"{'opaque ' if opaque else ''}directory {stat.S_IMODE(status.st_mode):o}"
            else:
                kind = "whiteout" if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else "other"
            found[os.path.relpath(path, os.fsencode(mask))] = kind
    return found


def test_a_mask_holds_the_deletions_with_bare_parents(masks: MaskStore, repository: Repository) -> None:
    mask = masks.for_layer(
        repository.sidecar("one", whiteouts=[b"gone", b"etc/a/gone", b"new/stale"], opaque=[b"new", b"var/lib"])
    )
    assert _content(mask) == {
        b"gone": "whiteout",
        b"etc": "directory 755",
        b"etc/a": "directory 755",
        b"etc/a/gone": "whiteout",
        b"new": "opaque directory 755",
        b"new/stale": "whiteout",
        b"var": "directory 755",
        b"var/lib": "opaque directory 755",
    }
    assert stat.S_IMODE(mask.stat().st_mode) == 0o755


def test_names_are_bytes(masks: MaskStore, repository: Repository) -> None:
    names = [b"\xff\xfe", "ä b".encode(), b"100%", b"new\nline", b"x" * 255]
    mask = masks.for_layer(repository.sidecar("one", whiteouts=sorted(names)))
    assert _content(mask) == dict.fromkeys(names, "whiteout")


def test_an_opaque_root_is_left_out_as_overlayfs_has_none(masks: MaskStore, repository: Repository) -> None:
    mask = masks.for_layer(repository.sidecar("one", whiteouts=[b"gone"], opaque=[b""]))
    assert _content(mask) == {b"gone": "whiteout"}
    assert OPAQUE not in os.listxattr(mask)


def test_a_mask_is_made_once_and_found_again(masks: MaskStore, repository: Repository, home: Path) -> None:
    sidecar = repository.sidecar("one", whiteouts=[b"gone"])
    mask = masks.for_layer(sidecar)
    inode = mask.stat().st_ino
    assert masks.for_layer(sidecar) == mask
    assert MaskStore(home).for_layer(sidecar) == mask
    assert mask.stat().st_ino == inode


def test_two_layers_with_the_same_deletions_have_two_masks(masks: MaskStore, repository: Repository) -> None:
    # A union takes no directory twice.
    one, two = (masks.for_layer(repository.sidecar(name, whiteouts=[b"gone"])) for name in ("one", "two"))
    assert one != two
    assert _content(one) == _content(two)


def test_repositories_that_disagree_about_a_layer_have_two_masks(masks: MaskStore, repository: Repository) -> None:
    one = masks.for_layer(repository.sidecar("one", whiteouts=[b"a"]))
    two = masks.for_layer(repository.sidecar("one", whiteouts=[b"b"]))
    assert (_content(one), _content(two)) == ({b"a": "whiteout"}, {b"b": "whiteout"})


def test_a_deleted_and_an_opaque_path_are_not_the_same(masks: MaskStore, repository: Repository) -> None:
    one = masks.for_layer(repository.sidecar("one", whiteouts=[b"a"]))
    two = masks.for_layer(repository.sidecar("one", opaque=[b"a"]))
    assert _content(one) == {b"a": "whiteout"}
    assert _content(two) == {b"a": "opaque directory 755"}


@pytest.mark.parametrize(
    ("whiteouts", "opaque"),
    [
        ([b"a", b"a/b"], []),
        ([b"a", b"a/b/c"], []),
        ([b"a/b", b"a"], []),
        ([b"a"], [b"a"]),
        ([b"a"], [b"a/b"]),
        ([b"a", b"a"], []),
    ],
)
def test_a_sidecar_that_contradicts_itself_is_refused(
    masks: MaskStore, repository: Repository, home: Path, whiteouts: list[bytes], opaque: list[bytes]
) -> None:
    sidecar = repository.sidecar("one", whiteouts=whiteouts, opaque=opaque)
    with pytest.raises(RepositoryError, match=r"deletes a path and something at or below it: a(/b(/c)?)?$") as caught:
        masks.for_layer(sidecar)
    assert sidecar.digest in str(caught.value)
    assert list((home / "masks").iterdir()) == []


def test_a_path_that_is_too_long_for_a_mask_is_refused(masks: MaskStore, repository: Repository, home: Path) -> None:
    # A layer may hold such a path; nothing but overlayfs through a mask could delete it.
    path = b"/".join([b"d" * 250] * 17)
    with pytest.raises(RepositoryError, match="File name too long"):
        masks.for_layer(repository.sidecar("one", whiteouts=[path]))
    assert list((home / "masks").iterdir()) == []


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../x", "a//b", ".", "", "a/", "%2e%2e/x", "a%00b"])
def test_paths_that_lead_outside_never_get_as_far_as_a_mask(repository: Repository, path: str) -> None:
    document = repository.sidecar("one").model_dump() | {"whiteouts": [path]}
    with pytest.raises(ValueError, match="not a path below a layer's root"):
        LayerSidecar.model_validate(document)


@pytest.mark.parametrize("name", [".new-abc", f".old-{digest_of('one')}-abc"])
def test_half_made_and_half_removed_masks_are_removed_at_the_next_start(
    masks: MaskStore, home: Path, name: str
) -> None:
    whole = masks.hiding_descriptor()
    half = home / "masks" / name / "etc"
    half.mkdir(parents=True)
    os.mknod(half / "gone", stat.S_IFCHR, os.makedev(0, 0))
    MaskStore(home)
    assert list((home / "masks").iterdir()) == [whole]


def test_the_mask_that_hides_the_descriptor(masks: MaskStore) -> None:
    assert _content(masks.hiding_descriptor()) == {b"thin.json": "whiteout"}


def test_masks_of_layers_that_are_of_use_are_kept(masks: MaskStore, repository: Repository, home: Path) -> None:
    hiding = masks.hiding_descriptor()
    kept = [masks.for_layer(repository.sidecar("one", whiteouts=[path])) for path in (b"a", b"b")]
    masks.for_layer(repository.sidecar("two", opaque=[b"x/y"]))
    masks.keep_only({digest_of("one")})
    assert set((home / "masks").iterdir()) == {hiding, *kept}
    assert _content(kept[0]) == {b"a": "whiteout"}
    masks.keep_only(set())
    assert list((home / "masks").iterdir()) == [hiding]
