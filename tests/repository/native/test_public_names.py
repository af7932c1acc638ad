"""Names of flat images in a native repository."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.common.image_name import ImageName
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import PlatformImage, platform_images
from services.repository.native.writer import public_names
from services.repository.native.writer.public_names import PublicNames
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.public_names import flat_home
from tests.support.images import image_of_layers
from tests.support.native import NativeSite

_NAME = ImageName("quay.io/ns/tool:v1")


def _image(name: str = _NAME, *machines: str, build: str = "1") -> tuple[PlatformImage, ...]:
    platforms = [(machine, ()) for machine in machines or ("amd64",)]
    return platform_images(image_of_layers(name, *platforms, config={"Labels": {"build": build}}))


@contextmanager
def _changing(site: NativeSite) -> Iterator[tuple[TreeRows, PublicNames]]:
    with site.changing() as catalogs:
        names = PublicNames(catalogs)
        yield TreeRows(catalogs), names
        names.settle()


def _put(rows: TreeRows, names: PublicNames, name: str, *machines: str, build: str = "1") -> tuple[PlatformImage, ...]:
    """Give an image its name, whose root file systems are empty; return what it consists of."""
    images = _image(name, *machines, build=build)
    for image in images:
        rows.make_directory(b"/" + flat_home(image.config_digest).encode())
    names.put(ImageName(name), images)
    return images


def _links(site: NativeSite) -> dict[str, str]:
    with site.newest() as revision:
        return {entry.path.decode()[1:]: entry.target.decode() for entry in revision.walk() if entry.is_symlink}


def test_a_name_is_put_replaced_and_removed_and_what_it_led_to_stays(site: NativeSite) -> None:
    with _changing(site) as (rows, names):
        (first,) = _put(rows, names, _NAME)
        _put(rows, names, "quay.io/other:v1")
    assert _links(site)[_NAME] == f"../../{flat_home(first.config_digest)}"
    with _changing(site) as (rows, names):
        (second,) = _put(rows, names, _NAME, build="2")
        assert names.flats(_NAME) == {second.config_digest}
    assert _links(site)[_NAME] == f"../../{flat_home(second.config_digest)}"
    with _changing(site) as (_, names):
        names.remove(_NAME)
        assert not names.flats(_NAME)
    assert list(_links(site)) == ["quay.io/other:v1"]
    with site.newest() as revision:
        assert revision.stat(b"/quay.io/ns") is None
        for image in (first, second):
            assert revision.stat(b"/" + flat_home(image.config_digest).encode()) is not None
    assert site.problems() == []


def test_further_platforms_come_and_go_with_the_links_of_their_processors(site: NativeSite) -> None:
    with _changing(site) as (rows, names):
        _put(rows, names, _NAME, "amd64", "arm64:v8", "arm:v6")
        _put(rows, names, "quay.io/other:v1", "amd64", "arm64")
        images = _put(rows, names, "quay.io/third:v1", "amd64", "arm:v6")
        assert names.flats(ImageName("quay.io/third:v1")) == {image.config_digest for image in images}
        names.remove(ImageName("quay.io/third:v1"))
    found = _links(site)
    machines = ("amd64", "arm", "arm64", "arm64:v8", "arm:v6")
    assert {place for place in found if place.endswith(_NAME)} == {
        _NAME,
        *(f".multiarch/{machine}/{_NAME}" for machine in machines),
    }
    assert {place.removeprefix(".multiarch/"): found[place] for place in found if place.count("/") == 1} == {
        "x86_64": "amd64",
        "x86-64": "amd64",
        "aarch64": "arm64",
        "armhf": "arm",
        "armv7l": "arm",
        "armel": "arm:v6",
        "armv6l": "arm:v6",
        "quay.io/other:v1": found["quay.io/other:v1"],
    }
    with site.newest() as revision:
        assert revision.catalog_of(b"/.multiarch/arm64").path == b"/.multiarch"
    with _changing(site) as (rows, names):
        _put(rows, names, _NAME, "ppc64le")
    found = _links(site)
    assert {place.split("/")[1] for place in found if place.startswith(".multiarch/")} == {
        "amd64",
        "arm64",
        "arm64:v8",
        "x86_64",
        "x86-64",
        "aarch64",
    }
    assert site.problems() == []
    with _changing(site) as (_, names):
        names.remove(ImageName("quay.io/other:v1"))
    assert list(_links(site)) == [_NAME]
    assert site.problems() == []


def test_a_link_of_duccs_is_taken_over(site: NativeSite) -> None:
    with _changing(site) as (rows, names):
        rows.put_symlink(b"/quay.io/ns/tool:v1", f"../../.flat/ab/ab{'0' * 62}".encode())
        (image,) = _put(rows, names, _NAME)
    assert _links(site) == {_NAME: f"../../{flat_home(image.config_digest)}"}


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (lambda rows: rows.put_file(b"/quay.io", b""), "/quay.io is no directory"),
        (lambda rows: rows.put_symlink(b"/quay.io/ns", b"/etc"), "/quay.io/ns is no directory"),
        (lambda rows: rows.put_symlink(b"/quay.io/ns/tool:v1", b"/etc"), "tool:v1 is there already"),
        (lambda rows: rows.put_directory(b"/quay.io/ns/tool:v1"), "tool:v1 is there already"),
        (lambda rows: rows.put_file(b"/quay.io/ns/tool:v1", b""), "tool:v1 is there already"),
        (lambda rows: rows.put_file(b"/.multiarch/arm64/quay.io/ns/tool:v1", b""), "tool:v1 is there already"),
        (lambda rows: rows.put_symlink(b"/.multiarch/arm64", b"/etc"), "/.multiarch/arm64 is no directory"),
    ],
)
def test_what_others_have_put_there_is_left_alone(
    site: NativeSite, there: Callable[[TreeRows], None], says: str
) -> None:
    with _changing(site) as (rows, _):
        there(rows)
    before = _links(site)
    with _changing(site) as (rows, names):
        with pytest.raises(ImageAdditionError, match=rf"{says}.* remove it"):
            _put(rows, names, _NAME, "amd64", "arm64")
        names.remove(_NAME)
    assert _links(site) == before


def test_a_name_leads_nowhere_but_to_what_is_there(site: NativeSite) -> None:
    with _changing(site) as (_, names), pytest.raises(ImageAdditionError, match="is not there"):
        names.put(_NAME, _image())
    assert _links(site) == {}


def test_many_names_of_a_registry_get_catalogs_of_their_own(site: NativeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_names, "_LARGEST", 40)
    monkeypatch.setattr(public_names, "_WORTH", 5)
    with _changing(site) as (rows, names):
        for number in range(30):
            _put(rows, names, f"quay.io/ns{number % 2}/tool:{number}")
        _put(rows, names, "docker.io/tool:1")
    with site.newest() as revision:
        places = (b"/quay.io/ns0", b"/docker.io")
        assert [revision.catalog_of(place).path for place in places] == [b"/quay.io", b""]
    with _changing(site) as (rows, names):
        for number in range(30, 60):
            _put(rows, names, f"quay.io/ns0/tool:{number}")
        names.remove(ImageName("quay.io/ns0/tool:0"))
    with site.newest() as revision:
        assert revision.catalog_of(b"/quay.io/ns0").path == b"/quay.io/ns0"
    assert len(_links(site)) == 60
    assert site.problems() == []
