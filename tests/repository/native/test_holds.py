"""What is published cannot be collected meanwhile, and neither waits for the other for ever."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.repository.native.errors import RepositoryBusyError
from tests.support.images import change, documents
from tests.support.native import NativeSite, tar_archive
from tests.support.publisher import verified
from tests.support.tars import archive, member


async def test_a_transaction_without_layers_holds_the_objects_that_it_makes(site: NativeSite) -> None:
    async with site.opened() as repository:
        async with repository.transaction("token") as transaction:
            await transaction.put_image(documents("quay.io/ns/tool:v1", "1"))
            with pytest.raises(RepositoryBusyError), site.storage.collecting(patience=0):
                pass
            await transaction.publish()
        with site.storage.collecting(patience=60):
            pass


async def test_a_transaction_does_not_wait_for_a_collection_that_waits_for_its_layers(
    site: NativeSite, tmp_path: Path
) -> None:
    layer = tar_archive(tmp_path, archive(member(b"file", b"content")))

    async def gate_is_closed() -> bool:
        try:
            with site.storage.using(patience=0):
                return False
        except RepositoryBusyError:
            return True

    def collect() -> None:
        with site.storage.collecting(patience=600):
            pass

    with ThreadPoolExecutor(1) as threads:
        async with site.opened() as repository:
            prepared = await repository.prepare(verified(layer))
            collection = threads.submit(collect)
            await wait_until(gate_is_closed, what="a collection waits")
            async with asyncio.timeout(300), repository.transaction("token") as transaction:
                await transaction.add(prepared)
                await transaction.publish()
            assert not collection.done()
            await repository.discard(prepared)
            await asyncio.wrap_future(collection)
            await change(repository, put=[documents("quay.io/ns/tool:v1", "1")])
    assert site.problems() == []
