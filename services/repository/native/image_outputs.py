"""An image in a revision of a native repository: its documents, and the outputs that are made of its layers."""

from services.common.image_name import ImageName
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.native.flat.composer import FlatComposer
from services.repository.native.flat.images import compose_flats
from services.repository.native.podman import NativeStores
from services.repository.native.writer.tree import TreeUpdate

__all__ = ["put_image", "remove_image"]


def put_image(update: TreeUpdate, composer: FlatComposer, stores: NativeStores, documents: ImageDocuments) -> None:
    """Put an image in the place of what there is of it; blocking.

    Raises
    ------
    ImageAdditionError
        Something else is in its place, or an output cannot be made; nothing has been changed.
    NativeError
        The repository is at fault.
    """
    name, outputs = documents.name, documents.outputs
    images = platform_images(documents) if outputs else ()
    update.images.check(documents)
    put_into_stores = stores.plan(name, documents)
    if outputs.flat is None:
        update.names.remove(name)
    else:
        update.names.check(name, images)
        for config, flat in compose_flats(update, composer, documents).items():
            update.attach_flat(config, flat.catalog, flat.differences)
        update.names.put(name, images)
    update.images.put(documents)
    put_into_stores()


def remove_image(update: TreeUpdate, stores: NativeStores, name: ImageName) -> None:
    """Take out the documents and the names of an image; its outputs stay without them. Errors as `put_image`."""
    remove_from_stores = stores.plan(name, None)
    update.images.remove(name)
    update.names.remove(name)
    remove_from_stores()
