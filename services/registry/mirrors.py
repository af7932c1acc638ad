"""Mirrors of registries: where images are pulled from first."""

from dataclasses import dataclass, replace
from typing import Self

from services.registry.reference import ImageReference

__all__ = ["Mirror"]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A registry that has another one's images, perhaps below a path. Made by `parse`."""

    host: str
    """As in `ImageReference`."""
    port: int | None
    """As in `ImageReference`."""
    path: str
    """What the names of repositories have before them there, with a slash at its end; or nothing."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST[:PORT][/PATH]`.

        Raises
        ------
        InvalidValueError
            The text is not of this form.
        """
        registry, _, path = text.rstrip("/").partition("/")
        place = ImageReference.parse_at(registry, path or "any")
        return cls(place.host, place.port, f"{path}/" if path else "")

    @property
    def authority(self) -> str:
        """The registry as URLs name it, in lower case."""
        return (self.host if self.port is None else f"{self.host}:{self.port}").lower()

    def of(self, reference: ImageReference) -> ImageReference:
        """Return where an image is in the mirror."""
        return replace(reference, host=self.host, port=self.port, repository=f"{self.path}{reference.repository}")
