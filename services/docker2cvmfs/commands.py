"""What the commands do, apart from arguments and printing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.descriptor import ThinDescriptor
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.object_store import ObjectStore, ObjectStoreSettings
from services.common.publisher_api import PublisherApi
from services.common.repository_name import RepositoryName
from services.docker2cvmfs import engine
from services.docker2cvmfs.outputs import docker_archive, oci_archive, push_image, push_index, write_file
from services.docker2cvmfs.progress import choose_progress
from services.docker2cvmfs.publish import LayerOutcome, Outcome, Publication, follow
from services.docker2cvmfs.pull import pull
from services.docker2cvmfs.status import LayerPlace, Place, locate
from services.docker2cvmfs.thin_image import ThinImage, build_index, build_thin_image, describe
from services.registry.client import RegistryClient
from services.registry.images import Image, RawManifest
from services.registry.options import RegistryOptions
from services.registry.platform import Platform
from services.registry.reference import HUB_HOST, ImageReference

__all__ = [
    "Conversion",
    "Destination",
    "DockerFile",
    "Load",
    "Made",
    "OciFile",
    "Published",
    "Push",
    "descriptors",
    "images",
    "locate_layers",
    "make_thin",
    "make_thin_of_published",
    "manifest",
    "publish",
    "pull_layers",
    "status_document",
    "status_table",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What is converted, and how its registry is spoken to."""

    reference: ImageReference
    platform: Platform | None
    """None means the images for all platforms."""
    options: RegistryOptions

    @property
    def thin_name(self) -> str:
        """Name of the thin image where none is given: the image's own, its tag with `-thin`."""
        reference = self.reference
        repository = reference.repository.removeprefix("library/")
        prefix = "" if reference.host == HUB_HOST else f"{reference.authority}/"
        return f"{prefix}{repository}:{reference.tag[:123] if reference.tag else reference.version[7:19]}-thin"

    async def read(self, registry: RegistryClient) -> list[Image]:
        """Read the image, or those for all platforms, from the registry."""
        if self.platform is None:
            return await registry.images(self.reference)
        return [await registry.image(self.reference, self.platform)]


@dataclass(frozen=True, slots=True)
class Push:
    """The thin image goes to a registry."""

    reference: ImageReference


@dataclass(frozen=True, slots=True)
class Load:
    """It goes to the Docker engine."""

    name: str


@dataclass(frozen=True, slots=True)
class DockerFile:
    """It becomes a docker archive."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class OciFile:
    """It becomes a tar of an OCI image layout."""

    name: str
    path: Path


Destination = Push | Load | DockerFile | OciFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a publication did."""

    repository: RepositoryName
    layers: Sequence[LayerOutcome]
    waited: bool
    """Whether it was waited until everything is in the repository."""

    def document(self) -> dict[str, Any]:
        """Return what scripts read."""
        return {
            "repository": self.repository,
            "published": self.waited,
            "layers": [
                {"digest": item.layer.digest, "size": item.layer.size, "outcome": item.outcome} for item in self.layers
            ],
        }

    def summary(self) -> str:
        """Return what people read."""
        sizes = [item.layer.size for item in self.layers if item.outcome is Outcome.UPLOADED]
        end = "all are published" if self.waited else "the publisher goes on by itself"
        return f"{len(self.layers)} layers, {len(sizes)} uploaded now ({sum(sizes):,} bytes), {end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A thin image, and how it came about."""

    published: Published | None
    """None if it was made of layers that the repository had already."""
    images: Sequence[ThinImage]
    destination: str

    def document(self) -> dict[str, Any]:
        """Return what scripts read."""
        top = self.images[0].manifest if len(self.images) == 1 else build_index(self.images)
        return {
            **({} if self.published is None else self.published.document()),
            "destination": self.destination,
            "digest": top.digest.oci,
            "images": [
                {
                    "platform": str(image.original.platform),
                    "manifest": image.manifest.digest.oci,
                    "config": image.config.digest.oci,
                }
                for image in self.images
            ],
        }

    def summary(self) -> str:
        """Return what people read."""
        before = "nothing published" if self.published is None else self.published.summary()
        return f"{before}\nthin image: {self.destination}"


