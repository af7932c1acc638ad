"""Checks the reference log."""

from collections.abc import Iterator, Mapping
from typing import Final

from services.repository.native.check.problem import Problem
from services.repository.native.check.trust import REPUBLISH
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.database import Database
from services.repository.native.reader.history import Reflog, read_references
from services.repository.native.reader.letters import Manifest
from services.repository.native.reader.source import Source
from services.repository.native.reader.trusted import read_letter
from services.repository.native.records import (
    MANIFEST,
    REFLOG,
    WAITING_REFLOG,
    ContentHash,
    HashAlgorithm,
    ObjectKind,
    RefKind,
)

__all__ = ["check_reflog", "note_waiting_reflog"]

_ATTEMPTS: Final = 5
"""How often a publisher may be quicker than this check."""
_KINDS: Final[Mapping[RefKind, ObjectKind]] = {
    RefKind.CATALOG: ObjectKind.CATALOG,
    RefKind.CERTIFICATE: ObjectKind.CERTIFICATE,
    RefKind.HISTORY: ObjectKind.HISTORY,
    RefKind.META: ObjectKind.META,
}
_REBUILD: Final = "remove it; the next change of the repository makes a new one"
_SIGN_AGAIN: Final = "start the publisher, which signs the manifest again, as every change does"


def check_reflog(source: Source, manifest: Manifest, nested: set[ContentHash], *, replica: bool) -> list[Problem]:
    """Check the reference log; return what is wrong.

    Parameters
    ----------
    source
        Where the repository is.
    manifest
        Of its head.
    nested
        Catalogs that are nested, which the log must not have.
    replica
        Whether it is a stratum 1's copy, whose log is its own: the manifest does not know it.

    Raises
    ------
    StorageError
        The storage failed.
    """
    try:
        log, known = _log_and_what_is_known(source, manifest)
    except ObjectMissingError:
        return []  # clients and checkers do without one
    except BrokenRepositoryError as error:
        return [Problem(REFLOG, str(error).removeprefix(REFLOG).strip(), _REBUILD)]
    problems: list[Problem] = []
    try:
        if not replica:
            problems.extend(_unknown(log, known))
        problems.extend(_content_problems(source, log.database, manifest, nested))
    except BrokenRepositoryError as error:
        problems.append(Problem(REFLOG, str(error).removeprefix(REFLOG).lstrip(": "), _REBUILD))
    finally:
        log.database.close()
    return problems


def note_waiting_reflog(source: Source) -> str | None:
    """Say what a kill has left in the middle of a change of the head, if one has; no reader finds fault with it.

    Raises
    ------
    StorageError
        The storage failed.
    """
    if source.size(REFLOG) is not None or source.size(WAITING_REFLOG) is None:
        return None
    return (
        f"{REFLOG} is not there, and {WAITING_REFLOG} is: the repository is being changed, or whoever changed it was "
        "killed. The next start of the publisher puts it in its place, as the next change does; clients and the stock "
        "checker do without it until then"
    )


def _log_and_what_is_known(source: Source, manifest: Manifest) -> tuple[Reflog, ContentHash | None]:
    """Fetch the log, and the hash that the manifest of the same moment has; publishing goes on meanwhile."""
    known, attempts = manifest.reflog, _ATTEMPTS
    while True:
        log = Reflog.load(source, HashAlgorithm.SHA1 if known is None else known.algorithm)
        newer = known if log.hash == known else _known_now(source, known)
        attempts -= 1
        if newer in (known, log.hash) or not attempts:
            return log, newer
        log.database.close()
        known = newer


def _known_now(source: Source, before: ContentHash | None) -> ContentHash | None:
    try:
        return Manifest.parse(read_letter(source, MANIFEST)).reflog
    except (ObjectMissingError, BrokenRepositoryError):
        return before


def _unknown(log: Reflog, known: ContentHash | None) -> Iterator[Problem]:
    if known is None:
        yield Problem(MANIFEST, f"has no field Y with the hash of {REFLOG}, which the stock checker wants", REPUBLISH)
    elif log.hash != known:
        yield Problem(REFLOG, f"its hash is {log.hash}, and the manifest says {known}", _SIGN_AGAIN)


def _content_problems(
    source: Source, database: Database, manifest: Manifest, nested: set[ContentHash]
) -> Iterator[Problem]:
    yield from _wrong_properties(database, manifest)
    missing = {
        (manifest.root, RefKind.CATALOG),
        (manifest.certificate, RefKind.CERTIFICATE),
        (manifest.history, RefKind.HISTORY),
        (manifest.meta, RefKind.META),
    }
    for reference in read_references(database):
        missing.discard((reference.hash, reference.kind))
        path = reference.hash.path(_KINDS[reference.kind])
        if reference.hash in nested:
            yield Problem(REFLOG, f"lists {path}, which is a nested catalog, as a root catalog", _REBUILD)
        if source.size(path) is None:
            yield Problem(REFLOG, f"lists {path}, which is missing", _REBUILD)
    for hash_, kind in sorted(missing, key=str):
        if hash_ is not None:
            yield Problem(REFLOG, f"does not list {hash_.path(_KINDS[kind])}, which the manifest names", _REBUILD)


def _wrong_properties(database: Database, manifest: Manifest) -> Iterator[Problem]:
    properties = database.properties()
    name = properties.get("fqrn")
    if name != manifest.name:
        yield Problem(REFLOG, f"is of the repository {name}, not of {manifest.name}", _REBUILD)
    for key, wanted in (("schema", "1.0"), ("schema_revision", "0")):
        if properties.get(key) != wanted:
            yield Problem(REFLOG, f"its property {key} is {properties.get(key)} instead of {wanted}", _REBUILD)
