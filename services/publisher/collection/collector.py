"""Takes layers out of the repository that no image names any more, and flat images that no name leads to.

No image loses a layer, whatever happens at the same time. A layer that is to go is in flight while that is decided and
done, and whoever admits an image waits for it to land and looks again; an image that was admitted before has said so in
the journal before, which the decision reads after the layer has been put in flight. Other publishers do not see what is
in flight here. So that is decided in the transaction which takes the layers out: an image that another publisher has
published before has said so in the journal, and one that is published after is looked through for what has gone.

What is about to be taken out is in the journal before it is, so that whoever has the next transaction finds out what
became of it: nobody takes anything out meanwhile, or brings it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.common.digest import Digest
from services.common.object_store.errors import ObjectConflictError
from services.common.object_store.store import ObjectStore
from services.publisher.errors import PublisherError
from services.publisher.journal.flats import UnnamedFlat
from services.publisher.journal.journal import Journal
from services.publisher.journal.unnamed import UnnamedLayer
from services.publisher.metrics import CollectionOutcome, Metrics
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.gate import Gate
from services.repository.errors import (
    ImageAdditionError,
    LayerRemovalError,
    NoTransactionError,
    RepositoryError,
    TransactionLeftOpenError,
)
from services.repository.interface import Repository, Transaction

__all__ = ["Collection", "CollectionRefusedError", "CollectionRules", "LayerCollector"]

_log = structlog.get_logger(__name__)

_LOOK: Final = 3600
"""Most seconds between two looks at what is named by nothing."""
_SEEN: Final = 86400
"""Seconds of its running time in which the publisher must have seen a layer named by nothing, if not less will do."""


class CollectionRefusedError(PublisherError):
    """Nothing is collected now, for a reason that passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRules:
    """What an administrator decides about collections."""

    after: float
    """Seconds since a layer was last named."""
    limit: int
    """Most layers that one collection takes out."""
    interval: float
    """Seconds between two collections; 0 for none but those that are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection has done, or would do."""

    dry_run: bool
    at: float
    """In seconds since the epoch."""
    layers: Sequence[UnnamedLayer]
    """Those that are gone, or would go."""
    revision: int | None = None
    flats: Sequence[UnnamedFlat] = ()
    """Flat images that are gone, or would go."""
    kept: dict[Digest, str] = field(default_factory=dict)
    """Layers and flat images that could not be taken out, and why."""


