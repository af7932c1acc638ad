"""What podman's commands cost with a store of many images: every process of podman's reads its lists whole.

The stores are what the publisher writes, of images that are made up, but for one whose layers are there and which runs.
Beside them is a podman that has the same images in its own storage: what it takes there, no store can do without.
"""

import hashlib
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from harness.bench.measure import Row, Target, compare
from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_tree
from services.common.repository_name import RepositoryName
from services.repository.image_platforms import platform_images
from services.repository.podman.layer_facts import Deletions, LayerFacts
from services.repository.podman.store import PodmanStore
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
_MORE: Final = 1.3
"""What a command may take with the store, of what it takes with as many images in podman's own."""
_ONE: Final = "1 image"
_STORE: Final = f"{_MANY} images"
_OWN: Final = f"{_MANY} of its own"
_COMMANDS: Final[dict[str, tuple[Sequence[str], Sequence[str]]]] = {
    "run": (("run", "--rm", _RUNS, "echo", "one"), (_ONE, _STORE)),
    # This one looks into each of the images, wherever they are; so it does where it is to show one of them.
    "image ls": (("image", "ls"), (_ONE, _STORE, _OWN)),
}
"""Commands, and the subjects that they are measured with: only images of a repository have layers that run."""


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
    own = Podman(directory / "own", [])
    _write_store(own.root, _MANY)
    users = {_OWN: own}
    rows: list[Row] = []
    with seen_by_clients(root, _NAME):
        for subject, images in ((_ONE, 1), (_STORE, _MANY)):
            store = subject.replace(" ", "-")
            _write_store(root / store, images)
            users[subject] = Podman(directory / store, [Path(_MOUNT, store)])
        for what, (command, subjects) in _COMMANDS.items():
            rows += await _compare(what, command, {subject: users[subject] for subject in subjects}, runs)
    return rows


async def _compare(what: str, command: Sequence[str], users: Mapping[str, Podman], runs: int) -> tuple[Row, Row]:
    """Return the figures of a command, and what many images add to them."""

    def measured(user: Podman) -> Callable[[], Awaitable[float]]:
        async def seconds() -> float:
            before = _processor_time()
            await user(*command)
            return _processor_time() - before

        return seconds

    name = f"podman {what}, processor time"
    limits = (Target(subject=_STORE, over=_OWN, limit=_MORE),) if _OWN in users else ()
    row = await compare(name, {subject: measured(user) for subject, user in users.items()}, runs=runs, targets=limits)
    added = {
        subject: [large - small for small, large in zip(row.samples[_ONE], samples, strict=True)]
        for subject, samples in row.samples.items()
        if subject != _ONE
    }
    most = Target(subject=_STORE, limit=_ADDED)
    return row, Row(name=f"{name} that many images add", samples=added, targets=(most,))


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
