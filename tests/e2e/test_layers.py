"""Layers as docker load under overlay2 unpacks them, against unpack: whole trees are compared."""

import dataclasses
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.engine import Engine
from harness.images import write_image
from harness.trees import Entry, Exclusions, Tree, differences, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from tests.support.layers import Directory, archive_of, layers
from tests.support.tars import GNU_MAGIC, archive, gnu_long, member, pax

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Exclusions(times=frozenset({b"."}))


def _comparable(tree: Tree) -> Tree:
    """Leave out what is known to differ, and why.

    This engine sets times before 1970 to 1970. Whiteouts have no attributes that anybody sees. Below an opaque
    directory there is nothing to delete, so `unpack` makes no whiteout there: overlayfs would show it now and then.
    """
    opaque = [path + b"/" for path, entry in tree.items() if "trusted.overlay.opaque" in entry.xattrs]

    def kept(entry: Entry) -> Entry:
        if entry.rdev == (0, 0):
            return dataclasses.replace(entry, mtime=None, gid=0)
        clamped = entry.mtime is not None and entry.mtime < 0
        return dataclasses.replace(entry, mtime=0) if clamped else entry

    return {
        path: kept(entry)
        for path, entry in tree.items()
        if entry.rdev != (0, 0) or not any(path.startswith(above) for above in opaque)
    }


def _unpacked(content: bytes, tree: Path) -> Tree:
    tree.mkdir()
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    return read_directory(tree, exclusions=ROOT)


async def _loaded(engine: Engine, contents: Sequence[bytes], directory: Path) -> list[Tree]:
    """Load an image of layers, base first, and read what the engine made of each."""
    tars = []
    for number, content in enumerate(contents):
        tars.append(directory / f"{number}.tar")
        tars[-1].write_bytes(content)
    write_image(directory / "image.tar", name="test:layers", layers=tars)
    await engine.docker("load", input=directory / "image.tar")
    [image] = json.loads((await engine.docker("image", "inspect", "test:layers")).text)
    data = image["GraphDriver"]["Data"]
    places = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
    assert len(places) == len(contents)
    trees = [read_directory(Path(place), exclusions=ROOT) for place in reversed(places)]
    await engine.docker("rmi", "test:layers")
    return trees


async def _compare(engine: Engine, contents: Sequence[bytes]) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        theirs = await _loaded(engine, contents, directory)
        ours = [_unpacked(content, directory / f"tree{number}") for number, content in enumerate(contents)]
    return [
        differences(_comparable(mine), _comparable(other), names=("unpack", "overlay2"))
        for mine, other in zip(ours, theirs, strict=True)
    ]


@given(st.lists(layers(deletions=True), min_size=10, max_size=20))
# What fails is a list of differences, so nothing is gained by the minutes that a smaller case would take.
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
async def test_layers_of_every_shape(overlay2: Engine, found: list[Directory]) -> None:
    for layer, lines in zip(found, await _compare(overlay2, [archive_of(layer) for layer in found]), strict=True):
        assert lines == [], archive_of(layer)[:4000]


def _nested(depth: int) -> bytes:
    """Return a directory of a path that is too long for the header's field."""
    path = b"/".join([b"l" * 80] * depth) + b"/"
    return pax({b"path": path}) + member(b"short/", b"", b"5", mtime=1)


async def test_layers_that_the_generator_does_not_make(overlay2: Engine) -> None:
    """The engine itself refuses a layer in which a path comes twice, so there is nothing to compare with."""
    contents = {
        "a hard link to a symbolic link": archive(
            member(b"a", b"", b"2", link=b"x", mtime=1), member(b"b", b"", b"1", link=b"a", mtime=1)
        ),
        "names with dots and slashes": archive(
            member(b"./", b"", b"5", mode=0o755), member(b"./a", b"x", mtime=1), member(b"././b//", b"", b"5", mtime=2)
        ),
        "long paths": archive(
            *map(_nested, range(1, 6)), pax({b"path": b"/".join([b"l" * 80] * 5) + b"/x"}) + member(b"x", b"x", mtime=1)
        ),
        "GNU's long names": archive(gnu_long(b"n" * 150) + member(b"n" * 100, b"x", mtime=1, magic=GNU_MAGIC)),
        "numbers in base 256": archive(
            member(b"a", b"x", uid=b"\x80\0\0\0\0\x01\0\0", gid=b"\x80\0\0\0\0\x02\0\0", mtime=1, magic=GNU_MAGIC)
        ),
        "a directory after what is in it": archive(
            member(b"d/x", b"x", mtime=3), member(b"d/", b"", b"5", mode=0o710, uid=7, mtime=5)
        ),
        "a whiteout after and before its directory": archive(
            member(b"d/.wh.y", b""), member(b"d/", b"", b"5", mode=0o710, mtime=5), member(b"d/.wh.z", b"")
        ),
        "an opaque marker after the files that survive it": archive(
            member(b"d/", b"", b"5", mtime=5), member(b"d/x", b"x", mtime=3), member(b"d/.wh..wh..opq", b"")
        ),
    }
    lines = await _compare(overlay2, list(contents.values()))
    assert {name: found for name, found in zip(contents, lines, strict=True) if found} == {}


async def test_parents_that_the_archive_does_not_hold(overlay2: Engine) -> None:
    """They get the time of the load under overlay2, and always the same one here."""
    [lines] = await _compare(overlay2, [archive(member(b"p/q/file", b"x", mtime=1), member(b"r/.wh.gone", b""))])
    assert [line.split(" ")[:2] for line in lines] == [["p:", "mtime"], ["p/q:", "mtime"], ["r:", "mtime"]]
