"""Masks: small local directories that carry the deletions of a layer whose tree in the repository cannot.

A mask holds a layer's whiteouts (0:0 devices) and opaque directories (trusted.overlay.opaque) with bare parent
directories, and is stacked directly *below* its layer, so that directory attributes come from the layer.

On disk, below the driver's home::

    masks/<name>/  a mask, named by the SHA-256 of its layer's digest and of what it deletes; appears by one rename

The digest is in the name since a union takes no directory twice, the content since two repositories may disagree.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from services.common.descriptor import DESCRIPTOR_NAME
from services.common.sidecar import LayerSidecar, decode_path
from services.graphdriver.errors import RepositoryError

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
        for leftover in self._masks.glob(".new-*"):
            shutil.rmtree(leftover)

    def for_layer(self, sidecar: LayerSidecar) -> Path:
        """Return the mask of a layer, made at first use.

        The sidecar's paths were checked when it was parsed; a mask is built in a fresh private directory, so nothing
        in it can lead outside.

        Raises
        ------
        RepositoryError
            The sidecar contradicts itself, say by deleting a path and another one below it.
        """
        try:
            return self._ensure(
                sidecar.digest,
                whiteouts=[decode_path(path) for path in sidecar.whiteouts],
                opaque=[decode_path(path) for path in sidecar.opaque],
            )
        except (FileExistsError, NotADirectoryError) as error:
            raise RepositoryError(
                f"the sidecar of layer {sidecar.digest} deletes a path and something at or below it: "
                f"{os.fsdecode(error.filename)}"
            ) from error

    def hiding_descriptor(self) -> Path:
        """Return the mask that hides a thin.json."""
        return self._ensure(DESCRIPTOR_NAME, whiteouts=[DESCRIPTOR_NAME.encode()], opaque=[])

    def _ensure(self, owner: str, *, whiteouts: Sequence[bytes], opaque: Sequence[bytes]) -> Path:
        content = owner.encode() + b"\0\0" + b"\0".join(whiteouts) + b"\0\0" + b"\0".join(opaque)
        mask = self._masks / hashlib.sha256(content).hexdigest()
        if mask.is_dir():
            return mask
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._masks))
        try:
            new.chmod(0o755)
            root = os.fsencode(new)
            for path in opaque:
                directory = os.path.join(root, path)
                os.makedirs(directory, exist_ok=True)
                os.setxattr(directory, "trusted.overlay.opaque", b"y")
            for path in whiteouts:
                place = os.path.join(root, path)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
            new.rename(mask)
        except OSError as error:
            shutil.rmtree(new)
            # Another Get of the same layer may have been quicker.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not mask.is_dir():
                raise
        return mask
