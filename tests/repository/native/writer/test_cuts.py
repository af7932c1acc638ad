"""Where a layer's catalog is split: what every start looks into stays together, and brings little else."""

import random
from collections.abc import Iterable, Mapping

import pytest

from services.common.archive.nametree import Directory, NameTree
from services.repository.native.writer.cuts import choose_cuts

LOADER = b"usr/lib/x86_64-linux-gnu"


def tree(paths: Iterable[bytes]) -> Directory:
    names = NameTree()
    for path in paths:
        names.add(path, 0)
    return names.root


def files(directory: bytes, count: int) -> list[bytes]:
    return [b"%s/%d" % (directory, number) for number in range(count)]


def cut_at(root: Directory) -> set[bytes]:
    """Return where catalogs begin besides that of the home."""
    return choose_cuts(root).keys() - {b""}


def catalogs(root: Directory, cuts: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return how many entries of the layer each catalog has, by the directory that it begins at."""
    sizes = {b"": 1}

    def count(directory: Directory, path: bytes, catalog: bytes) -> None:
        for name, node in directory.items():
            place = path + b"/" + name if path else name
            sizes[catalog] += 1
            if isinstance(node, Directory):
                inner = catalog
                if place in cuts:
                    inner = place
                    sizes[inner] = 1
                count(node, place, inner)

    count(root, b"", b"")
    # What was told of them is so, but for references to other catalogs.
    assert sizes.keys() == cuts.keys()
    for path, size in sizes.items():
        assert size <= cuts[path] <= 2 * size
    return sizes


def test_a_small_layer_is_one_catalog() -> None:
    assert cut_at(tree([*files(b"usr/share/doc", 300), *files(b"opt/application", 190)])) == set()


def test_an_empty_layer_is_one_catalog() -> None:
    assert cut_at(Directory()) == set()


def test_what_a_start_looks_into_shares_a_catalog_with_nothing_large() -> None:
    system = [
        *(b"bin", b"lib64", b"etc", b"usr/bin", b"usr/sbin", b"usr/lib", LOADER, b"usr/local/bin", b"usr/local/lib"),
        *(b"lib/aarch64-linux-gnu", b"usr/lib/arm-linux-gnueabihf"),
    ]
    large = (
        b"usr/share/doc",
        b"usr/local/lib/python3.13",
        LOADER + b"/gconv",
        b"opt/data",
        b"etc/alternatives",
        b"srv",
    )
    root = tree([path for directory in (*system, *large) for path in files(directory, 1000)])
    assert cut_at(root) == {
        b"usr/share",
        b"usr/local/lib/python3.13",
        LOADER + b"/gconv",
        b"opt",
        b"etc/alternatives",
        b"srv",
    }


def test_what_is_large_is_split_again() -> None:
    packages = [b"usr/lib/python3/dist-packages/p%d" % number for number in range(300)]
    root = tree([path for package in packages for path in files(package, 450)])
    sizes = catalogs(root, choose_cuts(root))
    assert sizes[b""] < 10
    assert max(sizes.values()) <= 4000
    assert sum(sizes.values()) / len(sizes) > 450


def test_a_directory_that_cannot_be_cut_inside_keeps_its_entries_from_others() -> None:
    root = tree([*files(b"usr/share/flat", 20_000), *files(b"usr/share/other", 300), *files(b"usr/bin", 10)])
    sizes = catalogs(root, choose_cuts(root))
    assert sizes[b"usr/share/flat"] == 20_001
    assert sizes[b""] < 330


@pytest.mark.parametrize("count", [1_000, 31_800, 138_000])
def test_the_start_of_a_container_does_not_depend_on_the_number_of_files(count: int) -> None:
    """Whatever form they have: a hundred in a directory, packages of every size, one below the other."""
    chance = random.Random(count)  # noqa: S311 - the same trees every time
    shapes = [
        [b"%d/%d" % (number // 100, number) for number in range(count)],
        [b"usr/lib/python3/p%d/m%d" % (int(chance.paretovariate(0.5)) % 3000, number) for number in range(count)],
        [f"usr/share/{'/'.join(str(number))}/file".encode() for number in range(count)],
        [b"srv/flat/%d" % number for number in range(count)],
    ]
    for shape in shapes:
        root = tree([*shape, *files(b"usr/bin", 200), *files(LOADER, 150)])
        sizes = catalogs(root, choose_cuts(root))
        assert sizes[b""] < 350 + 500 + 2 * len(sizes)
        assert sizes[b""] < 3000


def test_few_entries_get_no_catalog_of_their_own() -> None:
    root = tree([path for number in range(2000) for path in files(b"opt/p%d" % number, 20)])
    assert cut_at(root) == {b"opt"}


def test_the_order_of_the_archive_does_not_matter() -> None:
    paths = [path for number in range(40) for path in files(b"usr/share/p%d" % number, 400)]
    shuffled = sorted(paths, key=lambda path: path[::-1])
    assert choose_cuts(tree(paths)) == choose_cuts(tree(shuffled))


def test_no_catalog_begins_at_a_path_that_is_no_text() -> None:
    paths = [*files(b"opt/\xff", 5000), *files(b"opt/\xff/below", 5000), *files(b"opt/\xc3\xa9", 5000)]
    assert cut_at(tree(paths)) == {b"opt", b"opt/\xc3\xa9"}
