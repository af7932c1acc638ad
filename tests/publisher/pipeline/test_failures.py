"""What follows from each kind of failure."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.digest import Digest
from services.common.object_store.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectTooLargeError,
    StoreUnavailableError,
)
from services.common.sidecar import LayerSidecar
from services.publisher.errors import LayerNotThereError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.metrics import Metrics
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.units import ReadyLayer
from services.repository.errors import LayerAdditionError, LayerRefusedError, RepositoryError, TransactionLeftOpenError
from services.repository.interface import PreparedLayer
from services.repository.layer import VerifiedLayer
from tests.support.journal import claim, numbered, recorded

_DIGESTS = [*map(numbered, range(5))]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
        await journal.announce(_DIGESTS)
        yield journal


@pytest.fixture
def failures(journal: Journal) -> Failures:
    return Failures(journal=journal, metrics=Metrics(), times=RetryTimes(first=10, last=100), refused_images=0)


async def _claimed(journal: Journal, digest: Digest) -> LayerRecord:
    """Claim a layer, again where it has failed."""
    await journal.restart(digest)
    await claim(journal, digest)
    return await recorded(journal, digest)


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
    await failures.of_layer(await _claimed(journal, _DIGESTS[0]), error)
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
    await failures.of_layer(await _claimed(journal, _DIGESTS[0]), error)
    record = await recorded(journal, _DIGESTS[0])
    assert (record.state, record.retryable, record.attempts) == (LayerState.FAILED, True, 1)
    assert before + pause <= record.due <= time.time() + pause
    assert str(error) in (record.reason or "")


async def test_an_object_that_never_comes_is_given_up(failures: Failures, journal: Journal) -> None:
    attempts = 0
    while (record := await recorded(journal, _DIGESTS[0])).state is not LayerState.FAILED or record.retryable:
        await failures.of_layer(await _claimed(journal, record.digest), LayerNotThereError("not there"))
        attempts += 1
    assert attempts == 13
    assert await journal.next_due() is not None  # the others
    assert (await recorded(journal, _DIGESTS[0])).state is LayerState.FAILED


async def _ready(journal: Journal, digest: Digest) -> ReadyLayer:
    layer = VerifiedLayer(
        path=Path("/nowhere"), digest=digest, diff_id=digest, size=1, uncompressed_size=1, limits=ArchiveLimits()
    )
    sidecar = LayerSidecar(digest=digest, diff_id=digest, archive_size=1, uncompressed_size=1, tree_size=1, entries=1)
    return ReadyLayer(await _claimed(journal, digest), PreparedLayer(layer=layer, sidecar=sidecar))


async def test_a_failed_batch_is_halved_until_its_layers_go_alone(failures: Failures, journal: Journal) -> None:
    for size, share in ((5, 3), (3, 2), (2, 1)):
        units = [await _ready(journal, digest) for digest in _DIGESTS[:size]]
        await failures.of_batch(units, RepositoryError("synchronization failed"))
        assert {(await recorded(journal, digest)).share for digest in _DIGESTS[:size]} == {share}
    assert (await recorded(journal, _DIGESTS[0])).attempts == 0
    await failures.of_batch([await _ready(journal, _DIGESTS[0])], RepositoryError("synchronization failed"))
    assert (await recorded(journal, _DIGESTS[0])).attempts == 1


async def _fail(failures: Failures, journal: Journal, times: int, error: Exception | None = None) -> LayerRecord:
    for _ in range(times):
        await failures.of_layer(await _claimed(journal, _DIGESTS[0]), error or LayerAdditionError("too much of it"))
    return await recorded(journal, _DIGESTS[0])


async def test_a_layer_that_fails_alone_while_others_are_published_is_refused_at_last(
    failures: Failures, journal: Journal
) -> None:
    await _fail(failures, journal, 1)
    failures.none_of([_DIGESTS[1]])
    record = await _fail(failures, journal, 8)
    assert (record.attempts, record.retryable) == (9, True)
    record = await _fail(failures, journal, 1)
    assert (record.attempts, record.retryable) == (10, False)
    assert record.reason == "failed 10 times while others were published, at last since too much of it"


async def test_a_layer_is_tried_for_ever_where_nothing_shows_that_the_repository_works(
    failures: Failures, journal: Journal
) -> None:
    failures.none_of([_DIGESTS[1]])  # which was before it failed
    assert (await _fail(failures, journal, 30)).retryable
    failures.none_of([_DIGESTS[0]])
    assert (await _fail(failures, journal, 30)).retryable


async def test_a_transaction_that_is_left_open_is_no_layer_s_fault(failures: Failures, journal: Journal) -> None:
    await _fail(failures, journal, 20)
    failures.none_of([_DIGESTS[1]])
    assert (await _fail(failures, journal, 1, TransactionLeftOpenError("the mount is busy"))).retryable


async def test_a_layer_of_another_repository_is_no_alert(failures: Failures, journal: Journal) -> None:
    await failures.of_layer(
        await _claimed(journal, _DIGESTS[0]), LayerRefusedError("elsewhere", kind="other_repository")
    )
    await failures.of_layer(await _claimed(journal, _DIGESTS[1]), LayerRefusedError("hostile", kind="archive"))
    summary = await journal.summary()
    assert (summary.refused, summary.elsewhere) == (2, 1)
    await journal.restart(_DIGESTS[0])
    assert (await journal.summary()).elsewhere == 0
    await failures.of_layer(await _claimed(journal, _DIGESTS[0]), LayerRefusedError("hostile", kind="archive"))
    summary = await journal.summary()
    assert (summary.refused, summary.elsewhere) == (2, 0)


async def test_what_is_another_publisher_s_by_now_has_not_failed(
    failures: Failures, journal: Journal, tmp_path: Path
) -> None:
    record = await _claimed(journal, _DIGESTS[0])
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as other:
        await other.publishers.take_over()
        await claim(other, _DIGESTS[0])
        for error in (LayerRefusedError("late", kind="archive"), RepositoryError("late")):
            await failures.of_layer(record, error)
        claimed = await recorded(journal, _DIGESTS[0])
        assert (claimed.state, claimed.claimed_by, claimed.reason) == (LayerState.FETCHING, other.publisher, None)
