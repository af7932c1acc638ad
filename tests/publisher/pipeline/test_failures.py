"""What follows from each kind of failure."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.object_store.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectTooLargeError,
    StoreUnavailableError,
)
from services.publisher.errors import LayerNotThereError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.metrics import Metrics
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.repository.errors import LayerAdditionError, LayerRefusedError, RepositoryError, TransactionLeftOpenError
from tests.support.journal import numbered, recorded

_DIGESTS = [*map(numbered, range(5))]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "journal.sqlite") as journal:
        await journal.announce(_DIGESTS)
        yield journal


@pytest.fixture
def failures(journal: Journal) -> Failures:
    return Failures(journal=journal, metrics=Metrics(), times=RetryTimes(first=10, last=100))


def test_pauses_double_up_to_a_bound() -> None:
    times = RetryTimes(first=1, last=10)
    assert [times.pause(attempts) for attempts in (0, 1, 2, 3, 4, 1000)] == [1, 2, 4, 8, 10, 10]
    assert times.pause(1, first=0.5) == 1


@pytest.mark.parametrize(
    "error",
    [
        LayerRefusedError("hostile", kind="archive"),
        ChecksumMismatchError("forged"),
        ObjectConflictError("overwritten"),
        ObjectTooLargeError("huge"),
    ],
)
async def test_what_is_the_layer_s_own_fault_is_refused(failures: Failures, journal: Journal, error: Exception) -> None:
    await failures.of_layer(await recorded(journal, _DIGESTS[0]), error)
    record = await recorded(journal, _DIGESTS[0])
    assert (record.state, record.retryable, record.reason) == (LayerState.FAILED, False, str(error))


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (StoreUnavailableError("the store is down"), 10),
        (AccessDeniedError("wrong keys"), 10),
        (RepositoryError("no space left"), 10),
        (LayerAdditionError("no space left"), 10),
        (TransactionLeftOpenError("no abort"), 10),
        (OSError(28, "No space left on device"), 10),
        (ValueError("a defect"), 10),
        (LayerNotThereError("not there"), 0.05),
        (ObjectMissingError("removed meanwhile"), 0.05),
    ],
)
async def test_anything_else_is_tried_again(
    failures: Failures, journal: Journal, error: Exception, pause: float
) -> None:
    before = time.time()
    await failures.of_layer(await recorded(journal, _DIGESTS[0]), error)
    record = await recorded(journal, _DIGESTS[0])
    assert (record.state, record.retryable, record.attempts) == (LayerState.FAILED, True, 1)
    assert before + pause <= record.due <= time.time() + pause
    assert str(error) in (record.reason or "")


async def test_an_object_that_never_comes_is_given_up(failures: Failures, journal: Journal) -> None:
    attempts = 0
    while (record := await recorded(journal, _DIGESTS[0])).state is not LayerState.FAILED or record.retryable:
        await failures.of_layer(record, LayerNotThereError("not there"))
        attempts += 1
    assert attempts == 13
    assert await journal.next_due() is not None  # the others
    assert (await recorded(journal, _DIGESTS[0])).state is LayerState.FAILED


async def test_a_failed_batch_is_halved_until_its_layers_go_alone(failures: Failures, journal: Journal) -> None:
    for size, share in ((5, 3), (3, 2), (2, 1)):
        records = [await recorded(journal, digest) for digest in _DIGESTS[:size]]
        await failures.of_batch(records, RepositoryError("synchronization failed"))
        assert {(await recorded(journal, digest)).share for digest in _DIGESTS[:size]} == {share}
    assert (await recorded(journal, _DIGESTS[0])).attempts == 0
    await failures.of_batch([await recorded(journal, _DIGESTS[0])], RepositoryError("synchronization failed"))
    assert (await recorded(journal, _DIGESTS[0])).attempts == 1
