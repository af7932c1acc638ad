"""What the commands do, apart from arguments and printing."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from services.common.descriptor import ThinDescriptor
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.common.publisher_api import PublisherApi
from services.common.repository_name import RepositoryName
from services.docker2cvmfs.conversion import Conversion, Made, Published
from services.docker2cvmfs.delivery import Destination, deliver
from services.docker2cvmfs.progress import choose_progress
from services.docker2cvmfs.publish import Outcome, Publication, follow
from services.docker2cvmfs.pull import pull
from services.docker2cvmfs.status import LayerPlace, locate
from services.registry.client import RegistryClient
from services.registry.images import Image, RawManifest
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
    publisher: str | None,
    timeout: float | None,  # noqa: ASYNC109 - how long to wait is the user's to say
) -> Published:
    """Publish the layers of the image.

    Parameters
    ----------
    publisher
        URL of the publisher; None if it is not known.
    timeout
        How long to wait for it, in seconds; None for not at all.
    """
    store = ObjectStoreSettings.load()
    async with RegistryClient(options=conversion.options) as registry:
        found = await conversion.read(registry)
        return await _publish(found, repository, registry, store, publisher=publisher, timeout=timeout)


async def make_thin(
    conversion: Conversion,
    repository: RepositoryName,
    layout: LayerLayout,
    destination: Destination,
    *,
    publisher: str | None,
    timeout: float | None,  # noqa: ASYNC109 - how long to wait is the user's to say
) -> Made:
    """Publish the layers, make the thin image and bring it to its destination; parameters as `publish`."""
    store = ObjectStoreSettings.load()
    async with RegistryClient(options=conversion.options) as registry:
        found = await conversion.read(registry)
        thin = [build_thin_image(image, repository, layout) for image in found]
        published = await _publish(found, repository, registry, store, publisher=publisher, timeout=timeout)
        return Made(published=published, images=thin, destination=await deliver(thin, destination, registry))


async def make_thin_of_published(
    conversion: Conversion, repository: RepositoryName, layout: LayerLayout, destination: Destination
) -> Made:
    """Make the thin image of an image whose layers the repository has already, and bring it to its destination."""
    async with RegistryClient(options=conversion.options) as registry:
        thin = [build_thin_image(image, repository, layout) for image in await conversion.read(registry)]
        return Made(published=None, images=thin, destination=await deliver(thin, destination, registry))


async def _publish(
    found: Sequence[Image],
    repository: RepositoryName,
    registry: RegistryClient,
    settings: ObjectStoreSettings,
    *,
    publisher: str | None,
    timeout: float | None,  # noqa: ASYNC109
) -> Published:
    progress, shown = choose_progress()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(ObjectStore(settings=settings))
        api = None if publisher is None else await stack.enter_async_context(PublisherApi(url=publisher))
        stack.enter_context(shown)
        if api is not None:
            await _check_served(api, repository)
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
