"""What is converted, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.common.repository_name import RepositoryName
from services.docker2cvmfs.publish import LayerOutcome, Outcome
from services.registry.client import RegistryClient
from services.registry.images import Image
from services.registry.options import RegistryOptions
from services.registry.platform import Platform
from services.registry.reference import HUB_HOST, ImageReference
from services.thin_image.image import ThinImage, build_index

__all__ = ["Conversion", "Made", "Published"]


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
        moved = {Outcome.UPLOADED: "uploaded now", Outcome.FETCHED: "fetched by the publisher"}
        sizes = [item.layer.size for item in self.layers if item.outcome in moved]
        outcomes = {item.outcome for item in self.layers}
        how = moved[Outcome.FETCHED if Outcome.FETCHED in outcomes else Outcome.UPLOADED]
        end = "all are published" if self.waited else "the publisher goes on by itself"
        return f"{len(self.layers)} layers, {len(sizes)} {how} ({sum(sizes):,} bytes), {end}"


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
