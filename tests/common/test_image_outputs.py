"""The outputs of an image, and the document that says which it has."""

import pytest

from services.common.errors import InvalidValueError
from services.common.image_outputs import (
    NO_OUTPUTS,
    FlatOutput,
    ImageOutputs,
    PodmanOutput,
    outputs_document,
    outputs_of_words,
    read_outputs,
)


@pytest.mark.parametrize(
    "outputs",
    [
        ImageOutputs(),
        ImageOutputs(flat=FlatOutput()),
        ImageOutputs(flat=FlatOutput(others_read=True), podman=PodmanOutput()),
        ImageOutputs(podman=PodmanOutput(store="atlas.2")),
    ],
)
def test_outputs_are_read_as_they_are_written(outputs: ImageOutputs) -> None:
    assert read_outputs(outputs_document(outputs)) == outputs


def test_the_document_has_what_an_image_has_only() -> None:
    assert outputs_document(ImageOutputs()) == {}
    assert outputs_document(ImageOutputs(podman=PodmanOutput())) == {"podman": {"store": None}}


def test_what_is_not_said_is_the_usual() -> None:
    outputs = ImageOutputs(flat=FlatOutput(others_read=False), podman=PodmanOutput(store=None))
    assert read_outputs({"flat": {}, "podman": {}}) == outputs


@pytest.mark.parametrize("store", ["", ".", "..", "../x", "a/b", "A", "-a", "a" * 65, "a\n"])
def test_a_store_has_the_name_of_a_directory(store: str) -> None:
    with pytest.raises(InvalidValueError, match="name of a store"):
        PodmanOutput(store=store)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"squash": {}}, "outputs.squash"),
        ({"flat": True}, "outputs.flat"),
        ({"flat": {"others_read": 1}}, "outputs.flat.others_read"),
        ({"flat": {"mode": 1}}, "outputs.flat.mode"),
        ({"podman": {"store": "../x"}}, "outputs.podman"),
        ({"podman": {"store": 7}}, "outputs.podman.store"),
    ],
)
def test_another_form_is_refused_and_the_place_named(document: dict[str, object], place: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"^{place}: "):
        read_outputs(document)


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ((), NO_OUTPUTS),
        (("flat",), ImageOutputs(flat=FlatOutput())),
        (
            ("podman:atlas", "flat:others-read"),
            ImageOutputs(flat=FlatOutput(others_read=True), podman=PodmanOutput(store="atlas")),
        ),
        (("podman",), ImageOutputs(podman=PodmanOutput())),
    ],
)
def test_words_of_command_lines(words: tuple[str, ...], outputs: ImageOutputs) -> None:
    assert outputs_of_words(words) == outputs


@pytest.mark.parametrize("words", [("squash",), ("flat:x",), ("flat", "flat"), ("podman:",), ("podman:../x",), ("",)])
def test_words_that_are_no_outputs(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValueError):
        outputs_of_words(words)
