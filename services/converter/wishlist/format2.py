"""Wish lists of version 2: what their values have to do with each other, and the wishes that they come to.

An entry with an error is left out and the others are taken. An error anywhere else makes the whole list unusable: were
a signature policy left out, what it forbids would be published.
"""

from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence as AnySequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.converter.model import (
    DEFAULT_PLATFORMS,
    DEFAULT_RETENTION,
    ChosenTags,
    ExactDigest,
    ExactTag,
    Origin,
    Retention,
    SignaturePolicy,
    TagSelection,
    ThinTarget,
    Wish,
    WishList,
)
from services.converter.wishlist.globs import check_glob, is_glob
from services.converter.wishlist.grammar import (
    Defaults,
    ImageEntry,
    PolicyEntry,
    RetentionEntry,
    ThinEntry,
    WishListDocument,
)
from services.converter.wishlist.keys import KeyFiles
from services.converter.wishlist.names import WishedName
from services.converter.wishlist.output_names import output_name
from services.converter.wishlist.problems import Problem, Reading, Severity, nearest
from services.converter.wishlist.selection import exact_name
from services.converter.wishlist.tree import Mapping, Node, Sequence
from services.registry.platform import Platform

__all__ = ["read_version_2"]

_MODELS: Final[AnyMapping[str, type[BaseModel]]] = {
    "defaults": Defaults,
    "policies": PolicyEntry,
    "images": ImageEntry,
    "thin": ThinEntry,
    "retention": RetentionEntry,
}
"""What the keys of the document hold."""
_MESSAGES: Final = {
    "tuple_type": "write a list: '- ' before each of its values, or [...] around them",
    "model_type": "write a mapping: keys and values, indented",
    "string_type": "write a text",
}
"""Errors that pydantic tells in Python's words."""
_SELECTING: Final = ("tags", "exclude", "versions", "max_age", "newest", "newest_by")
"""Keys that choose tags."""


def read_version_2(document: Mapping, source: str, *, directory: Path | None) -> Reading:
    """Read a list; every error in it is told.

    Parameters
    ----------
    document
        The whole.
    source
        File or URL, for places.
    directory
        Where paths of keys start; None where no file may be named.
    """
    return _Reader(document, source, KeyFiles(directory)).read()


