"""The layers on this machine: their directories, their records, their chains.

On disk, below the driver's home::

    layers/<id>/record.json   id, parent, kind; written before the layer is there under its name
    layers/<id>/diff/         the layer's own files, in the kernel's overlay encoding
    layers/<id>/incoming/     what is to become the layer's own files, while the layer is being filled
    layers/<id>/work/         overlay work directory
    layers/<id>/merged/       mount point of the union, there while it is mounted
    layers/<id>/held          how often the union is held
    l/<link>                  short symbolic link to a lower directory, for the mount options
    trash/                    layers that are being deleted, and what is needed for a while only

A layer appears and disappears by one rename, so a kill at any point leaves a whole layer or none. The kernel follows a
link when it mounts and never again: those to other directories than layers' own go now and then, and at every start.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.node.errors import LayerExistsError, LineageError, UnknownLayerError
from services.node.removal import bury, delete_directory, delete_leftovers

__all__ = ["Layer", "LayerId", "LayerKind", "LayerStore", "short_link"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,191}")
_RECORD: Final = "record.json"
_INCOMING: Final = "incoming"
_MERGED: Final = "merged"
_LAYER_LINKS: Final = "../layers/"
"""How the texts of short links to layers begin."""
_CHAIN_LIMIT: Final = 1000
"""Longest chain of parents that is followed; a longer one can only be a loop in damaged records."""


class LayerId(str):
    """The name under which a front end knows a layer: hex digits, `<hex>-init`, or BuildKit's short keys.

    Raises
    ------
    InvalidValueError
        The value cannot be a directory name.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        if not _ID.fullmatch(value):
            raise InvalidValueError(f"not a layer id (letters, digits, dots, dashes, at most 192): {value[:80]!r}")
        return super().__new__(cls, value)


class LayerKind(StrEnum):
    """What a layer is for."""

    IMAGE = "image"
    """Part of an image, or going to be."""
    CONTAINER = "container"
    """The writable layer of a container, or its init layer."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's record."""

    id: LayerId
    parent: LayerId | None
    kind: LayerKind
    directory: Path
    """The layer's directory below the driver's home."""

    @property
    def diff(self) -> Path:
        """The layer's own files."""
        return self.directory / "diff"

    @property
    def incoming(self) -> Path:
        """What is to become the layer's own files, while the layer is being filled."""
        return self.directory / _INCOMING

    @property
    def work(self) -> Path:
        """Overlay work directory."""
        return self.directory / "work"

    @property
    def merged(self) -> Path:
        """Mount point of the union."""
        return self.directory / _MERGED

    @property
    def link(self) -> str:
        """Short path of the layer's files, relative to the home."""
        return short_link(self.id)


def short_link(name: str) -> str:
    """Short path for a mount option, relative to the home: 50 bits of a hash, so never two names alike in practice."""
    return "l/" + base64.b32encode(hashlib.sha256(name.encode()).digest()[:10]).decode()[:10]


