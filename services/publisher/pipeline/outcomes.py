"""What the journal, the metrics and the log are told of a batch on its way into the repository."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from services.common.digest import Digest
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.versions import AddedLayer, PublishedImage
from services.publisher.metrics import Metrics
from services.publisher.pipeline.failures import Failures
from services.publisher.pipeline.units import ReadyImage, ReadyLayer, ReadyRemoval, Unit, names_of, size_of
from services.repository.flat.differences import DifferenceReports
from services.repository.interface import PreparedLayer

__all__ = ["Added", "Outcomes"]

_log = structlog.get_logger(__name__)

_NOTES = 20
"""Notes of a layer that are recorded: enough to see what it is about."""


@dataclass(slots=True)
class Added:
    """What a transaction has."""

    units: list[Unit] = field(default_factory=list)
    """Whole units."""
    found: list[Unit] = field(default_factory=list)
    """Units that another publisher has published before; this transaction has nothing of them."""
    strays: list[PreparedLayer] = field(default_factory=list)
    """Layers of images that failed after these had been added; nothing names them yet."""
    reports: Mapping[Digest, DifferenceReports] = field(default_factory=dict)
    """What people must know of the flat images that it has made."""


class Outcomes:
    """Records how far the units of a batch are."""

    def __init__(self, *, journal: Journal, failures: Failures, metrics: Metrics) -> None:
        self._journal = journal
        self._failures = failures
        self._metrics = metrics

    async def enter(self, units: Sequence[Unit]) -> list[Unit]:
        """Record that units go into a transaction; return those that do.

        Those do not that are other publishers' by now, nor images that are wanted no more.
        """
        held = await self._journal.advance(_digests(units), LayerState.PUBLISHING)
        entered: list[Unit] = []
        for unit in units:
            if isinstance(unit, ReadyLayer):
                enters = unit.digest in held
            else:
                enters = await self._journal.images.enter(unit.record)
            if enters:
                entered.append(unit)
            elif isinstance(unit, ReadyLayer):
                _log.warning("layer is another publisher's by now, it is dropped", digest=unit.digest)
        return entered

    async def held(self, units: Sequence[Unit]) -> list[Unit]:
        """Return those of some units that are this publisher's still, now that nobody else can publish.

        Whoever has taken one over meanwhile may have published it by then, or something newer under its name.
        """
        layers = await self._journal.held(_digests(units))
        records = await self._journal.images.claimed(names_of(units))
        asks = {(record.name, record.ask) for record in records}
        return [
            unit
            for unit in units
            if (unit.digest in layers if isinstance(unit, ReadyLayer) else (unit.record.name, unit.record.ask) in asks)
        ]

    async def leave(self, units: Sequence[Unit]) -> None:
        """Record that units are in no transaction yet, since none could be opened."""
        await self._journal.advance(_digests(units), LayerState.VERIFIED)
        await self._journal.images.leave([unit.record for unit in units if not isinstance(unit, ReadyLayer)])

    async def published(self, added: Added, revision: int | None, seconds: float) -> None:
        """Record that units have become visible.

        Parameters
        ----------
        added
            What the transaction had.
        revision
            The revision that it has become, where that is known.
        seconds
            How long it took.
        """
        if added.found:
            await self._record(Added(units=added.found), None)
            _log.info(
                "published by another publisher before",
                layers=_digests(added.found),
                images=[*names_of(added.found)],
            )
        if not added.units:
            return
        await self._record(added, revision)
        self._failures.none_of([*_digests(added.units), *names_of(added.units)])
        if any(unit.record.share for unit in added.units):
            await self._journal.widen()
            await self._journal.images.widen()
        size = size_of(added.units)
        brought = [prepared.layer.digest for unit in added.units for prepared in unit.layers]
        self._metrics.publish_seconds.observe(seconds)
        self._metrics.batch_layers.observe(len(brought))
        self._metrics.published_bytes.inc(size)
        _log.info(
            "published",
            revision=revision,
            layers=brought,
            images=[unit.record.name for unit in added.units if isinstance(unit, ReadyImage)],
            removed=[unit.record.name for unit in added.units if isinstance(unit, ReadyRemoval)],
            bytes=size,
            seconds=round(seconds, 3),
        )

    async def _record(self, added: Added, revision: int | None) -> None:
        layers = [unit for unit in added.units if isinstance(unit, ReadyLayer)]
        images = [unit for unit in added.units if isinstance(unit, ReadyImage)]
        removed = [unit.record for unit in added.units if isinstance(unit, ReadyRemoval)]
        held = set[str]()
        if layers:
            held |= await self._journal.published(
                _digests(layers),
                revision,
                tree_sizes={layer.digest: layer.size for layer in layers},
                notes={layer.digest: layer.prepared.sidecar.notes for layer in layers},
            )
        if images or removed:
            published = [_published(unit) for unit in images]
            reports = {config: _report(found) for config, found in added.reports.items()}
            held |= await self._journal.versions.published(published, removed, revision=revision, reports=reports)
            for image in published:
                self._metrics.image_seconds.labels("publishing").observe(image.seconds or 0)
        if added.strays:
            await self._journal.versions.added([*map(_added, added.strays)], revision=revision)
        lost = {*_digests(layers), *names_of(added.units)} - held
        if lost:
            _log.warning("published, while others have taken it over and will find it", lost=sorted(lost))


def _report(found: DifferenceReports) -> dict[str, object]:
    return {str(kind): {"count": about.count, "first": list(about.first)} for kind, about in found.items()}


def _digests(units: Sequence[Unit]) -> list[Digest]:
    return [unit.digest for unit in units if isinstance(unit, ReadyLayer)]


def _published(unit: ReadyImage) -> PublishedImage:
    return PublishedImage(
        record=unit.record,
        version=unit.version,
        seconds=time.monotonic() - unit.since,
        added=[*map(_added, unit.layers)],
    )


def _added(prepared: PreparedLayer) -> AddedLayer:
    sidecar = prepared.sidecar
    return AddedLayer(
        digest=prepared.layer.digest,
        archive_size=prepared.layer.size,
        tree_size=sidecar.tree_size,
        notes=sidecar.notes[:_NOTES],
    )
