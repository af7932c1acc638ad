"""What a container's start transfers of catalogs."""

import os
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.layout import layer_tree
from services.repository.native.reader.footprint import START, Footprint, footprint
from services.repository.native.records import ObjectKind
from tests.support.native import NativeSite, publish, tar_archive
from tests.support.tars import archive, member

LOADER = b"usr/lib/x86_64-linux-gnu"


def system(*more: bytes) -> bytes:
    """Make a layer that a program can start in, and more files."""
    return archive(
        member(b"bin", typeflag=b"2", link=b"usr/bin"),
        member(b"lib", typeflag=b"2", link=b"usr/lib"),
        member(b"lib64", typeflag=b"2", link=b"usr/lib64"),
        member(b"usr/bin/true", b"true"),
        member(LOADER + b"/libc.so.6", b"libc"),
        member(b"usr/lib64/ld-linux-x86-64.so.2", typeflag=b"2", link=b"../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        member(LOADER + b"/ld-linux-x86-64.so.2", b"loader"),
        *(member(name) for name in more),
    )


def measure(site: NativeSite, *layers: Digest, paths: tuple[bytes, ...] = START) -> Footprint:
    """Look paths up in a union of layers, the topmost first."""
    with site.newest() as revision:
        tops = [b"/" + layer_tree(layer).encode() for layer in layers]
        return footprint(site.storage, revision.root, tops, paths)


async def test_a_start_does_not_transfer_more_of_a_larger_image(site: NativeSite, tmp_path: Path) -> None:
    small = tar_archive(tmp_path, system())
    large = tar_archive(tmp_path, system(*(b"usr/share/p%d/%d" % (number // 50, number) for number in range(8000))))
    async with site.opened() as repository:
        await publish(repository, small)
        await publish(repository, large)
    everything = sum(found.size for found in site.storage.list("data/") if found.path.endswith(ObjectKind.CATALOG))
    assert everything > 400_000
    # The root's, the shelf's, the layer's.
    assert measure(site, small.digest).catalogs == 3
    assert measure(site, large.digest).catalogs == 3
    assert measure(site, large.digest).size < measure(site, small.digest).size + 1000
    inside = measure(site, large.digest, paths=(b"/usr/share/p1/50",))
    assert (inside.catalogs, inside.size > 100_000) == (4, True)


@pytest.mark.parametrize(
    ("path", "layers"),
    [
        (b"/d/only-below", 2),
        (b"/d/above", 2),  # the directory is that of both
        (b"/above", 1),
        (b"/closed/x", 1),
        (b"/gone/x", 1),
        (b"/link/x", 2),
        (b"/link/../above", 2),
        (b"/loop/x", 1),
        (b"/nowhere/x", 2),
    ],
)
async def test_look_ups_are_those_of_overlayfs(site: NativeSite, tmp_path: Path, path: bytes, layers: int) -> None:
    """What is in the upper layer, or hidden by it, is not looked for in the lower one."""
    upper = archive(
        member(b"d/above"),
        member(b"above"),
        member(b".wh.gone"),
        member(b"closed/.wh..wh..opq"),
        member(b"link", typeflag=b"2", link=b"/d"),
        member(b"loop", typeflag=b"2", link=b"loop"),
    )
    lower = archive(*(member(name) for name in (b"d/only-below", b"d/above", b"above", b"closed/x", b"gone/x")))
    above, below = tar_archive(tmp_path, upper), tar_archive(tmp_path, lower)
    async with site.opened() as repository:
        await publish(repository, above, below)
    assert measure(site, above.digest, paths=(path,)).catalogs == 3
    assert measure(site, above.digest, below.digest, paths=(path,)).catalogs == 3 + 2 * (layers - 1)


async def test_a_walk_over_many_catalogs_keeps_few_of_them_open(site: NativeSite, tmp_path: Path) -> None:
    made = tar_archive(tmp_path, archive(*(member(b"%d/%d" % (number // 70, number)) for number in range(7000))))
    async with site.opened() as repository:
        await publish(repository, made)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with site.newest() as revision:
        before, most, entries = descriptors(), 0, 0
        for _ in revision.walk(b"/" + layer_tree(made.digest).encode()):
            entries += 1
            most = max(most, descriptors() - before)
    assert entries == 1 + 100 + 7000
    assert 32 < most < 80
    # All of it again: what was given back is fetched anew.
    with site.newest() as revision:
        assert len(list(revision.walk(b"/" + layer_tree(made.digest).encode()))) == entries
