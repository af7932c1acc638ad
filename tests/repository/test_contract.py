"""What holds for images in repositories of every kind."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.repository import CvmfsServerRepository
from services.repository.cvmfs_server.tool import CvmfsServer, ToolTimeouts
from services.repository.directory.repository import DirectoryRepository
from services.repository.interface import Repository
from services.repository.native.trust.keyring import KeyFiles
from tests.support.images import change, documents
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import REPOSITORY, make_layer

_ONE, _TWO = "quay.io/ns/one:v1", f"localhost:5000/two@sha256:{'2' * 64}"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture(params=["directory", "cvmfs_server", "native"])
async def repository(
    request: pytest.FixtureRequest, tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Repository]:
    async with AsyncExitStack() as stack:
        match request.param:
            case "directory":
                directory = DirectoryRepository(
                    name=REPOSITORY, root=tmp_path / "root", layout=LayerLayout.FLAT, threads=threads
                )
                repository: Repository = await stack.enter_async_context(directory)
            case "cvmfs_server":
                standin = request.getfixturevalue("standin")
                for name, value in standin.environment.items():
                    monkeypatch.setenv(name, value)
                repository = CvmfsServerRepository(
                    place=Place(
                        name=REPOSITORY,
                        mount=standin.mount,
                        spool=standin.spool,
                        configuration=standin.configuration,
                    ),
                    layout=LayerLayout.FLAT,
                    tool=CvmfsServer(
                        repository=REPOSITORY,
                        timeouts=ToolTimeouts(transaction=60, publish=60, abort=60),
                        record_process=_forget,
                    ),
                    patience=60,
                    threads=threads,
                )
            case _:
                keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
                keys.complete(now=datetime.now(UTC))
                site = NativeSite(root=tmp_path / "root", state=tmp_path / "state", keys=keys)
                site.create()
                repository = await stack.enter_async_context(site.opened())
        await repository.recover(())
        yield repository


async def _forget(_process: str | None) -> None:
    """Stand in for the journal, which remembers which program works on a transaction."""


async def test_an_image_goes_in_is_replaced_as_a_whole_and_goes_out(repository: Repository, tmp_path: Path) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    assert await repository.list_images() == []
    assert await repository.read_image(ImageName(_ONE)) is None
    first = documents(_ONE, "1", "arm64", "arm:v7")
    await change(repository, layers=[one], put=[first, documents(_TWO, "1")])
    assert await repository.read_image(ImageName(_ONE)) == first.files
    assert await repository.list_images() == [ImageName(_TWO), ImageName(_ONE)]
    assert await repository.lookup(one.digest) is not None
    # One platform goes, another one comes; layers and images in one revision.
    second = documents(_ONE, "2", "arm64", "ppc64le")
    await change(repository, layers=[two], put=[second], remove=[_TWO])
    assert await repository.read_image(ImageName(_ONE)) == second.files
    assert await repository.list_images() == [ImageName(_ONE)]
    await change(repository, remove=[_ONE, _TWO], remove_layers=[one.digest, Digest("0" * 64)])
    assert await repository.list_images() == []
    assert await repository.read_image(ImageName(_ONE)) is None
    assert await repository.lookup(one.digest) is None
    assert await repository.lookup(two.digest) is not None
    listed = [layer.digest for layer in await repository.list_layers(one.digest[:2])]
    assert one.digest not in listed
    # Everything can come back.
    await change(repository, layers=[one], put=[first])
    assert await repository.read_image(ImageName(_ONE)) == first.files
    assert await repository.lookup(one.digest) is not None


async def test_a_transaction_that_is_not_published_changes_nothing(repository: Repository, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "one")
    before = documents(_ONE, "1", "arm64")
    await change(repository, layers=[layer], put=[before])
    async with repository.transaction("other") as transaction:
        await transaction.put_image(documents(_ONE, "2"))
        await transaction.put_image(documents(_TWO, "2"))
        await transaction.remove_image(ImageName(_ONE))
        await transaction.remove_layer(layer.digest)
    assert await repository.read_image(ImageName(_ONE)) == before.files
    assert await repository.list_images() == [ImageName(_ONE)]
    assert await repository.lookup(layer.digest) is not None
    await change(repository, put=[documents(_TWO, "3")])
    assert await repository.list_images() == [ImageName(_TWO), ImageName(_ONE)]
