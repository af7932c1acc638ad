"""Settings of wish lists, which the converter's settings have among their own."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, DirectoryPath, PositiveFloat

from services.common.image_outputs import ImageOutputs, read_outputs
from services.common.settings import CommaSeparated, Settings
from services.converter.wishlist.sources.places import Place, parse_place

__all__ = ["WishListSettings"]


def _checked(text: str) -> str:
    parse_place(text)
    return text


class WishListSettings(Settings):
    """What the converter's settings derive from, for wish lists."""

    wish_lists: CommaSeparated[Annotated[str, AfterValidator(_checked)]] = ()
    """Where the wish lists are: files, directories (each *.yaml and *.yml in it), and https URLs, separated by commas.
    Where two wishes of the same priority name one image, the first counts."""
    wish_lists_timeout: PositiveFloat = 30
    """Longest time to fetch a list from a URL, in seconds."""
    wish_lists_ca_file: Path | None = None
    """Certificates that web servers of wish lists are trusted by, besides the system's."""
    wish_lists_credentials: DirectoryPath | None = None
    """Directory of credentials for web servers of wish lists: `HOST[:PORT]/token` (a bearer token), or there `username`
    and `password`; `HOST[:PORT]/PATH/token` is for what is below a path, and the longest one counts. A port may be
    written `HOST_PORT`."""

    ducc_outputs: CommaSeparated[Literal["flat", "podman"]] = ()
    """In which further ways repositories show the images of DUCC's recipes, which do not say: `flat`, `podman`, or
    `flat,podman` as DUCC itself does. Repositories of `cvmfs_server` have neither."""

    @property
    def recipe_outputs(self) -> ImageOutputs:
        """What `ducc_outputs` comes to."""
        return read_outputs({name: {} for name in self.ducc_outputs})

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the wish lists are."""
        return tuple(map(parse_place, self.wish_lists))
