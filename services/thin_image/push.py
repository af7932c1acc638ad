"""Thin images go to a registry."""

from collections.abc import Sequence
from dataclasses import replace

from services.common.digest import Digest
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from services.thin_image.image import INDEX_TYPE, MANIFEST_TYPE, ThinImage, build_index

__all__ = ["push_thin"]


async def _push_image(registry: RegistryClient, reference: ImageReference, image: ThinImage) -> Digest:
    """Push the image of one platform; return the digest of its manifest."""
    await registry.push_blob(reference, image.layer.content)
    await registry.push_blob(reference, image.config.content)
    return await registry.push_manifest(reference, image.manifest.content, MANIFEST_TYPE)


async def _push_index(registry: RegistryClient, reference: ImageReference, images: Sequence[ThinImage]) -> Digest:
    """Push images for several platforms and their index; return the digest of the index."""
    for image in images:
        await _push_image(registry, replace(reference, digest=image.manifest.digest), image)
    return await registry.push_manifest(reference, build_index(images).content, INDEX_TYPE)


async def push_thin(registry: RegistryClient, reference: ImageReference, images: Sequence[ThinImage]) -> Digest:
    """Push one image, or several with their index; return the digest that the reference names from then on.

    Raises
    ------
    RegistryError
        The registry failed or refused.
    """
    if len(images) == 1:
        return await _push_image(registry, reference, images[0])
    return await _push_index(registry, reference, images)
