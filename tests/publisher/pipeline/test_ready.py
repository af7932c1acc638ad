"""Batches: what goes together, in which order, and what must not."""

import asyncio
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.sidecar import LayerSidecar
from services.publisher.journal.model import LayerState
from services.publisher.pipeline.ready import BatchLimits, ReadyLayer, ReadyQueue
from services.repository.interface import PreparedLayer
from services.repository.layer import VerifiedLayer
from tests.support.journal import layer_record, numbered


def _layer(number: int, *, size: int = 1, share: int | None = None) -> ReadyLayer:
    digest = numbered(number)
    record = layer_record(digest, LayerState.FETCHING, share=share)
    layer = VerifiedLayer(
        path=Path("/nowhere"), digest=digest, diff_id=digest, size=1, uncompressed_size=1, limits=ArchiveLimits()
    )
    sidecar = LayerSidecar(
        digest=digest, diff_id=digest, archive_size=1, uncompressed_size=1, tree_size=size, entries=1
    )
    return ReadyLayer(record, PreparedLayer(layer=layer, sidecar=sidecar))


def _numbers(batch: list[ReadyLayer]) -> list[int]:
    return [int(layer.digest, 16) for layer in batch]


async def _batches(layers: list[ReadyLayer], *, most: int = 4, size: int = 100) -> list[list[int]]:
    queue = ReadyQueue(BatchLimits(layers=most, size=size))
    for layer in layers:
        queue.put(layer)
    taken: list[list[int]] = []
    while sum(map(len, taken)) < len(layers):
        taken.append(_numbers(await queue.take()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.001)
    return taken


async def test_a_lone_layer_goes_at_once() -> None:
    assert await _batches([_layer(1)]) == [[1]]


async def test_a_batch_has_a_bounded_number_of_layers_in_their_order() -> None:
    assert await _batches([_layer(number) for number in range(9)]) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


async def test_a_batch_has_a_bounded_size_and_a_larger_layer_goes_alone() -> None:
    layers = [_layer(1, size=60), _layer(2, size=60), _layer(3, size=40), _layer(4, size=500), _layer(5)]
    assert await _batches(layers) == [[1, 3], [2, 5], [4]]


async def test_layers_of_a_failed_batch_go_in_smaller_ones() -> None:
    layers = [_layer(1, share=2), _layer(2, share=2), _layer(3, share=2), _layer(4, share=2), _layer(5)]
    assert await _batches(layers) == [[1, 2], [3, 4], [5]]


async def test_a_suspect_goes_alone_and_nobody_waits_for_it() -> None:
    assert await _batches([_layer(1), _layer(2, share=1), _layer(3), _layer(4)]) == [[1, 3, 4], [2]]
    assert await _batches([_layer(2, share=1), _layer(3), _layer(4)]) == [[2], [3, 4]]


async def test_a_batch_that_could_not_begin_is_the_next_one_again() -> None:
    queue = ReadyQueue(BatchLimits(layers=2, size=100))
    for number in range(4):
        queue.put(_layer(number))
    first = await queue.take()
    queue.put_back(first)
    assert _numbers(await queue.take()) == [0, 1]
    assert _numbers(await queue.take()) == [2, 3]


async def test_a_batch_is_waited_for_until_there_is_a_layer() -> None:
    queue = ReadyQueue(BatchLimits(layers=2, size=100))
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(_layer(7))
    assert _numbers(await waiting) == [7]
