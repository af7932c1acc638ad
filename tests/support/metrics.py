"""What a service shows of its metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["ask", "counted", "samples", "shown"]


def samples(text: str) -> Mapping[str, float]:
    """Read Prometheus' text format: values by what it writes before them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def counted(values: Mapping[str, float], name: str) -> Mapping[str, float]:
    """Return the values of one series other than 0, by their labels."""
    return {key.removeprefix(name): value for key, value in values.items() if key.partition("{")[0] == name and value}


async def ask(place: Path | str, path: str) -> Any:  # noqa: ANN401 - a JSON document, or text
    """Ask a service on a unix socket, or at an address and a port; it must answer that all is well."""
    connector = aiohttp.UnixConnector(str(place)) if isinstance(place, Path) else aiohttp.TCPConnector()
    url = f"http://{'localhost' if isinstance(place, Path) else place}{path}"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        assert response.status == 200, await response.text()
        return await (response.json() if response.content_type == "application/json" else response.text())


async def shown(place: Path | str) -> Mapping[str, float]:
    """Return what a service shows at `/metrics`."""
    return samples(await ask(place, "/metrics"))
