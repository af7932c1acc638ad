"""What unions need besides layers goes with the last image that needs it: short links and masks."""

import os
from pathlib import Path

import pytest

from services.node.driver import Driver
from services.node.layers import LayerId
from tests.support.driver import contents, load_layer, load_thin, make_container
from tests.support.repositories import Repository, digest_of, newer_thin_json

FILES = {".dockerenv": "", "a": "one"}


async def _load(driver: Driver, repository: Repository) -> None:
    """Load two thin images; the layer `two`, which deletes, is in both, `three` in the second one."""
    urls = [
        repository.publish("one", {"a": "one", "gone": "one"}),
        repository.publish("two", {}, whiteouts=[b"gone"]),
        repository.publish("three", {}, whiteouts=[b"more"]),
    ]
    await load_thin(driver, "first", *urls[:2])
    await load_thin(driver, "second", *urls)


async def _remove_container(driver: Driver, name: str) -> None:
    for layer in (name, f"{name}-init"):
        await driver.remove(LayerId(layer))


def _masks(home: Path) -> set[str]:
    """Return the digests of the layers that have a mask."""
    return {mask.name.partition("-")[0] for mask in (home / "masks").iterdir()}


def _links(home: Path) -> set[str]:
    """Return the texts of the short links."""
    return {os.readlink(link) for link in (home / "l").iterdir()}


async def test_nothing_is_left_of_the_last_image(driver: Driver, repository: Repository) -> None:
    await _load(driver, repository)
    for image in ("first", "second"):
        container = await make_container(driver, f"c-{image}", image)
        assert contents(await driver.get(container, label="")) == FILES
        await driver.put(container)
        await _remove_container(driver, f"c-{image}")
    await driver.house.tidy()
    assert _masks(driver.home) == {digest_of("two"), digest_of("three")}
    await driver.remove(LayerId("second"))
    await driver.house.tidy()
    assert _masks(driver.home) == {digest_of("two")}
    assert _links(driver.home) == {"../layers/first/diff"}
    await driver.remove(LayerId("first"))
    await driver.house.tidy()
    assert (_masks(driver.home), _links(driver.home)) == (set(), set())


async def test_a_running_container_keeps_its_files_and_its_deletions(driver: Driver, repository: Repository) -> None:
    await _load(driver, repository)
    directory = await driver.get(await make_container(driver, "c", "second"), label="")
    await driver.house.tidy()
    assert all(target.startswith("../layers/") for target in _links(driver.home))
    assert _masks(driver.home) == {digest_of("two"), digest_of("three")}
    assert contents(directory) == FILES
    # What has gone is made anew.
    assert contents(await driver.get(await make_container(driver, "d", "second"), label="")) == FILES


async def test_an_image_that_comes_again_gets_its_masks_again(driver: Driver, repository: Repository) -> None:
    await _load(driver, repository)
    await _remove_container(driver, await make_container(driver, "c", "first"))
    for image in ("first", "second"):
        await driver.remove(LayerId(image))
    await driver.house.tidy()
    assert _masks(driver.home) == set()
    await load_thin(driver, "again", repository.url("one"), repository.url("two"))
    assert contents(await driver.get(await make_container(driver, "d", "again"), label="")) == FILES


async def test_nothing_is_looked_for_where_nothing_has_gone(
    driver: Driver, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _load(driver, repository)
    await driver.house.tidy()
    monkeypatch.setattr("services.node.union.named_layers", lambda _: pytest.fail("it has been looked"))
    await make_container(driver, "c", "second")
    await driver.house.tidy()


async def test_a_layer_that_cannot_be_read_keeps_all_masks_until_it_is_gone(
    driver: Driver, repository: Repository
) -> None:
    """Nobody can say what it needs."""
    await _load(driver, repository)
    await load_layer(driver, "newer", None, {"thin.json": newer_thin_json(repository.url("one"))})
    await _remove_container(driver, await make_container(driver, "c", "first"))
    for image in ("first", "second"):
        await driver.remove(LayerId(image))
    await driver.house.tidy()
    assert _masks(driver.home) == {digest_of("two")}
    await driver.remove(LayerId("newer"))
    await driver.house.tidy()
    assert _masks(driver.home) == set()
