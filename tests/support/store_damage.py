"""All that can be wrong with an image in a store of podman's, as single changes to what is published."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.digest import Digest
from services.repository.image_platforms import PlatformImage
from services.repository.podman.identity import big_data_file, layer_ids, link_name, mask_id

__all__ = ["Damage", "store_damages"]

_IMAGES, _LAYERS = "overlay-images/images.json", "overlay-layers/layers.json"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What somebody does to a store."""

    what: str
    """What is to be said of it: a path relative to the store, and a text."""
    files: Mapping[str, bytes | None]
    """Contents of files, which are put in place of what is there; None for what is removed with all below it."""
    link: str | None = None
    """Where all of these lead instead of being files."""


def store_damages(image: PlatformImage, read: Callable[[str], bytes]) -> Sequence[Damage]:
    """Return damages to a store with one image of two layers, the upper of which has a mask that hides `hidden`.

    Parameters
    ----------
    read
        Reads a file of the store.
    """
    base, top = layer_ids(layer.diff_id for layer in image.layers)
    config = image.config_digest
    mask = mask_id(top)

    def changed(file: str, row: Digest, **values: object) -> Mapping[str, bytes]:
        """Change what a list says; the lock agrees with it."""
        rows: list[dict[str, Any]] = json.loads(read(file))
        for each in rows:
            if each["id"] == row:
                each.update({key.replace("_", "-"): value for key, value in values.items()})
        return listed(file, json.dumps(rows).encode())

    def listed(file: str, content: bytes) -> Mapping[str, bytes]:
        return {file: content, file.replace(".json", ".lock"): hashlib.sha256(content).hexdigest().encode()}

    def removed(file: str, said: str, what: str) -> Damage:
        return Damage(files={file: None}, what=f"{said}: {what}")

    def led(file: str, target: str, what: str) -> Damage:
        return Damage(files={file: b""}, link=target, what=f"{file}: {what}")

    def written(file: str, what: str) -> Damage:
        return Damage(files={file: b"x"}, what=f"{file}: {what}")

    rows: list[dict[str, Any]] = json.loads(read(_LAYERS))
    sizes = json.loads(read(_IMAGES))[0]["big-data-sizes"]
    return [
        removed("overlay/l", "overlay/l", "is missing"),
        removed(_IMAGES, _IMAGES, "is missing"),
        removed("overlay-images/images.lock", "overlay-images/images.lock", "does not say which list it is for"),
        removed(_LAYERS, _LAYERS, "is missing"),
        removed("overlay-layers/layers.lock", "overlay-layers/layers.lock", "does not say which list it is for"),
        written("overlay-layers/layers.lock", "does not say which list it is for"),
        Damage(files=listed(_LAYERS, b"[]"), what=f"{_IMAGES}: image {config} has the layer {top}, which is not in"),
        Damage(
            files=listed(_LAYERS, json.dumps([row for row in rows if row["id"] != base]).encode()),
            what=f"{_LAYERS}: layer {top} stands on {base}, which is not in the list",
        ),
        Damage(files=listed(_LAYERS, json.dumps(rows + rows).encode()), what=f"{_LAYERS}: has {base} several times"),
        Damage(files=changed(_LAYERS, top, parent=None), what=f"{_LAYERS}: layer {top} should be called"),
        Damage(files=changed(_LAYERS, base, diff_size=1), what=f"{_LAYERS}: layer {base} has another digest or size"),
        Damage(
            files=changed(_LAYERS, base, compressed_size=1), what=f"{_LAYERS}: layer {base} has another digest or size"
        ),
        Damage(
            files=changed(_IMAGES, config, digest=f"sha256:{'0' * 64}"),
            what=f"{_IMAGES}: image {config} has no manifest of the digest sha256:000",
        ),
        Damage(
            files=changed(_IMAGES, config, big_data_names=["manifest"]),
            what=f"{_IMAGES}: image {config} has no sha256:{config} of the digest",
        ),
        Damage(
            files=changed(_IMAGES, config, big_data_sizes=sizes | {"manifest": 1}),
            what=f"overlay-images/{config}/manifest: is missing, or not what the list of images says",
        ),
        removed(f"overlay-images/{config}/manifest", f"overlay-images/{config}/manifest", "is missing, or not"),
        written(f"overlay-images/{config}/{big_data_file(config.oci)}", "is missing, or not what the list"),
        removed(f"overlay-images/{config}", f"overlay-images/{config}/manifest", "is missing, or not"),
        removed(f"overlay/{base}", f"overlay/{base}/diff", "does not lead to /cvmfs/"),
        led(f"overlay/{top}/diff", "/cvmfs/elsewhere", "does not lead to /cvmfs/"),
        led(f"overlay/l/{link_name(base)}", "../x/diff", "does not lead to ../"),
        removed(f"overlay/l/{link_name(top)}", f"overlay/l/{link_name(top)}", "does not lead to ../"),
        written(f"overlay/{top}/link", f"is not {link_name(top)}"),
        written(f"overlay/{top}/lower", "names other layers than those"),
        Damage(
            files={f"overlay/{top}/lower": f"l/{link_name(base)}".encode()}, what=f"overlay/{top}/lower: names other"
        ),
        removed(f"overlay-layers/{top}.tar-split.gz", f"overlay-layers/{top}.tar-split.gz", "does not lead to /cvmfs/"),
        written(f"overlay/{mask}/link", f"is not {link_name(mask)}"),
        removed(f"overlay/l/{link_name(mask)}", f"overlay/l/{link_name(mask)}", "does not lead to ../"),
        removed(f"overlay/{mask}/diff/hidden", f"overlay/{mask}/diff/hidden", "does not delete what is below"),
    ]
