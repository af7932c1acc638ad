"""A flat image that shows something else than its layers is found, at the path that does."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

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


def _set(change: str, path: bytes) -> Damage:
    def damage(catalogs: OpenCatalogs, top: bytes) -> None:
        opened = catalogs.at(top)
        statement = f"UPDATE catalog SET {change} WHERE md5path_1 = ? AND md5path_2 = ?"  # noqa: S608 - the test's own
        opened.catalog.database.execute(statement, path_hash(top + path))
        opened.changed = True

    return damage


def _put(path: bytes, content: bytes) -> Damage:
    return lambda catalogs, top: TreeRows(catalogs).put_file(top + path, content, mode=0o755, mtime=1714979289)


def _remove(path: bytes) -> Damage:
    def damage(catalogs: OpenCatalogs, top: bytes) -> None:
        TreeRows(catalogs).remove(top + path)

    return damage


_DAMAGES: Sequence[tuple[Damage, str, str]] = (
    (_set("uid = 7", b"/bin/owner"), "/bin/owner", "its owner is (7, 0), and not (0, 0) as in its layer"),
    (_set("mtime = 5", b"/bin/time"), "/bin/time", "its time is (5, 0), and not (1, 0) as in its layer"),
    (_set("mode = mode & ~256", b"/bin/mode"), "/bin/mode", "its mode is 33000, and not 33256 as in its layer"),
    (_set("hash = zeroblob(20)", b"/bin/object"), "/bin/object", f"its object is {bytes(20)!r:.80}, and not "),
    (_set("gid = 7", b"/sbin"), "/sbin", "its owner is (0, 7), and not (0, 0) as in its layer"),
    (_remove(b"/bin/missing"), "/bin/missing", "is not there, and its layers have it"),
    (_put(b"/bin/deleted", b"x"), "/bin/deleted", "is there, and no layer has it"),
    (
        _put(b"/.singularity.d/startscript", b"#!/bin/sh\n"),
        "/.singularity.d/startscript",
        "is not what is generated of the image's configuration",
    ),
)


async def _publish(site: NativeSite, directory: Path) -> Digest:
    """Publish an image with a sound flat image; return its configuration."""
    names = (b"owner", b"time", b"mode", b"object", b"missing", b"deleted")
    base = archive(
        member(b"bin/", typeflag=b"5", mode=0o755),
        *(member(b"bin/" + name, name, mode=0o750, mtime=1) for name in names),
        member(b"sbin/", typeflag=b"5", mode=0o755),
    )
    top = archive(member(b"bin/", typeflag=b"5", mode=0o755), member(b"bin/.wh.deleted"))
    layers = [tar_archive(directory, layer) for layer in (base, top)]
    image = image_of_layers(_NAME, ("amd64", layers), outputs=ImageOutputs(flat=FlatOutput()))
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
    assert site.problems() == []
    return platform_images(image)[0].config_digest


def _damaged(site: NativeSite, flat: Digest, *damages: Damage) -> list[str]:
    with site.changing() as catalogs:
        for damage in damages:
            damage(catalogs, flat_path(flat))
    return [problem for problem in site.problems() if "in the flat image of" in problem]


async def test_every_difference_is_told_at_its_path(site: NativeSite, tmp_path: Path) -> None:
    flat = await _publish(site, tmp_path)
    problems = _damaged(site, flat, *(damage for damage, _, _ in _DAMAGES))
    wanted = [
        f"{flat_path(flat).decode()}{path}: in the flat image of the image {_NAME}: {what}"
        for _, path, what in _DAMAGES
    ]
    assert len(problems) == len(wanted)
    for start in wanted:
        assert any(problem.startswith(start) for problem in problems), (start, problems)


async def test_of_an_image_that_is_gone_everything_is_compared_but_what_is_generated(
    site: NativeSite, tmp_path: Path
) -> None:
    flat = await _publish(site, tmp_path)
    async with site.opened() as repository:
        await change(repository, remove=[_NAME])
    generated = _put(b"/.singularity.d/startscript", b"#!/bin/sh\n")
    (problem,) = _damaged(site, flat, generated, _set("uid = 7", b"/bin/owner"))
    assert "in the flat image of an image that is not here any more: its owner is (7, 0)" in problem


async def test_of_one_that_an_earlier_version_has_made_everything_is_compared_but_what_is_generated(
    site: NativeSite, tmp_path: Path
) -> None:
    flat = await _publish(site, tmp_path)

    def make_older(catalogs: OpenCatalogs, top: bytes) -> None:
        opened = catalogs.at(top)
        recipe = json.loads(opened.catalog.property("thin_flat") or "")
        opened.catalog.set_properties({"thin_flat": json.dumps(recipe | {"version": 1})})
        opened.changed = True

    generated = _put(b"/.singularity.d/startscript", b"#!/bin/sh\n")
    (problem,) = _damaged(site, flat, make_older, generated, _set("uid = 7", b"/bin/owner"))
    assert "its owner is (7, 0)" in problem


async def test_one_that_does_not_say_what_it_is_made_of_is_told(site: NativeSite, tmp_path: Path) -> None:
    flat = await _publish(site, tmp_path)
    with site.changing() as catalogs:
        opened = catalogs.at(flat_path(flat))
        opened.catalog.set_properties({"thin_flat": "{}"})
        opened.changed = True
    assert site.problems() == [
        f"{flat_path(flat).decode()}: the flat image of the image {_NAME}: it does not say what it is made of: '{{}}'"
    ]
