"""Checks are made every so often, and what the last one came to is remembered, whoever asked for it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from harness.processes import wait_until
from services.common.digest import Digest
from services.common.object_store.errors import StoreUnavailableError
from services.publisher.consistency.check import CheckProgress
from services.publisher.consistency.checks import Checks
from services.publisher.consistency.model import Disagreement, Finding
from services.publisher.metrics import Metrics

if TYPE_CHECKING:
    from services.publisher.consistency.check import ConsistencyCheck

_DIGEST = Digest("a" * 64)


def _value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


class _Found:
    """Finds what it is told to."""

    def __init__(self, *kinds: Disagreement) -> None:
        self.kinds = kinds
        self.error: Exception | None = None
        self.runs = 0

    async def run(self, progress: CheckProgress) -> AsyncGenerator[Finding, None]:
        self.runs += 1
        progress.layers, progress.images = 7, 2
        for kind in self.kinds:
            progress.found[kind] += 1
            yield Finding(_DIGEST, kind)
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def _running(found: _Found, metrics: Metrics) -> AsyncGenerator[Checks, None]:
    checks = Checks(check=cast("ConsistencyCheck", found), metrics=metrics, interval=0.001)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(checks.run())
        yield checks
        task.cancel()


async def test_what_needs_something_to_be_done_is_counted_until_it_is_mended() -> None:
    found, metrics = _Found(Disagreement.LOST, Disagreement.ARCHIVE_GONE, Disagreement.LOST), Metrics()
    async with _running(found, metrics) as checks:
        await wait_until(lambda: asyncio.sleep(0, checks.last is not None), what="the first check has ended")
        assert checks.last is not None
        assert (checks.last.layers, checks.last.images, checks.last.disagreements) == (7, 2, 2)
        assert _value(metrics, "publisher_disagreements") == 2
        found.kinds = (Disagreement.ARCHIVE_GONE,)
        await wait_until(
            lambda: asyncio.sleep(0, _value(metrics, "publisher_disagreements") == 0), what="a later check agrees"
        )
    assert _value(metrics, "publisher_last_check_timestamp_seconds") == checks.last.ended_at


async def test_a_check_that_fails_says_why_and_is_made_again() -> None:
    found, metrics = _Found(), Metrics()
    found.error = StoreUnavailableError("the store is down")
    async with _running(found, metrics) as checks:
        await wait_until(lambda: asyncio.sleep(0, checks.last is not None), what="the first check has failed")
        assert checks.last is not None
        assert checks.last.error == "the store is down"
        assert _value(metrics, "publisher_last_check_timestamp_seconds") == 0
        found.error = None
        await wait_until(
            lambda: asyncio.sleep(0, checks.last is not None and checks.last.error is None), what="a later one is done"
        )


async def test_without_an_interval_there_is_none() -> None:
    found = _Found()
    await Checks(check=cast("ConsistencyCheck", found), metrics=Metrics(), interval=0).run()
    assert found.runs == 0


async def test_one_that_was_asked_for_is_waited_for() -> None:
    found, metrics = _Found(), Metrics()
    async with _running(found, metrics) as checks:
        async with checks.turn:
            runs = found.runs
            await asyncio.sleep(0.02)  # twenty of its intervals
            assert found.runs == runs
        await wait_until(lambda: asyncio.sleep(0, found.runs > runs), what="the next one was made")
