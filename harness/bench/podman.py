"""What podman's commands cost with a store of many images: every process of podman's reads its lists whole.

The stores are what the publisher writes, of images that are made up, but for one whose layers are there and which runs.
"""

import hashlib
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from harness.bench.measure import Row, Target, compare
from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_tree
from services.common.repository_name import RepositoryName
from services.repository.image_platforms import platform_images
from services.repository.podman.store import Deletions, LayerFacts, PodmanStore
from tests.support.images import image_of_layers
from tests.support.podman import Podman, seen_by_clients, system_tree

__all__ = ["podman"]

_NAME: Final = RepositoryName("bench.example.org")
_MOUNT: Final = PurePosixPath("/cvmfs", _NAME)
_RUNS: Final = "registry.example.org/project/image-0:v1"
_LAYERS: Final = 10
_MANY: Final = 1000
_ADDED: Final = 0.3
"""Seconds of processor time that so many images may add to a command."""
_COMMANDS: Final[dict[str, tuple[Sequence[str], bool]]] = {
    "run": (("run", "--rm", _RUNS, "echo", "one"), True),
    # This one looks into each of the images that it shows.
    "image ls": (("image", "ls"), False),
}
"""Commands, and whether what many images add to them has to be little."""


async def podman(directory: Path, runs: int) -> list[Row]:
    """Measure the processor time of commands with a store of one image, and with one of many.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    """
    root = directory / "repository"
    for number, layer in enumerate(_layers(0)):
        tree = root / layer_tree(layer.digest)
        tree.mkdir(parents=True)
        if not number:
            system_tree(tree)
    stores = {"1 image": 1, f"{_MANY} images": _MANY}
    rows = []
    with seen_by_clients(root, _NAME):
        users = {}
        for subject, images in stores.items():
            _write_store(root / subject.replace(" ", "-"), images)
            users[subject] = Podman(directory / subject.replace(" ", "-"), [Path(_MOUNT, subject.replace(" ", "-"))])
        for what, (command, bounded) in _COMMANDS.items():
            one, many = await _compare(what, command, users, runs)
            target = Target(subject=f"{_MANY} images", limit=_ADDED)
            rows += [one, replace(many, targets=(target,) if bounded else ())]
    return rows


async def _compare(what: str, command: Sequence[str], users: Mapping[str, Podman], runs: int) -> tuple[Row, Row]:
    """Return the figures of a command, and what the larger store adds to them."""

    def measured(user: Podman) -> Callable[[], Awaitable[float]]:
        async def seconds() -> float:
            before = _processor_time()
            await user(*command)
            return _processor_time() - before

        return seconds

    name = f"podman {what}, processor time"
    row = await compare(name, {subject: measured(user) for subject, user in users.items()}, runs=runs)
    one, many = users
    added = [large - small for small, large in zip(row.samples[one], row.samples[many], strict=True)]
    return row, Row(name=f"{name} that many images add", samples={many: added})


def _processor_time() -> float:
    """Return that of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _layers(image: int) -> list[LayerArchive]:
    """Return the layers of an image: a base that all have, and others of its own."""
    names = ["base", *(f"{image} {number}" for number in range(1, _LAYERS))]
    return [
        LayerArchive(
            path=Path("none"),
            digest=_digest(f"archive {name}"),
            diff_id=_digest(name),
            size=20_000_000,
            uncompressed_size=60_000_000,
            media_type=MediaType.TAR_GZIP,
        )
        for name in names
    ]


def _digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def _write_store(directory: Path, images: int) -> None:
    store = PodmanStore(images=[], layers=[], mount=_MOUNT, lower=lambda _layer: "")
    for number in range(images):
        layers = _layers(number)
        name = f"registry.example.org/project/image-{number}:v1"
        (image,) = platform_images(image_of_layers(name, ("amd64", layers)))
        facts = {
            layer.digest: LayerFacts(size=layer.uncompressed_size, masked=Deletions(), tar_split=True)
            for layer in layers
        }
        store.put(ImageName(name), image, facts)
    changes = store.changes()
    for file, content in changes.files.items():
        place = directory / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for link, target in changes.links.items():
        place = directory / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
