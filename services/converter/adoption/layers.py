"""Layers in the repository of another tool, and whether they are as this suite has them."""

import os
import stat
from pathlib import Path
from typing import Final

from services.common.descent import Descent
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import CATALOG_MARKER, layer_home, layer_tree, sidecar_path
from services.common.sidecar import SIDECAR_LIMIT, LayerSidecar
from services.converter.adoption.files import read_json
from services.converter.adoption.model import FoundLayer, LayerContents
from services.converter.errors import AdoptionError

__all__ = ["find_layer", "look_into"]

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_OWNERS: Final = 2
"""Most owners that are remembered of a layer."""


def find_layer(root: Path, digest: Digest, *, contents: bool) -> FoundLayer:
    """Find out about one layer; blocking.

    Parameters
    ----------
    root
        Root of the repository.
    digest
        The layer.
    contents
        Whether to look at all its files too, if this suite has not published it.

    Raises
    ------
    AdoptionError
        Its files cannot be read.
    """
    home, tree = root / layer_home(digest), root / layer_tree(digest)
    if not tree.is_dir():
        what = "it is not in the repository" if not os.path.lexists(home) else "it has no directory layerfs"
        return FoundLayer(digest=digest, faults=(what,))
    try:
        document = read_json(root / sidecar_path(digest), limit=SIDECAR_LIMIT)
    except AdoptionError as error:
        return FoundLayer(digest=digest, faults=(f"layer.json: {error}",))
    if document is not None:
        return FoundLayer(digest=digest, faults=_faults_of_sidecar(root / sidecar_path(digest), digest))
    faults = ["it has no layer.json: nobody has verified it, and nothing says what it deletes"]
    if os.path.lexists(tree / CATALOG_MARKER):
        faults.append(f"containers see /{CATALOG_MARKER}")
    if contents:
        faults += look_into(tree).faults
    return FoundLayer(digest=digest, faults=tuple(faults))


def _faults_of_sidecar(file: Path, digest: Digest) -> tuple[str, ...]:
    try:
        sidecar = LayerSidecar.parse(file.read_bytes(), where="layer.json")
    except InvalidValueError as error:
        return (str(error),)
    return () if sidecar.digest == digest else (f"layer.json is that of layer {sidecar.digest}",)


def look_into(tree: Path) -> LayerContents:
    """Look at all files of a layer; blocking.

    Raises
    ------
    AdoptionError
        They cannot be read.
    """
    found = _Counts()
    try:
        with Descent.into(tree) as descent:
            found.add(b"", os.fstat(descent.descriptor))
            pending = [found.directory(descent.descriptor)]
            while True:
                if pending[-1]:
                    descent.enter(pending[-1].pop())
                    pending.append(found.directory(descent.descriptor))
                elif descent.depth:
                    descent.leave()
                    pending.pop()
                else:
                    break
    except OSError as error:
        raise AdoptionError(f"{tree} cannot be read: {error.strerror}") from error
    return found.contents()


class _Counts:
    """What has been seen so far."""

    def __init__(self) -> None:
        self._entries = self._whiteouts = self._opaque = 0
        self._owners: set[tuple[int, int]] = set()

    def directory(self, descriptor: int) -> list[bytes]:
        """Count what is in a directory; return the directories in it."""
        inner = []
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name, status = os.fsencode(entry.name), entry.stat(follow_symlinks=False)
                self.add(name, status)
                if stat.S_ISDIR(status.st_mode):
                    inner.append(name)
        return inner

    def add(self, name: bytes, status: os.stat_result) -> None:
        """Count an entry."""
        if name == CATALOG_MARKER.encode():
            return
        self._entries += 1
        if name == _OPAQUE:
            self._opaque += 1
        elif name.startswith(_WHITEOUT):
            self._whiteouts += 1
        if len(self._owners) < _OWNERS:
            self._owners.add((status.st_uid, status.st_gid))

    def contents(self) -> LayerContents:
        """Return what has been seen."""
        return LayerContents(
            entries=self._entries, whiteouts=self._whiteouts, opaque=self._opaque, owners=frozenset(self._owners)
        )
