"""What a front end does with a driver, operation by operation."""

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from services.common.descriptor import LayerUrl
from services.node.driver import Driver
from services.node.layers import LayerId, LayerKind
from tests.support.repositories import thin_json

__all__ = ["chunks", "contents", "load_layer", "load_thin", "make_container", "tar_of"]


def tar_of(files: dict[str, str | None]) -> bytes:
    """Write a layer tar; a file without content is a whiteout."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            place = Path(path)
            member = tarfile.TarInfo(path if content is not None else str(place.with_name(f".wh.{place.name}")))
            member.size = len(content or "")
            member.mode = 0o644
            tar.addfile(member, io.BytesIO((content or "").encode()))
    return buffer.getvalue()


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """Hand a body on in pieces."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def load_layer(driver: Driver, name: str, parent: str | None, files: dict[str, str | None]) -> LayerId:
    """Load an image's layer."""
    layer_id = LayerId(name)
    await driver.create(layer_id, LayerId(parent) if parent else None, LayerKind.IMAGE)
    await driver.apply(layer_id, chunks(tar_of(files)))
    return layer_id


async def make_container(driver: Driver, name: str, parent: str) -> LayerId:
    """Make a container as the engine does, its init layer first."""
    init, layer_id = LayerId(f"{name}-init"), LayerId(name)
    await driver.create(init, LayerId(parent), LayerKind.CONTAINER)
    directory = await driver.get(init, label="")
    (directory / ".dockerenv").touch()
    await driver.put(init)
    await driver.create(layer_id, init, LayerKind.CONTAINER)
    return layer_id


async def load_thin(driver: Driver, name: str, *urls: LayerUrl) -> LayerId:
    """Load the layer of a thin image of published layers, base first."""
    return await load_layer(driver, name, None, {"thin.json": thin_json(*urls).decode()})


def contents(directory: Path) -> dict[str, str]:
    """Return the files below a directory and what is in them."""
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()
    }
