"""Archives that readers take differently, by `docker load`: a node makes of them what a real overlay2 makes of them."""

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containers import run_container
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import LayerUrl
from tests.hostile.archives import CASES
from tests.support.e2e import Images
from tests.support.node_traces import NodeTraces
from tests.support.policies import DIFFERENCES, described
from tests.support.repositories import thin_json
from tests.support.tars import archive, member, pax

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CANARY: Final = b"/nonexistent/canary"
_AT_ONCE: Final = 30
"""Loads side by side by an engine: one that the engine refuses itself takes it a quarter of a minute."""

_STRICTER: Final = frozenset(
    {
        # Names that climb above the root, and hard links that do.
        *("dotdot-above-the-root", "dotdot-above-the-root-in-between", "dotdot", "slash-dotdot", "inner-dotdot"),
        *("dotdot-directory", "dotdot-in-pax", "dotdot-in-gnu-name", "dotdot-in-prefix", "dotdot-in-sparse-name"),
        *("dotdot-whiteout", "dotdot-opaque"),
        # Streams that are cut.
        *("no-padding", "some-padding", "cut-in-padding"),
        # Sparse files without any data, which overlay2 takes for empty ones.
        *("sparse-directory", "sparse-bomb"),
    }
)
"""Archives that overlay2 takes and a node does not, each for a reason that the documentation gives."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What an engine made of an archive."""

    refusal: str | None
    tree: dict[str, str] | None
    size: int | None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """Docker with overlay2 and nothing in it."""
    engine = Engine(name="plain", directory=tmp_path_factory.mktemp("plain"))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def _load(engine: Engine, content: bytes, directory: Path) -> Loaded:
    """Load an image of one layer, and read what the storage driver has of it."""
    place = directory / hashlib.sha256(content).hexdigest()
    place.mkdir()
    (place / "layer").write_bytes(content)
    image = f"local:{place.name[:24]}"
    write_image(place / "image.tar", name=image, layers=[place / "layer"])
    try:
        await engine.docker("load", input=place / "image.tar")
    except CommandError as error:
        return Loaded(str(error), None, None)
    found = json.loads(await engine.api("GET", f"/images/{image}/json"))
    return Loaded(None, described(Path(found["GraphDriver"]["Data"]["UpperDir"])), found["Size"])


async def _load_all(engine: Engine, contents: Sequence[bytes], directory: Path) -> list[Loaded]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def load(content: bytes) -> Loaded:
        async with slots:
            return await _load(engine, content, directory)

    return await asyncio.gather(*map(load, contents))


# No path leads to what is in the longest: overlay2 refuses it, and what reads trees here would.
_HOSTILE: Final = [hostile for hostile in CASES if hostile.limits == ArchiveLimits() and hostile.name != "path-length"]


async def test_a_node_takes_what_overlay2_takes(plain: Engine, node: Node, tmp_path: Path) -> None:
    before = NodeTraces.of(node)
    names = [difference.name for difference in DIFFERENCES] + [hostile.name for hostile in _HOSTILE]
    contents = [difference.archive for difference in DIFFERENCES] + [hostile.build(_CANARY) for hostile in _HOSTILE]
    trees = [difference.local for difference in DIFFERENCES] + [hostile.local for hostile in _HOSTILE]
    for directory in (tmp_path / "plain", tmp_path / "node"):
        directory.mkdir()
    unique = list(dict.fromkeys(contents))
    loaded = await asyncio.gather(
        _load_all(plain, unique, tmp_path / "plain"), _load_all(node.engine, unique, tmp_path / "node")
    )
    theirs, ours = (dict(zip(unique, each, strict=True)) for each in loaded)
    wrong: list[str] = []
    for name, content, expected in zip(names, contents, trees, strict=True):
        here, there = ours[content], theirs[content]
        if isinstance(expected, dict) and here.tree != expected:
            wrong.append(f"{name}: {here.tree or here.refusal}, not {expected}")
        if isinstance(expected, str) != (here.refusal is not None):
            wrong.append(f"{name}: {here.refusal}, expected {expected}")
        if there.refusal is None and name not in _STRICTER and (here.tree, here.size) != (there.tree, there.size):
            wrong.append(f"{name}: {here}, under overlay2 {there}")
        if name in _STRICTER and (here.refusal is None or there.refusal is not None):
            wrong.append(f"{name}: {here} is not stricter than {there}")
    assert wrong == []
    await _remove_all(node.engine)
    await NodeTraces.settle(node, before)


