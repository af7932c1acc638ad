"""Images to be put into repositories, and the kinds of repositories that they are put into."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, outputs_document
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from services.repository.outputs import NO_OUTPUTS
from tests.support.publisher import verified

__all__ = ["change", "documents", "image_of_layers"]


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


def image_of_layers(
    name: str,
    *platforms: tuple[str, Sequence[LayerArchive]],
    outputs: ImageOutputs = NO_OUTPUTS,
    config: Mapping[str, object] | None = None,
) -> ImageDocuments:
    """Make the documents of an image as registries have them.

    Parameters
    ----------
    platforms
        Each `ARCHITECTURE[:VARIANT]` with its layers, base first.
    config
        What the configuration says of how it is run.
    """
    image = ImageName(name)
    files: dict[str, bytes] = {}
    for number, (machine, layers) in enumerate(platforms):
        directory = f".multiarch/{machine}/{image.path}" if number else image.path
        architecture, _, variant = machine.partition(":")
        configuration = json.dumps(
            {
                "os": "linux",
                "architecture": architecture,
                **({"variant": variant} if variant else {}),
                "created": "2024-05-06T07:08:09Z",
                "config": config or {},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.oci for layer in layers]},
            }
        ).encode()
        files[f"{directory}/config.json"] = configuration
        files[f"{directory}/manifest.json"] = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("application/vnd.oci.image.config.v1+json", configuration),
                "layers": [
                    {"mediaType": layer.media_type, "digest": layer.digest.oci, "size": layer.size} for layer in layers
                ],
            }
        ).encode()
    record = {"version": 1, "name": name} | ({"outputs": outputs_document(outputs)} if outputs else {})
    files[f"{image.path}/image.json"] = json.dumps(record).encode()
    return ImageDocuments(name=image, files=files, outputs=outputs)


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
    }


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
