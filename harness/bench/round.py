"""A round of the converter over tags of which none has changed: processor time, memory, and requests."""

import sys
from pathlib import Path
from typing import Final

import aiohttp

from harness.bench.measure import Row, Target
from harness.commands import run
from harness.http import answers
from harness.ports import free_ports
from harness.processes import Daemon

__all__ = ["rounds"]

_REPOSITORIES: Final = 5
_TAGS: Final = 2000
"""Of each repository."""
_LIMIT: Final = 40.0
"""Milliseconds of processor time that a hundred unchanged tags may take."""
_MEMORY: Final = 150.0
"""MB."""
_REQUESTS: Final = 101.0
"""That a hundred unchanged tags may take: one each, and a page of the list is a thousand."""
_PATIENCE: Final = 900
"""Seconds that a round may take."""
_FIRST: Final = 7200
"""Seconds that the first may take: it asks for every image, looks what became of it, and is not measured."""

_WISHES: Final = """\
version: 2
defaults: {repositories: bench.example.org}
images:
"""


async def rounds(directory: Path, runs: int) -> list[Row]:
    """Have ten thousand tags asked for once, and then look at them again and again.

    Parameters
    ----------
    directory
        Is made, and holds the converter's state.
    runs
        Figures that count.
    """
    directory.mkdir()
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    server = Daemon(
        "round-server",
        [sys.executable, "-m", "harness.bench.round_server", str(port), str(_TAGS)],
        log=directory / "server.log",
    )
    lists = directory / "wishes.yaml"
    lists.write_text(
        _WISHES + "".join(f'  - {{image: "{address}/bench/r{number}", tags: "*"}}\n' for number in range(_REPOSITORIES))
    )
    environment = {
        "CONVERTER_WISH_LISTS": str(lists),
        "CONVERTER_STATE": str(directory / "state"),
        "CONVERTER_PUBLISHERS": f"bench.example.org=http://{address}",
        "CONVERTER_LOG_LEVEL": "warning",
        "REGISTRY_PLAIN_HTTP": address,
    }
    await server.start(lambda: answers(f"http://{address}/requests"))
    try:
        command = (sys.executable, "-m", "harness.bench.round_peak")
        milliseconds, megabytes, requests = list[float](), list[float](), list[float]()
        for turn in range(runs + 1):
            before = await _requests(address)
            ended = await run(*command, env=environment, timeout=_PATIENCE if turn else _FIRST)
            if turn:
                used, peak = ended.text.split()[-2:]
                milliseconds.append(float(used) * 1000 / (_REPOSITORIES * _TAGS / 100))
                megabytes.append(int(peak) / 1e6)
                requests.append((await _requests(address) - before) / (_REPOSITORIES * _TAGS / 100))
    finally:
        await server.stop()
    return [
        Row(
            name="processor time for a hundred unchanged tags of 10,000",
            unit="ms",
            samples={"converter": milliseconds},
            targets=(Target(subject="converter", limit=_LIMIT),),
        ),
        Row(
            name="peak memory, a round over 10,000 unchanged tags",
            unit="MB",
            samples={"converter": megabytes},
            targets=(Target(subject="converter", limit=_MEMORY),),
        ),
        Row(
            name="requests to a registry for a hundred unchanged tags",
            unit="requests",
            samples={"converter": requests},
            targets=(Target(subject="converter", limit=_REQUESTS),),
        ),
    ]


async def _requests(address: str) -> int:
    """Return how many requests the registry has had."""
    url = f"http://{address}/requests"
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
        counts: dict[str, int] = await response.json()
    return sum(count for kind, count in counts.items() if kind.endswith((" manifests", " tags")))
