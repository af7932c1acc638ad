"""The record of an image says which outputs it has."""

import pytest

from services.common.errors import InvalidValueError
from services.repository.outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput, of_record
from tests.support.images import image_of_layers


def test_outputs_are_read_back_from_the_record() -> None:
    outputs = ImageOutputs(flat=FlatOutput(others_read=True), podman=PodmanOutput(store="s"))
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", ()), outputs=outputs)
    assert of_record(image.files["quay.io/ns/tool:v1/image.json"]) == outputs


def test_a_record_that_names_none_has_none() -> None:
    assert of_record(b'{"version": 1}') == NO_OUTPUTS


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"outputs": []}', b'{"outputs": {"flat": 1}}', b"[" * 100_000])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidValueError):
        of_record(content)
