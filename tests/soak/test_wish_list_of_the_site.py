"""A wish list of a thousand entries, a real registry and publisher: a round of new images, and one of none."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.commands import run
from harness.reliability.figures import Chapter, Trial
from harness.s3 import S3Access
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.converter import push_small
from tests.support.converter_process import ConverterProcess
from tests.support.image_site import layer_of
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess
from tests.support.registries import RegistryServer, patient
from tests.support.soak import Soak

_IMAGES = 20
"""Images of one repository of the registry."""
_SIDE_BY_SIDE = 8
"""Pushes at the same time."""
_MEMORY = 150e6
"""Bytes that a converter may take."""
_UNCHANGED = 1.2
"""Requests to the registry that an image may cost of which nothing is new."""


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What a round cost."""

    seconds: float
    processor: float
    """Seconds, without the start of Python."""
    memory: int
    """Bytes."""
    requests: int
    """To the registry; those of the publisher's are among them."""


class _Site:
    """Registry, converter and publisher."""

    def __init__(self, registry: RegistryServer, converter: ConverterProcess, publisher: PublisherProcess) -> None:
        self.publisher = publisher
        self._registry = registry
        self._converter = converter

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path, access: S3Access) -> AsyncIterator["_Site"]:
        """Run them, the converter whenever it is to make a round."""
        publisher = PublisherProcess(directory / "publisher", access, {"PUBLISHER_LOG_LEVEL": "warning"})
        async with RegistryServer.run(directory / "registry") as registry:
            publisher.daemon.env["REGISTRY_PLAIN_HTTP"] = registry.address
            converter = ConverterProcess(
                directory, registry=registry.address, publishers={REPOSITORY: publisher.url}, token=TOKEN
            )
            async with publisher.running():
                yield cls(registry, converter, publisher)

    async def push(self, count: int) -> Sequence[str]:
        """Push so many images, each with a manifest of its own; return their names."""
        async with RegistryClient(options=patient()) as client:

            async def push(number: int) -> list[str]:
                name = f"soak/r{number}"
                await push_small(self._registry.address, f"{name}:v0", layer_of(name))
                reference = ImageReference.parse(f"{self._registry.address}/{name}:v0")
                first = await client.manifest(reference)
                document = json.loads(first.content)
                for tag in range(1, _IMAGES):
                    document["annotations"] = {"org.example.tag": str(tag)}
                    other = replace(reference, tag=f"v{tag}")
                    await client.push_manifest(other, json.dumps(document).encode(), first.media_type)
                return [f"{self._registry.address}/{name}:v{tag}" for tag in range(_IMAGES)]

            turns = asyncio.Semaphore(_SIDE_BY_SIDE)

            async def in_turn(number: int) -> list[str]:
                async with turns:
                    return await push(number)

            pushed = await asyncio.gather(*map(in_turn, range(count // _IMAGES)))
        return [name for names in pushed for name in names]

    def wish(self, names: Sequence[str]) -> None:
        """Have one entry of the wish list for each image."""
        entries = [f"  - {{image: '{name.rpartition(':')[0]}', tags: '{name.rpartition(':')[2]}'}}\n" for name in names]
        head = f"version: 2\ndefaults: {{repositories: {REPOSITORY}}}\nimages:\n"
        self._converter.wishes.write_text(head + "".join(entries))

    async def round(self) -> _Round:
        """Have the converter make a round; return what it cost."""
        before, begun = self._requests(), time.monotonic()
        command = (sys.executable, "-m", "harness.bench.round_peak")
        ended = await run(*command, env=self._converter.environment, timeout=600)
        processor, memory = ended.text.split()[-2:]
        return _Round(
            seconds=time.monotonic() - begun,
            processor=float(processor),
            memory=int(memory),
            requests=self._requests() - before,
        )

    def _requests(self) -> int:
        """Return how many requests the registry has had."""
        lines = (self._registry.directory / "registry.log").read_text().splitlines()
        return sum("/v2/" in line and "HTTP/1.1" in line for line in lines)


async def test_a_thousand_entries(soak: Soak, tmp_path: Path, bucket: S3Access) -> None:
    count = soak.pick(40, 1000)
    async with _Site.running(tmp_path, bucket) as site:
        names = await site.push(count)
        site.wish(names)
        first = await site.round()
        published = await site.publisher.metrics()
        again = await site.round()
    missing = [name for name in names if not (site.publisher.root / ".metadata" / name / "image.json").exists()]
    assert published['publisher_images{state="published"}'] == count
    assert again.requests <= _UNCHANGED * count
    for tried, round_ in (("a round in which all are new", first), ("a round in which none has changed", again)):
        assert round_.memory <= _MEMORY, f"{tried}: {round_.memory / 1e6:.0f} MB"
        soak.record(
            Trial(
                chapter=Chapter.LOAD,
                subject=f"converter, wish list of {count:,} entries, real registry and publisher",
                tried=tried,
                times=1,
                losses={"images not published": len(missing)},
                seen={
                    "time, s": round(round_.seconds, 1),
                    "processor time of the converter, s": round(round_.processor, 2),
                    "most memory of the converter, MB": round(round_.memory / 1e6),
                    "requests to the registry for each image": round(round_.requests / count, 2),
                },
            )
        )
