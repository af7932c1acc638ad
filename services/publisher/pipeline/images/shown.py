"""Whether a repository shows an image in all the ways that it should."""

from services.publisher.journal.image_model import ImageVersion
from services.publisher.pipeline.images.documents import documents_of
from services.repository.interface import Repository

__all__ = ["has_its_flats", "is_shown"]


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