class _Reader:
    def __init__(self, document: Mapping, source: str, key_files: KeyFiles) -> None:
        self._document = document
        self._source = source
        self._key_files = key_files
        self._problems: list[Problem] = []

    def read(self) -> Reading:
        data = self._document.data
        parsed, places = self._parse(data)
        policies = None if parsed is None else self._policies(parsed.policies)
        wishes: list[Wish] = []
        if parsed is not None and policies is not None:
            for place, entry in zip(places, parsed.images, strict=True):
                wishes += self._wishes(place, entry, parsed.defaults, policies)
        problems = tuple(sorted(self._problems, key=lambda problem: problem.origin))
        files = frozenset(self._key_files.read)
        if policies is None:
            return Reading(None, problems, files)
        complete = not any(problem.severity is Severity.ERROR for problem in problems)
        known = tuple(policies.values())
        wish_list = WishList(source=self._source, wishes=tuple(wishes), policies=known, complete=complete)
        return Reading(wish_list, problems, files)

    def _error(self, origin: Origin, text: str) -> None:
        self._problems.append(Problem(origin, Severity.ERROR, text))

    def _parse(self, data: dict[str, Any]) -> tuple[WishListDocument | None, list[int]]:
        """Return the document without the entries that have errors, and which entries it has."""
        try:
            parsed = WishListDocument.model_validate(data)
        except ValidationError as error:
            broken = set()
            for detail in error.errors(include_url=False, include_input=False):
                location = detail["loc"]
                self._problems.append(self._explained(location, detail))
                is_entry = len(location) > 1 and location[0] == "images" and isinstance(location[1], int)
                broken.add(location[1] if is_entry else None)
            if None in broken:
                return None, []
            places = [place for place in range(len(data["images"])) if place not in broken]
            sound = [data["images"][place] for place in places]
            return WishListDocument.model_validate({**data, "images": sound}), places
        return parsed, list(range(len(parsed.images)))

    def _explained(self, location: AnySequence[str | int], detail: AnyMapping[str, Any]) -> Problem:
        key_at, value_at = self._places(location)
        name = str(location[-1]) if location else ""
        match detail["type"]:
            case "missing":
                return Problem(value_at, Severity.ERROR, f"the key {name!r} is missing")
            case "extra_forbidden":
                names = [part for part in location[:-1] if part in _MODELS]
                model = _MODELS[str(names[-1])] if names else WishListDocument
                text = f"unknown key {name[:80]!r}: {nearest(name, model.model_fields)}"
                return Problem(key_at, Severity.ERROR, text)
            case "value_error":
                return Problem(value_at, Severity.ERROR, str(detail["ctx"]["error"]))
            case _:
                where = "" if isinstance(location[-1], int) else f"{name}: "
                text = _MESSAGES.get(detail["type"], detail["msg"])
                return Problem(value_at, Severity.ERROR, f"{where}{text}")

    def _places(self, location: AnySequence[str | int]) -> tuple[Origin, Origin]:
        """Return where the last key of a location is, and where its value is; as near as what is there allows."""
        node: Node = self._document
        key_at = node.origin
        for part in location:
            if isinstance(node, Mapping) and part in node.entries:
                key_at, node = node.entries[str(part)]
            elif isinstance(node, Sequence) and isinstance(part, int):
                node = node.items[part]
                key_at = node.origin
            # Where a text stands for a list or a mapping, the location goes on and the document does not.
        return key_at, node.origin

    def _policies(self, entries: tuple[PolicyEntry, ...]) -> dict[str, SignaturePolicy] | None:
        found: dict[str, SignaturePolicy] = {}
        whole = True
        for place, entry in enumerate(entries):
            _, origin = self._places(("policies", place))
            if entry.name in found:
                first = found[entry.name].origin.line
                self._error(origin, f"the policy {entry.name!r} a second time (first in line {first}): rename one")
                whole = False
                continue
            keys = []
            for number, text in enumerate(entry.keys):
                try:
                    keys.append(self._key_files.load(text))
                except InvalidValueError as error:
                    self._error(self._places(("policies", place, "keys", number))[1], str(error))
                    whole = False
            found[entry.name] = SignaturePolicy(
                name=entry.name,
                patterns=entry.images,
                exceptions=entry.exclude,
                keys=tuple(keys),
                identities=entry.identities,
                origin=origin,
            )
        return found if whole else None

    def _wishes(
        self, place: int, entry: ImageEntry, defaults: Defaults, policies: AnyMapping[str, SignaturePolicy]
    ) -> Iterator[Wish]:
        _, origin = self._places(("images", place))
        options = _Options(entry, defaults)
        try:
            name = WishedName.parse(entry.image)
            selections = _selections(name, entry)
            repositories = options.repositories
            thin = tuple(_thin(each, repositories) for each in options.thin)
            named = tuple(_policy(each, policies) for each in options.policies)
        except _WrongError as error:
            self._error(self._places(("images", place, error.key))[1], str(error))
            return
        except InvalidValueError as error:
            self._error(self._places(("images", place, "image"))[1], str(error))
            return
        wishes = [
            Wish(
                registry=name.registry,
                repository=name.repository,
                tags=selection,
                repositories=repositories,
                platforms=options.platforms,
                thin=thin,
                policies=named,
                retention=options.retention,
                interval=options.interval,
                priority=options.priority,
                may_fail=options.may_fail,
                scheme=name.scheme,
                origin=origin,
            )
            for selection in selections
        ]
        try:
            for wish in wishes:
                _check_thin_names(wish)
        except InvalidValueError as error:
            at = "thin" if "thin" in entry.model_fields_set else "image"
            self._error(self._places(("images", place, at))[1], f"{error}; 'thin: []' for none")
            return
        yield from wishes


