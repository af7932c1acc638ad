"""The tag database, and the reference log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.database import Database
from services.repository.native.reader.source import Source, pieces_of
from services.repository.native.records import REFLOG, ContentHash, HashAlgorithm, RefKind

__all__ = ["Reference", "Reflog", "Tag", "read_references", "read_tags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A named revision."""

    name: str
    root: ContentHash
    """Its root catalog."""
    revision: int
    published: int
    """Unix seconds."""
    description: str
    size: int
    """Of the uncompressed root catalog, in bytes."""


class Reference(NamedTuple):
    """An object that the reference log lists."""

    hash: ContentHash
    kind: RefKind
    added: int
    """Unix seconds."""


def read_tags(database: Database) -> list[Tag]:
    """Return the tags of a tag database, the newest revision first.

    Raises
    ------
    BrokenRepositoryError
        It has not the form.
    """
    rows = database.rows(
        "SELECT name, hash, revision, timestamp, description, size FROM tags ORDER BY revision DESC, name"
    )
    return [_tag(row, database.name) for row in rows]


def _tag(row: tuple[Any, ...], where: str) -> Tag:
    name, text, revision, published, description, size = row
    try:
        return Tag(
            name=name.decode(),
            root=ContentHash.parse(text.decode("ascii")),
            revision=_number(revision),
            published=_number(published),
            description=(description or b"").decode(),
            size=_number(size),
        )
    except (AttributeError, ValueError):
        raise BrokenRepositoryError(f"{where}: the tag {name!r} is malformed: {row[1:]!r}") from None


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


@dataclass(frozen=True, slots=True)
class Reflog:
    """The reference log, and the hash of its file, which has not been compared with anything."""

    database: Database
    hash: ContentHash

    @classmethod
    def load(cls, source: Source, algorithm: HashAlgorithm) -> Self:
        """Fetch and open it.

        Raises
        ------
        ObjectMissingError, StorageError
            As `Source.open`.
        BrokenRepositoryError
            It is no SQLite file.
        """
        hasher = algorithm.hasher()

        def hashed() -> Iterator[bytes]:
            for piece in pieces_of(source, REFLOG):
                hasher.update(piece)
                yield piece

        database = Database(hashed(), name=REFLOG)
        return cls(database, ContentHash(algorithm.finish(hasher), algorithm))


def read_references(database: Database) -> Iterator[Reference]:
    """Iterate over the references of a reference log.

    Raises
    ------
    BrokenRepositoryError
        It has not the form.
    """
    for text, kind, added in database.rows("SELECT hash, type, timestamp FROM refs"):
        try:
            yield Reference(ContentHash.parse(text.decode("ascii")), RefKind(kind), _number(added))
        except (AttributeError, ValueError, InvalidValueError):
            raise BrokenRepositoryError(f"{REFLOG}: the reference {text!r} of type {kind!r} is malformed") from None
