"""Checks a whole repository: head, tags, every catalog that they lead to, and every object that those name."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.repository.native.check.catalogs import CatalogFacts, check_catalog
from services.repository.native.check.flat import check_flats
from services.repository.native.check.lists import check_links, check_meta, check_tags
from services.repository.native.check.nesting import CatalogKey, check_nesting, key_of
from services.repository.native.check.objects import ObjectLedger, WantedObject, check_objects
from services.repository.native.check.parallel import Workers
from services.repository.native.check.problem import RESTORE, Problem, mending
from services.repository.native.check.reflog import check_reflog, note_waiting_reflog
from services.repository.native.check.replication import check_copies, is_replica
from services.repository.native.check.shown import check_shown
from services.repository.native.check.stores import check_stores
from services.repository.native.check.trust import REPUBLISH, check_trust
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.database import Database
from services.repository.native.reader.entries import show_path
from services.repository.native.reader.history import Tag
from services.repository.native.reader.letters import Manifest
from services.repository.native.reader.revision import Revision
from services.repository.native.reader.source import Source
from services.repository.native.reader.trusted import Identity, utc_now
from services.repository.native.records import MANIFEST, ObjectKind

__all__ = ["Checker", "Report"]

_LISTED: Final = 1000
"""Objects whose defects are told one by one."""
_NOTED: Final = 1000
"""Objects of a catalog that are kept in memory before they go to the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check has found."""

    problems: tuple[Problem, ...]
    """In the order of their places."""
    note: str | None
    """What is no problem and will be made otherwise; None where there is nothing of the kind."""
    revision: int | None
    """Of the head; None if there is no manifest to be read."""
    revisions: int
    """Root catalogs that were checked: the head's, and those with tags."""
    catalogs: int
    entries: int
    objects: int
    """Objects that files consist of."""
    seconds: float
    """How long it took."""