class LayerStore:
    """The layers below one home directory. All methods block.

    Parameters
    ----------
    home
        The driver's directory; made where it is missing.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._layers = home / "layers"
        self._trash = home / "trash"
        self._records: dict[LayerId, Layer] = {}
        for directory in (home, self._layers, home / "l", self._trash):
            # 0710: containers' users reach their files through the mount, nobody lists others' layers.
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._finish_interrupted()

    @property
    def scratch(self) -> Path:
        """Directory for what is needed for a while only; a start of this program finds it empty."""
        return self._trash

    def _finish_interrupted(self) -> None:
        for pattern in (".new-*", f"*/{_INCOMING}"):
            for leftover in self._layers.glob(pattern):
                # Away from there even if it cannot be deleted: the layer is to be filled again.
                bury(leftover, self._trash)
        delete_leftovers(self._trash.iterdir())
        self.forget_links()
        for link in (self.home / "l").iterdir():
            if not link.exists():
                link.unlink()

    def create(self, layer_id: LayerId, parent: LayerId | None, kind: LayerKind) -> Layer:
        """Make an empty layer.

        Raises
        ------
        LayerExistsError
            There is a layer of that id.
        UnknownLayerError
            There is no layer of the parent's id.
        """
        if parent is not None:
            self.find(parent)
        layer = Layer(layer_id, parent, kind, self.directory(layer_id))
        if layer.directory.exists():
            raise LayerExistsError(f"layer {layer_id} exists already")
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._layers))
        try:
            new.chmod(0o710)
            (new / "diff").mkdir()
            (new / "diff").chmod(0o755)
            (new / "work").mkdir(mode=0o700)
            self.ensure_link(layer.link, layer.diff)
            _write_record(new, layer)
        except BaseException:
            delete_directory(new)
            self.remove(layer_id)
            raise
        self._records[layer_id] = layer
        return layer

    def ensure_link(self, link: str, target: Path) -> None:
        """Make the short link `link` point to a directory.

        Raises
        ------
        LineageError
            The link is taken by another directory (two hashes collide).
        """
        place = self.home / link
        # Layers are linked relative to the home, which a front end in a container sees under another path than others.
        text = os.path.relpath(target, place.parent) if target.is_relative_to(self.home) else str(target)
        try:
            place.symlink_to(text)
        except FileExistsError:
            found = place.readlink()
            if str(found) != text:
                raise LineageError(f"{place} points to {found}, not to {text}: remove it if {found} is gone") from None

    def forget_links(self) -> None:
        """Remove the short links to what is no layer; none of them may be about to be used for a mount."""
        for link in (self.home / "l").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of a layer which is removed just now
                # A look along a link into a repository could mount it, fail with its client, or hang.
                if not str(link.readlink()).startswith(_LAYER_LINKS):
                    link.unlink()

    def directory(self, layer_id: LayerId) -> Path:
        """Return the directory of a layer, whether there is one or not."""
        return self._layers / layer_id

    def mount_point(self, layer_id: LayerId) -> Path:
        """Return the mount point of a layer's union, whether there is such a layer or not."""
        return self.directory(layer_id) / _MERGED

    def exists(self, layer_id: LayerId) -> bool:
        """Return whether there is a layer of that id, be its record damaged or not."""
        return self.directory(layer_id).is_dir()

    def known(self, layer_id: LayerId) -> Layer | None:
        """Return a layer's record if it has been read before; does not block."""
        return self._records.get(layer_id)

    def find(self, layer_id: LayerId) -> Layer:
        """Return a layer's record.

        Raises
        ------
        UnknownLayerError
            There is none.
        LineageError
            The record is damaged.
        """
        if layer_id not in self._records:
            layer = self._read(layer_id)
            self.ensure_link(layer.link, layer.diff)
            self._records[layer_id] = layer
        return self._records[layer_id]

    def _read(self, layer_id: LayerId) -> Layer:
        directory = self.directory(layer_id)
        try:
            record = json.loads((directory / _RECORD).read_bytes())
            parent = None if record["parent"] is None else LayerId(record["parent"])
            return Layer(layer_id, parent, LayerKind(record["kind"]), directory)
        except FileNotFoundError:
            if not self.exists(layer_id):
                raise UnknownLayerError(f"no layer {layer_id} below {self.home}") from None
            reason = "there is no such file"
        except KeyError as error:
            reason = f"it does not say {error}"
        except (OSError, ValueError, TypeError) as error:
            reason = str(error)
        raise LineageError(
            f"{directory / _RECORD} is damaged: {reason}: remove the image or container of layer {layer_id}, and "
            "pull or make it anew"
        )

    def chain(self, layer_id: LayerId) -> list[Layer]:
        """Return a layer and its ancestors, top first.

        Raises
        ------
        UnknownLayerError
            There is no such layer.
        LineageError
            An ancestor is missing.
        """
        chain = [self.find(layer_id)]
        while (parent := chain[-1].parent) is not None:
            if len(chain) == _CHAIN_LIMIT:
                raise LineageError(f"the chain of layer {layer_id} does not end: its records form a loop")
            try:
                chain.append(self.find(parent))
            except UnknownLayerError:
                raise LineageError(
                    f"layer {parent}, an ancestor of {layer_id}, is missing: pull the image again"
                ) from None
        return chain

    def remove(self, layer_id: LayerId) -> None:
        """Delete a layer that is not mounted; nothing happens if there is none.

        Raises
        ------
        TreeDeletionError
            The layer is gone, but for files that cannot be deleted; the next start tries again.
        """
        self._records.pop(layer_id, None)
        grave = bury(self.directory(layer_id), self._trash)
        if grave is not None:
            (self.home / short_link(layer_id)).unlink(missing_ok=True)
            delete_directory(grave)

    def all(self) -> Iterator[Layer]:
        """Iterate over all layers; one that goes meanwhile may be left out.

        One whose record is damaged has its files all the same, and is taken for one that stands on nothing.
        """
        with os.scandir(self._layers) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        for name in names:
            # Not by `find`, which remembers what it has read, though the layer be gone by then.
            with contextlib.suppress(UnknownLayerError):
                try:
                    layer = self._read(LayerId(name))
                except LineageError:
                    layer = Layer(LayerId(name), None, LayerKind.IMAGE, self.directory(LayerId(name)))
                yield layer


def _write_record(new: Path, layer: Layer) -> None:
    """Give a new layer its record and its name, and bring both to the disk."""
    record = {"id": layer.id, "parent": layer.parent, "kind": layer.kind}
    with open(new / _RECORD, "w") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        new.rename(layer.directory)
        # Once, since that is most of what making a layer costs: the record gets its place on the disk only now, so the
        # file system's journal brings along what has happened before, the directory and its name. Where power fails
        # earlier, nobody has been told of the layer.
        os.fsync(file.fileno())
