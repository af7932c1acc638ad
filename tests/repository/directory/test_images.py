"""Images in a directory: all of a batch change in one moment, and nothing of what they replace stays for ever."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.common.image_name import ImageName
from services.common.layout import LayerLayout, layer_home
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError, LayerRemovalError, RepositoryError
from services.repository.interface import Publication
from tests.support.images import change, documents
from tests.support.publisher import REPOSITORY, make_layer, verified

_ONE, _TWO = "quay.io/ns/one:v1", "localhost:5000/two:latest"


@asynccontextmanager
async def _opened(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with DirectoryRepository(name=REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads) as repository:
        await repository.recover(())
        yield repository


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with _opened(root, threads) as repository:
        yield repository


def _dangling(root: Path) -> list[Path]:
    links = [*root.glob("*"), *root.glob(".layers/*/*"), *root.glob(".metadata/**/*")]
    return [path for path in links if path.is_symlink() and not path.exists()]


def _version(root: Path, name: str) -> str:
    return (root / ".metadata" / name / "image.json").read_text()


async def test_a_reader_sees_all_images_and_layers_of_a_batch_change_at_once(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    names = [f"quay.io/ns/tool:{number}" for number in range(15)]
    await change(repository, put=[documents(name, "0", "arm64") for name in names])
    layer = make_layer(tmp_path, "one")
    stopped = threading.Event()
    passes: list[list[str]] = []

    def read() -> None:
        while not stopped.is_set():
            seen = [_version(root, name) for name in names]
            seen += [(root / f".metadata/.multiarch/arm64/{name}/config.json").read_text()[12:13] for name in names]
            passes.append([*seen, str(int((root / layer.digest / "name").exists()))])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        await change(repository, layers=[layer], put=[documents(name, "1", "arm64") for name in names])
        seen = len(passes)
        await wait_until(lambda: asyncio.sleep(0, len(passes) > seen + 1), what="two more passes")
    finally:
        stopped.set()
        reader.join()
    assert set(passes[-1]) == {"1"}
    # Within one pass, what is looked at later is never older.
    assert [seen for seen in passes if sorted(seen) != seen] == []


async def test_what_is_replaced_can_be_read_to_its_end_and_goes_with_the_next_batch(
    repository: DirectoryRepository, root: Path
) -> None:
    await change(repository, put=[documents(_ONE, "1"), documents(_TWO, "1")])
    place = (root / ".metadata" / _ONE).resolve()
    await change(repository, put=[documents(_ONE, "2")])
    assert (place / "image.json").read_text() == "1"
    await change(repository, put=[documents(_ONE, "3")])
    assert not place.exists()
    assert _version(root, _TWO) == "1"
    for number in range(4, 20):
        await change(repository, put=[documents(_ONE, str(number))])
    kept = [path for path in (root / ".batches").rglob("image.json") if not path.is_symlink()]
    shards = os.listdir(root / ".batches" / ".images")
    assert (len(kept), len(shards)) == (3, 3)


async def test_a_removed_layer_can_be_read_until_the_next_batch(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    await change(repository, layers=[one, two])
    place = (root / one.digest).resolve()
    await change(repository, remove_layers=[one.digest])
    assert await repository.lookup(one.digest) is None
    assert not os.path.lexists(root / one.digest)
    assert (place / "name").read_text() == "one"
    await change(repository, layers=[one])
    assert not place.exists()
    assert await repository.lookup(one.digest) == Publication(revision=3)
    assert (root / one.digest / "name").read_text() == "one"
    assert (root / two.digest / "name").read_text() == "two"


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (".metadata", "file"),
        (".metadata/quay.io", "link"),
        (".metadata/quay.io/ns", "file"),
        (".metadata/quay.io/ns/one:v1", "link"),
        (".metadata/quay.io/ns/one:v1", "directory"),
        (".metadata/.multiarch/arm64", "link"),
    ],
)
async def test_what_others_have_put_in_the_place_of_an_image_is_left_alone(
    repository: DirectoryRepository, root: Path, tmp_path: Path, place: str, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("theirs")
    elif kind == "link":
        path.symlink_to(outside)
    else:
        path.mkdir()
    layer = make_layer(tmp_path, "one")
    prepared = await repository.prepare(verified(layer))
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
        with pytest.raises(ImageAdditionError, match=f"{path} is .*, and (is )?not this suite's: remove it"):
            await transaction.put_image(documents(_ONE, "1", "arm64"))
        await transaction.publish()
    assert await repository.lookup(layer.digest) == Publication(revision=1)
    assert await repository.read_image(ImageName(_ONE)) is None
    assert os.listdir(outside) == []
    assert os.path.lexists(path)
    assert _dangling(root) == []


async def test_a_layer_of_others_is_not_removed(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "one")
    (root / layer_home(layer.digest)).mkdir(parents=True)
    async with repository.transaction("token") as transaction:
        with pytest.raises(LayerRemovalError, match="nothing that this suite has published"):
            await transaction.remove_layer(layer.digest)


async def test_a_batch_that_fails_at_its_last_step_is_undone(
    repository: DirectoryRepository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(repository, put=[documents(_ONE, "1")])
    layer = make_layer(tmp_path, "one")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if target.name == ".head":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(RepositoryError, match="No space left on device"):
            await change(repository, layers=[layer], put=[documents(_ONE, "2"), documents(_TWO, "2", "arm64")])
    assert _version(root, _ONE) == "1"
    assert await repository.list_images() == [ImageName(_ONE)]
    assert await repository.lookup(layer.digest) is None
    assert _dangling(root) == []
    assert await change(repository, layers=[layer], put=[documents(_ONE, "2"), documents(_TWO, "2")]) == 2
    assert (_version(root, _ONE), _version(root, _TWO)) == ("2", "2")


async def test_what_is_left_to_do_after_a_batch_is_done_with_the_next(
    repository: DirectoryRepository, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(repository, put=[documents(_ONE, "1", "arm64"), documents(_TWO, "1")])
    link = root / ".metadata" / ".multiarch" / "arm64" / _ONE
    unlink = Path.unlink

    def fail(path: Path, **options: bool) -> None:
        if path == link:
            raise OSError(5, "Input/output error")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        assert await change(repository, put=[documents(_ONE, "2")]) == 2
    assert _version(root, _ONE) == "2"
    assert _dangling(root) == [link]
    await change(repository, put=[documents(_TWO, "2")])
    assert _dangling(root) == []


async def test_a_tree_without_images_of_an_earlier_version_is_taken_over(
    root: Path, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    layer = make_layer(tmp_path, "one")
    async with _opened(root, threads) as repository:
        await change(repository, layers=[layer])
    batches = root / ".batches"
    (batches / "1").unlink()
    (batches / ".batch-1").rename(batches / "1")
    for name in (".head", "1/.is-1", "1/leftovers.json"):
        (batches / name).unlink()
    async with _opened(root, threads) as repository:
        assert await repository.lookup(layer.digest) == Publication(revision=1)
        assert await change(repository, put=[documents(_ONE, "1")]) == 2
        assert (root / layer.digest / "name").read_text() == "one"
        assert await change(repository, remove_layers=[layer.digest]) == 3
        assert await change(repository) == 4
    assert os.listdir(batches / "1") == []


async def test_any_number_of_images_costs_a_batch_a_few_hundred_links(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(repository, put=[documents(f"quay.io/ns{n % 7}/tool:{n}", "1") for n in range(400)])
    made: list[Path] = []
    symlink = os.symlink

    def count(target: str, link: Path, target_is_directory: bool) -> None:  # noqa: FBT001 - the form of os.symlink
        made.append(link)
        symlink(target, link, target_is_directory)

    monkeypatch.setattr(os, "symlink", count)
    await change(repository, put=[documents(_ONE, "1")])
    assert 0 < len(made) < 300
