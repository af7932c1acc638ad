"""Unions: the mounted view of a layer.

Union order, top first: the layer's own files; the container's init layer; local image layers above the thin layer; the
descriptor's layers, last listed first, each with its mask directly below it.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from services.common.repository_name import RepositoryName
from services.common.streams import run_in_thread
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError
from services.node.layers import Layer, LayerStore, short_link
from services.node.lineage import Lineage, named_layers
from services.node.lower_directories import LowerDirectories
from services.node.masks import MaskStore
from services.node.mounts import (
    OverlaySource,
    mount_overlay,
    numbered,
    remove_mount_point,
    unmount,
)
from services.node.work_gate import WorkGate

__all__ = ["UnionBuilder"]


class UnionBuilder:
    """Finds the lower directories of a union and mounts it.

    Parameters
    ----------
    layers
        The local layers.
    masks
        The masks.
    directories
        Finds what a descriptor stands for.
    finder
        Looks whether unions still answer.
    io
        Threads for mounts that stand on repositories.
    """

    def __init__(
        self,
        *,
        layers: LayerStore,
        masks: MaskStore,
        directories: LowerDirectories,
        finder: LayerFinder,
        io: RepositoryIo,
    ) -> None:
        self._layers = layers
        self._masks = masks
        self._directories = directories
        self._finder = finder
        self._io = io
        self._gate = WorkGate()
        """Unions that are being made."""
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
        """
        local = [layer.link for layer in (*lineage.container, *lineage.local)]
        directories = await self._directories.below(lineage, holder=holder)
        # A regular image has none: a short operation is mostly changes between threads.
        return local + (await asyncio.to_thread(self._link, directories) if directories else [])

    def _link(self, directories: Sequence[Path]) -> list[str]:
        links = [short_link(str(directory)) for directory in directories]
        for link, directory in zip(links, directories, strict=True):
            self._layers.ensure_link(link, directory)
        return links

    async def mount(self, layer: Layer, lineage: Lineage, *, label: str, then: Callable[[], None]) -> None:
        """Mount a layer's writable union at its mount point.

        Parameters
        ----------
        label
            SELinux context of the mount.
        then
            Called where it is mounted, in the same thread: what fails takes the mount back.

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
        async with self._gate.working():
            lowers = await self.lowers(lineage, holder=layer.id)
            home = self._layers.home
            source = OverlaySource(
                lowers=lowers or [str(self._empty.relative_to(home))],
                upper=str(layer.diff.relative_to(home)),
                work=str(layer.work.relative_to(home)),
                label=label,
                mixed=bool(lineage.repositories),
            )
            try:
                await self._mount(source, layer.merged, lineage.repositories, then=then)
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

    async def _mount(
        self,
        source: OverlaySource,
        point: Path,
        repositories: Sequence[RepositoryName],
        *,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        home = self._layers.home
        given_up = False

        def work() -> None:
            self._at_work[point] = repositories
            try:
                point.mkdir(mode=0o700, exist_ok=True)
                if source.fits:
                    mount_overlay(source, str(point.relative_to(home)), directory=home)
                else:
                    with numbered(source, directory=home, scratch=self._layers.scratch) as (short, place):
                        mount_overlay(short, str(point), directory=place)
                if given_up:
                    unmount(point)
                else:
                    then()
            finally:
                del self._at_work[point]

        try:
            await (self._io.run(work, *repositories) if repositories else run_in_thread(work))
        except BaseException:
            # A mount that comes when nobody waits for it any more goes at once; one that has just come goes now. The
            # mount point stays: it may be that of a union which somebody works in and which cannot be seen from here.
            given_up = True
            await asyncio.to_thread(unmount, point)
            raise

    @property
    def quiet(self) -> bool:
        """Whether no union is being made, nor a mount under way that nobody waits for any more."""
        return self._gate.idle and not self._at_work

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
        async with self._gate.closed():
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
            async with self._gate.working():
                lowers = await self.lowers(lineage, holder=holder)
                source = OverlaySource(lowers=[*lowers, str(self._empty.relative_to(self._layers.home))])
                await self._mount(source, point, lineage.repositories)
            yield point
        finally:
            await asyncio.to_thread(remove_mount_point, point)
