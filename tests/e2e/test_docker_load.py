"""Layers of every shape by `docker load`: containers see what they see under overlay2; hostile ones are refused."""

import asyncio
import dataclasses
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings

from harness.commands import CommandError
from harness.containers import run_container
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.common.archive.errors import MalformedArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import DESCRIPTOR_NAME
from tests.hostile.archives import CASES, Case
from tests.support.e2e import Images, Nodes
from tests.support.layers import Directory, Leaf, layers, members_of
from tests.support.node_traces import NodeTraces
from tests.support.repositories import thin_json
from tests.support.shapes import SHAPES, SPARSE, Item, Shape
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_REGULAR: Final = "shapes:regular"
_THIN: Final = "shapes:thin"
_SPARSE: Final = "shapes:sparse"
_COMMITTED: Final = "shapes:committed"
_EXAMPLES: Final = 100
"""Pairs of generated layers beside those made by hand."""


def _place(shape: Shape) -> bytes:
    return b"s-" + shape.name.encode()


_IMPLIED: Final = frozenset(
    _place(shape) + (b"/" + path if path else b"") for shape in (*SHAPES, *SPARSE) for path in (b"", *shape.implied)
)
_EXCLUSIONS: Final = dataclasses.replace(CONTAINER_EXCLUSIONS, times=CONTAINER_EXCLUSIONS.times | _IMPLIED)


