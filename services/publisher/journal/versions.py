"""The journal of what image names have named: versions, their documents, and the layers that they name.

`layers.named_last` is written in the transaction that changes which versions name a layer: None while one that is
visible does, else until when the last of those that did is kept. Only layers that came from registries have it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.sqlite_file import Run
from services.publisher.journal.file import JournalFile
from services.publisher.journal.flats import name_flats, report_flats, set_named_last
from services.publisher.journal.image_model import ImageRecord, ImageVersion, VersionLayer, VersionRecord
from services.publisher.journal.image_rows import (
    VERSION_COLUMNS,
    images_text,
    outputs_text,
    version_of,
    version_record,
)

__all__ = ["AddedLayer", "PublishedImage", "VersionJournal"]

_NO_REPORTS: Final[Mapping[Digest, object]] = MappingProxyType({})
_NAMED_LAST = """
    UPDATE layers SET named_last = (
        SELECT CASE WHEN max(visible) THEN NULL ELSE coalesce(max(until), :now) END FROM (
            SELECT replaced_at IS NULL AND removed_at IS NULL AS visible,
                max(coalesce(keep_until, 0), coalesce(removed_at, replaced_at, 0)) AS until
            FROM version_layers JOIN image_versions USING (name, digest)
            WHERE layer = layers.digest AND published_at IS NOT NULL AND collected_at IS NULL
        )
    )
    WHERE source = 'registry' AND digest IN (SELECT value FROM json_each(:layers)) RETURNING 1
