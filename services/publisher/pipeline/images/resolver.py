"""From a name to a version: what exactly an image is, by digests, before anything of it is fetched."""

from dataclasses import replace

from services.publisher.journal.image_model import ImageRecord, ImageVersion, PlatformImage, VersionLayer
from services.publisher.journal.versions import VersionJournal
from services.publisher.pipeline.images.documents import directory_of
from services.registry.client import RegistryClient
from services.registry.documents import INDEX_TYPES
from services.registry.images import Image
from services.registry.platform import Platform
from services.registry.reference import ImageReference

__all__ = ["Resolver"]


class Resolver:
    """Reads images' documents from their registries."""

    def __init__(self, *, client: RegistryClient, versions: VersionJournal) -> None:
        self._client = client
        self._versions = versions

    async def resolve(self, record: ImageRecord) -> ImageVersion:
        """Return what is asked for; one that the journal knows by its digest needs no registry.

        Raises
        ------
        RegistryError
            The registry failed or refused, or what it has is no image for the platforms.
        """
        if record.asked is not None:
            known = await self._versions.read(record.name, record.asked)
            if known is not None and known.platforms == record.platforms:
                return replace(known, reference=record.reference, verified=record.verified, outputs=record.outputs)
        reference = ImageReference.parse(record.reference)
        if record.asked is not None:
            reference = replace(reference, digest=record.asked)
        manifest = await self._client.manifest(reference)
        # From here on by digest only: the tag may be moved meanwhile.
        reference = replace(reference, digest=manifest.digest)
        top = f"{directory_of(record.name)}/index.json"
        documents = {top: manifest.content} if manifest.media_type in INDEX_TYPES else {}
        images: list[PlatformImage] = []
        for number, text in enumerate(record.platforms):
            platform = Platform.parse(text)
            image = await self._client.image_in(reference, manifest, platform)
            directory = directory_of(record.name, platform if number else None)
            documents |= {f"{directory}/manifest.json": image.manifest, f"{directory}/config.json": image.config}
            images.append(_described(image, text))
        return ImageVersion(
            name=record.name,
            digest=manifest.digest,
            reference=record.reference,
            platforms=record.platforms,
            images=tuple(images),
            documents=documents,
            verified=record.verified,
            outputs=record.outputs,
        )


def _described(image: Image, platform: str) -> PlatformImage:
    layers = tuple(VersionLayer(layer.digest, layer.diff_id, layer.size) for layer in image.layers)
    return PlatformImage(platform, image.manifest_digest, image.config_digest, layers)
