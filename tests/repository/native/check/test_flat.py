"""A flat image that shows something else than its layers is found, at the path that does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.repository.image_platforms import platform_images
from services.repository.native.flat.places import flat_path
from services.repository.native.records import path_hash
from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import FlatOutput, ImageOutputs
from tests.support.images import change, image_of_layers
from tests.support.native import NativeSite, tar_archive
from tests.support.tars import archive, member

_NAME = "quay.io/ns/tool:v1"
Damage = Callable[[OpenCatalogs, bytes], None]


def _set(change: str, path: bytes = b"/bin/tool") -> Damage:
    def damage(catalogs: OpenCatalogs, top: bytes) -> None:
        opened = catalogs.at(top)
        statement = f"UPDATE catalog SET {change} WHERE md5path_1 = ? AND md5path_2 = ?"  # noqa: S608 - the test's own
        opened.catalog.database.execute(statement, path_hash(top + path))
        opened.changed = True

    return damage


def _put(path: bytes, content: bytes) -> Damage:
    return lambda catalogs, top: TreeRows(catalogs).put_file(top + path, content, mode=0o755, mtime=1714979289)


def _recipe(text: str) -> Damage:
    def damage(catalogs: OpenCatalogs, top: bytes) -> None:
        catalogs.at(top).catalog.set_properties({"thin_flat": text})
        catalogs.at(top).changed = True

    return damage


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "owner": (_set("uid = 7"), "/bin/tool", "its owner is (7, 0), and not (0, 0) as in its layer"),
    "time": (_set("mtime = 5"), "/bin/tool", "its time is (5, 0), and not (1, 0) as in its layer"),
    "mode": (_set("mode = mode & ~256"), "/bin/tool", "its mode is 33000, and not 33256 as in its layer"),
    "object": (_put(b"/bin/tool", b"else"), "/bin/tool", "its object is "),
    "directory": (_set("gid = 7", b"/bin"), "/bin", "its owner is (0, 7), and not (0, 0) as in its layer"),
    "missing": (
        lambda catalogs, top: (None, TreeRows(catalogs).remove(top + b"/bin/tool"))[0],
        "/bin/tool",
        "is not there, and its layers have it",
    ),
    "deleted": (_put(b"/bin/deleted", b"x"), "/bin/deleted", "is there, and no layer has it"),
    "generated": (
        _put(b"/.singularity.d/startscript", b"#!/bin/sh\n"),
        "/.singularity.d/startscript",
        "is not what is generated of the image's configuration",
    ),
    "recipe": (_recipe("{}"), "", "it does not say what it is made of"),
}


@pytest.fixture
async def flat(site: NativeSite, tmp_path: Path) -> Digest:
    """The configuration of a flat image that is sound."""
    base = archive(
        member(b"bin/", typeflag=b"5", mode=0o755),
        member(b"bin/tool", b"tool", mode=0o750, mtime=1),
        member(b"bin/deleted"),
    )
    top = archive(member(b"bin/", typeflag=b"5", mode=0o755), member(b"bin/.wh.deleted"))
    layers = [tar_archive(tmp_path, layer) for layer in (base, top)]
    image = image_of_layers(_NAME, ("amd64", layers), outputs=ImageOutputs(flat=FlatOutput()))
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
    assert site.problems() == []
    return platform_images(image)[0].config_digest


def _damaged(site: NativeSite, flat: Digest, name: str) -> list[str]:
    damage, _, _ = DAMAGES[name]
    with site.changing() as catalogs:
        damage(catalogs, flat_path(flat))
    return [problem for problem in site.problems() if ".flat" in problem]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_difference_is_told_at_its_path(site: NativeSite, flat: Digest, name: str) -> None:
    _, path, what = DAMAGES[name]
    problems = _damaged(site, flat, name)
    assert any(
        problem.startswith(f"{flat_path(flat).decode()}{path}: ")
        and f"the flat image of the image {_NAME}: {what}" in problem
        for problem in problems
    ), problems


async def test_of_an_image_that_is_gone_everything_is_compared_but_what_is_generated(
    site: NativeSite, flat: Digest
) -> None:
    async with site.opened() as repository:
        await change(repository, remove=[_NAME])
    assert site.problems() == []
    assert _damaged(site, flat, "generated") == []
    (problem,) = _damaged(site, flat, "owner")
    assert "in the flat image of an image that is not here any more: its owner is (7, 0)" in problem
