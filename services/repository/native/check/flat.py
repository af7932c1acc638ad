"""Checks the flat images of a revision against the layers that they say they are made of.

Where a configuration is not in the repository any more, as of an image that was replaced while jobs run in it, or the
flat image is one that an earlier version of this suite made, what was generated is not looked at; where a layer is not
there, the flat image is not.
"""

import hashlib
import json
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import METADATA_DIRECTORY
from services.common.layout import layer_tree
from services.repository.errors import ImageRefusedError
from services.repository.flat.configuration import read_configuration
from services.repository.flat.entries import GeneratedEntry, GeneratedKind
from services.repository.flat.modes import Modes
from services.repository.flat.singularity import generated_entries
from services.repository.native.check.layer_stack import Node, TreeRows, show_layers
from services.repository.native.check.problem import Problem, at_most_few
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.entries import Row, decode_xattrs, show_path
from services.repository.native.reader.revision import Revision
from services.repository.native.records import EntryFlag
from services.repository.public_names import FLAT_DIRECTORY, flat_home

__all__ = ["check_flats"]

_METADATA: Final = b"/" + METADATA_DIRECTORY.encode()
_FLAT: Final = b"/" + FLAT_DIRECTORY.encode()
_RECIPE: Final = "thin_flat"
"""The property of a flat image's catalog that says what it is made of."""
_VERSION: Final = 2
"""Of the recipes whose generated files are as they are generated today."""
_CONFIG_LIMIT: Final = 16 << 20
"""Largest configuration that is read, in bytes."""
_NO_CONFIG: Final = b"{}"
"""Whatever a configuration says, the same paths are generated of it."""
_PLACE: Final = int(EntryFlag.NESTED_MOUNTPOINT | EntryFlag.NESTED_ROOT)
_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")
_GROUP_SHIFT: Final = 32
_COUNT_MASK: Final = (1 << _GROUP_SHIFT) - 1
_REMEDY: Final = "take this flat image out (thin-repository remove --flat), and publish the image again"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """A configuration that an image of the revision has."""

    content: bytes
    image: str
    """Names the image, for messages."""


def check_flats(revision: Revision) -> Iterator[Problem]:
    """Iterate over what is wrong with the flat images of a revision.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog cannot be read.
    """
    homes = list(_homes(revision))
    configs = _configs(revision) if homes else {}
    for path, config in homes:
        recipe = revision.properties(path).get(_RECIPE)
        if recipe is None:
            continue  # another program's
        known = configs.get(config)
        image = f"the image {known.image}" if known is not None else "an image that is not here any more"
        try:
            check = _FlatCheck(revision, path, recipe, known)
        except (InvalidValueError, ImageRefusedError) as error:
            yield Problem(show_path(path), f"the flat image of {image}: {error}", _REMEDY)
            continue
        for problem in at_most_few(check.problems(), place=show_path(path)):
            yield Problem(problem.place, f"in the flat image of {image}: {problem.what}", problem.remedy)


def _homes(revision: Revision) -> Iterator[tuple[bytes, Digest]]:
    """Give the places of flat images."""
    top = revision.stat(_FLAT)
    for shelf in revision.list(_FLAT) if top is not None and top.is_directory else ():
        for home in revision.list(shelf.path) if shelf.is_directory else ():
            try:
                config = Digest(home.name.decode())
            except (InvalidValueError, UnicodeDecodeError):
                continue
            is_home = home.is_directory and home.path == b"/" + flat_home(config).encode()
            if is_home and revision.catalog_of(home.path).path == home.path:
                yield home.path, config


def _configs(revision: Revision) -> Mapping[Digest, _Config]:
    """Read the configurations of all images of the revision."""
    found: dict[Digest, _Config] = {}
    if revision.stat(_METADATA) is None:
        return found
    for entry in revision.walk(_METADATA):
        if entry.is_file and entry.name == b"config.json" and entry.size <= _CONFIG_LIMIT:
            try:
                content = b"".join(revision.content(entry))
            except (ObjectMissingError, BrokenRepositoryError):
                continue  # which the check of objects tells
            image = show_path(entry.path[len(_METADATA) + 1 :].rpartition(b"/")[0])
            found[Digest(hashlib.sha256(content).hexdigest())] = _Config(content=content, image=image)
    return found


