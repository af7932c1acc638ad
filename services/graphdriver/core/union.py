"""Unions: the mounted view of a layer, and who holds it mounted.

Union order, top first: the layer's own files; the container's init layer; local image layers above the thin layer; the
descriptor's layers, last listed first, each with its mask directly below it.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from services.common.descriptor import LayerUrl, ThinDescriptor
from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.graphdriver.core.cvmfs.finder import LayerFinder
from services.graphdriver.core.cvmfs.repository_io import RepositoryIo
from services.graphdriver.core.layers import Layer, LayerId, LayerStore, short_link
from services.graphdriver.core.lineage import Lineage, named_layers
from services.graphdriver.core.local_copies import LocalCopies
from services.graphdriver.core.masks import MaskStore
from services.graphdriver.core.mounts import (
    OverlaySource,
    is_upper_in_use,
    mount_overlay,
    mount_table,
    remove_mount_point,
    unmount,
)
from services.graphdriver.errors import LineageError, RepositoryError, UnknownLayerError

__all__ = ["MountedUnions", "UnionBuilder"]

_log = structlog.get_logger(__name__)

_LOWERS = re.compile(r"lowerdir\+?=([^,]*)")


class UnionBuilder:
    """Finds the lower directories of a union and mounts it.

    Parameters
    ----------
    layers
        The local layers.
    masks
        The masks.
    copies
        Local copies of layers that are not published yet.
    finder
        Looks layers up in repositories.
    io
        Threads for mounts that stand on repositories.
    wait
        Longest time to wait for the layers of one union to be published, in seconds.
    """

    def __init__(
        self,
        *,
        layers: LayerStore,
        masks: MaskStore,
        copies: LocalCopies,
        finder: LayerFinder,
        io: RepositoryIo,
        wait: float,
    ) -> None:
        self._layers = layers
        self._masks = masks
        self._copies = copies
        self._finder = finder
        self._io = io
        self._wait = wait
        self._gate = asyncio.Lock()
        """Held while no union may be begun."""
        self._begun = 0
        """Unions that are being made or given up, from the look for their lower directories on."""
        self._at_work: dict[Path, Sequence[RepositoryName]] = {}
        """Mount points of the mounts that are under way, also of those that nobody waits for any more."""
        self._views = layers.home / "views"
        self._views.mkdir(mode=0o700, exist_ok=True)
        # Lowest in read-only unions: an overlay of CVMFS directories alone fails every look-up with ENAMETOOLONG.
        self._empty = layers.home / "empty"
        self._empty.mkdir(mode=0o755, exist_ok=True)
        for view in self._views.iterdir():
            remove_mount_point(view)

    async def lowers(self, lineage: Lineage, *, holder: str) -> list[str]:
        """Return the lower directories for a lineage as short paths, top first.

        Raises
        ------
        RepositoryError
            A layer of the descriptor cannot be had in time.
        ArchiveError
            The local copy of a layer cannot be extracted.
        """
        local = [layer.link for layer in (*lineage.container, *lineage.local)]
        if lineage.thin is None or lineage.descriptor is None:
            return local
        directories = await self._published(lineage.descriptor, holder=holder)
        return local + await asyncio.to_thread(self._link, lineage, directories)

    def _link(self, lineage: Lineage, directories: list[Path]) -> list[str]:
        if lineage.thin is not None and lineage.thin_has_files:
            directories = [self._masks.hiding_descriptor(), lineage.thin.diff, *directories]
        links = [short_link(str(directory)) for directory in directories]
        for link, directory in zip(links, directories, strict=True):
            self._layers.ensure_link(link, directory)
        return links

    async def _published(self, descriptor: ThinDescriptor, *, holder: str) -> list[Path]:
        """Return the directories of a descriptor's layers, top first; a local copy stands in for a missing layer."""
        # A layer that is listed twice has nothing to add where it is listed first, and the kernel refuses it there.
        layers = list({layer.digest: layer for layer in reversed(descriptor.layers)}.values())
        kept = [layer for layer in layers if layer.id in self._copies]
        findings = await self._finder.find([layer.location for layer in kept], holder=holder)
        for error in findings.errors.values():
            _log.warning("local_copy_stands_in", reason=str(error))
        stand_ins: dict[LayerUrl, Path] = {}
        for layer in kept:
            if layer.location not in findings.found:
                tree = await self._copies.tree(layer.id, holder=holder)
                if tree is not None:
                    stand_ins[layer.location] = tree
        rest = [layer.location for layer in layers if layer.location not in stand_ins]
        published = await self._finder.wait(rest, holder=holder, timeout=self._wait)
        directories: list[Path] = []
        for layer in layers:
            if (tree := stand_ins.get(layer.location)) is not None:
                directories.append(tree)
                continue
            place = published[layer.location]
            directories.append(place.tree)
            if place.mask is not None:
                directories.append(place.mask)
        return directories

    async def mount(self, layer: Layer, lineage: Lineage, *, label: str) -> None:
        """Mount a layer's writable union at its mount point.

        Raises
        ------
        MountError
            The kernel refuses.
        RepositoryError
            A layer of the descriptor cannot be had in time, or its repository does not answer the kernel.
        """
        if (names := self._at_work.get(layer.merged)) is not None:
            # Two mounts with one work directory would spoil it for each other.
            raise RepositoryError(
                f"the union of layer {layer.id} cannot be mounted: its last mount still waits for repository "
                f"{' or '.join(names)}: the CVMFS client hangs"
            )
        async with self._making():
            lowers = await self.lowers(lineage, holder=layer.id)
            home = self._layers.home
            source = OverlaySource(
                lowers=lowers or [str(self._empty.relative_to(home))],
                upper=str(layer.diff.relative_to(home)),
                work=str(layer.work.relative_to(home)),
                label=label,
            )
            try:
                await self._mount(source, layer.merged, lineage.repositories)
            except RepositoryError as error:
                raise RepositoryError(f"the union of layer {layer.id} cannot be mounted: {error}") from error

    async def answers(self, layer: Layer, lineage: Lineage) -> bool:
        """Return whether a mounted union is of use; it is not if the client of a repository below it died.

        Raises
        ------
        RepositoryError
            It does not answer at all.
        """
        if not (names := lineage.repositories):
            return True
        return await self._finder.answers(layer.merged, *names)

    async def _mount(self, source: OverlaySource, point: Path, repositories: Sequence[RepositoryName]) -> None:
        home = self._layers.home

        def work() -> None:
            self._at_work[point] = repositories
            try:
                mount_overlay(source, str(point.relative_to(home)), directory=home)
            finally:
                del self._at_work[point]

        await asyncio.to_thread(point.mkdir, mode=0o700, exist_ok=True)
        try:
            await (self._io.run(work, *repositories) if repositories else asyncio.to_thread(work))
        except BaseException:
            # A mount that comes when nobody waits for it any more must find no place to land on.
            await asyncio.to_thread(remove_mount_point, point)
            raise

    @asynccontextmanager
    async def _making(self) -> AsyncIterator[None]:
        async with self._gate:
            self._begun += 1
        try:
            yield
        finally:
            self._begun -= 1

    @property
    def quiet(self) -> bool:
        """Whether no union is being made, nor a mount under way that nobody waits for any more."""
        return self._begun == 0 and not self._at_work

    async def tidy(self) -> bool:
        """Remove the links and masks that are of no use here any more, unless a union is being made.

        Returns
        -------
        bool
            Whether it has been done.

        Raises
        ------
        LineageError
            A layer does not say what it stands on; all masks are kept.
        """
        async with self._gate:
            if self.quiet:
                await asyncio.to_thread(self._tidy)
                return True
        return False

    def _tidy(self) -> None:
        self._layers.forget_links()
        # What a mounted union stands on is named by a layer: its own chain is there as long as it is.
        self._masks.keep_only(named_layers(self._layers.all()))

    @asynccontextmanager
    async def view(self, lineage: Lineage, *, holder: str) -> AsyncIterator[Path]:
        """Mount what lies below a layer, read-only, for as long as the context lasts."""
        point = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._views))
        try:
            async with self._making():
                lowers = await self.lowers(lineage, holder=holder)
                source = OverlaySource(lowers=[*lowers, str(self._empty.relative_to(self._layers.home))])
                await self._mount(source, point, lineage.repositories)
            yield point
        finally:
            await asyncio.to_thread(remove_mount_point, point)


