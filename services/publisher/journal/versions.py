"""The journal of what image names have named: versions, their documents, and the layers that they name.

`layers.named_last` is written in the transaction that changes which versions name a layer: None while one that is
visible does, else until when the last of those that did is kept. Only layers that came from registries have it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from services.common.database.interface import Database, Run
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.journal import version_statements as statements
from services.publisher.journal.flat_statements import FLATS_OF_NAME
from services.publisher.journal.flats import name_flats, plan_flats, report_flats, set_named_last
from services.publisher.journal.image_model import ImageRecord, ImageVersion, VersionLayer, VersionRecord
from services.publisher.journal.image_rows import images_text, outputs_text, version_of, version_record

__all__ = ["AddedLayer", "PublishedImage", "VersionJournal"]

_NO_REPORTS: Final[Mapping[Digest, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class AddedLayer:
    """A layer that an image has brought into the repository."""

    digest: Digest
    archive_size: int
    tree_size: int | None
    """Bytes of its files; None where an earlier publisher has added it."""
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedImage:
    """An image that is visible now."""

    record: ImageRecord
    version: ImageVersion
    seconds: float | None
    """How long publishing took; None where an earlier publisher did it."""
    added: Sequence[AddedLayer] = field(default=())


class VersionJournal:
    """The versions of images, kept until they are collected.

    Parameters
    ----------
    database
        The journal's, open while this is used.
    me
        The publisher that uses it, see `PublisherRecord.id`.
    """

    def __init__(self, database: Database, *, me: str) -> None:
        self._database = database
        self._me = me

    async def resolved(self, record: ImageRecord, version: ImageVersion, *, seconds: float) -> bool:
        """Record what an image is, before anything of it is fetched; False if it is wanted no more."""
        key = {"name": version.name, "digest": version.digest}
        async with self._database.transaction() as run:
            rows = await run(statements.RESOLVED, **key, me=self._me, ask=record.ask, seconds=seconds)
            if not rows:
                return False
            await _drop_unpublished(run, version.name, keep=version.digest)
            await run(
                statements.ADD_VERSION,
                **key,
                reference=version.reference,
                platforms=json.dumps(version.platforms),
                images=images_text(version),
                verified=None if version.verified is None else json.dumps(version.verified),
                outputs=outputs_text(version.outputs),
            )
            await run(statements.DROP_DOCUMENTS, **key)
            for path, content in version.documents.items():
                await run(statements.ADD_DOCUMENT, **key, path=path, content=content)
            for position, layer in enumerate(version.layers):
                await run(
                    statements.ADD_LAYER_OF_VERSION,
                    **key,
                    layer=layer.digest,
                    diff_id=layer.diff_id,
                    size=layer.size,
                    position=position,
                )
            await plan_flats(run, version)
        return True

    async def missing(self, version: ImageVersion, layers: Iterable[Digest]) -> None:
        """Record which layers of a version the repository does not have, before they are brought there."""
        await self._database.run_passing(
            statements.MISSING, name=version.name, digest=version.digest, layers=json.dumps(list(layers))
        )

    async def unfinished(self) -> tuple[Digest, ...]:
        """Return the layers of images that have been resolved and not been published."""
        rows = await self._database.run(statements.UNFINISHED)
        return tuple(Digest(row["layer"]) for row in rows)

    async def unrecorded(self) -> list[VersionLayer]:
        """Return layers that were fetched for images and of which it is not known that they have been published."""
        rows = await self._database.run(statements.UNRECORDED)
        return [VersionLayer(Digest(row["layer"]), Digest(row["diff_id"]), row["size"]) for row in rows]

    async def published(
        self,
        images: Sequence[PublishedImage],
        removed: Sequence[ImageRecord],
        *,
        revision: int | None,
        reports: Mapping[Digest, object] = _NO_REPORTS,
    ) -> frozenset[ImageName]:
        """Record that images have become visible, and that others have been removed, by one revision.

        Of those whose names this publisher has not claimed any more nothing is recorded: whoever has them finds out.

        Parameters
        ----------
        images, removed
            What the revision has changed.
        revision
            Its number, where that is known.
        reports
            What people must know of flat images that have been made, each as a document, by their configurations.

        Returns
        -------
        frozenset[ImageName]
            Those of which that has been recorded.
        """
        recorded = set[ImageName]()
        async with self._database.transaction() as run:
            touched: set[str] = set()
            flats: set[str] = set()
            for image in images:
                layers = await _publish(run, image, revision, me=self._me)
                if layers is None:
                    continue
                recorded.add(image.record.name)
                touched |= layers
                flats |= {*image.version.shown, *await name_flats(run, image.version)}
                flats |= await _flats_of(run, image.version.name)
            await report_flats(run, reports)
            for record in removed:
                layers = await _remove(run, record, me=self._me)
                if layers is None:
                    continue
                recorded.add(record.name)
                touched |= layers
                flats |= await _flats_of(run, record.name)
            await run(statements.NAME_LAYERS, layers=json.dumps(sorted(touched)))
            keep = max((record.keep or 0 for record in (*(image.record for image in images), *removed)), default=0)
            await set_named_last(run, flats, keep=keep)
        return frozenset(recorded)

    async def added(self, layers: Sequence[AddedLayer], *, revision: int | None) -> None:
        """Record layers that have been published without the image that they were fetched for."""
        async with self._database.transaction() as run:
            await _add_layers(run, layers, revision)
            await run(statements.NAME_LAYERS, layers=json.dumps([layer.digest for layer in layers]))

    async def unchanged(self, record: ImageRecord) -> None:
        """Record that an image that was asked for is what readers see already."""
        await self._database.run(statements.UNCHANGED, me=self._me, name=record.name, ask=record.ask)

    async def read(self, name: ImageName, digest: Digest) -> ImageVersion | None:
        """Read a version whole; None if it is not known, or has been collected."""
        key: Mapping[str, object] = {"name": name, "digest": digest}
        rows = await self._database.run(statements.READ, **key)
        if not rows:
            return None
        return version_of(rows[0], await self._database.run(statements.DOCUMENTS, **key))

    async def layers(self, versions: Iterable[tuple[ImageName, Digest]]) -> dict[ImageName, list[VersionLayer]]:
        """Return the layers of versions, one of each name: each layer once, in their order."""
        rows = await self._database.run(statements.LAYERS_OF_VERSIONS, wanted=json.dumps(dict(versions)))
        found: dict[ImageName, list[VersionLayer]] = {}
        for row in rows:
            layer = VersionLayer(Digest(row["layer"]), Digest(row["diff_id"]), row["size"])
            found.setdefault(ImageName(row["name"]), []).append(layer)
        return found

    async def of(self, name: ImageName) -> list[VersionRecord]:
        """Return the versions of a name that have been published, the last one first."""
        rows = await self._database.run(statements.OF_NAME, name=name)
        return [version_record(row) for row in rows]


async def _publish(run: Run, image: PublishedImage, revision: int | None, *, me: str) -> set[str] | None:
    """Record one image; return the layers that are named by more or fewer versions now, None if it is another's."""
    record, version = image.record, image.version
    key = {"name": version.name, "digest": version.digest}
    if not await run(statements.SHOW, **key, me=me, revision=revision, seconds=image.seconds):
        return None
    await run(statements.SETTLE, me=me, name=version.name, ask=record.ask)
    replaced = await run(statements.REPLACE, **key, keep=record.keep or 0)
    await run(statements.SHOW_VERSION, **key)
    await _add_layers(run, image.added, revision)
    named = [layer.digest for layer in version.layers]
    gone = await run(statements.DROP_OTHER_LAYERS, **key, named=json.dumps(named))
    former = [layer for row in replaced for layer in await _layers_of(run, version.name, row["digest"])]
    return {*named, *former, *(row["layer"] for row in gone)}


