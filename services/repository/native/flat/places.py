"""Where flat images are in a native repository, and what they say of themselves.

::

    /.flat                   a catalog
    /.flat/XX                a catalog each, so that what a publish rewrites does not grow with the number of images
    /.flat/XX/CONFIG         a flat image, by the SHA-256 of its configuration, of which XX is the first two digits

These are the paths that DUCC uses. The catalog of a flat image's root has a property that says how it was made, so that
a check can make it again.
"""

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Self

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.repository.errors import ImageAdditionError
from services.repository.native.records import EntryFlag
from services.repository.native.writer.catalog import NestedCatalog
from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.public_names import FLAT_DIRECTORY, flat_home

__all__ = ["PROPERTY", "FlatPlaces", "FlatRecipe", "flat_path"]

_FLAT: Final = b"/" + FLAT_DIRECTORY.encode()

PROPERTY: Final = "thin_flat"
"""Of the catalog of a flat image's root: its recipe. Nothing of CVMFS looks at it."""

_VERSION: Final = 2
"""Of what is generated beside the layers; flat images of another one are made anew when their images are published."""


def flat_path(config: Digest) -> bytes:
    """Return where the flat image of a configuration is in the repository."""
    return b"/" + flat_home(config).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRecipe:
    """What a flat image is made of, besides the configuration that names it."""

    layers: tuple[Digest, ...]
    """The base layer first."""
    others_read: bool
    """Whether everybody may read all of it."""

    def encode(self) -> str:
        """Write it as a text."""
        document = {"version": _VERSION, "layers": self.layers, "others_read": self.others_read}
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `encode` has written.

        Raises
        ------
        InvalidValueError
            It is no recipe of this version.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        match document:
            case {"version": 2, "layers": [*layers], "others_read": bool() as others_read}:
                return cls(layers=tuple(Digest(str(layer)) for layer in layers), others_read=others_read)
        raise InvalidValueError(f"not the recipe of a flat image: {text[:80]!r}")


class FlatPlaces:
    """The flat images of one revision, and what is to be changed of them; blocking.

    Parameters
    ----------
    catalogs
        The catalogs of the revision.
    """

    def __init__(self, catalogs: OpenCatalogs) -> None:
        self._catalogs = catalogs
        self._tree = TreeRows(catalogs)

    def find(self, config: Digest) -> FlatRecipe | None:
        """Return how the flat image of a configuration was made; None where there is none of this suite's.

        Neither is one that is damaged: then it can be made anew.
        """
        path = flat_path(config)
        nested = self._catalogs.above(path).catalog.nested(path)
        if nested is None or not self._catalogs.is_whole(nested[0]):
            return None
        with closing(self._catalogs.read(nested[0])) as catalog:
            text = catalog.property(PROPERTY)
        try:
            return None if text is None else FlatRecipe.parse(text)
        except InvalidValueError:
            return None

    def is_damaged(self, config: Digest) -> bool:
        """Tell whether a flat image that is there lacks a catalog, or has one at its root that cannot be read."""
        path = flat_path(config)
        nested = self._catalogs.above(path).catalog.nested(path)
        return nested is not None and not self._catalogs.is_whole(nested[0])

    def configs(self) -> Iterator[Digest]:
        """Iterate over the configurations that have flat images, or what is in the place of one."""
        for shelf in sorted(self._tree.names(_FLAT)):
            for name in sorted(self._tree.names(_FLAT + b"/" + shelf)):
                try:
                    config = Digest(name.decode())
                except (InvalidValueError, UnicodeDecodeError):
                    continue
                if config[:2].encode() == shelf:
                    yield config

    def check(self, config: Digest) -> None:
        """Make sure that a flat image can be put into its place.

        Raises
        ------
        ImageAdditionError
            Something that is no directory is above it.
        """
        for place in (_FLAT, flat_path(config).rpartition(b"/")[0]):
            mode = self._tree.mode(place)
            if mode is not None and not stat.S_ISDIR(mode):
                raise ImageAdditionError(f"{place.decode()} is no directory, and not this suite's: remove it")

    def attach(self, flat: NestedCatalog) -> None:
        """Put a flat image into its place, instead of whatever is there."""
        shelf = flat.path.rpartition(b"/")[0]
        self._tree.make_catalog(_FLAT)
        self._tree.make_catalog(shelf)
        self._tree.remove(flat.path)
        opened = self._catalogs.at(shelf)
        mountpoint = flat.root.row(flat.path, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT)
        opened.catalog.insert(mountpoint, "self_dir")
        opened.catalog.attach(flat, before=None)
        opened.has_directory(shelf, 1)

    def remove(self, config: Digest) -> bool:
        """Take a flat image out, whoever made it; return whether it was there.

        The directories above it stay.
        """
        return self._tree.remove(flat_path(config))
