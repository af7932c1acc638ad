"""A repository as DUCC makes one (cvmfs of October 2024), with the faults that DUCC's have; a tree of files.

Layers are unpacked as one user, with `.wh.` files as they are in the archive and the marker of a nested catalog among
their files; manifests are written anew, in Go's spelling; stores of podman's have relative links and random names.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.repository.images import ImageDocuments
from services.repository.native.writer.tree_rows import TreeRows
from tests.support.native import NativeSite

__all__ = ["DuccImage", "DuccTree", "native_of_tree", "paths_of_ducc"]

_MARKER = ".cvmfscatalog"
_OWNER = 1000


@dataclass(frozen=True, kw_only=True)
class DuccImage:
    """An image that DUCC has converted."""

    name: ImageName
    manifest: bytes
    """As the registry has it."""
    config: bytes
    layers: Sequence[bytes]
    """Archives, base first, uncompressed: the digest is the diff ID as well."""

    @property
    def config_digest(self) -> Digest:
        """What its flat image is called."""
        return _sha256(self.config)

    @property
    def digests(self) -> list[Digest]:
        """Its layers."""
        return [_sha256(layer) for layer in self.layers]

    @classmethod
    def of(cls, documents: ImageDocuments, layers: Sequence[bytes]) -> "DuccImage":
        """Make one of the documents that this suite has of it."""
        directory = documents.name.path
        return cls(
            name=documents.name,
            manifest=documents.files[f"{directory}/manifest.json"],
            config=documents.files[f"{directory}/config.json"],
            layers=layers,
        )

    @classmethod
    def made(cls, name: str, layers: Sequence[bytes], *, created: str = "2024-05-06T07:08:09Z") -> "DuccImage":
        """Make one that is in no registry."""
        media = "application/vnd.docker."
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "created": created,
                "rootfs": {"type": "layers", "diff_ids": [_sha256(layer).oci for layer in layers]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{media}distribution.manifest.v2+json",
                "config": {
                    "mediaType": f"{media}container.image.v1+json",
                    "size": len(config),
                    "digest": _sha256(config).oci,
                },
                "layers": [
                    {"mediaType": f"{media}image.rootfs.diff.tar", "size": len(each), "digest": _sha256(each).oci}
                    for each in layers
                ],
            }
        ).encode()
        return cls(name=ImageName(name), manifest=manifest, config=config, layers=layers)


class DuccTree:
    """A repository's tree.

    Parameters
    ----------
    root
        Its root, which is made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def convert(self, image: DuccImage, *, flat: bool = True, podman: bool = True) -> None:
        """Do what `cvmfs_ducc convert` does for one image."""
        for layer in image.layers:
            self._put_layer(layer)
        directory = self.root / ".metadata" / image.name.path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "manifest.json").write_bytes(_in_go(image.manifest))
        if flat:
            self._put_flat(image)
        if podman:
            self._put_into_store(image)

    def home(self, digest: Digest) -> Path:
        """Return where a layer is."""
        return self.root / ".layers" / digest[:2] / digest

    def flat(self, image: DuccImage) -> Path:
        """Return where the flat image of an image is."""
        return self.root / ".flat" / image.config_digest[:2] / image.config_digest

    def _put_layer(self, archive: bytes) -> None:
        digest = _sha256(archive)
        home = self.home(digest)
        if home.exists():
            return
        tree = home / "layerfs"
        tree.mkdir(parents=True)
        _unpack(archive, tree)
        _mark(self.root / ".layers", home.parent, tree)
        facts = home / ".metadata"
        facts.mkdir()
        row = {"id": digest, "created": "2024-05-06T07:08:09Z", "diff-digest": digest.oci, "diff-size": len(archive)}
        (facts / "layers.json").write_text(json.dumps([{**row, "compressed-diff-digest": digest.oci}]))
        (facts / "origin.json").write_text("{}")

    def _put_flat(self, image: DuccImage) -> None:
        flat = self.flat(image)
        if not flat.exists():
            flat.mkdir(parents=True)
            for archive in image.layers:
                _unpack(archive, flat)
                _apply_whiteouts(flat)
            scripts = flat / ".singularity.d"
            scripts.mkdir(exist_ok=True)
            (scripts / "runscript").write_text("#!/bin/sh\n")
            _mark(self.root / ".flat", flat)
        self._chain(image)
        public = self.root / image.name.path
        public.parent.mkdir(parents=True, exist_ok=True)
        public.unlink(missing_ok=True)
        public.symlink_to("../" * image.name.path.count("/") + str(flat.relative_to(self.root)))

    def _chain(self, image: DuccImage) -> None:
        chain = ""
        for digest in image.digests:
            chain = _sha256(f"{chain} {digest}".encode()) if chain else digest
            place = self.root / ".chains" / chain[:2] / chain
            place.mkdir(parents=True, exist_ok=True)
            _mark(place)
        _mark(self.root / ".chains")

    def _put_into_store(self, image: DuccImage) -> None:
        store = self.root / "podmanStore"
        images, layers = store / "overlay-images/images.json", store / "overlay-layers/layers.json"
        for file in (images, layers):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".lock").touch()
        _mark(store)
        lower: list[str] = []
        rows: list[dict[str, Any]] = []
        for number, digest in enumerate(image.digests):
            place = store / "overlay" / digest
            short = hashlib.md5(digest.encode(), usedforsecurity=False).hexdigest()[:26].upper()
            if not place.exists():
                place.mkdir(parents=True)
                # Relative, and one directory for a layer however many parents it has.
                (place / "diff").symlink_to(f"../../../.layers/{digest[:2]}/{digest}/layerfs")
                (place / "link").write_text(short)
                if lower:
                    (place / "lower").write_text(":".join(lower))
                    (store / "overlay/l").mkdir(exist_ok=True)
                    (store / "overlay/l" / short).symlink_to(f"../{digest}/diff")
            lower.insert(0, f"l/{short}")
            rows.append(
                {
                    "id": digest,
                    **({"parent": image.digests[number - 1]} if number else {}),
                    "created": "2024-05-06T07:08:09Z",
                    "compressed-diff-digest": digest.oci,
                    "diff-digest": digest.oci,
                    "diff-size": len(image.layers[number]),
                }
            )
        _add_rows(layers, rows)
        place = images.parent / image.config_digest
        place.mkdir(exist_ok=True)
        encoded = base64.b64encode(image.config_digest.oci.encode()).decode()
        (place / f"={encoded}").write_bytes(image.config)
        up = "../" * 3
        (place / "manifest").unlink(missing_ok=True)
        (place / "manifest").symlink_to(f"{up}.metadata/{image.name.path}/manifest.json")
        row = {"id": image.config_digest, "names": [image.name], "layer": image.digests[-1], "metadata": "{}"}
        _add_rows(images, [{**row, "created": "2024-05-06T07:08:09Z"}])


