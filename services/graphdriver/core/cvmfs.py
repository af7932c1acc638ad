"""CVMFS on this machine: the one module that looks into repositories and runs the client's programs.

A repository is either there already (`HostRepositories`: `/cvmfs/<name>`, where the look-up itself may make autofs
mount it) or mounted by the driver (`ClientRepositories`: `cvmfs2`, counted by who uses it). Every touch of a
repository runs in a thread with a bound, since a file system that is served over a network can hang.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from services.common.descriptor import LayerUrl
from services.common.errors import InvalidValueError
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import SIDECAR_LIMIT, LayerSidecar
from services.graphdriver.core import mounts
from services.graphdriver.core.holders import Holders
from services.graphdriver.core.masks import MaskStore
from services.graphdriver.core.repository_io import RepositoryIo
from services.graphdriver.errors import LayerNotPublishedError, MountError, RepositoryError

__all__ = [
    "ClientRepositories",
    "Findings",
    "HostRepositories",
    "LayerFinder",
    "PublishedLayer",
    "Repositories",
]

_DEAD: Final = (errno.ENOTCONN, errno.ESTALE, errno.ECONNABORTED)
"""What a look-up gives when the process behind a FUSE mount is gone."""
_MOUNT_OPTIONS: Final = "fsname=cvmfs2,allow_other,grab_mountpoint,cvmfs_suid"
"""As the client's own mount helper sets them; `cvmfs_suid` keeps setuid and capability binaries working."""
_REFRESH_INTERVAL: Final = 5.0
"""Seconds between two requests to a client to look for a new revision."""
_REFRESH_TIMEOUT: Final = 60
"""Seconds that such a request may take: the client lets the kernel's caches run out."""
_OUTPUT_LIMIT: Final = 2000
"""Bytes of a program's output that an error quotes."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedLayer:
    """A layer as it lies in a repository."""

    tree: Path
    """The layer's files."""
    mask: Path | None
    """Local directory with the layer's deletions, to be stacked directly below; none if it deletes nothing."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look-up of several layers gave."""

    found: dict[LayerUrl, PublishedLayer]
    """The layers that are there, whole."""
    errors: dict[RepositoryName, RepositoryError]
    """The repositories that could not be looked into; their layers are neither found nor known to be missing."""


class Repositories(Protocol):
    """How a repository gets to be a directory."""

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Return the repository's root, mounted and alive, and note that `holder` uses it.

        Raises
        ------
        RepositoryError
            It cannot be had; the text says what to do.
        """

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use that an earlier process of this program began."""

    def release(self, *, holder: str) -> None:
        """Note that `holder` uses no repository any more."""

    def adopt(self) -> None:
        """Take over what an earlier process of this program left mounted, once the users are known again."""

    async def shut_down(self) -> None:
        """Give up what this program mounted itself."""

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""


class HostRepositories:
    """Repositories that the machine mounts: all that can be done for them is to look.

    Parameters
    ----------
    root
        Directory of the repositories, `/cvmfs` as a rule.
    io
        Threads for the look-ups.
    """

    def __init__(self, *, root: Path, io: RepositoryIo) -> None:
        self._root = root
        self._io = io
        self._holders = Holders[RepositoryName]()

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Look the repository up, which may be what mounts it."""
        path = self._root / name
        try:
            await self._io.run(lambda: os.statvfs(path / "."), name)
        except OSError as error:
            raise RepositoryError(
                f"repository {name} is not usable at {path}: {os.strerror(error.errno or 0)}; "
                + (
                    "its client process is gone (cvmfs_config reload, or umount -l and look again)"
                    if error.errno in _DEAD
                    else "configure the CVMFS client for it and try: cvmfs_config probe " + name
                )
            ) from error
        self._holders.add(name, holder)
        return path

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use without looking."""
        self._holders.add(name, holder)

    def release(self, *, holder: str) -> None:
        """Forget the user; the mount is the machine's affair."""
        self._holders.drop(holder)

    def adopt(self) -> None:
        """Nothing is mounted here."""

    async def shut_down(self) -> None:
        """Nothing is mounted here."""

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
        return self._holders.counts()


