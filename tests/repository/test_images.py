"""Documents of images lead nowhere but into the directories of their image."""

import pytest

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.repository.images import ImageDocuments, image_of_directory

_NAME = ImageName("localhost:5000/ns/tool:v1")
_PLACE = "localhost:5000/ns/tool:v1"


def test_an_image_has_a_directory_for_each_platform() -> None:
    files = {
        f"{_PLACE}/manifest.json": b"{}",
        f"{_PLACE}/config.json": b"{}",
        f".multiarch/arm64/{_PLACE}/manifest.json": b"{}",
        f".multiarch/arm:v7/{_PLACE}/manifest.json": b"{}",
    }
    documents = ImageDocuments(name=_NAME, files=files)
    assert documents.directories == (f".multiarch/arm64/{_PLACE}", f".multiarch/arm:v7/{_PLACE}", _PLACE)
    assert {image_of_directory(directory) for directory in documents.directories} == {_NAME}


@pytest.mark.parametrize(
    "path",
    [
        "manifest.json",
        "/manifest.json",
        f"{_PLACE}/../tool:v2/manifest.json",
        f"{_PLACE}/.cvmfscatalog",
        f"{_PLACE}/inner/manifest.json",
        f"{_PLACE}/manifest.json\n",
        f"./{_PLACE}/manifest.json",
        f"{_PLACE}//manifest.json",
        "localhost:5000/ns/tool:v2/manifest.json",
        f".multiarch/../{_PLACE}/manifest.json",
        f".multiarch/arm64/v8/{_PLACE}/manifest.json",
        f".multiarch/.metadata/{_PLACE}/manifest.json",
        f".multiarch/{_PLACE}/manifest.json",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidValueError, match="is no document of the image"):
        ImageDocuments(name=_NAME, files={f"{_PLACE}/manifest.json": b"{}", path: b"{}"})


@pytest.mark.parametrize("files", [{}, {f".multiarch/arm64/{_PLACE}/manifest.json": b"{}"}])
def test_an_image_has_documents_in_the_directory_of_its_name(files: dict[str, bytes]) -> None:
    with pytest.raises(InvalidValueError, match=f"has no document in {_PLACE}"):
        ImageDocuments(name=_NAME, files=files)


def test_a_name_that_no_directory_can_have_is_refused() -> None:
    name = ImageName(f"quay.io/{'a' * 200}:{'b' * 100}")
    with pytest.raises(InvalidValueError, match="too long"):
        ImageDocuments(name=name, files={f"{name.path}/manifest.json": b"{}"})