def paths_of_ducc(root: Path) -> dict[str, str]:
    """Return what users of a repository rely on: all names, with what they lead to, and paths of everything else."""
    found = {}
    for directory, inner, files in os.walk(root):
        if directory == str(root):
            inner[:] = [name for name in inner if not name.startswith((".", "podmanStore"))]
        for path in (Path(directory, name) for name in (*inner, *files)):
            if path.is_symlink():
                found[str(path.relative_to(root))] = path.resolve().name
    documents = [
        Path(directory, name) for directory, _, files in os.walk(root / ".metadata", followlinks=True) for name in files
    ]
    places = (*root.glob(".flat/??/*"), *root.glob(".layers/??/*/layerfs"), *documents)
    return found | {str(path.relative_to(root)): "" for path in places if path.name != _MARKER}


def _in_go(manifest: bytes) -> bytes:
    """Write a manifest as Go writes a structure without tags: other names, another order, other bytes."""

    def renamed(value: Any) -> Any:  # noqa: ANN401 - a JSON document
        if isinstance(value, dict):
            return {key[:1].upper() + key[1:]: renamed(each) for key, each in value.items() if key != "annotations"}
        return [renamed(each) for each in value] if isinstance(value, list) else value

    return json.dumps(renamed(json.loads(manifest)), separators=(",", ":")).encode()


def _unpack(archive: bytes, tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for each in members:
            each.uid = each.gid = _OWNER
            each.uname = each.gname = ""
            members.extract(each, tree, filter="fully_trusted", numeric_owner=True)
    os.chown(tree, _OWNER, _OWNER)


def _apply_whiteouts(tree: Path) -> None:
    for whiteout in list(tree.rglob(".wh.*")):
        whiteout.unlink()
        hidden = whiteout.with_name(whiteout.name.removeprefix(".wh."))
        if hidden.is_dir() and not hidden.is_symlink():
            shutil.rmtree(hidden)
        else:
            hidden.unlink(missing_ok=True)


def _mark(*directories: Path) -> None:
    for directory in directories:
        (directory / _MARKER).touch()


def _add_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    there = json.loads(file.read_bytes()) if file.exists() else []
    known = {row["id"] for row in rows}
    file.write_text(json.dumps([*(row for row in there if row["id"] not in known), *rows]))


def _sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def native_of_tree(site: NativeSite, root: Path) -> None:
    """Make everything in a tree a revision of a native repository, with a catalog wherever a marker is."""
    with site.changing() as catalogs:
        rows = TreeRows(catalogs)
        for directory, inner, files in os.walk(root):
            inner.sort()
            here = b"/" + os.fsencode(os.path.relpath(directory, root))
            if directory == str(root):
                here = b""
            elif _MARKER in files:
                rows.make_catalog(here)
            if here:
                status = os.lstat(directory)
                rows.put_directory(here, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid)
            for name in sorted((*inner, *files)):
                path, place = os.path.join(directory, name), here + b"/" + os.fsencode(name)
                status = os.lstat(path)
                owner = {"uid": status.st_uid, "gid": status.st_gid}
                if stat.S_ISLNK(status.st_mode):
                    rows.put_symlink(place, os.fsencode(os.readlink(path)), **owner)
                elif stat.S_ISREG(status.st_mode):
                    rows.put_file(place, Path(path).read_bytes(), mode=stat.S_IMODE(status.st_mode), **owner)
