"""In which ways a repository shows an image, and whether it does."""

from collections.abc import Mapping, Sequence

from services.publisher.journal.image_model import ImageVersion
from services.publisher.pipeline.images.documents import documents_of
from services.registry.platform import Platform
from services.repository.interface import Repository
from services.repository.podman.stores import store_path
from services.repository.public_names import flat_home

__all__ = ["has_its_flats", "is_shown", "places_of"]


async def is_shown(repository: Repository, version: ImageVersion) -> bool:
    """Whether the outputs of a version are there: its flat images, a name that leads to them, and podman's stores.

    Raises
    ------
    RepositoryError
        The repository cannot be read.
    """
    if not await has_its_flats(repository, version):
        return False
    return version.outputs.podman is None or not await repository.not_in_stores([documents_of(version, now=0)])


async def has_its_flats(repository: Repository, version: ImageVersion) -> bool:
    """Whether the flat images of a version are there, and a name that leads to them. Errors as `is_shown`."""
    return not version.flats or set(await repository.flats_of(version.name)) == version.flats


def places_of(version: ImageVersion) -> Mapping[str, Sequence[str]]:
    """Return where the outputs of a version are, by the outputs' names, relative to the root of the repository.

    A flat image has first the name that people know, then the root file systems, one for each platform; podman has the
    stores.
    """
    places: dict[str, Sequence[str]] = {}
    if version.outputs.flat is not None:
        places["flat"] = [version.name.path, *(flat_home(image.config) for image in version.images)]
    if version.outputs.podman is not None:
        store = version.outputs.podman.store
        platforms = [Platform.parse(image.platform) for image in version.images]
        machines = [":".join(filter(None, (each.architecture, each.variant))) for each in platforms]
        places["podman"] = [store_path(store, machine if number else None) for number, machine in enumerate(machines)]
    return places