class ClientRepositories:
    """Repositories that the driver mounts with `cvmfs2`, each as long as somebody uses it and a while longer.

    Parameters
    ----------
    directory
        Where the mount points are made.
    command
        The client program.
    io
        Threads for the look-ups.
    mount_timeout
        Longest time for a mount, in seconds.
    linger
        How long an unused repository stays mounted, in seconds: starting a container takes several short uses.
    """

    def __init__(self, *, directory: Path, command: str, io: RepositoryIo, mount_timeout: float, linger: float) -> None:
        self._directory = directory
        self._command = command
        self._io = io
        self._mount_timeout = mount_timeout
        self._linger = linger
        self._holders = Holders[RepositoryName]()
        self._locks: defaultdict[RepositoryName, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._timers: dict[RepositoryName, asyncio.TimerHandle] = {}
        self._unmounts: set[asyncio.Task[None]] = set()

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Mount the repository if it is not, mount it again if its client died."""
        point = self._directory / name
        async with self._locks[name]:
            self._holders.add(name, holder)
            if (timer := self._timers.pop(name, None)) is not None:
                timer.cancel()
            if not await self._alive(name, point):
                await self._mount(name, point)
        return point

    async def _alive(self, name: RepositoryName, point: Path) -> bool:
        def look() -> bool:
            try:
                # ismount first: an empty directory that nothing is mounted on answers everything.
                if not os.path.ismount(point):
                    return False
                # Unlike the attributes of a file, this is in no cache of the kernel's: the client itself answers.
                os.statvfs(point / ".")
            except OSError as error:
                if error.errno not in (*_DEAD, errno.ENOENT):
                    raise
                return False
            return True

        try:
            return await self._io.run(look, name)
        except OSError as error:
            raise RepositoryError(f"repository {name} is not usable at {point}: {error.strerror}") from error

    async def _mount(self, name: RepositoryName, point: Path) -> None:
        if await asyncio.to_thread(mounts.unmount, point):
            _log.warning("dead_repository_mount_replaced", repository=name, mount_point=str(point))
        await asyncio.to_thread(point.mkdir, mode=0o755, parents=True, exist_ok=True)
        await _run(
            self._command, "-o", _MOUNT_OPTIONS, name, str(point), timeout=self._mount_timeout, what=f"mount of {name}"
        )
        if not await self._alive(name, point):
            raise RepositoryError(f"{self._command} ended well, but repository {name} is not mounted at {point}")
        _log.info("repository_mounted", repository=name, mount_point=str(point))

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use without looking."""
        self._holders.add(name, holder)

    def release(self, *, holder: str) -> None:
        """Forget the user; a repository that nobody uses is unmounted after a while."""
        for name in self._holders.drop(holder):
            self._schedule_unmount(name)

    def adopt(self) -> None:
        """Take over what an earlier process of this program left mounted, once the users are known again."""
        if self._directory.is_dir():
            for point in self._directory.iterdir():
                with contextlib.suppress(InvalidValueError):  # somebody else's, such as lost+found
                    if (name := RepositoryName(point.name)) not in self._holders:
                        self._schedule_unmount(name)

    def _schedule_unmount(self, name: RepositoryName) -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(self._linger, self._expire, name)

    def _expire(self, name: RepositoryName) -> None:
        self._timers.pop(name, None)
        task = asyncio.get_running_loop().create_task(self._unmount_idle(name))
        self._unmounts.add(task)
        task.add_done_callback(self._unmounts.discard)

    async def _unmount_idle(self, name: RepositoryName) -> None:
        async with self._locks[name]:
            if name in self._holders:
                return
            try:
                await asyncio.to_thread(mounts.unmount, self._directory / name)
                _log.info("repository_unmounted", repository=name)
            except MountError as error:
                _log.warning("repository_not_unmounted", repository=name, error=str(error))

    async def shut_down(self) -> None:
        """Unmount every repository that this program mounted; nobody may use one any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._unmounts)
        if self._directory.is_dir():
            for point in self._directory.iterdir():
                await asyncio.to_thread(mounts.unmount, point)

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
        return self._holders.counts()


class LayerFinder:
    """Finds layers in repositories, waiting a bounded time for one that is still being published.

    Parameters
    ----------
    repositories
        How a repository gets to be a directory.
    allowed
        The repositories that descriptors may name.
    masks
        Where masks are made.
    io
        Threads for the look-ups.
    talk_command
        The client's control program; asked to look for a new revision while a layer is waited for.
    """

    def __init__(
        self,
        *,
        repositories: Repositories,
        allowed: Collection[RepositoryName],
        masks: MaskStore,
        io: RepositoryIo,
        talk_command: str,
    ) -> None:
        self._repositories = repositories
        self._allowed = frozenset(allowed)
        self._masks = masks
        self._io = io
        self._talk_command = talk_command
        self._refreshed: dict[RepositoryName, float] = {}
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
                if error.errno in _DEAD:
                    return False
                raise
            return True

        return await self._io.run(look, *repositories)

    async def find(self, urls: Sequence[LayerUrl], *, holder: str) -> Findings:
        """Look layers up once, each repository's together."""
        findings = Findings({}, {})
        by_repository: defaultdict[RepositoryName, list[LayerUrl]] = defaultdict(list)
        for url in urls:
            by_repository[url.repository].append(url)
        for name, wanted in by_repository.items():
            try:
                findings.found.update(await self._find_in(name, wanted, holder=holder))
            except RepositoryError as error:
                findings.errors[name] = error
        return findings

    async def _find_in(
        self, name: RepositoryName, urls: Sequence[LayerUrl], *, holder: str
    ) -> dict[LayerUrl, PublishedLayer]:
        if name not in self._allowed:
            raise RepositoryError(
                f"repository {name} is not among those allowed here "
                f"({', '.join(sorted(self._allowed)) or 'none'}): add it to GRAPHDRIVER_REPOSITORIES"
            )
        root = await self._repositories.ensure(name, holder=holder)
        known = {url: self._found.pop(url, None) for url in urls}

        def look_all() -> dict[LayerUrl, PublishedLayer]:
            looks = ((url, self._look(root, url, known[url])) for url in urls)
            return {url: published for url, published in looks if published is not None}

        try:
            found = await self._io.run(look_all, name)
        except OSError as error:
            raise RepositoryError(f"cannot read repository {name} below {root}: {error.strerror}") from error
        self._found.update(found)
        return found

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
        async with self._refreshing({url.repository for url in urls if url not in found}):
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
        for error in findings.errors.values():
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
        while shutil.which(self._talk_command) is not None:
            # Another wait may have asked just now.
            if loop.time() - self._refreshed.get(name, -_REFRESH_INTERVAL) >= _REFRESH_INTERVAL:
                self._refreshed[name] = loop.time()
                await self._refresh(name)
            await asyncio.sleep(_REFRESH_INTERVAL)

    async def _refresh(self, name: RepositoryName) -> None:
        try:
            await _run(
                *(self._talk_command, "-i", name, "remount", "sync"),
                timeout=_REFRESH_TIMEOUT,
                what=f"refresh of {name}",
            )
        except RepositoryError as error:
            # The new revision will show without it, when the catalog's time to live ends.
            _log.info("refresh_failed", repository=name, error=str(error))

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
        if known is not None and str(known.tree) == tree:
            return known
        try:
            with open(os.path.join(real_root, sidecar_path(url.digest)), "rb") as file:
                content = file.read(SIDECAR_LIMIT + 1)
        except FileNotFoundError:
            # A converter that writes no sidecars publishes a layer in one transaction, so what shows is whole.
            return PublishedLayer(Path(tree), None) if url.has_foreign_layout else None
        if len(content) > SIDECAR_LIMIT:
            raise RepositoryError(f"the sidecar of layer {url} is larger than {SIDECAR_LIMIT} bytes")
        try:
            sidecar = LayerSidecar.parse(content, where=f"layer {url}")
        except InvalidValueError as error:
            raise RepositoryError(str(error)) from error
        if sidecar.digest != url.digest:
            raise RepositoryError(f"the sidecar of layer {url} is that of layer {sidecar.digest}")
        return PublishedLayer(Path(tree), self._masks.for_layer(sidecar) if sidecar.needs_mask else None)


async def _run(*argv: str, timeout: float, what: str) -> None:  # noqa: ASYNC109 - the time-out names what it cut short
    # A file, not a pipe: the client goes on in the background and keeps its output open.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise RepositoryError(f"{what}: cannot run {argv[0]}: {error.strerror}") from error
        try:
            status = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            raise RepositoryError(f"{what}: {argv[0]} did not end within {timeout:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status != 0:
            output.seek(-min(output.tell(), _OUTPUT_LIMIT), os.SEEK_CUR)
            text = output.read().decode(errors="replace").strip()
            raise RepositoryError(f"{what}: {argv[0]} ended with status {status}: {text or 'no output'}")
