"""Layers in repositories: where they are, whether they are whole, and the wait for those that are still published."""

import asyncio
import os
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.common.descriptor import LayerUrl
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import SIDECAR_LIMIT, LayerSidecar
from services.node.cvmfs.repositories import DEAD, Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.cvmfs.talk import ClientTalk
from services.node.errors import LayerNotPublishedError, RepositoryError
from services.node.masks import MaskStore
from services.node.metrics import NodeMetrics

__all__ = ["Findings", "LayerFinder", "PublishedLayer"]

_REFRESH_INTERVAL: Final = 5.0
"""Seconds between two requests to a client to look for a new revision."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """A layer as it lies in a repository."""

    tree: Path
    """The layer's files."""
    mask: Path | None
    """Local directory with the layer's deletions, to be stacked directly below; none if it deletes nothing."""
    diff_id: Digest | None
    """What the layer is unpacked from; None where no sidecar says so, nor what it deletes."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look-up of several layers gave."""

    found: dict[LayerUrl, PublishedLayer]
    """The layers that are there, whole."""
    errors: dict[RepositoryName, RepositoryError]
    """The repositories that could not be looked into; their layers are neither found nor known to be missing."""
    damaged: dict[LayerUrl, RepositoryError]
    """The layers that are there, and of no use."""

    @property
    def failures(self) -> list[RepositoryError]:
        """All that went wrong."""
        return [*self.errors.values(), *self.damaged.values()]


