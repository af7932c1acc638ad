"""Batches: what goes together, in which order, and what must not."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.sidecar import LayerSidecar
from services.publisher.journal.model import LayerState
from services.publisher.pipeline.ready import BatchLimits, ReadyQueue
from services.publisher.pipeline.units import ReadyImage, ReadyLayer, ReadyRemoval, Unit, digests_of
from services.repository.interface import PreparedLayer
from services.repository.layer import VerifiedLayer
from tests.support.journal import image_record, image_version, layer_record, numbered


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


def _image(*numbers: int, share: int | None = None) -> ReadyImage:
    version = image_version("quay.io/ns/tool:v1", number=sum(numbers))
    layers = [_layer(number).prepared for number in numbers]
    return ReadyImage(image_record(version.name, share=share), version, layers)


def _numbers(batch: Sequence[Unit]) -> list[int]:
    return [int(digest, 16) for digest in digests_of(batch)]


def _queue(*layers: Unit, most: int = 4, size: int = 100, coming: int = 0) -> ReadyQueue:
    """A queue that has some layers, and others that are on their way."""
    queue = ReadyQueue(BatchLimits(layers=most, size=size))
    for _ in range(len(layers) + coming):
        queue.expect()
    for layer in layers:
        queue.put(layer)
    return queue


async def _batches(layers: Sequence[Unit], *, most: int = 4, size: int = 100) -> list[list[int]]:
    queue = _queue(*layers, most=most, size=size)
    taken: list[list[int]] = []
    while sum(map(len, taken)) < len(digests_of(layers)):
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
    queue = _queue(*map(_layer, range(4)), most=2)
    first = await queue.take()
    queue.put_back(first)
    assert _numbers(await queue.take()) == [0, 1]
    assert _numbers(await queue.take()) == [2, 3]


async def test_a_batch_is_waited_for_until_there_is_a_layer() -> None:
    queue = _queue(coming=1)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(_layer(7))
    assert _numbers(await waiting) == [7]


async def test_what_is_ready_joins_an_open_transaction_as_far_as_there_is_room() -> None:
    queue = _queue(_layer(2), _layer(3, size=60), _layer(4), _layer(5))
    assert _numbers(await queue.join([_layer(1, size=50)], patience=0)) == [2, 4, 5]
    assert _numbers(await queue.take()) == [3]


async def test_a_suspect_lets_nobody_join_and_joins_nobody() -> None:
    queue = _queue(_layer(2, share=1), _layer(3), coming=1)
    assert await queue.join([_layer(1, share=1)], patience=60) == []
    assert _numbers(await queue.join([_layer(1)], patience=60)) == [3]


async def test_what_is_on_its_way_is_waited_for() -> None:
    queue = _queue(coming=2)
    joining = asyncio.create_task(queue.join([_layer(1)], patience=60))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not joining.done()
    queue.put(_layer(2))
    assert _numbers(await joining) == [2]


async def test_nobody_waits_when_nothing_is_on_its_way_any_more() -> None:
    queue = _queue(coming=1)
    joining = asyncio.create_task(queue.join([_layer(1)], patience=60))
    await asyncio.sleep(0)
    queue.give_up()
    assert await joining == []
    assert await _queue().join([_layer(1)], patience=60) == []


async def test_what_does_not_come_soon_is_not_waited_for() -> None:
    assert await _queue(coming=1).join([_layer(1)], patience=0.01) == []


async def test_nobody_waits_who_has_no_room() -> None:
    assert await _queue(coming=1).join([*map(_layer, range(4))], patience=60) == []


async def test_an_image_goes_whole_even_if_it_is_more_than_a_batch() -> None:
    assert await _batches([_layer(1), _image(*range(2, 8)), _image(8, 9), _layer(10)]) == [
        [1, 8, 9, 10],
        [2, 3, 4, 5, 6, 7],
    ]


async def test_an_image_that_brings_nothing_counts_as_one_layer() -> None:
    queue = _queue(*(_image() for _ in range(3)), _layer(1), _layer(2), most=4)
    assert [len(unit.layers) for unit in await queue.take()] == [0, 0, 0, 1]


async def test_images_of_a_failed_batch_go_in_smaller_ones() -> None:
    queue = _queue(_image(1, share=1), _image(2), ReadyRemoval(image_record("quay.io/ns/tool:v2", share=2)), _layer(3))
    assert _numbers(await queue.take()) == [1]
    assert [unit.record.share for unit in await queue.take()] == [None, 2]
    assert _numbers(await queue.take()) == [3]
