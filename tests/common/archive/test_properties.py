"""Layers of every shape, held against GNU tar, umoci, overlayfs and Python's tarfile."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from harness.trees import Exclusions, differences, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import DeletionEncoding, ListedDeletions, OverlayDeletions
from services.common.archive.pack import pack
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.support.layer_stacks import by_overlay, by_umoci, stacks
from tests.support.layers import Directory, archive_of, layers

LIMITS = ArchiveLimits()
ROOT = Exclusions(times=frozenset({b"."}))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def unpacked(content: bytes, tree: Path, deletions: DeletionEncoding | None = None) -> LayerContent:
    tree.mkdir()
    layer = unpack(io.BytesIO(content), tree, deletions=deletions or OverlayDeletions(), limits=LIMITS)
    assert survey(io.BytesIO(content), limits=LIMITS) == layer
    return layer


@given(layers(deletions=False))
@quick
def test_gnu_tar_and_umoci_make_the_same_tree(layer: Directory) -> None:
    content = archive_of(layer)
    with workspace() as directory:
        unpacked(content, directory / "ours")
        ours = read_directory(directory / "ours", exclusions=ROOT)
        (directory / "gnu").mkdir()
        subprocess.run(
            [
                "tar",
                "-xpPf",
                "-",
                "--same-owner",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--warning=none",
            ],
            cwd=directory / "gnu",
            env={**os.environ, "LC_ALL": "C"},
            input=content,
            check=True,
            capture_output=True,
        )
        gnu = read_directory(directory / "gnu", exclusions=ROOT)
        assert differences(ours, gnu, names=("ours", "GNU tar's")) == []
        assert differences(ours, by_umoci([content], directory), names=("ours", "umoci's")) == []


@given(stacks(missing_parents=False))
@quick
def test_an_overlay_of_layers_is_what_umoci_makes_of_them(archives: list[bytes]) -> None:
    with workspace() as directory:
        ours, umocis = by_overlay(archives, directory), by_umoci(archives, directory)
        assert differences(ours, umocis, names=("ours", "umoci's")) == []


@given(layers(deletions=True))
@quick
def test_what_is_packed_is_what_was_unpacked(layer: Directory) -> None:
    with workspace() as directory:
        first = unpacked(archive_of(layer), directory / "first")
        sink = io.BytesIO()
        packed = pack(directory / "first", sink)
        again = unpacked(sink.getvalue(), directory / "second")
        assert again == packed
        assert (packed.tree_size, packed.opaque) == (first.tree_size, first.opaque)
        assert packed.whiteouts == first.whiteouts
        trees = [read_directory(directory / name, exclusions=ROOT) for name in ("first", "second")]
        for tree in trees:
            for path in packed.whiteouts:
                assert tree.pop(path).rdev == (0, 0)
        assert differences(*trees, names=("first", "second")) == []

        repeated = io.BytesIO()
        pack(directory / "second", repeated)
        assert repeated.getvalue() == sink.getvalue()


@given(layers(deletions=True))
@quick
def test_other_programs_read_what_is_packed(layer: Directory) -> None:
    with workspace() as directory:
        # Go keeps no empty attributes, so its reader gets a tree without deletions but with all else.
        unpacked(archive_of(layer), directory / "ours", ListedDeletions())
        sink = io.BytesIO()
        packed = pack(directory / "ours", sink)
        ours = read_directory(directory / "ours", exclusions=ROOT)
        assert differences(ours, by_umoci([sink.getvalue()], directory), names=("ours", "umoci's")) == []
        sink.seek(0)
        with tarfile.open(fileobj=sink, errors="surrogateescape") as tar:
            members = tar.getmembers()
        assert len(members) == packed.entries == len(ours) - 1
        assert {os.fsencode(member.name) for member in members} == ours.keys() - {b"."}
        sizes = [member.size for member in members if member.isreg()]
        links = [len(os.fsencode(member.linkname)) for member in members if member.issym()]
        assert sum(sizes) + sum(links) == packed.tree_size
