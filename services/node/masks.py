"""Masks: small local directories that carry the deletions of a layer whose tree in the repository cannot.

What is in one, and where it is stacked, `services.common.mask` says.

On disk, below the driver's home::

    masks/<digest>-<hash>/  the mask of a layer; the hash is the SHA-256 of what it deletes

The digest is in the name since a union takes no directory twice, the content since two repositories may disagree. A
mask appears and disappears by one rename. It is kept as long as an image on this machine names its layer, rather than
made anew for each container: a layer may delete thousands of paths.
"""

import errno
import hashlib
import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

from services.common.archive.ondisk import OPAQUE_XATTR
from services.common.descriptor import DESCRIPTOR_NAME
from services.common.digest import Digest
from services.common.mask import MaskError, fill_mask
from services.common.sidecar import LayerSidecar, decode_path
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

    def count(self, digests: Container[Digest]) -> int:
        """Return how many of these layers have a mask, as those that delete something get at first use."""
        return len({owner for mask in self._masks.iterdir() if (owner := mask.name.partition("-")[0]) in digests})

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
            _fill(new, owner, whiteouts, opaque)
            new.rename(mask)
        except (OSError, RepositoryError) as error:
            delete_directory(new)
            # Another Get of the same layer may have been quicker.
            if not (isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and mask.is_dir()):
                raise
        return mask


def _fill(mask: Path, owner: str, whiteouts: Sequence[bytes], opaque: Sequence[bytes]) -> None:
    try:
        fill_mask(mask, layer=owner, whiteouts=whiteouts, opaque=opaque, attributes=(OPAQUE_XATTR,))
    except MaskError as error:
        raise RepositoryError(str(error)) from error
