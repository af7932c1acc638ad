"""The driver: what a front end can ask for, in terms of layers."""

import asyncio
import contextlib
import json
import os
import shutil
import stat
from collections.abc import AsyncIterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.policy import LocalPolicy
from services.common.archive.unpack import unpack_by_policy
from services.common.descriptor import ThinDescriptor
from services.common.errors import SuiteError
from services.common.streams import BlockingReader, run_in_thread, run_reader
from services.node.changes import Change, changes
from services.node.commit import Committer
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import LineageError, UnknownLayerError, UnsupportedError
from services.node.layers import Layer, LayerId, LayerKind, LayerStore, short_link
from services.node.lineage import Lineage, holds_descriptor, trace
from services.node.local_copies import LocalCopies
from services.node.locks import Locks
from services.node.merge import merged
from services.node.mounted_unions import MountedUnions
from services.node.union import UnionBuilder

__all__ = ["Driver", "TreeDiff"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TreeDiff:
    """A diff that is the content of a layer's directory, or of several stacked ones."""

    trees: Sequence[Path]
    """The directories in the kernel's overlay encoding, base first."""
    below: Sequence[Path]
    """Those that they are stacked on, base first."""
    scratch: Path
    """Where several become one."""

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Make it one directory for as long as the context lasts. Blocks."""
        if len(self.trees) == 1:
            yield self.trees[0]
            return
        with merged(self.trees, self.below, self.scratch) as tree:
            yield tree


class Driver:
    """Operations on the layers below one home directory.

    Operations on one layer exclude each other; those on different layers run side by side.
    """

    def __init__(
        self,
        *,
        layers: LayerStore,
        unions: MountedUnions,
        builder: UnionBuilder,
        committer: Committer,
        copies: LocalCopies,
        finder: LayerFinder,
        repositories: Repositories,
        io: RepositoryIo,
        limits: ArchiveLimits,
    ) -> None:
        self._layers = layers
        self._unions = unions
        self._builder = builder
        self._committer = committer
        self._copies = copies
        self._finder = finder
        self._repositories = repositories
        self._io = io
        self._limits = limits
        self._untidy = True
        """Whether something may be left that nothing needs any more."""
        self._locks = Locks[LayerId]()

    @property
    def home(self) -> Path:
        """The driver's directory."""
        return self._layers.home

    async def resume(self) -> None:
        """Take over what an earlier process of this program left mounted and in use."""
        adopted = await self._unions.adopt()
        for layer, lowers in adopted.items():
            for copy in self._copies.all():
                if lowers is None or short_link(str(copy.tree)) in lowers:
                    self._copies.claim(copy.archive.digest, holder=layer.id)
            try:
                lineage = await self._lineage(layer)
            except SuiteError as error:
                # Its union stays mounted and usable; only what it uses is not known.
                _log.warning("lineage_of_mounted_layer_unknown", layer=layer.id, error=str(error))
                continue
            for name in lineage.repositories:
                self._repositories.claim(name, holder=layer.id)
        self._repositories.adopt()
        _log.info("resumed", home=str(self.home), mounted=len(adopted), local_copies=len(self._copies.all()))

    async def begin(self) -> None:
        """Serve a new front end, which holds nothing but what it finds running."""
        await self._unions.begin()

    async def create(self, layer_id: LayerId, parent: LayerId | None, kind: LayerKind) -> None:
        """Make an empty layer.

        Raises
        ------
        LayerExistsError
            There is a layer of that id.
        UnknownLayerError
            There is no layer of the parent's id.
        """
        async with self._locks.hold(layer_id):
            await asyncio.to_thread(self._layers.create, layer_id, parent, kind)

    async def remove(self, layer_id: LayerId) -> None:
        """Unmount and delete a layer, whoever holds it; nothing happens if there is none."""
        async with self._locks.hold(layer_id):
            if await asyncio.to_thread(self._layers.exists, layer_id):
                await self._unions.discard(await self._find(layer_id))
                self._forget_use(layer_id)
            await run_in_thread(lambda: self._layers.remove(layer_id))
            self._untidy = True

    async def exists(self, layer_id: LayerId) -> bool:
        """Return whether there is a layer of that id."""
        return await asyncio.to_thread(self._layers.exists, layer_id)

    async def get(self, layer_id: LayerId, *, label: str) -> Path:
        """Return a directory that shows a layer on top of all below it, writable.

        An image layer that stands on nothing is its own view. So is one that holds a thin.json: whoever asks for it
        (push, save) wants that file, and gets it where no repository can be reached, too.
        """
        async with self._locks.hold(layer_id):
            layer = await self._find(layer_id)
            if layer.kind is LayerKind.IMAGE and layer_id not in self._unions and await _is_own_view(layer):
                return layer.diff
            lineage = await self._lineage(layer)
            try:
                return await self._unions.acquire(layer, lineage, label=label)
            except BaseException:
                if layer_id not in self._unions:
                    self._forget_use(layer_id)
                raise

    async def put(self, layer_id: LayerId) -> None:
        """Give a view back; harmless where none was asked for."""
        async with self._locks.hold(layer_id):
            try:
                layer = await self._find(layer_id)
            except UnknownLayerError:
                return
            if await self._unions.release(layer):
                self._forget_use(layer_id)

    def _forget_use(self, holder: str) -> None:
        self._repositories.release(holder=holder)
        self._copies.release(holder=holder)

    async def _find(self, layer_id: LayerId) -> Layer:
        # Without a thread where nothing has to be read: a short operation is mostly changes between threads.
        known = self._layers.known(layer_id)
        return known if known is not None else await asyncio.to_thread(self._layers.find, layer_id)

    async def _lineage(self, layer: Layer) -> Lineage:
        return await asyncio.to_thread(lambda: trace(self._layers.chain(layer.id)))

    async def _squashed(self, layer: Layer, ancestor: LayerId | None) -> TreeDiff | None:
        """Return what an image's layer and those below it add to an ancestor; None if it is no diff of that kind."""
        chain = await asyncio.to_thread(self._layers.chain, layer.id)
        ids = [link.id for link in chain]
        count = len(chain) if ancestor is None else ids.index(ancestor) if ancestor in ids[1:] else 0
        layers = chain[:count]
        if not layers or any(link.kind is LayerKind.CONTAINER for link in layers):
            return None
        if await asyncio.to_thread(holds_descriptor, layer):
            # It stands for all that lies below it.
            return TreeDiff([layer.diff], [], self._layers.scratch)
        if (await asyncio.to_thread(trace, chain)).descriptor is not None:
            raise UnsupportedError(
                f"layer {layer.id} cannot be merged with those below it, which are a thin image's: "
                "commit a container of the image instead, which leaves nothing but a descriptor"
            )
        trees = [link.diff for link in reversed(chain)]
        return TreeDiff(trees[-count:], trees[:-count], self._layers.scratch)

    async def _diffed(self, layer_id: LayerId, parent: LayerId | None) -> tuple[Layer, Lineage]:
        layer = await self._find(layer_id)
        if layer.parent != parent:
            raise UnsupportedError(
                f"layer {layer_id} can be compared with its parent {layer.parent or '(none)'} only, not with "
                f"{parent or 'nothing'}"
            )
        return layer, await self._lineage(layer)

    async def diff(self, layer_id: LayerId, parent: LayerId | None) -> TreeDiff | ThinDescriptor:
        """Return what a layer adds to its parent.

        Returns
        -------
        ThinDescriptor
            For a container on a thin image: its changes and every local layer below them have been uploaded, and the
            descriptor names them.
        TreeDiff
            For every other layer; for one of an image also what it and those below it add to an ancestor, which is
            what `docker build --squash` asks for.

        Raises
        ------
        CommitError
            The changes could not be uploaded.
        UnsupportedError
            The parent is neither a container's own nor an ancestor of an image's layer.
        """
        asked = await self._find(layer_id)
        if asked.parent != parent and (squashed := await self._squashed(asked, parent)) is not None:
            return squashed
        layer, lineage = await self._diffed(layer_id, parent)
        if layer.kind is LayerKind.CONTAINER and lineage.descriptor is not None:
            return await self._committer.commit(layer, lineage)
        return TreeDiff([layer.diff], [], self._layers.scratch)

    async def apply(self, layer_id: LayerId, chunks: AsyncIterable[bytes]) -> LayerContent:
        """Fill a layer with the content of an uncompressed layer tar, all of it or nothing.

        Raises
        ------
        ArchiveError
            The tar is damaged, breaks a rule, or breaks a limit.
        """
        async with self._locks.hold(layer_id):
            layer = await self._find(layer_id)
            if layer_id in self._unions:
                raise UnsupportedError(f"layer {layer_id} is in use and cannot be filled")
            return await run_reader(chunks, lambda source: self._fill(layer, source))

    def _fill(self, layer: Layer, source: BlockingReader) -> LayerContent:
        layer.incoming.mkdir()
        try:
            layer.incoming.chmod(0o755)
            content = unpack_by_policy(
                source, layer.incoming, deletions=OverlayDeletions(), policy=LocalPolicy(self._limits)
            )
            _refuse_empty(layer, content)
            _replace_tree(layer.diff, layer.incoming)
        except BaseException:
            # The engine removes the layer, unless it was the engine that died.
            _delete_tree(layer.incoming)
            raise
        return content

    async def changes(self, layer_id: LayerId, parent: LayerId | None) -> list[Change]:
        """Return what a layer changes in its parent's view.

        Raises
        ------
        RepositoryError
            A layer of the descriptor cannot be had in time, or its repository stops answering.
        """
        layer, lineage = await self._diffed(layer_id, parent)
        if layer.parent is None:
            return await run_in_thread(lambda: changes(layer.diff, None, step=_go_on))
        holder = f"{layer_id}.changes"
        try:
            async with self._builder.view(lineage, holder=holder) as view:
                if not (names := lineage.repositories):
                    return await run_in_thread(lambda: changes(layer.diff, view, step=_go_on))
                # The engine keeps the container locked meanwhile: one that hangs could not even be removed.
                return await self._io.follow(lambda step: changes(layer.diff, view, step=step), *names)
        finally:
            self._forget_use(holder)

    async def diff_size(self, layer_id: LayerId) -> int:
        """Return the sum of the sizes of a layer's own files, hard links counted once, in bytes."""
        layer = await self._find(layer_id)
        return await run_in_thread(lambda: _tree_size(layer.diff))

    async def metadata(self, layer_id: LayerId) -> dict[str, str]:
        """Return a layer's directories and what its union is made of, for people."""
        layer = await self._find(layer_id)
        lineage = await self._lineage(layer)
        below = [str(part.diff) for part in (*lineage.container, *lineage.local)]
        metadata = {
            "MergedDir": str(layer.merged),
            "UpperDir": str(layer.diff),
            "WorkDir": str(layer.work),
            "LowerDir": ":".join(below),
        }
        if lineage.descriptor is not None:
            metadata["ThinLayers"] = json.dumps([part.url for part in reversed(lineage.descriptor.layers)])
        return metadata

    async def status(self) -> list[tuple[str, str]]:
        """Return what an administrator wants to know, as pairs of a name and a value."""
        copies = self._copies.all()
        cached = await run_in_thread(lambda: sum(_tree_size(copy.archive.path.parent) for copy in copies))
        in_use = self._repositories.in_use()
        return [
            ("Home", str(self.home)),
            ("Repositories", ", ".join(self._finder.allowed) or "none allowed"),
            ("Repositories in use", ", ".join(f"{name} ({users})" for name, users in sorted(in_use.items())) or "none"),
            ("Mounted unions", str(len(self._unions.mounted()))),
            ("Layers waiting to be published", str(len(copies))),
            ("Local copies", f"{cached} bytes"),
        ]

    async def tidy(self) -> None:
        """Remove what served the unions of layers that are gone; where it cannot be done now, the next call does."""
        if not self._untidy:
            return
        self._untidy, done = False, False
        try:
            done = await self._builder.tidy()
        except LineageError as error:
            _log.warning("masks_kept", reason=str(error))
        finally:
            self._untidy |= not done

    async def retire_copies(self) -> None:
        """Drop the local copies whose layers now show in their repositories."""
        copies = self._copies.all()
        if not copies:
            return
        holder = "retire-copies"
        try:
            findings = await self._finder.find([copy.url for copy in copies], holder=holder)
            for error in findings.failures:
                _log.warning("copies_kept", reason=str(error))
            for copy in copies:
                if copy.url in findings.found:
                    await self._copies.drop(copy.archive.digest)
                    self._untidy = True
                    _log.info("local_copy_dropped", digest=copy.archive.digest, url=copy.url)
        finally:
            self._forget_use(holder)

    async def shut_down(self) -> None:
        """Unmount everything; the front end's containers have ended."""
        for layer_id in self._unions.mounted():
            async with self._locks.hold(layer_id):
                await self._unions.discard(await self._find(layer_id))
                self._forget_use(layer_id)
        await self._repositories.shut_down()


def _go_on() -> None:
    """What local work does between its steps."""


async def _is_own_view(layer: Layer) -> bool:
    return layer.parent is None or await asyncio.to_thread(holds_descriptor, layer)


def _refuse_empty(layer: Layer, content: LayerContent) -> None:
    """Raise an error where the stream was empty: the engine repeats a request whose body it has used up so."""
    if content.stream_size == 0:
        raise UnsupportedError(f"layer {layer.id}: the layer tar is empty, not even an end mark: try again")


def _delete_tree(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree)


def _replace_tree(tree: Path, new: Path) -> None:
    _delete_tree(tree)
    new.rename(tree)


def _tree_size(tree: Path) -> int:
    """Add up the sizes of what is not a directory, hard links once; what vanishes meanwhile does not count."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fsencode(tree)]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                    continue
                if status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total
