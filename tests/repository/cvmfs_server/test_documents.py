"""Documents of images in a tree of files: what is there of others is left alone, a failure leaves all as it was."""

import os
from pathlib import Path

import pytest

from services.common import durable
from services.common.image_name import ImageName
from services.repository.cvmfs_server import documents as module
from services.repository.cvmfs_server.documents import list_images, put_image, read_image, remove_image
from services.repository.errors import ImageAdditionError, RepositoryError
from tests.support.images import documents

_ONE = "quay.io/ns/one:v1"


def _snapshot(root: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() and not path.is_symlink() else None
        for path in root.rglob("*")
    }


def test_documents_are_a_nested_catalog_and_files_of_their_own_names(tmp_path: Path) -> None:
    put_image(tmp_path, documents(_ONE, "1", "arm64"))
    assert (tmp_path / ".metadata/.cvmfscatalog").read_bytes() == b""
    assert sorted(os.listdir(tmp_path / ".metadata" / _ONE)) == ["config.json", "image.json", "manifest.json"]
    place = (tmp_path / ".metadata" / _ONE).stat().st_ino
    put_image(tmp_path, documents(_ONE, "2"))
    assert (tmp_path / ".metadata" / _ONE).stat().st_ino == place, "no directory is made anew"
    assert sorted(os.listdir(tmp_path / ".metadata")) == [".cvmfscatalog", "quay.io"]
    remove_image(tmp_path, ImageName(_ONE))
    assert os.listdir(tmp_path / ".metadata") == [".cvmfscatalog"]


def test_what_ducc_has_left_is_listed_read_and_replaced(tmp_path: Path) -> None:
    place = tmp_path / ".metadata" / _ONE
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("DUCC's")
    (place / "other").write_text("theirs")
    (tmp_path / ".metadata/remove-schedule.json").write_text("[]")
    assert list_images(tmp_path) == [ImageName(_ONE)]
    assert read_image(tmp_path, ImageName(_ONE)) == {f"{_ONE}/manifest.json": b"DUCC's", f"{_ONE}/other": b"theirs"}
    put_image(tmp_path, documents(_ONE, "1"))
    assert read_image(tmp_path, ImageName(_ONE)) == documents(_ONE, "1").files
    remove_image(tmp_path, ImageName(_ONE))
    assert sorted(os.listdir(tmp_path / ".metadata")) == [".cvmfscatalog", "remove-schedule.json"]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (".metadata", "link"),
        (".metadata/quay.io", "link"),
        (".metadata/quay.io/ns", "file"),
        (f".metadata/{_ONE}", "link"),
        (f".metadata/{_ONE}/inner", "directory"),
        (f".metadata/{_ONE}/config.json", "link"),
        (".metadata/.multiarch", "link"),
    ],
)
def test_what_others_have_put_in_the_place_of_an_image_is_left_alone(tmp_path: Path, place: str, kind: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    path = root / place
    path.parent.mkdir(parents=True)
    if kind == "file":
        path.write_text("theirs")
    elif kind == "link":
        path.symlink_to(outside)
    else:
        path.mkdir()
    before = _snapshot(root)
    with pytest.raises(ImageAdditionError, match=f"{path} is no .*, and not this suite's: remove it"):
        put_image(root, documents(_ONE, "1", "arm64"))
    assert _snapshot(root) == before
    assert os.listdir(outside) == []


def test_documents_that_cannot_be_written_leave_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_image(tmp_path, documents(_ONE, "1"))
    before = _snapshot(tmp_path)
    write = durable.write_file

    def fail(path: Path, content: bytes) -> None:
        write(path, content[:1])
        if path.name.endswith("image.json"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_file", fail)
        with pytest.raises(ImageAdditionError, match="No space left on device"):
            put_image(tmp_path, documents(_ONE, "2", "arm64"))
    assert _snapshot(tmp_path) == before


def test_documents_that_are_replaced_in_part_spoil_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(tmp_path, documents(_ONE, "1"))

    def fail(_source: Path, target: Path) -> None:
        raise OSError(5, f"Input/output error: {target}")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(RepositoryError, match="are changed in part") as caught:
        put_image(tmp_path, documents(_ONE, "2"))
    assert not isinstance(caught.value, ImageAdditionError), "the publisher would publish the rest"
