"""The outputs of an image as its record in a repository, `image.json`, has them: under `outputs`, if there are any."""

import json
from typing import Final

from services.common.errors import InvalidValueError
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput, read_outputs

__all__ = ["NO_OUTPUTS", "RECORD", "RECORDED", "FlatOutput", "ImageOutputs", "PodmanOutput", "of_record"]

RECORD: Final = "image.json"
"""Name of the record, in the directory of documents that has the image's name."""
RECORDED: Final = "outputs"
"""Where the record has them."""


def of_record(content: bytes) -> ImageOutputs:
    """Read the outputs of an image from its record.

    Raises
    ------
    InvalidValueError
        It is no record.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InvalidValueError(f"not the record of an image, {RECORD}: {content[:80]!r}")
    return read_outputs(record.get(RECORDED, {}))