class MountedUnions:
    """Counts who holds each union mounted.

    A front end asks for a union and gives it back in pairs, but pairs get broken: a start that failed is given back
    without having been asked for, a program killed in between never gives back. So giving back at zero does nothing,
    and the counts are kept on disk, for a process of this program that takes over from a killed one: a union that is
    given back too early takes the files away under a running container. A new front end has forgotten what an earlier
    one held, but for the containers that it finds running, so it begins with one for each mounted union.

    The methods for one layer are called one at a time; the caller locks.
    """

    def __init__(self, *, layers: LayerStore, builder: UnionBuilder) -> None:
        self._layers = layers
        self._builder = builder
        self._counts: dict[LayerId, int] = {}
        self._lost: set[LayerId] = set()
        """Unions that are held, but had to be unmounted and could not be mounted anew yet."""

    async def adopt(self) -> dict[Layer, frozenset[str] | None]:
        """Take over the unions that an earlier process left mounted.

        Returns
        -------
        dict of Layer to frozenset of str or None
            Their layers, each with the short paths of what its union stands on; None where that cannot be seen.
        """
        table = await asyncio.to_thread(lambda: list(mount_table()))
        adopted: dict[Layer, frozenset[str] | None] = {}
        # The mount table has real paths, the home may have been given by way of a link.
        prefix = await asyncio.to_thread(os.path.realpath, self._layers.home / "layers") + "/"
        for mount in table:
            if mount.kind == "overlay" and mount.point.startswith(prefix) and mount.point.endswith("/merged"):
                name = mount.point.removeprefix(prefix).removesuffix("/merged")
                try:
                    layer = await asyncio.to_thread(self._layers.find, LayerId(name))
                except (UnknownLayerError, InvalidValueError):
                    await asyncio.to_thread(unmount, mount.point)
                    continue
                except LineageError as error:
                    # Somebody may be working in it.
                    _log.error("mounted_layer_unknown", mount_point=mount.point, error=str(error))
                    continue
                self._counts[layer.id] = await asyncio.to_thread(_read_count, layer)
                adopted[layer] = _lowers(mount.options)
        for layer in await asyncio.to_thread(self._hidden):
            _log.warning("mounted_union_hidden", layer=layer.id)
            self._counts[layer.id] = await asyncio.to_thread(_read_count, layer)
            self._lost.add(layer.id)
            adopted[layer] = None
        return adopted

    def _hidden(self) -> list[Layer]:
        """Find the unions that somebody works in, and that are not mounted as far as can be seen from here.

        A managed plugin gets its directory anew when it is started again. Where dockerd had given the old one up
        meanwhile, which it does with live-restore when no container runs, what was mounted in it is hidden by the new
        one, and lives on in the containers only. Such a union is mounted a second time when it is asked for.
        """
        found = []
        for point in self._layers.home.glob("layers/*/merged"):
            try:
                layer = self._layers.find(LayerId(point.parent.name))
            except (UnknownLayerError, InvalidValueError, LineageError):
                # Nobody can ask for it.
                continue
            if layer.id not in self._counts and is_upper_in_use(
                layer.diff.name, layer.merged.name, directory=layer.directory
            ):
                found.append(layer)
        return found

    async def begin(self) -> None:
        """Count every mounted union as held once: a new front end has come."""
        for layer_id in self._counts:
            self._counts[layer_id] = 1
            await asyncio.to_thread(_write_count, self._layers.find(layer_id), 1)

    async def acquire(self, layer: Layer, lineage: Lineage, *, label: str) -> Path:
        """Return a layer's union, mounted.

        Parameters
        ----------
        lineage
            What lies below the layer; only that of the first mount counts.
        label
            SELinux context; only that of the first mount counts.
        """
        if layer.id in self._counts and layer.id not in self._lost and not await self._builder.answers(layer, lineage):
            # What runs in it has lost its files for good; whoever comes now gets them from the client's successor.
            _log.warning("union_on_a_dead_repository_replaced", layer=layer.id)
            self._lost.add(layer.id)
            await asyncio.to_thread(unmount, layer.merged)
        if layer.id not in self._counts or layer.id in self._lost:
            await self._builder.mount(layer, lineage, label=label)
            self._lost.discard(layer.id)
        await self._set(layer, self._counts.get(layer.id, 0) + 1)
        return layer.merged

    async def release(self, layer: Layer) -> bool:
        """Give a union back; return whether it is not mounted any more."""
        if self._counts.get(layer.id, 0) > 1:
            await self._set(layer, self._counts[layer.id] - 1)
            return False
        await self.discard(layer)
        return True

    async def _set(self, layer: Layer, count: int) -> None:
        await asyncio.to_thread(_write_count, layer, count)
        self._counts[layer.id] = count

    async def discard(self, layer: Layer) -> None:
        """Unmount a union whatever the count says."""
        await asyncio.to_thread(remove_mount_point, layer.merged)
        self._counts.pop(layer.id, None)
        self._lost.discard(layer.id)

    def __contains__(self, layer_id: LayerId) -> bool:
        """Return whether a layer's union is mounted."""
        return layer_id in self._counts

    def mounted(self) -> list[LayerId]:
        """Return the ids of the layers whose unions are mounted."""
        return list(self._counts)


_COUNT: Final = "held"
"""File in a layer's directory: how often its union is held, while it is mounted."""


def _write_count(layer: Layer, count: int) -> None:
    descriptor = os.open(layer.directory / _COUNT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # One write of always the same length, which a kill does not tear.
        os.pwrite(descriptor, f"{count:8d}\n".encode(), 0)
    finally:
        os.close(descriptor)


def _read_count(layer: Layer) -> int:
    try:
        return max(1, int((layer.directory / _COUNT).read_bytes()))
    except (FileNotFoundError, ValueError):
        # Killed between the mount and the first count.
        return 1


def _lowers(options: str) -> frozenset[str]:
    return frozenset(path for value in _LOWERS.findall(options) for path in value.split(":"))
