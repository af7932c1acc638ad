"""Thin images: what is mounted for them, and what it takes."""

from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from services.common.descriptor import LayerUrl
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, lowers, mounted, option
from tests.support.repositories import Repository, newer_thin_json, thin_json

CONTAINER = "9ff4d257da4b6bbba0007f9ba2a6785d39b76b0e5dc767cf9219c4f34dfadb96"


async def _load(client: ContainerdClient, name: str, parent: str, *urls: LayerUrl) -> None:
    await client.layer(name, parent, {"thin.json": thin_json(*urls)})


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


async def test_a_container_has_the_published_files(client: ContainerdClient, repository: Repository) -> None:
    base = repository.publish("base", {"kept": "1", "gone": "1", "dir/old": "1"})
    top = repository.publish("top", {"new": "2", "dir/new": "2"}, whiteouts=[b"gone"], opaque=[b"dir"])
    await _load(client, "thin", "", base, top)
    container = await client.container(CONTAINER, "thin")
    with mounted(container) as root:
        assert _names(root) == [".dockerenv", "dir", "kept", "new"]
        assert _names(root / "dir") == ["new"]
        (root / "written").touch()
    assert Path(option(container, "upperdir"), "written").exists()
    assert await client.mounts(f"moby/4/{CONTAINER}") == container
    assert repository.tree("base") in lowers(container)


async def test_as_many_layers_as_the_kernel_stacks(client: ContainerdClient, repository: Repository) -> None:
    urls = [repository.publish(str(number), {str(number): "x"}) for number in range(498)]
    await _load(client, "thin", "", *urls)
    container = await client.container(CONTAINER, "thin")
    assert len(lowers(container)) == 499
    with mounted(container) as root:
        assert len(_names(root)) == 499


async def test_the_topmost_descriptor_decides(client: ContainerdClient, repository: Repository) -> None:
    one, two = repository.publish("one", {"one": "1"}), repository.publish("two", {"two": "2"})
    await client.layer("local", "", {"below": "x"})
    await _load(client, "thin", "local", one)
    await client.layer("above", "thin", {"above": "x"})
    with mounted(await client.prepare("n/1/above", "above")) as root:
        assert _names(root) == ["above", "one"]
    await _load(client, "second", "above", one, two)
    with mounted(await client.prepare("n/1/second", "second")) as root:
        assert _names(root) == ["one", "two"]


async def test_files_beside_the_descriptor_stay(client: ContainerdClient, repository: Repository) -> None:
    url = repository.publish("one", {"one": "1", "thin.json": "of the layer"})
    await client.layer("thin", "", {"thin.json": thin_json(url), "beside": "x"})
    with mounted(await client.prepare("n/1/key", "thin")) as root:
        assert _names(root) == ["beside", "one"]


async def test_the_init_layer_of_a_commit_keeps_its_place(client: ContainerdClient, repository: Repository) -> None:
    await _load(client, "thin", "", repository.publish("one", {"file": "published"}))
    await client.container(CONTAINER, "thin")
    await client.layer("commit", f"moby/3/{CONTAINER}-init", {".dockerenv": "of the commit"})
    other = "1" * 64
    with mounted(await client.container(other, "commit")) as root:
        assert (root / "file").read_text() == "published"
    container = await client.mounts(f"moby/4/{other}")
    # The init layers are the second and the fifth that were made, the commit is the fourth.
    assert [path.name for path in lowers(container)[:3]] == ["5", "4", "2"]


async def test_views(client: ContainerdClient, repository: Repository) -> None:
    await _load(client, "thin", "", repository.publish("one", {"one": "1"}))
    await client.layer("above", "thin", {"above": "x"})
    below, above = await client.view("n/1/below", "thin"), await client.view("n/1/above", "above")
    for view, names in ((below, ["one"]), (above, ["above", "one"])):
        with mounted(view) as root:
            assert _names(root) == names
            with pytest.raises(OSError, match="Read-only"):
                (root / "new").touch()
    # Neither is the other with a layer more to BuildKit, which would make a regular layer of the difference itself.
    texts = [option(view, "lowerdir").split(":") for view in (below, above)]
    assert texts[1][-len(texts[0]) :] != texts[0]
    assert [view.source for view in (below, above)] == ["thin-3", "thin-4"]


async def test_a_layer_that_is_not_published_is_waited_for(client: ContainerdClient, repository: Repository) -> None:
    await _load(client, "thin", "", repository.url("missing"))
    for call in (client.prepare, client.view):
        with pytest.raises(GRPCError, match=r"1 of 1 layers did not show within 0\.2 s") as error:
            await call("n/1/key", "thin")
        assert error.value.status is Status.FAILED_PRECONDITION
    assert [info.name for info in await client.list()] == ["thin"]
    repository.publish("missing", {"file": "x"})
    with mounted(await client.prepare("n/1/key", "thin")) as root:
        assert _names(root) == ["file"]


async def test_a_repository_must_be_allowed(client: ContainerdClient, cvmfs_root: Path) -> None:
    other = Repository(cvmfs_root, "other.example.org")
    await _load(client, "thin", "", other.publish("one", {"one": "1"}))
    with pytest.raises(GRPCError, match=r"other.example.org is not among those allowed.*SNAPSHOTTER_REPOSITORIES"):
        await client.prepare("n/1/key", "thin")


async def test_a_descriptor_that_cannot_be_used(client: ContainerdClient, repository: Repository) -> None:
    await client.layer("thin", "", {"thin.json": newer_thin_json(repository.url("one"))})
    with pytest.raises(GRPCError, match=r"needs version 2\.0"):
        await client.prepare("n/1/key", "thin")


async def test_masks_and_links_go_with_the_image(
    snapshotters: Snapshotters, repository: Repository, state: Path
) -> None:
    async with snapshotters.running() as client:
        await _load(client, "thin", "", repository.publish("one", {"dir/one": "1"}, whiteouts=[b"gone"]))
        await client.prepare("n/1/key", "thin")
        house = snapshotters.front_end.snapshotter.house
        await house.keep()
        assert len(list((state / "masks").iterdir())) == 1
        links = len(list((state / "l").iterdir()))
        assert links >= 2
        await client.remove("n/1/key")
        await client.remove("thin")
        await house.keep()
        assert [*(state / "masks").iterdir(), *(state / "l").iterdir()] == []


async def test_repositories_in_use_stay_open_after_a_restart(
    snapshotters: Snapshotters, repository: Repository
) -> None:
    async with snapshotters.running() as client:
        await _load(client, "thin", "", repository.publish("one", {"one": "1"}))
        container = await client.prepare("n/1/key", "thin")
    async with snapshotters.running() as client:
        assert await client.mounts("n/1/key") == container
        await client.remove("n/1/key")
