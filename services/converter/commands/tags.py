"""Registries as a plan asks them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.model import Wish
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference

__all__ = ["RegistryTags"]


class RegistryTags:
    """Asks registries for tags, digests and creation times.

    Parameters
    ----------
    registry
        Their client.
    """

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry

    async def tags(self, wish: Wish) -> Sequence[str]:
        """Return all tags of a wish's repository."""
        return await self._registry.tags(ImageReference.parse(f"{wish.registry}/{wish.repository}"))

    async def digest(self, name: ImageName) -> Digest:
        """Return the digest that a tag stands for now."""
        return (await self._registry.head(ImageReference.parse(name))).digest

    async def created(self, wish: Wish, tag: str) -> datetime | None:
        """Return when an image was made, by the configuration of its first platform; None where that does not tell."""
        reference = ImageReference.parse(f"{wish.registry}/{wish.repository}:{tag}")
        image = await self._registry.image(reference, wish.platforms[0])
        try:
            created = datetime.fromisoformat(json.loads(image.config)["created"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return created if created.tzinfo is not None else created.replace(tzinfo=UTC)
