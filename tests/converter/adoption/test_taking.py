"""Asking for images that DUCC has made."""

from collections.abc import AsyncIterator

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput
from services.common.publisher_api import PublisherApi, PublisherApiError
from services.converter.adoption.model import FoundImage, Verdict
from services.converter.adoption.taking import Taken, take_over
from services.converter.adoption.wished import is_wished
from tests.support.image_publisher import ImagePublisher
from tests.support.wish_lists import wishes_of

_NAMES = [ImageName(f"quay.io/ns/tool:v{number}") for number in range(20)]


@pytest.fixture
async def publisher() -> AsyncIterator[ImagePublisher]:
    async with ImagePublisher.run() as publisher:
        yield publisher


def _image(name: ImageName, *platforms: str, outputs: ImageOutputs = NO_OUTPUTS) -> FoundImage:
    return FoundImage(
        name=name,
        verdict=Verdict.ANEW,
        platforms=platforms,
        outputs=outputs,
        layers=(Digest("1" * 64),),
        flats=(),
        faults=(),
    )


async def _take_over(publisher: ImagePublisher, *images: FoundImage, wait: bool = True) -> Taken:
    told: dict[ImageName, str | None] = {}
    async with PublisherApi(url=publisher.url, token=None) as api:
        taken = await take_over(images, api.images, wait=wait, told=lambda name, failure: told.update({name: failure}))
    assert told == {**dict.fromkeys(taken.published), **taken.failed}
    return taken


async def test_images_are_asked_for_as_they_are_shown(publisher: ImagePublisher) -> None:
    outputs = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput(store="atlas"))
    taken = await _take_over(publisher, _image(_NAMES[0], "linux/amd64", "linux/arm64/v8", outputs=outputs))
    assert taken.published == [_NAMES[0]]
    assert publisher.asked() == [
        {
            "name": _NAMES[0],
            "platforms": ["linux/amd64", "linux/arm64/v8"],
            "outputs": {"flat": {}, "podman": {"store": "atlas"}},
            "priority": -100,
        }
    ]


async def test_who_does_not_wait_can_repeat_it(publisher: ImagePublisher) -> None:
    publisher.held = True
    images = [_image(name) for name in _NAMES]
    taken = await _take_over(publisher, *images, wait=False)
    assert (taken.published, taken.waiting) == ([], sorted(_NAMES))
    assert len(publisher.asked()) == len(_NAMES)
    publisher.release()
    publisher.refused[_NAMES[0]] = "made up"
    other = _image(_NAMES[0], outputs=ImageOutputs(flat=FlatOutput()))
    # What has been published meanwhile is not asked for again, but for what is to be shown otherwise.
    taken = await _take_over(publisher, other, *images[1:])
    assert (sorted(taken.published), taken.failed) == (sorted(_NAMES[1:]), {_NAMES[0]: "made up"})
    assert len(publisher.asked()) == len(_NAMES) + 1


async def test_a_publisher_that_refuses_an_image_is_asked_for_the_others(publisher: ImagePublisher) -> None:
    publisher.broken = 403
    taken = await _take_over(publisher, *map(_image, _NAMES[:3]))
    assert taken.failed.keys() == set(_NAMES[:3])
    assert all(reason.endswith("made up") for reason in taken.failed.values())


async def test_a_publisher_that_does_not_answer_ends_it(publisher: ImagePublisher) -> None:
    publisher.url = "http://127.0.0.1:9"
    with pytest.raises(PublisherApiError):
        await _take_over(publisher, _image(_NAMES[0]))


def test_wishes_name_images() -> None:
    digest = "sha256:" + "0" * 64
    wishes = wishes_of(
        "version: 2\ndefaults: {repositories: a.example.org}\nimages:\n"
        f"- quay.io/ns/one:v1\n- quay.io/ns/two@{digest}\n- {{image: quay.io/ns/three, tags: 'v*', exclude: v2}}\n"
    ).wishes
    named = {
        name: is_wished(ImageName(f"quay.io/ns/{name}"), wishes)
        for name in (
            "one:v1",
            "one:v2",
            f"two@{digest}",
            "two:v1",
            "three:v1",
            "three:v2",
            f"three@{digest}",
            "four:v1",
        )
    }
    assert [name for name, wished in named.items() if wished] == ["one:v1", f"two@{digest}", "three:v1"]
