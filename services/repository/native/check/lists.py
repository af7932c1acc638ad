"""Checks what the manifest names besides catalogs: the tag database, meta information, links."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from services.common.errors import InvalidValueError
from services.repository.native.check.problem import RESTORE, Problem
from services.repository.native.check.replication import describe_loss
from services.repository.native.check.trust import REPUBLISH
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.database import Database
from services.repository.native.reader.history import Tag, read_tags
from services.repository.native.reader.letters import Manifest
from services.repository.native.reader.objects import read_object
from services.repository.native.reader.source import Source
from services.repository.native.records import MANIFEST, ContentHash, ObjectKind

__all__ = ["check_links", "check_meta", "check_tags"]

_META_LIMIT: Final = 16 << 20
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9_./:-]+")
_RETAG: Final = "remove the tag, or set it again (thin-repository tag)"


def check_tags(source: Source, manifest: Manifest, problems: list[Problem]) -> Sequence[Tag]:
    """Check the tag database, and return the tags.

    Parameters
    ----------
    source
        Where the repository is.
    manifest
        Of its head.
    problems
        Gets what is wrong.

    Raises
    ------
    StorageError
        The storage failed.
    """
    if manifest.history is None:
        return ()
    path = manifest.history.path(ObjectKind.HISTORY)
    try:
        database = Database.load(source, manifest.history, ObjectKind.HISTORY)
    except ObjectMissingError:
        problems.append(Problem(MANIFEST, f"its tag database {path} is missing", RESTORE))
        return ()
    except BrokenRepositoryError as error:
        problems.append(Problem(MANIFEST, f"its tag database {error}", RESTORE))
        return ()
    try:
        tags = read_tags(database)
        problems.extend(_database_problems(database, tags, manifest, path))
    except BrokenRepositoryError as error:
        problems.append(Problem(path, str(error).removeprefix(path).lstrip(": "), RESTORE))
        return ()
    finally:
        database.close()
    return tags


def _database_problems(database: Database, tags: Sequence[Tag], manifest: Manifest, path: str) -> Iterator[Problem]:
    properties = database.properties()
    for key, wanted in (("schema", "1.0"), ("fqrn", manifest.name)):
        if properties.get(key) != wanted:
            yield Problem(path, f"its property {key} is {properties.get(key)} instead of {wanted}", REPUBLISH)
    number, previous = properties.get("schema_revision", ""), properties.get("previous_revision", "")
    if not number.isdecimal():
        yield Problem(path, f"its property schema_revision is {number!r}, which is no number", REPUBLISH)
    if not _is_hash(previous):
        yield Problem(path, f"its property previous_revision is {previous!r}, no hash, and is followed back", REPUBLISH)
    for tag in tags:
        if not _TAG_NAME.fullmatch(tag.name):
            yield Problem(f"tag {tag.name}", "has a name that the stock tools do not take", _RETAG)
    if not tags:
        yield Problem(path, "has no tag, which the stock checker refuses", "set a tag (thin-repository tag)")
    yield from _branch_problems(database, path)


def _branch_problems(database: Database, path: str) -> Iterator[Problem]:
    used = {branch for (branch,) in database.rows("SELECT DISTINCT branch FROM tags")}
    known = {branch for (branch,) in database.rows("SELECT branch FROM branches")}
    early = "SELECT name FROM tags JOIN branches USING (branch) WHERE revision < initial_revision ORDER BY name"
    for (name,) in database.rows(early):
        yield Problem(path, f"the tag {_show(name)} is of a revision from before its branch", _RETAG)
    for branch in sorted(used - known, key=str):
        yield Problem(path, f"a tag is of the branch {_show(branch)}, which there is not", _RETAG)
    for branch in sorted(known - used, key=str):
        yield Problem(path, f"no tag is of the branch {_show(branch)}, which the stock checker refuses", _RETAG)


def _is_hash(text: str) -> bool:
    try:
        ContentHash.parse(text)
    except InvalidValueError:
        return False
    return True


def _show(branch: object) -> str:
    return repr(branch.decode(errors="backslashreplace")) if isinstance(branch, bytes) else str(branch)


def check_links(source: Source, manifest: Manifest, problems: list[Problem]) -> None:
    """Check that the links are there which the manifest says there are.

    Raises
    ------
    StorageError
        The storage failed.
    """
    if not manifest.linked:
        return
    for name, kind in ((manifest.root, ObjectKind.CATALOG), (manifest.certificate, ObjectKind.CERTIFICATE)):
        link = f".cvmfsalt-{name}{kind}"
        if source.size(link) is None:
            what = f"says by its field A that there is a link {link}, which there is not"
            problems.append(Problem(MANIFEST, what, f"{REPUBLISH}, or link it to {name.path(kind)}"))


def check_meta(source: Source, manifest: Manifest, problems: list[Problem]) -> None:
    """Check the meta information, where there is some.

    Raises
    ------
    StorageError
        The storage failed.
    """
    if manifest.meta is None:
        return
    try:
        for _ in read_object(source, manifest.meta, ObjectKind.META, limit=_META_LIMIT):
            pass
    except (ObjectMissingError, BrokenRepositoryError) as error:
        problems.append(describe_loss(source, manifest.meta, ObjectKind.META, error))
