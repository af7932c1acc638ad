"""What of a unit is in the repository already, where another publisher may have brought it meanwhile.

Asked in an open transaction, the answer holds until that ends: nobody else can publish.
"""

from collections.abc import Sequence

from services.common.digest import Digest
from services.publisher.journal.image_model import ImageVersion
from services.publisher.pipeline.images.documents import is_described
from services.publisher.pipeline.images.shown import is_shown
from services.publisher.pipeline.units import ReadyImage, ReadyLayer, Unit
from services.repository.interface import PreparedLayer, Repository

__all__ = ["is_published", "is_visible", "lost_layers", "missing_layers"]


async def missing_layers(repository: Repository, unit: Unit) -> Sequence[PreparedLayer]:
    """Return the layers of a unit that the repository does not have.

    Raises
    ------
    RepositoryError
        The repository cannot be read.
    """
    return [prepared for prepared in unit.layers if await repository.lookup(prepared.layer.digest) is None]


async def lost_layers(repository: Repository, unit: Unit) -> Sequence[Digest]:
    """Return layers that a unit counts on and that have been taken out since. Errors as `missing_layers`."""
    if not isinstance(unit, ReadyImage):
        return []
    brought = {prepared.layer.digest for prepared in unit.layers}
    counted_on = [layer.digest for layer in unit.version.layers if layer.digest not in brought]
    return [digest for digest in counted_on if await repository.lookup(digest) is None]


async def is_published(repository: Repository, unit: Unit) -> bool:
    """Tell whether a unit none of whose layers is missing needs no transaction any more. Errors as `missing_layers`."""
    match unit:
        case ReadyLayer():
            return True
        case ReadyImage():
            return await is_visible(repository, unit.version)
    return False


async def is_visible(repository: Repository, version: ImageVersion) -> bool:
    """Tell whether readers of the repository see exactly this version of an image; its layers are not looked at.

    Errors as `missing_layers`.
    """
    return is_described(version, await repository.read_image(version.name)) and await is_shown(repository, version)
