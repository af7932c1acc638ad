"""Masks: small local directories that carry the deletions of a layer whose tree in the repository cannot.

A mask holds a layer's whiteouts (0:0 devices) and opaque directories (trusted.overlay.opaque) with bare parent
directories, and is stacked directly *below* its layer, so that directory attributes come from the layer.

On disk, below the driver's home::

    masks/<digest>-<hash>/  the mask of a layer; the hash is the SHA-256 of what it deletes

The digest is in the name since a union takes no directory twice, the content since two repositories may disagree. A
mask appears and disappears by one rename. It is kept as long as an image on this machine names its layer, rather than
made anew for each container: a layer may delete thousands of paths.
"""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

from services.common.descriptor import DESCRIPTOR_NAME
from services.common.digest import Digest
from services.common.sidecar import LayerSidecar, decode_path, encode_path
from services.node.errors import RepositoryError
from services.node.removal import delete_directory, delete_leftovers

__all__ = ["MaskStore"]


class MaskStore:
    """The masks below one home directory. All methods block.

    Parameters
    ----------
    home
        The driver's directory.
    """

    def __init__(self, home: Path) -> None:
        self._masks = home / "masks"
        self._masks.mkdir(mode=0o710, exist_ok=True)
        delete_leftovers(self._masks.glob(".*"))

    def for_layer(self, sidecar: LayerSidecar) -> Path:
        """Return the mask of a layer, made at first use.

        The sidecar's paths were checked when it was parsed; a mask is built in a fresh private directory, so nothing
        in it can lead outside.

        Raises
        ------
        RepositoryError
            The sidecar contradicts itself, say by deleting a path and another one below it, or the local file system
            cannot hold the mask.
        """
        return self._ensure(
            sidecar.digest,
            whiteouts=[decode_path(path) for path in sidecar.whiteouts],
            # overlayfs knows no opaque root: the roots of all layers are merged, under every driver.
            opaque=[decode_path(path) for path in sidecar.opaque if path],
        )

    def hiding_descriptor(self) -> Path:
        """Return the mask that hides a thin.json."""
        return self._ensure(DESCRIPTOR_NAME, whiteouts=[DESCRIPTOR_NAME.encode()], opaque=[])

    def keep_only(self, digests: Container[Digest]) -> None:
        """Remove the masks of all other layers; no union may stand on one of them."""
        for mask in self._masks.iterdir():
            owner = mask.name.partition("-")[0]
            if owner != DESCRIPTOR_NAME and owner not in digests:
                grave = mask.with_name(f".old-{mask.name}")
                mask.rename(grave)
                delete_directory(grave)

    def _ensure(self, owner: str, *, whiteouts: Sequence[bytes], opaque: Sequence[bytes]) -> Path:
        content = b"\0".join(whiteouts) + b"\0\0" + b"\0".join(opaque)
        mask = self._masks / f"{owner}-{hashlib.sha256(content).hexdigest()}"
        if mask.is_dir():
            return mask
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._masks))
        try:
            new.chmod(0o755)
            _fill(new, owner, whiteouts=whiteouts, opaque=opaque)
            new.rename(mask)
        except (OSError, RepositoryError) as error:
            delete_directory(new)
            # Another Get of the same layer may have been quicker.
            if not (isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and mask.is_dir()):
                raise
        return mask


def _fill(mask: Path, owner: str, *, whiteouts: Sequence[bytes], opaque: Sequence[bytes]) -> None:
    root = os.fsencode(mask)
    for make, paths in ((_make_opaque, opaque), (_make_whiteout, whiteouts)):
        for path in paths:
            try:
                make(os.path.join(root, path))
            except (FileExistsError, NotADirectoryError) as error:
                raise RepositoryError(
                    f"the sidecar of layer {owner} deletes a path and something at or below it: {_shown(path)}"
                ) from error
            except OSError as error:
                raise RepositoryError(
                    f"the deletions of layer {owner} cannot be kept below {mask.parent}: {_shown(path)}: "
                    f"{error.strerror}"
                ) from error


def _make_opaque(place: bytes) -> None:
    os.makedirs(place, exist_ok=True)
    os.setxattr(place, "trusted.overlay.opaque", b"y")


def _make_whiteout(place: bytes) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))


def _shown(path: bytes) -> str:
    return encode_path(path[:200])
