"""Images and layers that DUCC has put into a store, which stay until this suite has published the same image.

DUCC's rows say less than this suite's: no digest of an image, and no size of an archive, by which they are told apart.
A layer of DUCC's is in the way where it has the identifier that podman computes: as the lowest one of an image.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from services.common.digest import Digest
from services.repository.podman.rows import Identifier

__all__ = ["NO_ROWS", "DuccRows", "split_lists"]

_SHORT: Final = re.compile(r"[A-Z0-9]{26}")


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True, populate_by_name=True)

    id: Identifier


class _Layer(_Row):
    parent: Identifier | None = None


class _Image(_Row):
    names: list[str] = []
    layer: Identifier | None = None


_ARCHIVE: Final = "compressed-diff-digest"
"""What the row of a layer has the digest of its archive by."""
_AnyRow = TypeVar("_AnyRow", bound=_Row)


class DuccRows:
    """What one store has of DUCC's.

    Parameters
    ----------
    images, layers
        The rows.
    text
        Reads a small file of the store, by its path in it; the empty text where there is none.
    """

    def __init__(self, images: Iterable[_Image], layers: Iterable[_Layer], *, text: Callable[[str], str]) -> None:
        self._images = {row.id: row for row in images}
        self._layers = {row.id: row for row in layers}
        self._removed: set[str] = set()
        self._own: dict[Digest, set[str]] = {}
        """The directories and links of each layer."""
        self._entries = {_image(image) for image in self._images}
        for layer in self._layers:
            self._own[layer] = {_layer(layer), *_links(f"l/{text(f'overlay/{layer}/link')}")}
            # The layers below may be this suite's by now, and are still called by DUCC's names here.
            self._entries |= self._own[layer] | set(_links(text(f"overlay/{layer}/lower")))

    @property
    def images(self) -> Mapping[Digest, dict[str, Any]]:
        """The rows of images."""
        return {identifier: _dumped(row) for identifier, row in self._images.items()}

    @property
    def layers(self) -> Mapping[Digest, dict[str, Any]]:
        """The rows of layers."""
        return {identifier: _dumped(row) for identifier, row in self._layers.items()}

    @property
    def entries(self) -> Collection[str]:
        """The directories and links that they have, or had when they were read."""
        return self._entries

    @property
    def removed(self) -> Collection[str]:
        """The directories and links that are to go, of which some come again as this suite's."""
        return self._removed

    def needed(self) -> set[Digest]:
        """Return the layers that the images stand on, of which some may be this suite's."""
        found: set[Digest] = set()
        for image in self._images.values():
            layer = image.layer
            while layer is not None and layer not in found:
                found.add(layer)
                layer = self._layers[layer].parent if layer in self._layers else None
        return found

    def stand_on(self, layer: Digest) -> bool:
        """Tell whether one leads to the files of a layer, whose archive has a digest."""
        return any((row.model_extra or {}).get(_ARCHIVE) == layer.oci for row in self._layers.values())

    def make_way(self, image: Digest, layers: Iterable[Digest]) -> None:
        """Take out an image that this suite's comes into the place of, and the layers that no other one has.

        Parameters
        ----------
        image
            Its identifier.
        layers
            Identifiers of the layers that this suite's image stands on.
        """
        for layer in layers:
            if self._layers.pop(layer, None) is not None:
                self._removed.add(_layer(layer))  # and not its name: layers of others are on top of it
        if self._images.pop(image, None) is None:
            return
        self._removed.add(_image(image))
        for layer in self._layers.keys() - self.needed():
            del self._layers[layer]
            self._removed |= self._own[layer]

    def drop_names(self, names: Collection[str], *, but: Digest | None) -> bool:
        """Let no image but one have any of some names; return whether one had."""
        found = False
        for row in self._images.values():
            if row.id != but and not frozenset(names).isdisjoint(row.names):
                row.names = [name for name in row.names if name not in names]
                found = True
        return found


def _nothing(_path: str) -> str:
    return ""


NO_ROWS: Final = DuccRows((), (), text=_nothing)
"""Those of a store that DUCC has never seen; nothing that is done to them changes them."""


def split_lists(images: bytes, layers: bytes, *, text: Callable[[str], str]) -> tuple[DuccRows, bytes, bytes]:
    """Take DUCC's rows out of the two lists of a store; return them, and the lists with what is left, whatever that is.

    Parameters
    ----------
    images, layers
        The lists.
    text
        As for `DuccRows`.
    """
    theirs, ours = _split(images, _Image, "digest")
    their_layers, our_layers = _split(layers, _Layer, "compressed-size")
    return DuccRows(theirs, their_layers, text=text), ours, our_layers


def _split(content: bytes, form: type[_AnyRow], mark: str) -> tuple[list[_AnyRow], bytes]:
    """Split one list; rows of this suite's have the mark."""
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        return [], content
    theirs: list[_AnyRow] = []
    ours: list[object] = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and mark not in row:
            try:
                theirs.append(form.model_validate(row))
                continue
            except ValidationError:  # whoever reads the list says what is wrong with it
                pass
        ours.append(row)
    return theirs, json.dumps(ours).encode() if theirs else content


def _dumped(row: _Row) -> dict[str, Any]:
    return row.model_dump(mode="json", by_alias=True, exclude_none=True)


def _image(image: Digest) -> str:
    return f"overlay-images/{image}"


def _layer(layer: Digest) -> str:
    return f"overlay/{layer}"


def _links(names: str) -> Iterator[str]:
    """Give the links that short names are, as the file `lower` has them."""
    for name in names.split(":"):
        if name.startswith("l/") and _SHORT.fullmatch(name[2:]):
            yield f"overlay/{name}"
