"""Names that people give to revisions: what has one is never collected, and clients can be pinned to it.

A change of tags is no new revision: the manifest gets another tag database and keeps its number and time, as with the
stock tools. Who looks a tag up reads the manifest as it is now.
"""

import dataclasses
from collections.abc import Sequence

from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import TagError
from services.repository.native.records import REFLOG, ContentHash, ObjectKind, RefKind
from services.repository.native.revisions import RevisionRecord, read_revision, revisions
from services.repository.native.writer.history import History, Tag, TagName
from services.repository.native.writer.manifest import Manifest, Root
from services.repository.native.writer.reflog import ReferenceLog

__all__ = ["Tags"]


class Tags:
    """The tags of one repository (blocking).

    Parameters
    ----------
    access
        The repository.
    """

    def __init__(self, access: RepositoryAccess) -> None:
        self._access = access
        self._history = History()
        self._reflog = ReferenceLog()

    def list(self) -> list[Tag]:
        """Return the tags, the newest revision first.

        Raises
        ------
        NativeError
            The repository cannot be read.
        """
        manifest = self._access.verify()
        if manifest.history is None:
            return []
        return self._history.read(self._database(manifest.history), name=self._access.name)

    def add(self, name: TagName, *, description: str, revision: int | None) -> Tag:
        """Give a revision a name.

        Parameters
        ----------
        name
            One that is not there yet.
        description
            What people should know of it.
        revision
            Number of the revision; None for the head.

        Raises
        ------
        TagError
            The name is there already, or the revision is not, or no longer.
        NativeError
            The repository cannot be changed.
        """
        with self._access.changing() as manifest:
            database = self._database_of(manifest)
            if any(tag.name == name for tag in self._history.read(database, name=self._access.name)):
                raise TagError(f"there is a tag {name} already: remove it first, if nobody relies on it")
            record = self._find(manifest, revision)
            tag = Tag(
                name=name,
                root=record.root,
                size=record.size,
                revision=record.revision,
                timestamp=record.published,
                description=description,
            )
            previous = self._previous(manifest)
            self._replace(manifest, self._history.add(database, tag, previous=previous, name=self._access.name))
        return tag

    def remove(self, names: Sequence[TagName]) -> None:
        """Take names away from revisions, which may then be collected.

        Raises
        ------
        TagError
            One of them is not there; none has been removed.
        NativeError
            The repository cannot be changed.
        """
        with self._access.changing() as manifest:
            database = self._database_of(manifest)
            there = {tag.name for tag in self._history.read(database, name=self._access.name)}
            if missing := [name for name in names if name not in there]:
                raise TagError(f"there is no tag {', '.join(missing)}")
            previous = self._previous(manifest)
            self._replace(manifest, self._history.remove(database, names, previous=previous, name=self._access.name))

    def _find(self, manifest: Manifest, revision: int | None) -> RevisionRecord:
        if revision is None:
            return read_revision(self._access.storage, manifest.root)
        for record in revisions(self._access.storage, manifest):
            if record.revision == revision:
                return record
            if record.revision < revision:
                break
        raise TagError(f"there is no revision {revision}, or it has been collected")

    def _previous(self, manifest: Manifest) -> ContentHash:
        return manifest.history or ContentHash.null(manifest.root.algorithm)

    def _database_of(self, manifest: Manifest) -> bytes:
        if manifest.history is not None:
            return self._database(manifest.history)
        root = Root(
            catalog=manifest.root,
            size=manifest.root_size,
            revision=manifest.revision,
            published=manifest.published,
        )
        return self._history.advance(None, previous=self._previous(manifest), name=self._access.name, root=root)

    def _database(self, name: ContentHash) -> bytes:
        return self._access.get(name, ObjectKind.HISTORY)

    def _replace(self, manifest: Manifest, database: bytes) -> None:
        history = self._access.put(database, ObjectKind.HISTORY)
        reflog = self._reflog.add(
            self._access.storage.read(REFLOG),
            [(history, RefKind.HISTORY)],
            name=self._access.name,
            timestamp=manifest.published,
        )
        self._access.head.replace(dataclasses.replace(manifest, history=history), reflog=reflog)