class _FlatCheck:
    """Compares one flat image with its layers."""

    def __init__(self, revision: Revision, path: bytes, recipe: str, config: _Config | None) -> None:
        self._revision = revision
        self._path = path
        layers, others_read, is_current = _read_recipe(recipe)
        self._layers = layers
        self._modes = Modes(others_read)
        self._trusts_generated = config is None or not is_current
        self._generated = generated_entries(read_configuration(_NO_CONFIG if config is None else config.content))

    def problems(self) -> Iterator[Problem]:
        layers = TreeRows(self._revision)
        roots: dict[Digest, Row | None] = {}
        for digest in self._layers:
            if digest not in roots:
                path = b"/" + layer_tree(digest).encode()
                roots[digest] = layers.read(path) if self._revision.stat(path) is not None else None
        stack = [root for digest in self._layers if (root := roots[digest]) is not None]
        expected = show_layers(layers, stack, self._generated)
        flat = TreeRows(self._revision)
        top = flat.read(self._path)
        if len(stack) < len(self._layers) or expected is None or top is None:
            return
        waiting = [(self._path, expected, top)]
        while waiting:
            path, node, directory = waiting.pop()
            yield from self._compare(path, node, directory, layers, flat)
            found = {row.name: row for row in flat.children(directory)}
            inner = node.inner or {}
            for name in sorted(found.keys() ^ inner.keys()):
                what = "is not there, and its layers have it" if name in inner else "is there, and no layer has it"
                yield self._problem(path + b"/" + name, what)
            links = _links(inner.values())
            for name in sorted(found.keys() & inner.keys()):
                place, below, row = path + b"/" + name, inner[name], found[name]
                if stat.S_ISDIR(row.mode) and below.inner is not None:
                    waiting.append((place, below, row))
                else:
                    yield from self._compare(place, below, row, layers, flat)
                    if below.inner is None and row.hardlinks & _COUNT_MASK != links.get(_group(below), 1):
                        yield self._problem(place, f"has the link count {row.hardlinks & _COUNT_MASK}")

    def _compare(self, path: bytes, node: Node, row: Row, layers: TreeRows, flat: TreeRows) -> Iterator[Problem]:
        """Compare what an entry is, but for what is in it."""
        source = node.source
        if isinstance(source, GeneratedEntry):
            if not self._trusts_generated:
                yield from self._compare_generated(path, source, row)
            return
        wanted, there = self._shown(source, layers), _shown(row, flat)
        for name, value in wanted.items():
            if there[name] != value:
                yield self._problem(path, f"its {name} is {there[name]!r:.80}, and not {value!r:.80} as in its layer")

    def _compare_generated(self, path: bytes, entry: GeneratedEntry, row: Row) -> Iterator[Problem]:
        kind = {
            GeneratedKind.DIRECTORY: stat.S_IFDIR | self._modes.of_directory(entry.mode),
            GeneratedKind.FILE: stat.S_IFREG | self._modes.of_file(entry.mode),
            GeneratedKind.SYMLINK: stat.S_IFLNK | 0o777,
        }[entry.kind]
        sound = (row.mode, row.mtime, row.uid, row.gid) == (kind, entry.mtime, 0, 0)
        if sound and entry.kind is GeneratedKind.SYMLINK:
            sound = row.symlink == entry.data
        if sound and entry.kind is GeneratedKind.FILE:
            sound = row.size == len(entry.data) and self._content(path) == entry.data
        if not sound:
            yield self._problem(path, "is not what is generated of the image's configuration")

    def _content(self, path: bytes) -> bytes | None:
        """Read a file that has the size of a generated one; None where it cannot be read, which is told otherwise."""
        entry = self._revision.stat(path)
        try:
            return None if entry is None else b"".join(self._revision.content(entry))
        except (ObjectMissingError, BrokenRepositoryError):
            return None

    def _shown(self, row: Row, rows: TreeRows) -> dict[str, object]:
        """Return what is to be shown of an entry of a layer."""
        shown = _shown(row, rows)
        if stat.S_ISDIR(row.mode):
            shown["mode"] = self._modes.of_directory(row.mode)
        elif stat.S_ISREG(row.mode):
            shown["mode"] = self._modes.of_file(row.mode)
        shown["attributes"] = {
            name: value for name, value in decode_xattrs(row.xattr).items() if not name.startswith(_OVERLAY)
        }
        return shown

    def _problem(self, path: bytes, what: str) -> Problem:
        return Problem(show_path(path), what, _REMEDY)


def _shown(row: Row, rows: TreeRows) -> dict[str, object]:
    return {
        "mode": row.mode,
        "owner": (row.uid, row.gid),
        "time": (row.mtime, row.mtimens or 0),
        "size": None if stat.S_ISDIR(row.mode) else row.size,
        "object": row.hash,
        "parts": rows.chunks(row) if row.flags & EntryFlag.CHUNKED else [],
        "target": row.symlink,
        "flags": row.flags & ~_PLACE,
        "attributes": decode_xattrs(row.xattr),
    }


def _group(node: Node) -> object:
    """Return what is the same for names that are links to one another; None for what has one name."""
    row = node.source
    if isinstance(row, GeneratedEntry) or not row.hardlinks >> _GROUP_SHIFT:
        return None
    return row.parent_1, row.parent_2, row.hardlinks >> _GROUP_SHIFT


def _links(nodes: Iterable[Node]) -> Mapping[object, int]:
    counts = Counter(_group(node) for node in nodes if node.inner is None)
    return {group: count for group, count in counts.items() if group is not None}


def _read_recipe(text: str) -> tuple[Sequence[Digest], bool, bool]:
    """Return the layers, whether others read all, and whether the generated files are those of today's scripts."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"version": 1 | 2 as version, "layers": [*layers], "others_read": bool() as others_read}:
            return [Digest(str(layer)) for layer in layers], others_read, version == _VERSION
    raise InvalidValueError(f"it does not say what it is made of: {text[:80]!r}")
