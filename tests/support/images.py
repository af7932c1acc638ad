"""Images to be put into repositories, and the kinds of repositories that they are put into."""

from collections.abc import Callable, Sequence

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from tests.support.publisher import verified

__all__ = ["change", "documents"]


def documents(name: str, version: str, *platforms: str) -> ImageDocuments:
    """Make the documents of an image whose contents say which version it is."""
    image = ImageName(name)
    places = [image.path, *(f".multiarch/{platform}/{image.path}" for platform in platforms)]
    files = {
        f"{place}/{file}.json": f'{{"{file}": "{version}", "place": "{place}"}}'.encode()
        for place in places
        for file in ("manifest", "config")
    }
    files[f"{image.path}/image.json"] = version.encode()
    return ImageDocuments(name=image, files=files)


async def change(
    repository: Repository,
    *,
    layers: Sequence[LayerArchive] = (),
    put: Sequence[ImageDocuments] = (),
    remove: Sequence[str] = (),
    remove_layers: Sequence[Digest] = (),
    publishing: Callable[[], None] = lambda: None,
) -> int | None:
    """Publish everything in one transaction; return the revision.

    Parameters
    ----------
    repository
        Where to.
    layers, put, remove, remove_layers
        What is changed.
    publishing
        Called when all of it has been added.
    """
    prepared = [await repository.prepare(verified(archive)) for archive in layers]
    async with repository.transaction("token") as transaction:
        for layer in prepared:
            await transaction.add(layer)
        for image in put:
            await transaction.put_image(image)
        for name in remove:
            await transaction.remove_image(ImageName(name))
        for digest in remove_layers:
            await transaction.remove_layer(digest)
        publishing()
        revision = await transaction.publish()
    for layer in prepared:
        await repository.discard(layer)
    return revision
