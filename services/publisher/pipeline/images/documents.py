"""What stands in the repository beside an image's layers: its original documents, and the suite's record of it.

`image.json` is the record, schema 1::

    {"version": 1, "name": NAME, "reference": REFERENCE, "digest": "sha256:HEX", "verified": null | {...},
     "published_at": TIME, "outputs": {...},
     "platforms": [{"platform": "linux/amd64", "manifest": "sha256:HEX", "config": "sha256:HEX",
                    "layers": [{"digest": "sha256:HEX", "diff_id": "sha256:HEX", "size": BYTES}]}]}

It has `outputs`, as `services.common.image_outputs` writes them, where there are any.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.image_outputs import outputs_document
from services.common.times import time_text
from services.publisher.journal.image_model import ImageVersion, PlatformImage
from services.registry.platform import Platform
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments
from services.repository.outputs import RECORD, RECORDED

__all__ = ["check_places", "described_digest", "directory_of", "documents_of", "is_described"]


def directory_of(name: ImageName, platform: Platform | None = None) -> str:
    """Path of an image's documents below the directory of all of them.

    Parameters
    ----------
    platform
        One that is not the first of those that were asked for; None for the first.
    """
    if platform is None:
        return name.path
    machine = ":".join(filter(None, (platform.architecture, platform.variant)))
    return f"{MULTIARCH_DIRECTORY}/{machine}/{name.path}"


def check_places(name: ImageName, platforms: Sequence[Platform]) -> None:
    """Make sure that the documents of an image have places, one for each platform.

    Raises
    ------
    InvalidValueError
        They have none.
    """
    directories = [directory_of(name), *(directory_of(name, platform) for platform in platforms[1:])]
    ImageDocuments(name=name, files={f"{directory}/{RECORD}": b"" for directory in directories})
    if len(set(directories)) < len(directories):
        raise InvalidValueError(f"two of the platforms have the same processor: {', '.join(map(str, platforms))}")


def documents_of(version: ImageVersion, *, now: float) -> ImageDocuments:
    """Return all documents of a version, which is published now."""
    record = {
        **{key: value for key, value in _identity(version).items() if (key, value) != (RECORDED, None)},
        "published_at": time_text(now),
    }
    path = f"{directory_of(version.name)}/{RECORD}"
    return ImageDocuments(
        name=version.name,
        files={**version.documents, path: json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"},
        outputs=version.outputs,
    )


def is_described(version: ImageVersion, documents: Mapping[str, bytes] | None) -> bool:
    """Whether what the repository has of a name is a version, whenever it was published."""
    content = (documents or {}).get(f"{directory_of(version.name)}/{RECORD}")
    if documents is None or content is None:
        return False
    try:
        record = json.loads(content)
    except ValueError:
        return False
    same = isinstance(record, dict) and {key: record.get(key) for key in _identity(version)} == _identity(version)
    return same and all(documents.get(path) == content for path, content in version.documents.items())


def described_digest(name: ImageName, documents: Mapping[str, bytes]) -> Digest:
    """Return the digest of what a name names in the repository: its index, or else its manifest."""
    files = [documents.get(f"{directory_of(name)}/{file}") for file in ("index.json", "manifest.json")]
    return Digest(hashlib.sha256(next(filter(None, files), b"")).hexdigest())


def _identity(version: ImageVersion) -> dict[str, object]:
    return {
        "version": 1,
        "name": version.name,
        "reference": version.reference,
        "digest": version.digest.oci,
        "platforms": [_platform(image) for image in version.images],
        "verified": version.verified,
        RECORDED: outputs_document(version.outputs) or None,
    }


def _platform(image: PlatformImage) -> dict[str, object]:
    return {
        "platform": image.platform,
        "manifest": image.manifest.oci,
        "config": image.config.oci,
        "layers": [
            {"digest": layer.digest.oci, "diff_id": layer.diff_id.oci, "size": layer.size} for layer in image.layers
        ],
    }