class Checker:
    """Checks one repository (blocking). Only a failing storage makes it fail; whatever else is wrong is in its report.

    Parameters
    ----------
    source
        Where the repository is.
    name
        The name that it must have.
    master_keys
        Public master keys, PEM, one of which must have signed the whitelist.
    content
        Whether to read the objects of files; otherwise they need only be there.
    clock
        Tells the time, for the whitelist's end.

    Raises
    ------
    UntrustedError
        A key is none.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        master_keys: Sequence[bytes],
        content: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._source = source
        self._identity = Identity.of(name, master_keys)
        self._content = content
        self._clock = clock

    def run(self) -> Report:
        """Check everything.

        Raises
        ------
        StorageError
            The storage failed.
        """
        begin = time.monotonic()
        manifest, problems = check_trust(self._source, self._identity, now=self._clock())
        catalogs: dict[CatalogKey, CatalogFacts] = {}
        objects = 0
        if manifest is not None:
            replica = is_replica(self._source)
            check_meta(self._source, manifest, problems)
            problems.extend(check_copies(self._source, manifest, replica=replica))
            check_links(self._source, manifest, problems)
            tags = check_tags(self._source, manifest, problems)
            with ObjectLedger() as ledger, Workers() as workers:  # threads end before what they use
                catalogs = self._check_catalogs([_head(manifest), *map(_tagged, tags)], workers, ledger)
                objects = len(ledger)
                problems.extend(self._object_problems(workers, ledger))
            problems.extend(problem for facts in catalogs.values() for problem in facts.problems)
            problems.extend(check_nesting(catalogs))
            problems.extend(_root_problems(manifest, tags, catalogs))
            if self._content and all(facts.readable for facts in catalogs.values()):
                problems.extend(self._output_problems(manifest, told=bool(problems)))
            if not replica:  # which copies no predecessor the first time
                problems.extend(self._chain_problems(manifest, catalogs[key_of(_head(manifest))]))
            nested = {facts.reference.hash for facts in catalogs.values() if facts.reference.path}
            problems.extend(check_reflog(self._source, manifest, nested, replica=replica))
        return Report(
            problems=tuple(sorted(set(problems))),
            note=note_waiting_reflog(self._source),
            revision=None if manifest is None else manifest.revision,
            revisions=sum(not path for _, path in catalogs),
            catalogs=len(catalogs),
            entries=sum(facts.entries for facts in catalogs.values()),
            objects=objects,
            seconds=time.monotonic() - begin,
        )

    def _check_catalogs(
        self, roots: Sequence[CatalogReference], workers: Workers, ledger: ObjectLedger
    ) -> dict[CatalogKey, CatalogFacts]:
        todo = _Todo(roots)
        done: dict[CatalogKey, CatalogFacts] = {}
        for facts in workers.map(lambda reference: self._check_catalog(reference, ledger), todo):
            done[key_of(facts.reference)] = facts
            for reference, _ in facts.nested:
                todo.add(reference)
        return done

    def _check_catalog(self, reference: CatalogReference, ledger: ObjectLedger) -> CatalogFacts:
        facts = CatalogFacts(reference)
        place = show_path(reference.path)
        path = reference.hash.path(ObjectKind.CATALOG)
        noted: list[WantedObject] = []

        def note(wanted: WantedObject) -> None:
            noted.append(wanted)
            if len(noted) >= _NOTED:
                ledger.add(noted)
                noted.clear()

        try:
            database = Database.load(self._source, reference.hash, ObjectKind.CATALOG)
            facts.size = database.size
            with closing(Catalog(database, path=reference.path)) as catalog:
                check_catalog(catalog, facts, note)
        except ObjectMissingError:
            facts.problems.append(Problem(place, f"its catalog {path} is missing", mending(place)))
        except BrokenRepositoryError as error:
            facts.problems.append(Problem(place, f"its catalog: {error}", mending(place)))
        ledger.add(noted)
        return facts

    def _output_problems(self, manifest: Manifest, *, told: bool) -> list[Problem]:
        """Find flat images of the head that show something else than their layers, and stores that contradict them.

        Parameters
        ----------
        told
            Whether there are other problems, which may be why something cannot be read.
        """
        with CatalogCache(self._source) as catalogs:
            revision = Revision(self._source, _head(manifest), catalogs=catalogs)
            try:
                return [
                    *check_flats(revision),
                    *check_stores(revision, manifest.name),
                    *check_shown(revision, manifest.name),
                ]
            except (ObjectMissingError, BrokenRepositoryError) as error:
                return [] if told else [Problem("/", f"the outputs of images cannot be checked: {error}", RESTORE)]

    def _chain_problems(self, manifest: Manifest, head: CatalogFacts) -> list[Problem]:
        """Find a predecessor that is missing though nothing is ever collected."""
        if manifest.collectable or head.previous is None or head.previous.is_null:
            return []
        path = head.previous.path(ObjectKind.CATALOG)
        if self._source.size(path) is not None:
            return []
        return [Problem("/", f"the catalog before its own, {path}, is missing, and replicas fail without it", RESTORE)]

    def _object_problems(self, workers: Workers, ledger: ObjectLedger) -> list[Problem]:
        problems: list[Problem] = []
        more = 0
        for problem in check_objects(self._source, ledger, workers, content=self._content):
            if len(problems) < _LISTED:
                problems.append(problem)
            else:
                more += 1
        if more:
            problems.append(Problem("/", f"{more} more objects are missing or damaged", RESTORE))
        return problems


class _Todo:
    """Catalogs to check, each once; may grow while it is iterated over."""

    def __init__(self, references: Sequence[CatalogReference]) -> None:
        self._waiting: deque[CatalogReference] = deque()
        self._known: set[CatalogKey] = set()
        for reference in references:
            self.add(reference)

    def add(self, reference: CatalogReference) -> None:
        key = key_of(reference)
        if key not in self._known:
            self._known.add(key)
            self._waiting.append(reference)

    def __iter__(self) -> "_Todo":
        return self

    def __next__(self) -> CatalogReference:
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()


def _head(manifest: Manifest) -> CatalogReference:
    return CatalogReference(b"", manifest.root, manifest.root_size)


def _tagged(tag: Tag) -> CatalogReference:
    return CatalogReference(b"", tag.root, tag.size)


def _root_problems(manifest: Manifest, tags: Sequence[Tag], catalogs: dict[CatalogKey, CatalogFacts]) -> list[Problem]:
    """Compare root catalogs with what the manifest and the tags say of them."""
    problems = []
    named = [(MANIFEST, _head(manifest), manifest.revision, REPUBLISH)]
    named += [
        (f"tag {tag.name}", _tagged(tag), tag.revision, "set the tag again (thin-repository tag)") for tag in tags
    ]
    for place, reference, revision, remedy in named:
        facts = catalogs[key_of(reference)]
        if facts.size and reference.size and facts.size != reference.size:
            problems.append(
                Problem(place, f"says that its root catalog has {reference.size} bytes, which has {facts.size}", remedy)
            )
        if facts.readable and facts.revision != revision:
            problems.append(
                Problem(place, f"is of revision {revision}, and its root catalog of {facts.revision}", remedy)
            )
    return problems