async def _remove_all(engine: Engine) -> None:
    images = (await engine.docker("images", "--quiet", "--no-trunc", "local")).text.split()
    await engine.docker("rmi", "--force", *images)


def _lower() -> bytes:
    return archive(
        member(b"usr/", typeflag=b"5", mode=0o755),
        member(b"usr/lib/", typeflag=b"5", mode=0o755),
        member(b"usr/lib/a", b"a"),
        member(b"lib", typeflag=b"2", link=b"usr/lib", mode=0o777),
    )


_THIN: Final = thin_json(LayerUrl(f"cvmfs://unknown.example.org/{'1e' * 32}"))
"""A descriptor that no node can run."""

_UPPERS: Final[list[tuple[str, Callable[[], bytes]]]] = [
    ("an-ordinary-thin-json", lambda: archive(member(b"thin.json", b'{"name": "my app"}'), member(b"x", b"x"))),
    ("a-thin-json-that-is-no-file", lambda: archive(member(b"thin.json", typeflag=b"2", link=b"x", mode=0o777))),
    ("below-a-symlink-of-a-lower-layer", lambda: archive(member(b"lib/x", b"x"))),
    ("an-absolute-name-below-it", lambda: archive(member(b"/lib/x/../y", b"y"))),
    ("attributes", lambda: archive(
        pax({b"SCHILY.xattr.trusted.a": b"1"}), member(b"lib/", typeflag=b"5", mode=0o700),
        member(b"usr/lib/.wh.a"), member(b"usr/lib/b", b"b"),
    )),
]  # fmt: skip


async def _compare(
    image: str, layers: Sequence[bytes], engines: Sequence[Engine], images: Images, directory: Path
) -> None:
    """Load layers on the base image, and compare what containers see."""
    tars = [images.base]
    for number, content in enumerate(layers):
        tars.append(directory / f"{number}.layer")
        tars[-1].write_bytes(content)
    write_image(directory / "image.tar", name=image, layers=tars)
    trees = await asyncio.gather(*(_seen(image, directory / "image.tar", engine) for engine in engines))
    assert differences(*trees, names=("suite", "overlay2")) == []


async def _seen(image: str, saved: Path, engine: Engine) -> Tree:
    """Load an image, and read what a container sees but for times."""
    await engine.docker("load", input=saved)
    container = await run_container(engine, image)
    tree = await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)
    await engine.docker("rm", "--force", container.id)
    await engine.docker("rmi", image)
    return {path: dataclasses.replace(entry, mtime=None) for path, entry in tree.items()}


@pytest.mark.parametrize(("name", "upper"), _UPPERS, ids=[name for name, _ in _UPPERS])
async def test_a_container_sees_the_same_above_a_lower_layer(
    name: str, upper: Callable[[], bytes], plain: Engine, node: Node, images: Images, tmp_path: Path
) -> None:
    await _compare(f"lower:{name}", [_lower(), upper()], (node.engine, plain), images, tmp_path)


async def test_a_deleted_descriptor_does_not_count(plain: Engine, node: Node, images: Images, tmp_path: Path) -> None:
    thin = archive(member(b"thin.json", _THIN), member(b"beside", b"x"))
    deletes = archive(member(b".wh.thin.json", b""), member(b"y", b"y"))
    await _compare("deleted:descriptor", [thin, deletes], (node.engine, plain), images, tmp_path)