class _WrongError(InvalidValueError):
    """A value does not fit the others.

    Parameters
    ----------
    key
        Key of the value.
    text
        What is wrong, and the remedy.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class _Options:
    """What counts for one entry: its own words, then the defaults', then what is usual."""

    def __init__(self, entry: ImageEntry, defaults: Defaults) -> None:
        self._entry = entry
        self._defaults = defaults

    def _of(self, name: str) -> Any:  # noqa: ANN401 - the fields are of many types
        from_entry = name in self._entry.model_fields_set
        return getattr(self._entry if from_entry else self._defaults, name)

    @property
    def repositories(self) -> tuple[RepositoryName, ...]:
        names = self._of("repositories")
        if not names:
            raise _WrongError("image", "no CVMFS repository: give 'repositories' here or in 'defaults'")
        return tuple(dict.fromkeys(map(RepositoryName, names)))

    @property
    def platforms(self) -> tuple[Platform, ...]:
        return tuple(dict.fromkeys(map(Platform.parse, self._of("platforms")))) or DEFAULT_PLATFORMS

    @property
    def thin(self) -> tuple[ThinEntry, ...]:
        return tuple(self._of("thin"))

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(self._of("policies"))

    @property
    def retention(self) -> Retention:
        return Retention(replaced=self._period("replaced"), dropped=self._period("dropped"), gone=self._period("gone"))

    def _period(self, name: str) -> float | None:
        for retention in (self._entry.retention, self._defaults.retention):
            if name in retention.model_fields_set:
                return getattr(retention, name)  # type: ignore[no-any-return]
        return getattr(DEFAULT_RETENTION, name)  # type: ignore[no-any-return]

    @property
    def interval(self) -> float | None:
        return self._of("interval")  # type: ignore[no-any-return]

    @property
    def priority(self) -> int:
        return self._of("priority")  # type: ignore[no-any-return]

    @property
    def may_fail(self) -> bool:
        return self._of("may_fail")  # type: ignore[no-any-return]


def _selections(name: WishedName, entry: ImageEntry) -> tuple[TagSelection, ...]:
    """Return what an entry chooses: tags that are written out need no list of tags, hence each a wish of its own."""
    given = [key for key in _SELECTING if key in entry.model_fields_set]
    if "newest_by" in given and entry.newest is None:
        raise _WrongError("newest_by", "'newest_by' without 'newest': say how many")
    exact = _exact(name)
    if exact is not None and given:
        raise _WrongError(given[0], f"{given[0]!r}, but the image names one tag or digest: leave one of them out")
    if exact is not None:
        return (exact,)
    if name.tag is not None and "tags" in given:
        raise _WrongError("tags", "'tags', but the image has a pattern of tags already: leave one of them out")
    if name.tag is None and not given:
        raise InvalidValueError(
            f"neither tag nor digest: write {name.registry}/{name.repository}:latest, or 'tags: \"*\"' for all"
        )
    include = entry.tags if name.tag is None else (check_glob(name.tag),)
    if given == ["tags"] and not any(map(is_glob, include)):
        _check_tags(name, include)
        return tuple(ExactTag(tag) for tag in dict.fromkeys(include))
    return (
        ChosenTags(
            include=include,
            exclude=entry.exclude,
            versions=entry.versions,
            max_age=entry.max_age,
            newest=entry.newest,
            newest_by=entry.newest_by,
        ),
    )


def _check_tags(name: WishedName, tags: tuple[str, ...]) -> None:
    try:
        for tag in tags:
            replace(name, tag=tag).check_tag()
    except InvalidValueError as error:
        raise _WrongError("tags", str(error)) from None


def _exact(name: WishedName) -> ExactTag | ExactDigest | None:
    if name.digest is not None:
        name.check_tag()
        return ExactDigest(name.digest, name.tag)
    if name.tag is None or is_glob(name.tag):
        return None
    name.check_tag()
    return ExactTag(name.tag)


def _thin(entry: ThinEntry, repositories: tuple[RepositoryName, ...]) -> ThinTarget:
    repository = repositories[0] if entry.repository is None else RepositoryName(entry.repository)
    if repository not in repositories:
        there = ", ".join(repositories)
        raise _WrongError("thin", f"a thin image of {repository}, where the wish puts nothing: write one of {there}")
    return ThinTarget(template=entry.push, repository=repository, layout=entry.layout)


def _check_thin_names(wish: Wish) -> None:
    # A template that is right has a name for every tag; a digest may be missing one.
    named = exact_name(wish)
    if named is not None and named[1] is not None:
        for target in wish.thin:
            output_name(target.template, wish, *named)


def _policy(name: str, policies: AnyMapping[str, SignaturePolicy]) -> SignaturePolicy:
    if name not in policies:
        raise _WrongError("policies", f"no such policy: {name!r}: {nearest(name, policies)}")
    return policies[name]
