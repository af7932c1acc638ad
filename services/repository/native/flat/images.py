"""The flat images of an image with documents: one for each platform, made in the transaction that puts the image."""

from collections.abc import Sequence

from services.common.digest import Digest
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import PlatformImage
from services.repository.native.flat.composer import ComposedFlat, FlatComposer
from services.repository.native.flat.modes import Modes
from services.repository.native.flat.places import PROPERTY, FlatRecipe, flat_path
from services.repository.native.records import ContentHash
from services.repository.native.writer.tree import TreeUpdate
from services.repository.outputs import FlatOutput

__all__ = ["compose_flats"]


def compose_flats(
    update: TreeUpdate, composer: FlatComposer, platforms: Sequence[PlatformImage], output: FlatOutput
) -> Sequence[ComposedFlat]:
    """Compose those flat images of an image that are not there yet as they are to be; `update` is not changed.

    Raises
    ------
    ImageAdditionError
        A layer is not in the repository, or something is in the way.
    NativeError
        The repository is at fault.
    """
    composed = {}
    for platform in platforms:
        config = platform.config_digest
        layers = tuple(layer.digest for layer in platform.layers)
        recipe = FlatRecipe(layers=layers, others_read=output.others_read)
        # The same configuration is the same content, however its layers are compressed.
        there = update.flats.find(config)
        if config in composed or (there is not None and there.others_read == recipe.others_read):
            continue
        update.flats.check(config)
        composed[config] = composer.compose(
            flat_path(config),
            layers=[(digest, _catalog(update, digest, config)) for digest in layers],
            modes=Modes(output.others_read),
            marker=update.put_object(b""),
            properties={PROPERTY: recipe.encode()},
        )
    return list(composed.values())


def _catalog(update: TreeUpdate, digest: Digest, config: Digest) -> ContentHash:
    catalog = update.catalog_of(digest)
    if catalog is None:
        raise ImageAdditionError(
            f"layer {digest} is not in the repository, or is no catalog of its own there: "
            f"the flat image of {config.oci} cannot be made of it"
        )
    return catalog