@asynccontextmanager
async def _registry(conversion: Conversion) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(options=conversion.options) as registry:
        yield registry


async def images(conversion: Conversion) -> list[Image]:
    """Read the image, or those for all platforms."""
    async with _registry(conversion) as registry:
        return await conversion.read(registry)


async def manifest(conversion: Conversion) -> RawManifest:
    """Read the manifest or index itself."""
    async with _registry(conversion) as registry:
        return await registry.manifest(conversion.reference)


async def descriptors(conversion: Conversion, repository: RepositoryName, layout: LayerLayout) -> list[ThinDescriptor]:
    """Describe thin images without making them."""
    return [describe(image, repository, layout) for image in await images(conversion)]


async def pull_layers(conversion: Conversion, directory: Path) -> list[Path]:
    """Write the layer archives to a directory."""
    progress, shown = choose_progress()
    async with _registry(conversion) as registry:
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
    async with _registry(conversion) as registry:
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
    async with _registry(conversion) as registry:
        found = await conversion.read(registry)
        thin = [build_thin_image(image, repository, layout) for image in found]
        published = await _publish(found, repository, registry, store, publisher=publisher, timeout=timeout)
        return Made(published=published, images=thin, destination=await _deliver(thin, destination, registry))


async def make_thin_of_published(
    conversion: Conversion, repository: RepositoryName, layout: LayerLayout, destination: Destination
) -> Made:
    """Make the thin image of an image whose layers the repository has already, and bring it to its destination."""
    async with _registry(conversion) as registry:
        thin = [build_thin_image(image, repository, layout) for image in await conversion.read(registry)]
        return Made(published=None, images=thin, destination=await _deliver(thin, destination, registry))


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


async def _deliver(thin: Sequence[ThinImage], destination: Destination, registry: RegistryClient) -> str:
    match destination:
        case Push(reference):
            if len(thin) == 1:
                digest = await push_image(registry, reference, thin[0])
            else:
                digest = await push_index(registry, reference, thin)
            return f"{reference.name}@{digest.oci}"
        case Load(name):
            await engine.load(docker_archive(thin[0], name))
            return name
        case DockerFile(name, path):
            await write_file(path, docker_archive(thin[0], name))
            return str(path)
        case OciFile(name, path):
            await write_file(path, oci_archive(thin, name))
            return str(path)


async def locate_layers(conversion: Conversion, repository: RepositoryName, *, publisher: str) -> list[LayerPlace]:
    """Find where every layer of the image is."""
    settings = ObjectStoreSettings.load()
    found = await images(conversion)
    async with ObjectStore(settings=settings) as store, PublisherApi(url=publisher) as api:
        await _check_served(api, repository)
        return await locate(found, store=store, publisher=api)


def status_document(repository: str, places: Sequence[LayerPlace]) -> dict[str, Any]:
    """Return what scripts read."""
    return {
        "repository": repository,
        "to_transfer": sum(item.to_transfer for item in places),
        "layers": [
            {"digest": item.layer.digest, "size": item.layer.size, "place": item.place, "publisher": item.state}
            for item in places
        ],
    }


def status_table(repository: str, places: Sequence[LayerPlace]) -> str:
    """Return what people read."""
    names = {Place.REPOSITORY: f"published in {repository}", Place.BUCKET: "in the bucket", Place.NOWHERE: "nowhere"}
    lines = [
        f"{item.layer.digest}  {item.layer.size:>15,}  {names[item.place]}" + (f" ({item.state})" if item.state else "")
        for item in places
    ]
    total = sum(item.to_transfer for item in places)
    return "".join(
        f"{line}\n" for line in (*lines, f"to transfer: {total:,} of {sum(item.layer.size for item in places):,} bytes")
    )