async def _remove(run: Run, record: ImageRecord, *, me: str) -> set[str] | None:
    if not await run(statements.REMOVE, me=me, name=record.name, ask=record.ask):
        return None
    rows = await run(statements.REMOVE_VERSION, name=record.name, keep=record.keep or 0)
    await _drop_unpublished(run, record.name, keep=None)
    return {layer for row in rows for layer in await _layers_of(run, record.name, row["digest"])}


async def _layers_of(run: Run, name: ImageName, digest: str) -> list[str]:
    return [row["layer"] for row in await run(statements.LAYERS, name=name, digest=digest)]


async def _flats_of(run: Run, name: ImageName) -> set[str]:
    """Return the flat images that versions of a name have."""
    return {row["config"] for row in await run(FLATS_OF_NAME, name=name)}


async def _drop_unpublished(run: Run, name: ImageName, *, keep: Digest | None) -> None:
    """Forget versions of a name that never became visible, but for one."""
    for drop in statements.DROP_UNPUBLISHED:
        await run(drop, name=name, kept=keep)


async def _add_layers(run: Run, layers: Sequence[AddedLayer], revision: int | None) -> None:
    for layer in layers:
        await run(
            statements.ADD_LAYER,
            digest=layer.digest,
            revision=revision,
            archive_size=layer.archive_size,
            tree_size=layer.tree_size,
            notes=json.dumps(list(layer.notes)),
        )
    if layers:
        await run(statements.BROUGHT, layers=json.dumps([layer.digest for layer in layers]))
