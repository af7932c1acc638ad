"""Checks that a revision shows its images in all the ways that their records say."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.sidecar import LayerSidecar
from services.repository.errors import ImageAdditionError, ImageRefusedError
from services.repository.image_platforms import PlatformImage, platform_images
from services.repository.images import ImageDocuments, image_of_directory
from services.repository.native.check.problem import Problem, at_most_few
from services.repository.native.check.stores import RevisionStores
from services.repository.native.reader.entries import show_path
from services.repository.native.reader.revision import Revision
from services.repository.outputs import RECORD
from services.repository.podman.inspection import StoreInspection
from services.repository.podman.stores import store_images
from services.repository.public_names import flat_home, public_links

__all__ = ["check_shown"]

_DOCUMENT_LIMIT: Final = 16 << 20
"""Largest document that is read, in bytes."""
_RECIPE: Final = "thin_flat"
"""The property of a flat image's catalog that says what it is made of."""
_REMEDY: Final = "publish the image again"


def check_shown(revision: Revision, name: str) -> Iterator[Problem]:
    """Iterate over outputs of images that are not there, or are those of other images.

    Parameters
    ----------
    name
        Name of the repository.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog or a document cannot be read.
    """
    check = _ShownCheck(revision, name)
    yield from at_most_few(check.problems(), place=f"/{METADATA_DIRECTORY}")


class _ShownCheck:
    def __init__(self, revision: Revision, name: str) -> None:
        self._revision = revision
        self._name = name
        self._tree = RevisionStores(revision)
        self._inspections: dict[str, StoreInspection | None] = {}

    def problems(self) -> Iterator[Problem]:
        for image, directories in self._directories().items():
            record = self._tree.read(f"{METADATA_DIRECTORY}/{image.path}/{RECORD}")
            if record is None or ImageDocuments.published(image, {f"{image.path}/{RECORD}": record}) is None:
                continue
            files = {
                f"{directory}/{os.fsdecode(entry.name)}": b"".join(self._revision.content(entry))
                for directory in directories
                for entry in self._revision.list(_path(f"{METADATA_DIRECTORY}/{directory}"))
                if entry.is_file and entry.size <= _DOCUMENT_LIMIT
            }
            documents = ImageDocuments.published(image, files)
            if documents is not None:
                yield from self._image(documents)

    def _directories(self) -> Mapping[ImageName, list[str]]:
        """Find the directories of all images that have records."""
        found: dict[ImageName, list[str]] = {}
        top = _path(METADATA_DIRECTORY)
        for entry in self._revision.walk(top) if self._revision.stat(top) is not None else ():
            if entry.name == b"manifest.json":
                directory = os.fsdecode(entry.path[len(top) + 1 :].rpartition(b"/")[0])
                if (name := image_of_directory(directory)) is not None:
                    found.setdefault(name, []).append(directory)
        return found

    def _image(self, image: ImageDocuments) -> Iterator[Problem]:
        try:
            images = platform_images(image)
        except ImageRefusedError as error:
            yield _problem(f"{METADATA_DIRECTORY}/{image.name.path}", str(error))
            return
        if image.outputs.flat is not None:
            for each in images:
                yield from self._flat(image.name, each)
            for place, target in public_links(image.name, images).items():
                if self._tree.target(place) != target:
                    yield _problem(place, f"does not lead to {target}, as image {image.name} has it")
        for store, each in store_images(image).items():
            yield from self._stored(image.name, each, store)

    def _flat(self, name: ImageName, image: PlatformImage) -> Iterator[Problem]:
        home = flat_home(image.config_digest)
        if not self._tree.exists(home):
            yield _problem(home, f"is missing: image {name} is flat")
            return
        recipe = self._revision.properties(_path(home)).get(_RECIPE, "null")
        try:
            document = json.loads(recipe)
        except (ValueError, RecursionError):
            return  # which the check of flat images tells
        match document:
            case None:
                yield _problem(home, f"is not what this suite makes of image {name}")
            case {"layers": [*layers]}:
                # The same layers may have been compressed otherwise in another image of the same configuration.
                found = [self._diff_id(str(layer)) for layer in layers]
                wanted = [layer.diff_id for layer in image.layers]
                if None not in found and found != wanted:
                    yield _problem(home, f"was made of other layers than image {name} has")

    def _diff_id(self, layer: str) -> Digest | None:
        """Return the diff ID of a layer; None where it is not there, or is none."""
        try:
            digest = Digest(layer)
            content = self._tree.sidecar(digest)
            return None if content is None else Digest(LayerSidecar.parse(content, where=layer).diff_id)
        except InvalidValueError:
            return None

    def _stored(self, name: ImageName, image: PlatformImage, store: str) -> Iterator[Problem]:
        if store not in self._inspections:
            try:
                self._inspections[store] = StoreInspection(self._tree, store, self._name)
            except ImageAdditionError:  # which the check of stores tells
                self._inspections[store] = None
        inspection = self._inspections[store]
        if inspection is None:
            return
        row = inspection.images.get(image.config_digest)
        if row is None or name not in row.names:
            yield _problem(store, f"does not have image {name}, which is to be in it")


def _path(path: str) -> bytes:
    return b"/" + os.fsencode(path)


def _problem(path: str, what: str) -> Problem:
    return Problem(show_path(_path(path)), what, _REMEDY)
