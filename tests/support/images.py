"""Images to be put into repositories, and the kinds of repositories that they are put into."""

from collections.abc import Sequence

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
    token: str = "token",  # noqa: S107 - of a transaction
) -> int | None:
    """Publish everything in one transaction; return the revision."""
    prepared = [await repository.prepare(verified(archive)) for archive in layers]
    async with repository.transaction(token) as transaction:
        for layer in prepared:
            await transaction.add(layer)
        for image in put:
            await transaction.put_image(image)
        for name in remove:
            await transaction.remove_image(ImageName(name))
        for digest in remove_layers:
            await transaction.remove_layer(digest)
        revision = await transaction.publish()
    for layer in prepared:
        await repository.discard(layer)
    return revision
