"""Repositories as a publisher leaves them, made by hand."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.common.descriptor import DESCRIPTOR_NAME, LayerUrl, ThinDescriptor, ThinLayer
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_tree, sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar, encode_path

__all__ = ["DIFF_ID", "Repository", "digest_of", "newer_thin_json", "thin_json"]

DIFF_ID = "d1" * 32


def digest_of(name: str) -> Digest:
    """Return a digest for a layer that only has a name."""
    return Digest(hashlib.sha256(name.encode()).hexdigest())


def thin_json(*urls: LayerUrl) -> bytes:
    """Write the thin.json of an image of published layers, base first."""
    return ThinDescriptor.of(*(ThinLayer(digest=url.digest, url=url) for url in urls)).encode()


def newer_thin_json(*urls: LayerUrl) -> str:
    """Write a thin.json that only a later version of the suite can use."""
    return json.dumps({**json.loads(thin_json(*urls)), "version": "2.0"})


class Repository:
    """One repository below the directory in which the machine's repositories are."""

    def __init__(self, cvmfs_root: Path, name: str = "test.example.org") -> None:
        self.name = RepositoryName(name)
        self.root = cvmfs_root / name
        self.root.mkdir(parents=True, exist_ok=True)

    def url(self, name: str, layout: LayerLayout = LayerLayout.FLAT) -> LayerUrl:
        """Return the URL that a descriptor has for a layer, whether it is published or not."""
        return LayerUrl.of(self.name, digest_of(name), layout)

    def tree(self, name: str) -> Path:
        """Return the directory of a layer's files."""
        return self.root / layer_tree(digest_of(name))

    def sidecar(
        self, name: str, *, whiteouts: Sequence[bytes] = (), opaque: Sequence[bytes] = (), diff_id: str = DIFF_ID
    ) -> LayerSidecar:
        """Return the sidecar of a layer."""
        return LayerSidecar(
            digest=digest_of(name),
            diff_id=diff_id,
            archive_size=1,
            uncompressed_size=1,
            tree_size=1,
            entries=1,
            whiteouts=tuple(map(encode_path, whiteouts)),
            opaque=tuple(map(encode_path, opaque)),
        )

    def publish(
        self,
        name: str,
        files: Mapping[str, str] | None = None,
        *,
        whiteouts: Sequence[bytes] = (),
        opaque: Sequence[bytes] = (),
        layout: LayerLayout = LayerLayout.FLAT,
        diff_id: str = DIFF_ID,
    ) -> LayerUrl:
        """Put a layer into the repository, its sidecar last, and return its URL."""
        tree = self.tree(name)
        tree.mkdir(parents=True)
        for path, content in (files or {}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        for directory in (*map(os.fsdecode, opaque), *(os.path.dirname(os.fsdecode(path)) for path in whiteouts)):
            (tree / directory).mkdir(parents=True, exist_ok=True)
        if layout is LayerLayout.FLAT:
            (self.root / digest_of(name)).symlink_to(layer_tree(digest_of(name)))
        sidecar = self.sidecar(name, whiteouts=whiteouts, opaque=opaque, diff_id=diff_id)
        self._put(sidecar_path(digest_of(name)), sidecar.encode())
        return self.url(name, layout)

    def _put(self, path: str, content: bytes) -> None:
        """Have a file there as a whole, as a new revision has it: somebody may be waiting for it."""
        new = self.root / f"{path}.new"
        new.write_bytes(content)
        new.rename(self.root / path)

    def image(self, diff: Path, *names: str) -> None:
        """Make a directory the layer of a thin image."""
        (diff / DESCRIPTOR_NAME).write_bytes(thin_json(*(self.url(name) for name in names)))
