"""What the commands do, apart from arguments and printing."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from services.common.descriptor import ThinDescriptor
from services.common.errors import InvalidValueError
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.layout import LayerLayout
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.common.publisher_api import ImagesNotOfferedError, PublisherApi
from services.common.repository_name import RepositoryName
from services.docker2cvmfs.conversion import Conversion, Made, Published
from services.docker2cvmfs.delivery import Destination, deliver
from services.docker2cvmfs.images import ask_for_image, follow_image, read_pinned
from services.docker2cvmfs.options import Way
from services.docker2cvmfs.progress import choose_progress
from services.docker2cvmfs.publish import Outcome, Publication, follow
from services.docker2cvmfs.pull import pull
from services.docker2cvmfs.status import LayerPlace, locate
from services.registry.client import RegistryClient
from services.registry.images import Image, RawManifest
from services.registry.reference import ImageReference
from services.thin_image.image import build_thin_image, describe

__all__ = [
    "descriptors",
    "images",
    "locate_layers",
    "make_thin",
    "make_thin_of_published",
    "manifest",
    "publish",
    "pull_layers",
]


async def images(conversion: Conversion) -> list[Image]:
    """Read the image, or those for all platforms."""
    async with RegistryClient(options=conversion.options) as registry:
        return await conversion.read(registry)


async def manifest(conversion: Conversion) -> RawManifest:
    """Read the manifest or index itself."""
    async with RegistryClient(options=conversion.options) as registry:
        return await registry.manifest(conversion.reference)


async def descriptors(conversion: Conversion, repository: RepositoryName, layout: LayerLayout) -> list[ThinDescriptor]:
    """Describe thin images without making them."""
    return [describe(image, repository, layout) for image in await images(conversion)]


async def pull_layers(conversion: Conversion, directory: Path) -> list[Path]:
    """Write the layer archives to a directory."""
    progress, shown = choose_progress()
    async with RegistryClient(options=conversion.options) as registry:
        found = await conversion.read(registry)
        with shown:
            return await pull(found, directory, registry=registry, progress=progress)


async def publish(
    conversion: Conversion,
    repository: RepositoryName,
    *,
    way: Way,
    timeout: float | None,  # noqa: ASYNC109 - how long to wait is the user's to say
    outputs: ImageOutputs = NO_OUTPUTS,
) -> Published:
    """Publish the layers of the image.

    Parameters
    ----------
    way
        How they come to the publisher.
    outputs
        In which further ways the repository is to show the image; the publisher must fetch it itself for that.
    timeout
        How long to wait for it, in seconds; None for not at all.
    """
    async with RegistryClient(options=conversion.options) as registry:
        pinned, found = await _read(conversion, registry, way)
        return await _publish(pinned, found, repository, registry, way=way, timeout=timeout, outputs=outputs)


async def make_thin(
    conversion: Conversion,
    repository: RepositoryName,
    layout: LayerLayout,
    destination: Destination,
    *,
    way: Way,
    timeout: float | None,  # noqa: ASYNC109 - how long to wait is the user's to say
) -> Made:
    """Publish the layers, make the thin image and bring it to its destination; parameters as `publish`."""
    async with RegistryClient(options=conversion.options) as registry:
        pinned, found = await _read(conversion, registry, way)
        thin = [build_thin_image(image, repository, layout) for image in found]
        published = await _publish(pinned, found, repository, registry, way=way, timeout=timeout)
        return Made(published=published, images=thin, destination=await deliver(thin, destination, registry))


async def make_thin_of_published(
    conversion: Conversion, repository: RepositoryName, layout: LayerLayout, destination: Destination
) -> Made:
    """Make the thin image of an image whose layers the repository has already, and bring it to its destination."""
    async with RegistryClient(options=conversion.options) as registry:
        thin = [build_thin_image(image, repository, layout) for image in await conversion.read(registry)]
        return Made(published=None, images=thin, destination=await deliver(thin, destination, registry))


async def _read(conversion: Conversion, registry: RegistryClient, way: Way) -> tuple[ImageReference, Sequence[Image]]:
    """Return where the images are, and the images; by a digest where somebody else fetches them."""
    if way.token is None:
        return conversion.reference, await conversion.read(registry)
    return await read_pinned(conversion, registry)


async def _publish(
    pinned: ImageReference,
    found: Sequence[Image],
    repository: RepositoryName,
    registry: RegistryClient,
    *,
    way: Way,
    timeout: float | None,  # noqa: ASYNC109
    outputs: ImageOutputs = NO_OUTPUTS,
) -> Published:
    settings = None if way.token is not None else ObjectStoreSettings.load()  # what is missing is said at once
    progress, shown = choose_progress()
    async with AsyncExitStack() as stack:
        api = None
        if way.publisher is not None:
            api = await stack.enter_async_context(PublisherApi(url=way.publisher, token=way.token))
            await _check_served(api, repository)
        stack.enter_context(shown)
        if api is not None and way.token is not None:
            try:
                asked = await ask_for_image(api, pinned, found, outputs=outputs)
            except ImagesNotOfferedError:
                if way.only or outputs:
                    raise
            else:
                outcomes = await follow_image(api, asked, found, progress=progress, timeout=timeout)
                return Published(repository=repository, layers=outcomes, waited=timeout is not None)
        store = await stack.enter_async_context(ObjectStore(settings=settings or ObjectStoreSettings.load()))
        publication = Publication(
            registry=registry, store=store, publisher=api, repository=repository, progress=progress
        )
        outcomes = await publication.upload(found)
        if api is not None and timeout is not None:
            digests = [item.layer.digest for item in outcomes if item.outcome is not Outcome.PUBLISHED]
            await follow(api, digests, progress=progress, timeout=timeout)
    return Published(repository=repository, layers=outcomes, waited=timeout is not None)


async def _check_served(publisher: PublisherApi, repository: RepositoryName) -> None:
    """Raise unless the publisher is the repository's: what it says of layers is true of its own repository only."""
    served = (await publisher.status()).repository
    if served != repository:
        raise InvalidValueError(
            f"the publisher publishes into {served}, not into {repository}: name the one, or the other's publisher"
        )


async def locate_layers(conversion: Conversion, repository: RepositoryName, *, publisher: str) -> list[LayerPlace]:
    """Find where every layer of the image is."""
    settings = ObjectStoreSettings.load()
    found = await images(conversion)
    async with ObjectStore(settings=settings) as store, PublisherApi(url=publisher) as api:
        await _check_served(api, repository)
        return await locate(found, store=store, publisher=api)
