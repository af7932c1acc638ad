"""The flat images of an image with documents: one for each platform, made in the transaction that puts the image."""

from collections.abc import Mapping

from services.common.digest import Digest
from services.repository.errors import ImageAdditionError
from services.repository.flat.configuration import read_configuration
from services.repository.flat.differences import log_differences
from services.repository.flat.modes import Modes
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.native.flat.composer import ComposedFlat, FlatComposer
from services.repository.native.flat.places import PROPERTY, FlatRecipe, flat_path
from services.repository.native.records import ContentHash
from services.repository.native.writer.tree import TreeUpdate

__all__ = ["compose_flats"]


def compose_flats(
    update: TreeUpdate, composer: FlatComposer, documents: ImageDocuments
) -> Mapping[Digest, ComposedFlat]:
    """Compose those flat images of an image that are not there yet as they are to be; `update` is not changed.

    Parameters
    ----------
    update
        The revision that has the layers, or gets them.
    documents
        The image, which has this output.

    Returns
    -------
    Mapping
        By their configurations.

    Raises
    ------
    ImageRefusedError
        The configuration of a platform is at fault.
    ImageAdditionError
        A layer is not in the repository, or something is in the way.
    NativeError
        The repository is at fault.
    """
    others_read = documents.outputs.flat is not None and documents.outputs.flat.others_read
    composed: dict[Digest, ComposedFlat] = {}
    for platform in platform_images(documents):
        config = platform.config_digest
        layers = tuple(layer.digest for layer in platform.layers)
        recipe = FlatRecipe(layers=layers, others_read=others_read)
        # The same configuration is the same content, however its layers are compressed.
        there = update.flats.find(config)
        if config in composed or (there is not None and there.others_read == others_read):
            continue
        update.flats.check(config)
        flat = composer.compose(
            flat_path(config),
            layers=[(digest, _catalog(update, digest, config)) for digest in layers],
            configuration=read_configuration(platform.config),
            modes=Modes(others_read),
            put=update.put_object,
            properties={PROPERTY: recipe.encode()},
        )
        log_differences(config, flat.differences)
        composed[config] = flat
    return composed


def _catalog(update: TreeUpdate, digest: Digest, config: Digest) -> ContentHash:
    catalog = update.catalog_of(digest)
    if catalog is None:
        raise ImageAdditionError(
            f"layer {digest} is not in the repository, or is no catalog of its own there: "
            f"the flat image of {config.oci} cannot be made of it"
        )
    return catalog