"""


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
    file
        The journal's file, open while this is used.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    async def resolved(self, record: ImageRecord, version: ImageVersion, *, seconds: float) -> bool:
        """Record what an image is, before anything of it is fetched; False if it is wanted no more."""
        key = {"name": version.name, "digest": version.digest}
        async with self._file.transaction() as run:
            rows = await run(
                """
                UPDATE images SET state = 'fetching', digest = :digest, resolving = :seconds, updated_at = :now
                WHERE name = :name AND ask = :ask RETURNING 1
                """,
                **key,
                ask=record.ask,
                seconds=seconds,
            )
            if not rows:
                return False
            await _drop_unpublished(run, version.name, keep=version.digest)
            await run(
                """
                INSERT INTO image_versions (name, digest, reference, platforms, images, verified, outputs)
                VALUES (:name, :digest, :reference, :platforms, :images, :verified, :outputs)
                ON CONFLICT DO UPDATE SET reference = :reference, platforms = :platforms, images = :images,
                    verified = :verified, outputs = :outputs RETURNING 1
                """,
                **key,
                reference=version.reference,
                platforms=json.dumps(version.platforms),
                images=images_text(version),
                verified=None if version.verified is None else json.dumps(version.verified),
                outputs=outputs_text(version.outputs),
            )
            await run("DELETE FROM version_documents WHERE name = :name AND digest = :digest RETURNING 1", **key)
            for path, content in version.documents.items():
                await run(
                    "INSERT INTO version_documents VALUES (:name, :digest, :path, :content) RETURNING 1",
                    **key,
                    path=path,
                    content=content,
                )
            for position, layer in enumerate(version.layers):
                await run(
                    """
                    INSERT INTO version_layers (name, digest, layer, diff_id, size, position)
                    VALUES (:name, :digest, :layer, :diff_id, :size, :position)
                    ON CONFLICT DO UPDATE SET diff_id = :diff_id, size = :size, position = :position RETURNING 1
                    """,
                    **key,
                    layer=layer.digest,
                    diff_id=layer.diff_id,
                    size=layer.size,
                    position=position,
                )
        return True

    async def missing(self, version: ImageVersion, layers: Iterable[Digest]) -> None:
        """Record which layers of a version the repository does not have, before they are brought there."""
        await self._file.run_passing(
            """
            UPDATE version_layers SET missing = 1
            WHERE name = :name AND digest = :digest AND layer IN (SELECT value FROM json_each(:layers)) RETURNING 1
            """,
            name=version.name,
            digest=version.digest,
            layers=json.dumps(list(layers)),
        )

    async def unfinished(self) -> tuple[Digest, ...]:
        """Return the layers of images that have been resolved and not been published."""
        rows = await self._file.run(
            """
            SELECT DISTINCT layer FROM version_layers JOIN images USING (name, digest)
            WHERE state NOT IN ('published', 'removed') AND missing
            """
        )
        return tuple(Digest(row["layer"]) for row in rows)

    async def unrecorded(self) -> list[VersionLayer]:
        """Return layers that were fetched for images and of which it is not known that they have been published."""
        rows = await self._file.run(
            """
            SELECT layer, min(diff_id) AS diff_id, min(size) AS size
            FROM version_layers JOIN image_versions USING (name, digest)
            WHERE missing AND collected_at IS NULL AND layer NOT IN (SELECT digest FROM layers) GROUP BY layer
            """
        )
        return [VersionLayer(Digest(row["layer"]), Digest(row["diff_id"]), row["size"]) for row in rows]

    async def published(
        self,
        images: Sequence[PublishedImage],
        removed: Sequence[ImageRecord],
        *,
        revision: int | None,
        reports: Mapping[Digest, object] = _NO_REPORTS,
    ) -> None:
        """Record that images have become visible, and that others have been removed, by one revision.

        Parameters
        ----------
        images, removed
            What the revision has changed.
        revision
            Its number, where that is known.
        reports
            What people must know of flat images that have been made, each as a document, by their configurations.
        """
        async with self._file.transaction() as run:
            touched: set[str] = set()
            flats: set[str] = set()
            for image in images:
                touched |= await _publish(run, image, revision)
                flats |= {*image.version.shown, *await name_flats(run, image.version)}
                flats |= await _flats_of(run, image.version.name)
            await report_flats(run, reports)
            for record in removed:
                touched |= await _remove(run, record)
                flats |= await _flats_of(run, record.name)
            await run(_NAMED_LAST, layers=json.dumps(sorted(touched)))
            keep = max((record.keep or 0 for record in (*(image.record for image in images), *removed)), default=0)
            await set_named_last(run, flats, keep=keep)

    async def added(self, layers: Sequence[AddedLayer], *, revision: int | None) -> None:
        """Record layers that have been published without the image that they were fetched for."""
        async with self._file.transaction() as run:
            await _add_layers(run, layers, revision)
            await run(_NAMED_LAST, layers=json.dumps([layer.digest for layer in layers]))

    async def unchanged(self, record: ImageRecord) -> None:
        """Record that an image that was asked for is what readers see already."""
        await self._file.run(
            """
            UPDATE images SET state = CASE again WHEN 0 THEN 'published' ELSE 'asked' END, again = 0, attempts = 0,
                share = NULL, reason = NULL, retryable = 0, due = 0, checked_at = :now, updated_at = :now
            WHERE name = :name AND ask = :ask RETURNING 1
            """,
            name=record.name,
            ask=record.ask,
        )

    async def read(self, name: ImageName, digest: Digest) -> ImageVersion | None:
        """Read a version whole; None if it is not known, or has been collected."""
        key: Mapping[str, object] = {"name": name, "digest": digest}
        rows = await self._file.run(
            f"""
            SELECT {VERSION_COLUMNS} FROM image_versions
            WHERE name = :name AND digest = :digest AND collected_at IS NULL
            """,  # noqa: S608 - constants of this package
            **key,
        )
        if not rows:
            return None
        statement = "SELECT path, content FROM version_documents WHERE name = :name AND digest = :digest"
        return version_of(rows[0], await self._file.run(statement, **key))

    async def layers(self, versions: Iterable[tuple[ImageName, Digest]]) -> dict[ImageName, list[VersionLayer]]:
        """Return the layers of versions, one of each name: each layer once, in their order."""
        rows = await self._file.run(
            """
            SELECT name, layer, diff_id, size FROM json_each(:wanted) AS wanted
            JOIN version_layers ON name = wanted.key AND digest = wanted.value ORDER BY name, position
            """,
            wanted=json.dumps(dict(versions)),
        )
        found: dict[ImageName, list[VersionLayer]] = {}
        for row in rows:
            layer = VersionLayer(Digest(row["layer"]), Digest(row["diff_id"]), row["size"])
            found.setdefault(ImageName(row["name"]), []).append(layer)
        return found

    async def of(self, name: ImageName) -> list[VersionRecord]:
        """Return the versions of a name that have been published, the last one first."""
        rows = await self._file.run(
            f"""
            SELECT {VERSION_COLUMNS} FROM image_versions WHERE name = :name AND published_at IS NOT NULL
            ORDER BY published_at DESC, digest
            """,  # noqa: S608 - constants of this package
            name=name,
        )
        return [version_record(row) for row in rows]


async def _publish(run: Run, image: PublishedImage, revision: int | None) -> set[str]:
    """Record one image; return the layers that are named by more or fewer versions now."""
    record, version = image.record, image.version
    key = {"name": version.name, "digest": version.digest}
    await run(
        """
        UPDATE images SET published = :digest, revision = :revision, published_at = :now, checked_at = :now,
            removed_at = NULL, publishing = :seconds WHERE name = :name RETURNING 1
        """,
        **key,
        revision=revision,
        seconds=image.seconds,
    )
    await run(
        """
        UPDATE images SET state = CASE again WHEN 0 THEN 'published' ELSE 'asked' END, again = 0, attempts = 0,
            share = NULL, reason = NULL, retryable = 0, due = 0, updated_at = :now
        WHERE name = :name AND ask = :ask RETURNING 1
        """,
        name=version.name,
        ask=record.ask,
    )
    replaced = await run(
        """
        UPDATE image_versions SET replaced_at = :now, keep_until = :now + :keep
        WHERE name = :name AND digest <> :digest AND published_at IS NOT NULL AND replaced_at IS NULL
            AND removed_at IS NULL RETURNING digest
        """,
        **key,
        keep=record.keep or 0,
    )
    await run(
        """
        UPDATE image_versions SET published_at = :now, replaced_at = NULL, removed_at = NULL, keep_until = NULL,
            collected_at = NULL WHERE name = :name AND digest = :digest RETURNING 1
        """,
        **key,
    )
    await _add_layers(run, image.added, revision)
    named = [layer.digest for layer in version.layers]
    gone = await run(
        """
        DELETE FROM version_layers WHERE name = :name AND digest = :digest
            AND layer NOT IN (SELECT value FROM json_each(:named)) RETURNING layer
        """,
        **key,
        named=json.dumps(named),
    )
    former = [layer for row in replaced for layer in await _layers_of(run, version.name, row["digest"])]
    return {*named, *former, *(row["layer"] for row in gone)}


async def _remove(run: Run, record: ImageRecord) -> set[str]:
    rows = await run(
        """
        UPDATE image_versions SET removed_at = :now, keep_until = :now + :keep
        WHERE name = :name AND published_at IS NOT NULL AND replaced_at IS NULL AND removed_at IS NULL
        RETURNING digest
        """,
        name=record.name,
        keep=record.keep or 0,
    )
    await run(
        """
        UPDATE images SET published = NULL, removed_at = :now, updated_at = :now,
            state = CASE WHEN ask = :ask THEN 'removed' ELSE state END,
            reason = CASE WHEN ask = :ask THEN NULL ELSE reason END
        WHERE name = :name RETURNING 1
        """,
        name=record.name,
        ask=record.ask,
    )
    await _drop_unpublished(run, record.name, keep=None)
    return {layer for row in rows for layer in await _layers_of(run, record.name, row["digest"])}


async def _layers_of(run: Run, name: ImageName, digest: str) -> list[str]:
    statement = "SELECT layer FROM version_layers WHERE name = :name AND digest = :digest"
    return [row["layer"] for row in await run(statement, name=name, digest=digest)]


async def _flats_of(run: Run, name: ImageName) -> set[str]:
    """Return the flat images that versions of a name have."""
    return {row["config"] for row in await run("SELECT config FROM version_flats WHERE name = :name", name=name)}


async def _drop_unpublished(run: Run, name: ImageName, *, keep: Digest | None) -> None:
    """Forget versions of a name that never became visible, but for one."""
    for table in ("version_documents", "version_layers", "image_versions"):
        await run(
            f"""
            DELETE FROM {table} WHERE name = :name AND digest IN (
                SELECT digest FROM image_versions WHERE name = :name AND published_at IS NULL
                    AND digest IS NOT :keep
            ) RETURNING 1
            """,  # noqa: S608 - one of three names
            name=name,
            keep=keep,
        )


async def _add_layers(run: Run, layers: Sequence[AddedLayer], revision: int | None) -> None:
    for layer in layers:
        # One that the bucket has announced keeps that source.
        await run(
            """
            INSERT INTO layers (digest, state, revision, archive_size, tree_size, notes, source, announced_at,
                updated_at)
            VALUES (:digest, 'published', :revision, :archive_size, :tree_size, :notes, 'registry', :now, :now)
            ON CONFLICT DO UPDATE SET state = 'published', revision = :revision, archive_size = :archive_size,
                tree_size = coalesce(:tree_size, tree_size), notes = :notes, reason = NULL, attempts = 0, share = NULL,
                retryable = 0, due = 0, updated_at = :now RETURNING 1
            """,
            digest=layer.digest,
            revision=revision,
            archive_size=layer.archive_size,
            tree_size=layer.tree_size,
            notes=json.dumps(list(layer.notes)),
        )
