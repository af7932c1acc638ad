"""Whether a repository shows an image in all the ways that it should."""

from services.publisher.journal.image_model import ImageVersion
from services.repository.interface import Repository

__all__ = ["is_shown"]


async def is_shown(repository: Repository, version: ImageVersion) -> bool:
    """Whether the outputs of a version are there: its flat images, and a name that leads to them.

    Raises
    ------
    RepositoryError
        The repository cannot be read.
    """
    return not version.flats or set(await repository.flats_of(version.name)) == version.flats