class LayerFinder:
    """Finds layers in repositories, waiting a bounded time for one that is still being published.

    Parameters
    ----------
    repositories
        How a repository gets to be a directory.
    allowed
        The repositories that descriptors may name.
    setting
        Name of the front end's setting of what is allowed, for messages.
    masks
        Where masks are made.
    io
        Threads for the look-ups.
    talk
        Asks clients to look for a new revision while a layer is waited for.
    metrics
        Counts looks and waits.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        allowed: Collection[RepositoryName],
        setting: str,
        masks: MaskStore,
        io: RepositoryIo,
        talk: ClientTalk,
        metrics: NodeMetrics,
    ) -> None:
        self._repositories = repositories
        self._allowed = frozenset(allowed)
        self._setting = setting
        self._masks = masks
        self._io = io
        self._talk = talk
        self._metrics = metrics
        for name in self._allowed:
            metrics.looks.expect(name)
            metrics.publication_waits.expect(name)
        self._refreshed: dict[RepositoryName, float] = {}
        self._not_asked: set[RepositoryName] = set()
        """Repositories whose clients could not be asked the last time, as somebody has been warned."""
        # A layer never changes once it is published, so its sidecar is read once.
        self._found: dict[LayerUrl, PublishedLayer] = {}

    @property
    def allowed(self) -> list[RepositoryName]:
        """The repositories that descriptors may name, sorted."""
        return sorted(self._allowed)

    async def answers(self, directory: Path, *repositories: RepositoryName) -> bool:
        """Return whether a directory that stands on repositories' files can be read; not if a client of theirs died.

        Raises
        ------
        RepositoryError
            It does not answer within the time.
        """

        def look() -> bool:
            try:
                with os.scandir(directory) as entries:
                    next(entries, None)
            except OSError as error:
                if error.errno in DEAD:
                    return False
                raise
            return True

        return await self._io.run(look, *repositories)

    async def find(self, urls: Sequence[LayerUrl], *, holder: str) -> Findings:
        """Look layers up once, each repository's together."""
        findings = Findings({}, {}, {})
        by_repository: defaultdict[RepositoryName, list[LayerUrl]] = defaultdict(list)
        for url in urls:
            by_repository[url.repository].append(url)
        for name, wanted in by_repository.items():
            try:
                await self._find_in(name, wanted, findings, holder=holder)
            except RepositoryError as error:
                findings.errors[name] = error
        return findings

    async def _find_in(
        self, name: RepositoryName, urls: Sequence[LayerUrl], findings: Findings, *, holder: str
    ) -> None:
        if name not in self._allowed:
            raise RepositoryError(
                f"repository {name} is not among those allowed here "
                f"({', '.join(sorted(self._allowed)) or 'none'}): add it to {self._setting}"
            )
        with self._metrics.looks.one(name):
            await self._look_into(name, urls, findings, holder=holder)

    async def _look_into(
        self, name: RepositoryName, urls: Sequence[LayerUrl], findings: Findings, *, holder: str
    ) -> None:
        root = await self._repositories.ensure(name, holder=holder)
        known = {url: self._found.pop(url, None) for url in urls}

        def look_all() -> Findings:
            looked = Findings({}, {}, {})
            for url in urls:
                try:
                    if (published := self._look(root, url, known[url])) is not None:
                        looked.found[url] = published
                except RepositoryError as error:
                    # One damaged layer is no reason to know nothing of the others.
                    looked.damaged[url] = error
            return looked

        try:
            # Into something of its own: a look that is given up goes on.
            looked = await self._io.run(look_all, name)
        except OSError as error:
            raise RepositoryError(f"cannot read repository {name} below {root}: {error.strerror}") from error
        self._found.update(looked.found)
        findings.found.update(looked.found)
        findings.damaged.update(looked.damaged)

    async def wait(self, urls: Sequence[LayerUrl], *, holder: str, timeout: float) -> dict[LayerUrl, PublishedLayer]:  # noqa: ASYNC109 - polls, and names what it waited for
        """Look layers up until all are there.

        Parameters
        ----------
        timeout
            When to give up, in seconds.

        Raises
        ------
        LayerNotPublishedError
            Some did not show up in time.
        RepositoryError
            A repository is not allowed or not usable, or what it holds is damaged.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout, 0.05
        found = await self._find_surely(urls, holder=holder)
        if len(found) == len(set(urls)):
            return found
        absent = sorted({url.repository for url in urls if url not in found})
        with self._metrics.publication_waits.one(absent[0]):
            async with self._refreshing(absent):
                while missing := [url for url in urls if url not in found]:
                    if loop.time() + pause > deadline:
                        raise LayerNotPublishedError(
                            f"{len(missing)} of {len(urls)} layers did not show within {timeout:g} s, the first one is "
                            f"{missing[0]}: ask the publisher about it (GET /v1/layers/{missing[0].digest}), "
                            "or try again when the CVMFS client has seen the new revision"
                        )
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, 1.0)
                    found |= await self._find_surely(missing, holder=holder)
        return found

    async def _find_surely(self, urls: Sequence[LayerUrl], *, holder: str) -> dict[LayerUrl, PublishedLayer]:
        findings = await self.find(urls, holder=holder)
        for error in findings.failures:
            raise error
        return findings.found

    @asynccontextmanager
    async def _refreshing(self, names: Collection[RepositoryName]) -> AsyncIterator[None]:
        """Keep asking the clients for the newest revisions; one that hangs holds nobody up."""
        tasks = [asyncio.create_task(self._keep_fresh(name)) for name in names]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _keep_fresh(self, name: RepositoryName) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Another wait may have asked just now.
            if loop.time() - self._refreshed.get(name, -_REFRESH_INTERVAL) >= _REFRESH_INTERVAL:
                self._refreshed[name] = loop.time()
                await self._refresh(name)
            await asyncio.sleep(_REFRESH_INTERVAL)

    async def _refresh(self, name: RepositoryName) -> None:
        try:
            await self._talk.refresh(name, self._repositories.place(name))
        except RepositoryError as error:
            # The new revision will show without it, when the catalog's time to live ends.
            log = _log.info if name in self._not_asked else _log.warning
            log("refresh_failed", repository=name, error=str(error), effect="new layers show minutes later")
            self._not_asked.add(name)
        else:
            self._not_asked.discard(name)

    def _look(self, root: Path, url: LayerUrl, known: PublishedLayer | None) -> PublishedLayer | None:
        real_root = os.path.realpath(root)
        tree = os.path.realpath(os.path.join(real_root, url.path))
        try:
            if not stat.S_ISDIR(os.stat(tree).st_mode):
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        # The overlay resolves symbolic links when it is mounted; one in a repository must not lead to the host's files.
        if not tree.startswith(real_root + "/"):
            raise RepositoryError(f"layer {url} leads outside its repository, to {tree}")
        # Masks go with the images that name their layers, and those may come again.
        if known is not None and str(known.tree) == tree and (known.mask is None or known.mask.is_dir()):
            return known
        try:
            content = _read_sidecar(os.path.join(real_root, sidecar_path(url.digest)), url)
        except FileNotFoundError:
            # A converter that writes no sidecars publishes a layer in one transaction, so what shows is whole.
            return PublishedLayer(Path(tree), None, None) if url.has_foreign_layout else None
        try:
            sidecar = LayerSidecar.parse(content, where=f"layer {url}")
        except InvalidValueError as error:
            raise RepositoryError(str(error)) from error
        if sidecar.digest != url.digest:
            raise RepositoryError(f"the sidecar of layer {url} is that of layer {sidecar.digest}")
        mask = self._masks.for_layer(sidecar) if sidecar.needs_mask else None
        return PublishedLayer(Path(tree), mask, Digest(sidecar.diff_id))


def _read_sidecar(place: str, url: LayerUrl) -> bytes:
    # O_NONBLOCK: of a pipe in its place, nobody writes the other end.
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RepositoryError(f"the sidecar of layer {url} is no file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(SIDECAR_LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(content) > SIDECAR_LIMIT:
        raise RepositoryError(f"the sidecar of layer {url} is larger than {SIDECAR_LIMIT} bytes")
    return content
