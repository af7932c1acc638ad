"""The snapshotter: what containerd can ask for, in terms of snapshots."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from services.common.errors import SuiteError
from services.common.serial import SerialThread
from services.common.threads import to_end
from services.common.work_threads import begin_in_thread
from services.node.house_keeping import HouseKeeper
from services.node.lineage import Lineage
from services.node.locks import Locks
from services.node.uses import Uses
from services.snapshotter.errors import BadRequestError, ExistsError, NotFoundError, PreconditionError
from services.snapshotter.mounts import Mount, mount_for
from services.snapshotter.remote import REFERENCE, RemoteLayers
from services.snapshotter.store.filters import parse_filters
from services.snapshotter.store.model import Kind, Snapshot, Usage
from services.snapshotter.store.store import SnapshotStore
from services.snapshotter.unions import Below, Unions
from services.snapshotter.usage import measure

__all__ = ["Snapshotter"]

_log = structlog.get_logger(__name__)


class Snapshotter:
    """Operations on snapshots.

    Parameters
    ----------
    store
        The snapshots.
    thread
        Where the store is used.
    unions
        Finds what lies below snapshots.
    uses
        What snapshots use beside local directories.
    house
        Removes what nothing needs any more.
    remote
        Finds layers that need not be unpacked; None where all are.
    """

    def __init__(
        self,
        *,
        store: SnapshotStore,
        thread: SerialThread,
        unions: Unions,
        uses: Uses,
        house: HouseKeeper,
        remote: RemoteLayers | None,
    ) -> None:
        self._store = store
        self._thread = thread
        self._unions = unions
        self._uses = uses
        self.house = house
        self._remote = remote
        self._measuring = Locks[int]()
        self._cleaning = asyncio.Lock()
        self._deletion: asyncio.Future[None] | None = None

    async def create(self, key: str, parent: str, kind: Kind, labels: Mapping[str, str]) -> Mount:
        """Make a snapshot, and return what is mounted for it.

        Raises
        ------
        ExistsError, NotFoundError, BadRequestError
            The key is taken, or the parent will not do; or what was to be unpacked there is a published layer, and a
            committed snapshot stands for it.
        RepositoryError
            A layer of a thin image below it cannot be had in time; no snapshot is made.
        """
        remote = self._remote if kind is Kind.ACTIVE and REFERENCE in labels else None
        number = self._store.reserve()

        def begin() -> tuple[Snapshot | None, Mount | Below | Lineage]:
            found = self._store.records.parent_for(key, parent)
            seen = self._unions.look(None if found is None else found.number)
            return found, make(seen) if remote is None and isinstance(seen, Below) else seen

        def make(below: Below) -> Mount:
            snapshot = self._store.create(number, key, parent, kind, labels, below.attributes)
            return mount_for(self._store, snapshot, below.directories, thin=below.thin)

        try:
            # In one job where nothing can be slow: a short operation is mostly changes between threads.
            found, done = await self._thread.run(begin)
            if isinstance(done, Mount):
                return done
            if remote is not None:
                await self._refuse_published(number, key, found, labels, remote)
            below = done if isinstance(done, Below) else await self._unions.below(done, holder=str(number))
            return await self._thread.run(lambda: make(below))
        except ExistsError:
            # What exists stays, also where it stands for a published layer since just now.
            self._uses.forget(str(number))
            raise
        except BaseException:
            # The client is told that there is none, or has gone.
            await self._thread.run(lambda: self._store.take_back(number))
            self._uses.forget(str(number))
            raise

    async def _refuse_published(
        self, number: int, key: str, parent: Snapshot | None, labels: Mapping[str, str], remote: RemoteLayers
    ) -> None:
        url = await remote.find(key, parent, labels, holder=str(number))
        if url is None:
            return
        under = "" if parent is None else parent.name
        await self._thread.run(
            lambda: self._store.records.create_remote(number, key, under, labels, reference=REFERENCE, url=url)
        )
        _log.info("layer_not_unpacked", snapshot=key, url=url)
        raise ExistsError(f"snapshot {labels[REFERENCE]} is layer {url}: there is nothing to unpack")

    async def mounts(self, key: str) -> Mount:
        """Return what is mounted for a snapshot that is not committed.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        PreconditionError
            It is committed.
        RepositoryError
            A layer of a thin image below it cannot be had in time.
        """

        def begin() -> tuple[Snapshot, Mount | Lineage]:
            snapshot = self._store.records.find(key)
            if snapshot.kind is Kind.COMMITTED:
                raise PreconditionError(f"snapshot {key} is committed, and nothing is mounted for it")
            seen = self._unions.look(snapshot.parent_number)
            return snapshot, tell(snapshot, seen) if isinstance(seen, Below) else seen

        def tell(snapshot: Snapshot, below: Below) -> Mount:
            return mount_for(self._store, snapshot, below.directories, thin=below.thin)

        snapshot, done = await self._thread.run(begin)
        if isinstance(done, Mount):
            return done
        below = await self._unions.below(done, holder=str(snapshot.number))
        return await self._thread.run(lambda: tell(snapshot, below))

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Make an active snapshot a committed one.

        containerd writes nothing meanwhile, so nothing here may take long.

        Raises
        ------
        ExistsError, NotFoundError, PreconditionError, BadRequestError
            As of the records.
        """

        async def commit() -> None:
            snapshot = await self._thread.run(lambda: self._store.records.commit(name, key, labels))
            # Nothing is mounted for it any more.
            self._uses.forget(str(snapshot.number))

        await to_end(commit())

    async def remove(self, key: str) -> None:
        """Remove a snapshot; its files go with the next clean-up.

        Raises
        ------
        NotFoundError, PreconditionError
            As of the records.
        """

        def forget() -> Snapshot:
            snapshot = self._store.remove(key)
            self._unions.forget(snapshot)
            return snapshot

        async def remove() -> None:
            snapshot = await self._thread.run(forget)
            self._uses.forget(str(snapshot.number))
            self.house.note_removal()

        await to_end(remove())

    async def clean_up(self) -> None:
        """Delete the files of removed snapshots; that goes on if nobody waits, but keeps no program from ending."""
        async with self._cleaning:
            if self._deletion is not None:
                await asyncio.wait((self._deletion,))
            self._deletion = begin_in_thread(self._store.empty_trash)
            await asyncio.shield(self._deletion)

    async def stat(self, key: str) -> Snapshot:
        """Return a snapshot.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        """
        return await self._thread.run(lambda: self._store.records.find(key))

    async def update(self, name: str, labels: Mapping[str, str], paths: Sequence[str]) -> Snapshot:
        """Change the labels of a snapshot.

        Parameters
        ----------
        name
            Key or name.
        labels
            The new ones.
        paths
            What is changed: `labels` for all of them, `labels.NAME` for one, which goes if it is not among the new
            ones; nothing for all.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        BadRequestError
            Something else was to be changed.
        """
        for path in paths:
            if path != "labels" and not path.startswith("labels."):
                raise BadRequestError(f"{path} of snapshot {name} cannot be changed: only labels can")
        named = [path.removeprefix("labels.") for path in paths if path != "labels"]
        if not paths or "labels" in paths:
            return await self._thread.run(lambda: self._store.records.update(name, lambda _: labels))
        changed = {label: labels.get(label, "") for label in named}
        return await self._thread.run(lambda: self._store.records.update(name, lambda old: {**old, **changed}))

    async def search(self, filters: Sequence[str]) -> list[Snapshot]:
        """Return the snapshots that fit one of the filters; all, if there is none.

        Raises
        ------
        BadRequestError
            A filter cannot be read.
        """
        fits = parse_filters(filters)
        return [snapshot for snapshot in await self._thread.run(self._store.records.all) if fits(snapshot)]

    async def usage(self, key: str) -> Usage:
        """Return what a snapshot's own files take; a committed one is measured once.

        Raises
        ------
        NotFoundError
            There is no such snapshot.
        """
        snapshot = await self.stat(key)
        if snapshot.kind is Kind.VIEW or snapshot.remote is not None:
            return Usage(0, 0)
        async with self._measuring.hold(snapshot.number):
            noted = await self._thread.run(lambda: self._store.records.usage(snapshot.number))
            if noted is not None:
                return noted
            try:
                usage = await begin_in_thread(lambda: measure(self._store.diff(snapshot)))
            except FileNotFoundError:
                raise NotFoundError(f"snapshot {key} has been removed meanwhile") from None
            if snapshot.kind is Kind.COMMITTED:
                await self._thread.run(lambda: self._store.records.note_usage(snapshot.number, usage))
            return usage

    async def resume(self) -> None:
        """Note what snapshots use that an earlier process of this program made."""
        snapshots = [one for one in await self.search([]) if one.kind is not Kind.COMMITTED]
        for snapshot in snapshots:
            try:
                lineage = await self._unions.lineage((await self._chain(snapshot))[1:])
            except SuiteError as error:
                # Who asks for it is told the same.
                _log.warning("lineage_of_snapshot_unknown", snapshot=snapshot.name, error=str(error))
                continue
            if lineage.descriptor is not None:
                layer = self._store.layer(snapshot)
                # Which copies it is mounted with, others know.
                self._uses.claim_copies(layer, None)
                self._uses.claim_repositories(layer, lineage.repositories)
        self._uses.adopt_repositories()
        _log.info("resumed", root=str(self._store.root), in_use=len(snapshots), local_copies=self._uses.copies)

    async def _chain(self, snapshot: Snapshot) -> list[Snapshot]:
        return await self._thread.run(lambda: self._store.records.chain(snapshot.number))
