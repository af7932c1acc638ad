"""The names of flat images in a native repository: rows of links, which `services.repository.public_names` has.

Those of one platform are in the root catalog, or in that of their registry where it has many; those of several below
`.multiarch`, a catalog of its own.
"""

import stat
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import PlatformImage
from services.repository.images import MULTIARCH_DIRECTORY, is_platform
from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.settling import give_catalog, split_grown
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.public_names import (
    check_public_name,
    flat_home,
    flat_of_target,
    is_public_target,
    machine_aliases,
    platform_links,
    public_links,
)

__all__ = ["PublicNames"]

_MULTIARCH: Final = b"/" + MULTIARCH_DIRECTORY.encode()
_LARGEST: Final = 4000
"""Entries that a catalog of names should have at most."""
_WORTH: Final = 500
"""Fewest entries that get a catalog of their own."""


class PublicNames:
    """The names of one revision, and what is to be changed of them; blocking.

    Parameters
    ----------
    catalogs
        The catalogs of the revision.
    """

    def __init__(self, catalogs: OpenCatalogs) -> None:
        self._catalogs = catalogs
        self._rows = TreeRows(catalogs)
        self._changed: set[bytes] = set()

    def check(self, name: ImageName, images: Sequence[PlatformImage]) -> None:
        """Make sure that an image can have its name.

        Raises
        ------
        ImageAdditionError
            Something else is in the place of a link; nothing has been changed.
        """
        check_public_name(name)
        for place in public_links(name, images):
            parts = place.split("/")
            for depth in range(1, len(parts)):
                above = "/".join(parts[:depth])
                mode = self._rows.mode(_path(above))
                if mode is not None and not stat.S_ISDIR(mode):
                    raise ImageAdditionError(f"/{above} is no directory, and not this suite's: remove it")
            if self._rows.mode(_path(place)) is not None and not self._is_ours(place):
                raise ImageAdditionError(f"/{place} is there already, and is no link of this suite's: remove it")

    def put(self, name: ImageName, images: Sequence[PlatformImage]) -> None:
        """Give an image its name, which leads to root file systems that are there, in the place of what it led to.

        Raises
        ------
        ImageAdditionError
            One of them is not there, or as `check`; nothing has been changed.
        """
        self.check(name, images)
        for image in images:
            home = flat_home(image.config_digest)
            if self._rows.mode(_path(home)) is None:
                raise ImageAdditionError(f"/{home} of the image {name} is not there: publish the image again")
        wanted = public_links(name, images)
        self._remove([place for place in self._places(name) if place not in wanted])
        if len(wanted) > 1:
            self._rows.make_catalog(_MULTIARCH)
        for place, target in wanted.items():
            self._rows.put_symlink(_path(place), target.encode())
        for machine in platform_links(images):
            for alias in machine_aliases(machine):
                if self._rows.mode(_MULTIARCH + b"/" + alias.encode()) is None:
                    self._rows.put_symlink(_MULTIARCH + b"/" + alias.encode(), machine.encode())
        self._changed.add(_path(name.registry))

    def remove(self, name: ImageName) -> None:
        """Take the name of an image away, where it has one; what it led to stays."""
        self._remove(self._places(name))

    def flats(self, name: ImageName) -> Collection[Digest]:
        """Return the configurations of the flat images that are there, and that the name of an image leads to."""
        if not self._is_ours(name.path):
            return frozenset()
        targets = (self._rows.link_target(_path(place)) or b"" for place in self._places(name))
        configs = (flat_of_target(target.decode()) for target in targets)
        return frozenset(each for each in configs if each and self._rows.mode(_path(flat_home(each))) is not None)

    def settle(self) -> None:
        """Split the catalogs that have grown too large."""
        for registry in self._changed:
            give_catalog(self._catalogs, registry, worth=_WORTH)
        for top in (*self._changed, _MULTIARCH) if self._changed else ():
            split_grown(self._catalogs, top, largest=_LARGEST, worth=_WORTH)

    def _places(self, name: ImageName) -> list[str]:
        """Return where links of an image are."""
        machines = [machine.decode(errors="replace") for machine in self._rows.names(_MULTIARCH)]
        places = [f"{MULTIARCH_DIRECTORY}/{machine}/{name.path}" for machine in machines if is_platform(machine)]
        return [place for place in (name.path, *places) if self._is_ours(place)]

    def _is_ours(self, place: str) -> bool:
        target = self._rows.link_target(_path(place))
        return target is not None and is_public_target(place, target.decode(errors="replace"))

    def _remove(self, places: Iterable[str]) -> None:
        for place in places:
            path = _path(place)
            self._rows.remove(path)
            self._rows.prune(path.rpartition(b"/")[0])
            if place.startswith(f"{MULTIARCH_DIRECTORY}/"):
                self._drop_aliases(place.split("/")[1])

    def _drop_aliases(self, machine: str) -> None:
        """Remove the links that lead to a directory below `.multiarch` that is not there any more."""
        if self._rows.mode(_MULTIARCH + b"/" + machine.encode()) is not None:
            return
        for alias in machine_aliases(machine):
            path = _MULTIARCH + b"/" + alias.encode()
            if self._rows.link_target(path) == machine.encode():
                self._rows.remove(path)
        self._rows.prune(_MULTIARCH)


def _path(place: str) -> bytes:
    return b"/" + place.encode()
