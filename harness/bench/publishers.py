"""Preparing layers for a repository in a bucket: two publishers, each with a core of its own, beside one with one.

Nothing but the head needs a turn, so two take little more than half the time where the store has cores of its own. Here
it is on the same machine, and takes its share of the two cores. So there is also the time that the busiest publisher
takes of its core, which is what bounds it on machines of their own.
"""

import asyncio
import itertools
import multiprocessing
import os
import random
import resource
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final, NamedTuple

from harness.bench.measure import Row, Target, compare
from harness.bench.processor import processor_seconds
from harness.bench.publishing import add_file, verified_layer
from harness.s3 import S3Access
from harness.seaweedfs import SeaweedFS
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["publishers"]

_NAME: Final = RepositoryName("bench.example.org")
_LAYERS: Final = 8
_FILES: Final = 24
"""Of a layer, a megabyte each."""
_ONE: Final = "one publisher"
_TWO: Final = "two publishers"
_STORE: Final = "the store, for one publisher"
_TIMES: Final = 1.6
"""How much faster two have to be than one."""


class _Work(NamedTuple):
    """What a publisher has done, in seconds."""

    begun: float
    ended: float
    """By the clock that all processes have."""
    processor: float
    """What it and its workers have taken of their core."""


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """One publisher."""

    access: S3Access
    keys: KeyFiles
    prefix: str
    state: Path
    core: int


async def publishers(directory: Path, runs: int) -> list[Row]:
    """Measure the preparation of layers, from their archives to objects in the bucket.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    """
    directory.mkdir()
    archives = [directory / f"{number}.tar" for number in range(_LAYERS)]
    for number, archive in enumerate(archives):
        await asyncio.to_thread(_make, archive, number)
    server = SeaweedFS(directory / "server")
    await server.start()
    numbers = itertools.count()
    processor: dict[str, list[float]] = {_ONE: [], _TWO: [], _STORE: []}

    async def prepare(subject: str, count: int) -> float:
        before = processor_seconds(server.pid)
        work = await asyncio.to_thread(_prepare, server.access, directory / str(next(numbers)), archives, count)
        processor[subject].append(max(one.processor for one in work))
        if subject == _ONE:
            processor[_STORE].append(processor_seconds(server.pid) - before)
        return max(one.ended for one in work) - min(one.begun for one in work)

    target = Target(subject=_TWO, over=_ONE, limit=1 / _TIMES)
    try:
        passed = await compare(
            f"native in a bucket, {_LAYERS} layers prepared by publishers with a core each",
            {_ONE: lambda: prepare(_ONE, 1), _TWO: lambda: prepare(_TWO, 2)},
            runs=runs,
            targets=(target,),
        )
        # The first figures are of the warm-up.
        taken = {subject: figures[1:] for subject, figures in processor.items()}
        return [passed, Row(name="of it, of the busiest publisher's core", samples=taken, targets=(target,))]
    finally:
        await server.stop()


def _make(archive: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same archive every time
    with tarfile.open(archive, "w") as tar:
        for number in range(_FILES):
            words = chance.choices([chance.randbytes(8).hex() for _ in range(2000)], k=1 << 16)
            add_file(tar, str(number), " ".join(words).encode())


def _prepare(access: S3Access, place: Path, archives: Sequence[Path], count: int) -> list[_Work]:
    """Have so many publishers prepare all layers of a new repository; return what each of them did."""
    keys = KeyFiles(place / "keys", _NAME)
    prefix = f"{place.name}/"
    with BucketStorage.connect(access.repository_settings(prefix=prefix), place / "state") as storage:
        create_repository(name=_NAME, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    answers = []
    processes = []
    for number, core in enumerate(sorted(os.sched_getaffinity(0))[:count]):
        machine = _Machine(access=access, keys=keys, prefix=prefix, state=place / str(number), core=core)
        answer, answering = context.Pipe(duplex=False)
        process = context.Process(target=_publisher, args=(machine, archives[number::count], barrier, answering))
        process.start()
        answering.close()
        answers.append(answer)
        processes.append(process)
    work: list[_Work] = [answer.recv() for answer in answers]
    for process in processes:
        process.join()
    return work


def _publisher(machine: _Machine, archives: Sequence[Path], barrier: Barrier, answer: Connection) -> None:
    """Prepare layers on one core, and tell what that took."""
    os.sched_setaffinity(0, {machine.core})

    async def run() -> _Work:
        settings = machine.access.repository_settings(prefix=machine.prefix)
        with ThreadPoolExecutor(4) as threads, BucketStorage.connect(settings, machine.state) as storage:
            repository = NativeRepository(
                name=_NAME,
                storage=storage,
                keys=machine.keys,
                state=machine.state,
                layout=LayerLayout.FLAT,
                threads=threads,
                workers=1,
            )
            layers = [verified_layer(archive) for archive in archives]
            async with repository:
                await asyncio.to_thread(barrier.wait)
                begun, before = time.monotonic(), time.process_time()
                prepared = [await repository.prepare(layer) for layer in layers]
                ended, after = time.monotonic(), time.process_time()
                for layer in prepared:
                    await repository.discard(layer)
            # The workers have ended, so what they took is known.
            workers = resource.getrusage(resource.RUSAGE_CHILDREN)
            return _Work(begun, ended, after - before + workers.ru_utime + workers.ru_stime)

    answer.send(asyncio.run(run()))
