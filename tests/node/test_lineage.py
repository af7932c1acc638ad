"""The topmost thin.json decides, whatever else the layers hold."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR
from services.common.descriptor import DESCRIPTOR_LIMIT, LayerUrl, ThinDescriptor
from services.node.errors import LineageError
from services.node.layers import Layer, LayerId, LayerKind, LayerStore
from services.node.lineage import Lineage, holds_descriptor, named_layers, read_descriptor, trace
from tests.support.repositories import Repository, newer_thin_json, thin_json


@pytest.fixture
def store(home: Path) -> LayerStore:
    return LayerStore(home)


@pytest.fixture
def repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root)


class Stack:
    """Layers that are put on top of each other."""

    def __init__(self, store: LayerStore, repository: Repository) -> None:
        self._store = store
        self._repository = repository
        self._top: LayerId | None = None

    def add(self, name: str, *files: str, thin: tuple[str, ...] | None = None, container: bool = False) -> Layer:
        kind = LayerKind.CONTAINER if container else LayerKind.IMAGE
        layer = self._store.create(LayerId(name), self._top, kind)
        for file in files:
            (layer.diff / file).write_text(name)
        if thin is not None:
            self._repository.image(layer.diff, *thin)
        self._top = layer.id
        return layer

    def trace(self) -> Lineage:
        assert self._top is not None
        return trace(self._store.chain(self._top))


@pytest.fixture
def stack(store: LayerStore, repository: Repository) -> Stack:
    return Stack(store, repository)


def _ids(layers: object) -> list[str]:
    assert isinstance(layers, list)
    return [layer.id for layer in layers]


def _layers_of(descriptor: ThinDescriptor | None) -> list[str]:
    assert descriptor is not None
    return [layer.url for layer in descriptor.layers]


def test_a_regular_image_is_all_local(stack: Stack) -> None:
    stack.add("base", "a")
    stack.add("top", "b")
    stack.add("c-init", container=True)
    stack.add("c", container=True)
    lineage = stack.trace()
    assert _ids(lineage.container) == ["c-init"]
    assert _ids(lineage.local) == ["top", "base"]
    assert (lineage.thin, lineage.descriptor, lineage.thin_has_files) == (None, None, False)


def test_the_topmost_descriptor_decides_everything_at_and_below_it(stack: Stack, repository: Repository) -> None:
    stack.add("base", "below")
    stack.add("thin-1", thin=("one",))
    stack.add("between", "b")
    stack.add("thin-2", thin=("one", "two"))
    stack.add("above-1", "c")
    stack.add("above-2", "d")
    stack.add("c-init", container=True)
    stack.add("c", container=True)
    lineage = stack.trace()
    assert _ids(lineage.container) == ["c-init"]
    assert _ids(lineage.local) == ["above-2", "above-1"]
    assert lineage.thin is not None
    assert lineage.thin.id == "thin-2"
    assert not lineage.thin_has_files
    assert _layers_of(lineage.descriptor) == [repository.url("one"), repository.url("two")]


def test_what_lies_beside_a_descriptor_is_not_dropped(stack: Stack) -> None:
    stack.add("thin", "beside", thin=("one",))
    stack.add("c", container=True)
    assert stack.trace().thin_has_files


def test_a_layer_that_is_being_written_does_not_decide_for_itself(stack: Stack) -> None:
    stack.add("thin", thin=("one",))
    stack.add("c", thin=("other",), container=True)
    lineage = stack.trace()
    assert lineage.thin is not None
    assert lineage.thin.id == "thin"


def test_a_descriptor_that_a_container_made_does_not_decide(stack: Stack) -> None:
    # A container's init layer is no part of the image.
    stack.add("base", "a")
    stack.add("c-init", thin=("one",), container=True)
    stack.add("c", container=True)
    assert stack.trace().descriptor is None


def test_a_build_steps_snapshot_above_a_thin_image_is_a_local_layer(stack: Stack) -> None:
    # BuildKit makes its writable snapshots as image layers, under keys of its own.
    stack.add("thin", thin=("one",))
    stack.add("ofvtjmwdxa1n1ip2k0dj7kjc4", "built")
    stack.add("w6xb8w3vt22rt4s4v3j1k4y5x")
    assert _ids(stack.trace().local) == ["ofvtjmwdxa1n1ip2k0dj7kjc4"]


def test_a_descriptor_below_the_deciding_one_is_not_even_read(stack: Stack) -> None:
    (stack.add("broken").diff / "thin.json").write_text("{")
    stack.add("thin", thin=("one",))
    stack.add("c", container=True)
    assert stack.trace().descriptor is not None


_ONE = b'{"digest": "%s", "url": "cvmfs://test.example.org/%s"}' % (b"1e" * 32, b"1e" * 32)
_OTHER = b'{"digest": "%s", "url": "cvmfs://test.example.org/%s"}' % (b"2f" * 32, b"1e" * 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "document: "),
        (b"{", "document: "),
        (b"[]", "document: Input should be an object"),
        (b'{"name": "my app"}', "version: Field required; layers: Field required"),
        (b'{"version": "1.0"}', "layers: Field required"),
        (b'{"version": "1.0", "layers": []}', "layers: Tuple should have at least 1 item"),
        (b'{"version": "2.0", "layers": []}', "layers: Tuple should have at least 1 item"),
        (b'{"layers": [%s]}' % _ONE, "version: Field required"),
        (b'{"version": "1.0", "layers": [%s]}' % _OTHER, "URL of another layer"),
        (b'{"version": "1.0", "layers": [%s, 1]}' % _ONE, "layers.1: Input should be an object"),
        (b" " * (DESCRIPTOR_LIMIT + 1), f"thin.json is larger than {DESCRIPTOR_LIMIT} bytes"),
        (b'{"layers": ' + b"[" * 100_000, "document: "),
    ],
)
def test_what_is_no_descriptor_is_an_ordinary_file_and_said_once(stack: Stack, content: bytes, reason: str) -> None:
    base = stack.add("base", "a")
    (base.diff / "thin.json").write_bytes(content)
    stack.add("top", "b")
    stack.add("c", container=True)
    with capture_logs() as logs:
        for _ in range(3):
            lineage = stack.trace()
            assert not holds_descriptor(base)
            assert named_layers([base]) == set()
    assert (_ids(lineage.local), lineage.thin) == (["top", "base"], None)
    [warning] = logs
    assert warning["event"] == "thin_json_is_an_ordinary_file"
    assert warning["log_level"] == "warning"
    assert warning["layer"] == "base"
    assert reason in warning["reason"]


def test_what_changed_is_looked_at_again(stack: Stack, repository: Repository) -> None:
    # A build step's layer, before and after the step has run.
    step = stack.add("step")
    (step.diff / "thin.json").write_text("{}")
    assert read_descriptor(step) is None
    repository.image(step.diff, "one")
    assert _layers_of(read_descriptor(step)) == [repository.url("one")]


def test_an_ordinary_file_above_a_thin_image_is_one_of_its_files(stack: Stack, repository: Repository) -> None:
    stack.add("thin", thin=("one",))
    (stack.add("top").diff / "thin.json").write_text('{"name": "my app"}')
    stack.add("c", container=True)
    lineage = stack.trace()
    assert _ids(lineage.local) == ["top"]
    assert _layers_of(lineage.descriptor) == [repository.url("one")]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b'{"version": "2.0", "layers": [%s]}', "needs version 2.0 of the form, this program reads 1.0: upgrade it"),
        (b'{"version": "1.0", "min_version": "1.1", "layers": [%s]}', "needs version 1.1 of the form"),
    ],
)
def test_a_descriptor_that_cannot_be_used_names_the_layer_and_why(
    stack: Stack, document: bytes, complaint: str
) -> None:
    (stack.add("thin").diff / "thin.json").write_bytes(document % _ONE)
    stack.add("c", container=True)
    for _ in range(2):
        with pytest.raises(LineageError, match=complaint) as caught:
            stack.trace()
        assert "layer thin" in str(caught.value)


def test_the_largest_descriptor_is_read(stack: Stack, repository: Repository) -> None:
    content = thin_json(repository.url("one"))
    (stack.add("thin").diff / "thin.json").write_bytes(content.ljust(DESCRIPTOR_LIMIT))
    stack.add("c", container=True)
    assert _layers_of(stack.trace().descriptor) == [repository.url("one")]


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _opaque(path: Path) -> None:
    os.setxattr(path.parent, OPAQUE_XATTR, OPAQUE_VALUE)


@pytest.mark.parametrize("make", [_link, _dangling, _fifo, _whiteout, _device, Path.mkdir, _opaque])
def test_a_descriptor_that_is_deleted_or_replaced_does_not_count(stack: Stack, make: Callable[[Path], None]) -> None:
    stack.add("base", "a")
    stack.add("older", thin=("two",))
    stack.add("thin", "beside", thin=("one",))
    layer = stack.add("top")
    make(layer.diff / "thin.json")
    assert not holds_descriptor(layer)
    assert read_descriptor(layer) is None
    stack.add("above", "b")
    stack.add("c", container=True)
    lineage = stack.trace()
    assert (lineage.thin, lineage.descriptor) == (None, None)
    assert _ids(lineage.local) == ["above", "top", "thin", "older", "base"]


def test_a_descriptor_that_cannot_be_used_and_is_deleted_does_not_matter(stack: Stack) -> None:
    (stack.add("thin").diff / "thin.json").write_text(newer_thin_json(LayerUrl(f"cvmfs://a.ch/{'1e' * 32}")))
    _whiteout(stack.add("deletes").diff / "thin.json")
    stack.add("c", container=True)
    assert _ids(stack.trace().local) == ["deletes", "thin"]


def test_a_descriptor_above_a_deletion_counts(stack: Stack, repository: Repository) -> None:
    stack.add("older", thin=("two",))
    _whiteout(stack.add("deletes").diff / "thin.json")
    stack.add("thin", thin=("one",))
    stack.add("c", container=True)
    assert _layers_of(stack.trace().descriptor) == [repository.url("one")]


def test_an_opaque_layer_keeps_its_own_descriptor(stack: Stack, repository: Repository) -> None:
    _opaque(stack.add("thin", thin=("one",)).diff / "thin.json")
    stack.add("c", container=True)
    assert _layers_of(stack.trace().descriptor) == [repository.url("one")]


def test_what_a_container_deletes_is_no_deletion_in_its_image(stack: Stack) -> None:
    stack.add("thin", thin=("one",))
    _whiteout(stack.add("c-init", container=True).diff / "thin.json")
    stack.add("c", container=True)
    assert stack.trace().descriptor is not None


@pytest.mark.parametrize("mode", [0, 0o7777])
def test_neither_mode_nor_owner_matter(stack: Stack, mode: int) -> None:
    place = stack.add("thin", thin=("one",)).diff / "thin.json"
    os.chown(place, 1234, 5678)
    place.chmod(mode)
    stack.add("c", container=True)
    assert stack.trace().descriptor is not None