def _generated() -> tuple[Directory, Directory]:
    """Generate pairs of layers, always the same, each pair below a directory of its own."""
    pairs: list[tuple[Directory, Directory]] = []

    @settings(
        max_examples=_EXAMPLES,
        phases=[Phase.generate],
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(layers(deletions=False), layers(deletions=True))
    def collect(lower: Directory, upper: Directory) -> None:
        pairs.append((lower, _where_merged(upper, lower)))

    collect()
    return _side_by_side(lower for lower, _ in pairs), _side_by_side(upper for _, upper in pairs)


def _where_merged(upper: Directory, lower: Directory | Leaf | None) -> Directory:
    """Keep the deletions in directories that both layers have: the kernel lists those in others like files."""
    below = lower.children if isinstance(lower, Directory) and not upper.opaque else None
    children = {
        name: _where_merged(node, (below or {}).get(name)) if isinstance(node, Directory) else node
        for name, node in upper.children.items()
    }
    return dataclasses.replace(upper, children=children, deleted=frozenset() if below is None else upper.deleted)


def _side_by_side(roots: Iterable[Directory]) -> Directory:
    children: dict[bytes, Leaf | Directory] = {
        b"g%03d" % number: dataclasses.replace(root, attributes={"mode": 0o755}) for number, root in enumerate(roots)
    }
    return Directory({}, children)


def _below(shape: Shape) -> Sequence[Item]:
    return shape.below


def _above(shape: Shape) -> Sequence[Item]:
    return shape.above


def _above_for_overlay2(shape: Shape) -> Sequence[Item]:
    return shape.above if shape.for_overlay2 is None else shape.for_overlay2


def _rendered(shapes: Iterable[Shape], part: Callable[[Shape], Sequence[Item]]) -> bytes:
    return b"".join(item.render(_place(shape)) for shape in shapes for item in part(shape))


@dataclasses.dataclass(frozen=True)
class Archives:
    """Archives for `docker load`."""

    regular: Path
    thin: Path
    """The same layers on the thin base image."""
    overlay2: Path
    """The regular one in a form that the engine's own extraction takes."""


@pytest.fixture(scope="module")
def archives(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Archives:
    lower, upper = (b"".join(members_of(layer)) for layer in _generated())
    below = archive(_rendered(SHAPES, _below), lower)
    above = archive(_rendered(SHAPES, _above), upper)
    plain = archive(_rendered(SHAPES, _above_for_overlay2), upper)
    descriptor = archive(member(DESCRIPTOR_NAME.encode(), thin_json(images.published.thin.location)))

    def write(name: str, *layers: Path | bytes) -> Path:
        return _write(tmp_path_factory.mktemp("shapes"), name, *layers)

    return Archives(
        regular=write(_REGULAR, images.base, below, above),
        thin=write(_THIN, descriptor, below, above),
        overlay2=write(_REGULAR, images.base, below, plain),
    )


def _write(directory: Path, name: str, *layers: Path | bytes) -> Path:
    """Write the archive of an image of layers, base first."""
    tars = []
    for number, layer in enumerate(layers):
        tars.append(directory / f"{number}.layer" if isinstance(layer, bytes) else layer)
        if isinstance(layer, bytes):
            tars[-1].write_bytes(layer)
    write_image(directory / "image.tar", name=name, layers=tars)
    return directory / "image.tar"


async def _tree(engine: Engine, image: str) -> Tree:
    """Read what a container of an image sees."""
    container = await run_container(engine, image)
    try:
        return await asyncio.to_thread(read_directory, container.root, exclusions=_EXCLUSIONS)
    finally:
        await engine.docker("rm", "--force", container.id)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(nodes: Nodes) -> Node:
    """A node that soon lets go of the copies of published layers."""
    return await nodes.start(driver_env={"GRAPHDRIVER_COPY_INTERVAL": "0.2"})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def regular(node: Node, archives: Archives) -> Tree:
    """What a container of the regular image sees."""
    await node.engine.docker("load", input=archives.regular)
    return await _tree(node.engine, _REGULAR)


def _as_docker_keeps(tree: Tree) -> Tree:
    """Leave out what the engine's own extraction does not keep: times before 1970."""
    return {
        path: dataclasses.replace(entry, mtime=None if entry.mtime is None else max(0, entry.mtime))
        for path, entry in tree.items()
    }


async def test_every_shape_is_there(regular: Tree) -> None:
    tops = {path.partition(b"/")[0] for path in regular}
    assert set(map(_place, SHAPES)) <= tops
    assert {b"g%03d" % number for number in range(_EXAMPLES)} <= tops
    kinds = {entry.kind for path, entry in regular.items() if path[:1] in (b"s", b"g")}
    assert kinds == {"file", "directory", "symlink", "character device", "block device", "fifo"}


async def test_containers_see_what_they_see_under_overlay2(regular: Tree, overlay2: Engine, archives: Archives) -> None:
    await overlay2.docker("load", input=archives.overlay2)
    expected = await _tree(overlay2, _REGULAR)
    await overlay2.docker("rmi", _REGULAR)
    assert differences(_as_docker_keeps(regular), _as_docker_keeps(expected), names=("suite", "overlay2")) == []


async def test_sparse_files_are_what_they_are_under_overlay2(
    node: Node, overlay2: Engine, images: Images, tmp_path: Path
) -> None:
    trees = []
    for engine, part in ((node.engine, _above), (overlay2, _above_for_overlay2)):
        layer = archive(_rendered(SPARSE, part))
        await engine.docker("load", input=_write(tmp_path, _SPARSE, images.base, layer))
        trees.append(await _tree(engine, _SPARSE))
        await engine.docker("rmi", _SPARSE)
    assert len([path for path in trees[0] if path.endswith(b"/f")]) == len(SPARSE)
    assert differences(*trees, names=("suite", "overlay2")) == []


async def test_the_image_is_saved_as_it_was_loaded(
    regular: Tree,  # noqa: ARG001 - loaded
    node: Node,
    tmp_path: Path,
) -> None:
    await node.engine.docker("save", _REGULAR, output=tmp_path / "saved.tar")
    [image] = json.loads((await node.engine.docker("image", "inspect", _REGULAR)).text)
    with tarfile.open(tmp_path / "saved.tar") as saved:
        [manifest] = json.load(_content(saved, "manifest.json"))
        digests = [hashlib.sha256(_content(saved, layer).read()).hexdigest() for layer in manifest["Layers"]]
    assert [f"sha256:{digest}" for digest in digests] == image["RootFS"]["Layers"]


def _content(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    content = archive.extractfile(name)
    assert content is not None
    return content


async def test_the_same_on_a_thin_image_and_after_its_publication(
    regular: Tree, node: Node, nodes: Nodes, stratum0: Stratum0, archives: Archives, tmp_path: Path
) -> None:
    await node.engine.docker("load", input=archives.thin)
    before = NodeTraces.of(node)
    container = await run_container(node.engine, _THIN)
    local = await asyncio.to_thread(read_directory, container.root, exclusions=_EXCLUSIONS)
    assert differences(local, regular, names=("thin", "regular")) == []
    # The commit uploads both layers, and that of the container.
    await node.engine.docker("exec", container.id, "sh", "-ec", "echo new > /s-new")
    await node.engine.docker("commit", container.id, _COMMITTED)
    await node.engine.docker("rm", "--force", container.id)
    descriptor = await read_descriptor(node.engine, _COMMITTED, tmp_path)
    for layer in descriptor.layers:
        await stratum0.visible(layer.id)
    elsewhere = await nodes.start()
    await node.engine.docker("save", _COMMITTED, output=tmp_path / "committed.tar")
    await elsewhere.engine.docker("load", input=tmp_path / "committed.tar")
    published = await _tree(elsewhere.engine, _COMMITTED)
    assert published.pop(b"s-new").size == len("new\n")
    assert differences(published, local, names=("published", "local")) == []
    await elsewhere.close()
    await node.engine.docker("rmi", _COMMITTED)
    await NodeTraces.settle(node, before)


_LOADABLE: Final = [
    (hostile, hostile.local) for hostile in CASES if hostile.limits == ArchiveLimits() and hostile.local is not None
]
"""Cases that need no other limits than a driver has by default, and what each is told."""
_UNREADABLE: Final = frozenset(
    {"nul-in-path", "nul-in-target", "symlink-in-place-of-a-directory", "gnu-name-size"},
)
"""Cases, beside malformed ones, that the engine may refuse itself: it reads a layer while the driver does."""
_AT_ONCE: Final = 120
"""Loads side by side: one that the engine refuses itself takes it a quarter of a minute."""


async def test_hostile_layers_are_refused_and_leave_nothing(node: Node, tmp_path: Path) -> None:
    before = NodeTraces.of(node)
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "victim").write_text("untouched")
    untouched = read_directory(canary)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def refusal(hostile: Case) -> str:
        directory = tmp_path / hashlib.sha256(hostile.name.encode()).hexdigest()
        directory.mkdir()
        image = _write(directory, f"hostile:{directory.name}", hostile.build(os.fsencode(canary)))
        async with slots:
            try:
                loaded = await node.engine.docker("load", input=image)
            except CommandError as error:
                return str(error)
        return loaded.text

    refusals = await asyncio.gather(*(refusal(hostile) for hostile, _ in _LOADABLE))
    wrong = [
        f"{hostile.name}: {text}"
        for (hostile, says), text in zip(_LOADABLE, refusals, strict=True)
        if not ("GraphDriver.ApplyDiff" in text and says in text)
        and not (_may_be_unreadable(hostile) and "read/write on closed pipe" in text)
    ]
    assert wrong == []
    assert differences(untouched, read_directory(canary)) == []
    assert (await node.engine.docker("images", "--quiet", "hostile")).text == ""
    await NodeTraces.settle(node, before)


def _may_be_unreadable(hostile: Case) -> bool:
    return hostile.error is MalformedArchiveError or hostile.name in _UNREADABLE