class LayerCollector:
    """Collects now and then, and when it is asked to.

    Parameters
    ----------
    turn
        Held by whoever has a transaction of the repository.
    recovered
        Set when it is known what an earlier publisher has left.
    monotonic
        Seconds of running time.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        repository: Repository,
        flights: Flights,
        gate: Gate,
        turn: asyncio.Lock,
        recovered: asyncio.Event,
        store: ObjectStore,
        rules: CollectionRules,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self.last: Collection | None = None
        """The last one that was no dry run."""
        self._journal = journal
        self._repository = repository
        self._flights = flights
        self._gate = gate
        self._turn = turn
        self._recovered = recovered
        self._store = store
        self._metrics = metrics
        self._monotonic = monotonic
        self._looked: float | None = None
        """When this publisher looked last; None if it does not lead: the time counts that one of them runs."""

    async def run(self) -> None:
        """Look and collect until cancelled, while this publisher leads.

        Raises
        ------
        JournalError
            The journal failed.
        """
        begun = self._looked = self._monotonic()
        try:
            await self._run(begun)
        finally:
            self._looked = None

    async def _run(self, begun: float) -> None:
        while True:
            interval = self.rules.interval
            await asyncio.sleep(min(interval or _LOOK, _LOOK))
            await self.look()
            if interval and self._monotonic() - begun >= interval:
                begun = self._monotonic()
                try:
                    await self.collect(dry_run=False)
                except (RepositoryError, CollectionRefusedError) as error:
                    _log.warning("nothing has been collected", reason=str(error), seconds=interval)

    async def recover(self) -> None:
        """Record what a publisher has taken out and had no time to record.

        That is found out in a transaction: no collection that is under way is taken for one that was left.

        Raises
        ------
        JournalError
            The journal failed.
        RepositoryError
            The repository cannot be read, or no transaction can be opened.
        """
        async with self._turn:
            if await self._journal.unnamed.interrupted():
                async with self._transaction():
                    await self._record_left()

    async def look(self) -> None:
        """Take note of what is named by nothing, if this publisher leads."""
        if self._looked is None:
            return
        now = self._monotonic()
        elapsed, self._looked = now - self._looked, now
        await self._journal.unnamed.look(elapsed)
        await self._journal.flats.look()

    async def collect(self, *, dry_run: bool, commits: Sequence[Digest] = ()) -> Collection:
        """Take out what may go.

        Parameters
        ----------
        dry_run
            Only tell what would go.
        commits
            Layers that came by commits and may go as well. Thin images that name them are in registries which the
            publisher does not see, so only an operator can know.

        Raises
        ------
        CollectionRefusedError
            Publishing is paused, or has not begun.
        RepositoryError
            It could not be done; everything is in the repository as before.
        ObjectStoreError
            It cannot be told whether the bucket has the archives of commits.
        JournalError
            The journal failed.
        """
        await self.look()
        rules = self.rules
        seen = min(rules.after, _SEEN)
        due = await self._journal.unnamed.due(after=rules.after, seen=seen, limit=rules.limit)
        flats = await self._journal.flats.due(after=rules.after, seen=seen, limit=rules.limit)
        committed, kept = await self._committed(commits)
        if dry_run:
            return Collection(dry_run=True, at=time.time(), layers=[*due, *committed], flats=flats, kept=kept)
        try:
            if due or committed or flats:
                done = await self._collect(due, committed, flats, kept)
            else:
                done = Collection(dry_run=False, at=time.time(), layers=(), kept=kept)
        except CollectionRefusedError:
            self._metrics.collections.labels(CollectionOutcome.POSTPONED).inc()
            raise
        except RepositoryError:
            self._metrics.collections.labels(CollectionOutcome.FAILED).inc()
            raise
        self._metrics.collections.labels(CollectionOutcome.DONE).inc()
        self._metrics.collected_at.set(done.at)
        self._metrics.collected_layers.inc(len(done.layers))
        self._metrics.uncollectable_layers.set(len(done.kept))
        self.last = done
        return done

    async def _committed(self, digests: Sequence[Digest]) -> tuple[list[UnnamedLayer], dict[Digest, str]]:
        """Return those of some layers that came by commits and may go, and why others may not."""
        known = {layer.digest: layer for layer in await self._journal.unnamed.committed(digests)}
        found: dict[Digest, UnnamedLayer] = {}
        kept: dict[Digest, str] = {}
        for digest in digests:
            if digest not in known:
                kept[digest] = "no published layer of a commit, or an image names it, or can be restored that does"
            elif await self._is_stored(digest):
                kept[digest] = (
                    f"a sweep would publish it again: remove its archive sha256/{digest} from the bucket first"
                )
            else:
                found[digest] = known[digest]
        return list(found.values()), kept

    async def _is_stored(self, digest: Digest) -> bool:
        try:
            return await self._store.head(digest) is not None
        except ObjectConflictError:
            return True  # an object whose metadata are wrong is an object

    async def _collect(
        self,
        unnamed: Sequence[UnnamedLayer],
        committed: Sequence[UnnamedLayer],
        flats: Sequence[UnnamedFlat],
        kept: dict[Digest, str],
    ) -> Collection:
        if not self._recovered.is_set():
            raise CollectionRefusedError(
                "another publisher leads, or what an earlier one has left is still being cleaned up: try again"
            )
        async with self._turn:
            if not self._gate.is_open:
                raise CollectionRefusedError("publishing is paused, and so are collections: resume it first")
            due = [*unnamed, *committed]
            flying = [layer.digest for layer in due if self._flights.take([layer.digest])]
            try:
                await self._journal.unnamed.release([layer.digest for layer in committed if layer.digest in flying])
                revision, gone = await self._remove(flying, flats, kept) if flying or flats else (None, set())
                await self._journal.unnamed.collected(
                    [digest for digest in flying if digest in gone],
                    kept=[digest for digest in flying if digest not in gone],
                )
                await self._journal.flats.collected([flat.config for flat in flats if flat.config in gone])
            finally:
                self._flights.land(flying)
        layers = [layer for layer in due if layer.digest in gone]
        flats = [flat for flat in flats if flat.config in gone]
        _log.info(
            "collected",
            layers=[layer.digest for layer in layers],
            flats=[flat.config for flat in flats],
            kept=kept,
            revision=revision,
            bytes=sum(each.size or 0 for each in layers),
        )
        return Collection(dry_run=False, at=time.time(), layers=layers, flats=flats, revision=revision, kept=kept)

    async def _remove(
        self, flying: Sequence[Digest], unnamed: Sequence[UnnamedFlat], kept: dict[Digest, str]
    ) -> tuple[int | None, set[Digest]]:
        """Take out what may still go; return the revision without it, if there is one, and what has gone."""
        revision = None
        async with self._transaction() as transaction:
            await self._record_left()
            digests = await self._journal.unnamed.claim(flying)
            # Whoever names a flat image makes it in a transaction, so that nobody does meanwhile.
            flats = await self._journal.flats.still_due(unnamed)
            for config in flats:
                try:
                    await transaction.remove_flat(config)
                except ImageAdditionError as error:
                    kept[config] = str(error)
            # After the images that stand on them: a layer of one that stays is not given away.
            unused = await self._journal.unnamed.still_unused(digests)
            kept |= dict.fromkeys(set(digests).difference(unused), "an image that another publisher has needs it")
            for digest in unused:
                try:
                    await transaction.remove_layer(digest)
                except LayerRemovalError as error:
                    kept[digest] = str(error)
            gone = {digest for digest in (*digests, *flats) if digest not in kept}
            if gone:
                revision = await transaction.publish()
        return revision, gone

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction of the repository that the journal knows; errors as `Repository.transaction`."""
        token = secrets.token_hex(16)
        await self._journal.begin(token)
        try:
            async with self._repository.transaction(token) as transaction:
                yield transaction
        except (NoTransactionError, TransactionLeftOpenError):
            raise  # the journal keeps the token: what was left open of it is aborted by the next one
        except RepositoryError:
            await self._journal.none_open()
            raise
        await self._journal.none_open()

    async def _record_left(self) -> None:
        """Record what became of layers that others were taking out; in a transaction, so that it is over."""
        left = await self._journal.unnamed.interrupted()
        gone = [digest for digest in left if await self._repository.lookup(digest) is None]
        if left:
            await self._journal.unnamed.collected(gone, kept=[digest for digest in left if digest not in gone])
